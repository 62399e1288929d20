"""From a request of the API to the reply that the synthetic model gives, and what the engine must know of it."""

from typing import Any

import msgspec
import numpy as np

from agentload.box.model import Question, Script, answer
from agentload.box.options import BoxOptions
from agentload.box.protocol import Ask, ChatAsk, Refused, TextAsk
from agentload.box.request import Request
from agentload.box.sizes import fits
from agentload.box.words import BLOCK, Template, Tokens, digest, identities, tokenize


def reply_to(ask: Ask, template: Template, options: BoxOptions, context: int) -> tuple[Script, Request]:
    """What is answered, and the request to the engine; Refused where the context is too short for both."""
    if isinstance(ask, ChatAsk):
        tools, described = ask.offers()
        choice = ask.choice(tools)
        tokens = template.prompt([said.plain() for said in ask.messages], described)
        return _plan(ask, tokens, options, context, tools=tools, choice=choice, results=ask.results())
    assert isinstance(ask, TextAsk)
    given = ask.only()
    tokens = tokenize(given) if isinstance(given, str) else np.array(given, np.uint64)
    silent = msgspec.structs.replace(options, habits=msgspec.structs.replace(options.habits, reasoning=0.0))
    return _plan(ask, tokens, silent, context)


def too_long(prompt: int, most: int | None, context: int) -> Refused:
    """What is answered where a prompt, and the most it may be answered, have no room in the context."""
    wanted = f" and {most} of output" if most is not None else ""
    limit = f"This model's maximum context length is {context} tokens"
    return Refused(400, f"{limit}, but the request has {prompt} of input{wanted}.", param="input_tokens")


def _plan(ask: Ask, tokens: Tokens, options: BoxOptions, context: int, **question: Any) -> tuple[Script, Request]:
    prompt = len(tokens)
    if not prompt:
        raise Refused(400, "the prompt is empty", param="prompt")
    if not fits(prompt, ask.most or 0, context):
        raise too_long(prompt, ask.most, context)
    room = context - prompt
    chain = identities(tokens)
    script = answer(
        Question(
            digest(tokens, chain),
            most=ask.most or room,
            seed=options.seed if ask.seed is None else ask.seed,
            least=min(ask.min_tokens or 0, room),
            exact=bool(ask.ignore_eos),
            thought=ask.reasoning_tokens if options.habits.reasoning else 0,
            prompt=prompt,
            **question,
        ),
        options.habits,
    )
    ids = identities(np.concatenate((tokens[len(chain) * BLOCK :], script.tokens)), chain)
    return script, Request(prompt, len(script.tokens), ids.data)
