"""Model calls in virtual time: what is asked of the cluster, what comes back, and the record of it.

Sized chains are answered from sizes alone (`agentload.box.prompts`). Live ones need words: they get the real text, the
real tokenizer and the real synthetic model of the box, and so cost what those cost.
"""

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from agentload.box.model import Script
from agentload.box.options import BoxOptions
from agentload.box.prompts import Prompt, said
from agentload.box.protocol import ChatAsk, deltas, message, usage
from agentload.box.reply import reply_to, too_long
from agentload.box.request import DONE, Request
from agentload.box.sizes import fits, thought_of
from agentload.box.words import Template
from agentload.spec import Spec
from agents.answer import ENOUGH, Answer
from agents.chain import Chat, Reply
from agents.endpoint import Place
from agents.text import Encoder, described

if TYPE_CHECKING:
    from agentload.actors import Actor
    from agentload.virtual import World


class Flight:
    """One attempt at one model call."""

    __slots__ = ("actor", "attempt", "chat", "count", "due", "fault", "first", "gaps", "last", "over", "reply",
                 "request", "script", "seen", "sent", "thought", "until")  # fmt: skip

    def __init__(self, actor: "Actor", chat: Chat, attempt: int, due: float, sent: float) -> None:
        self.actor = actor
        self.chat = chat
        self.attempt = attempt
        self.due = due
        self.sent = sent
        self.first: float | None = None  # of output that can be seen
        self.last: float | None = None
        self.count = 0  # instants at which output came
        self.gaps: list[float] | None = None  # between them, when asked for
        self.fault = ""
        self.until = 0.0  # the stream stands still until then
        self.over = False
        self.thought = 0  # tokens of reasoning
        self.reply = 0  # number of the text of a reply that has none
        self.script: Script | None = None  # of one that has
        self.seen: list[bool] = []  # which tokens of the script can be seen
        self.request: Request | None = None

    def token(self, at: float, world: "World") -> None:
        """The cluster has named this call: a token has come at `at`, or it got lost with its replica."""
        request = self.request
        assert request is not None
        if self.over:
            return
        generated, ended = request.generated, request.state == DONE
        if ended and generated < request.output:
            world.answered(self, "reset", at, error="the replica died")
            return
        if self.fault and generated == request.output // 2 + 1:
            if self.fault == "stall":
                self.until = at + world.spec.box.faults.stall_seconds
            elif self.fault in ("reset", "broken"):
                world.cluster.cancel(request, at)
                status = "reset" if self.fault == "reset" else "error_event"
                world.answered(self, status, at, error="a fault made on purpose")
                return
        if self.until > at:
            at = self.until
        if not self.seen or self.seen[generated - 1]:
            self.came(at)
        hang_up = self.chat.hang_up
        if hang_up is not None and generated >= hang_up.tokens and not ended:
            world.hang_up(self, ENOUGH)
        elif ended:
            if at > world.now:
                world.enter(at, world.arrived, self)
            else:
                world.answered(self, "ok", at)

    def came(self, at: float) -> None:
        """Output that can be seen came; what comes at one instant is one piece."""
        if self.last is None:
            self.first = at
        elif at == self.last:
            return
        elif self.gaps is not None:
            self.gaps.append(at - self.last)
        self.last = at
        self.count += 1


class Model(Protocol):
    """Who answers."""

    def ask(self, flight: Flight) -> Request:
        """The request that a call makes; Refused where the context is too short for it."""
        ...

    def answer(self, flight: Flight) -> tuple[Reply, int]:
        """What the agent gets of a call that was answered, and how many of its tokens are arguments of tool calls."""
        ...


class Sizes:
    """Answers sized chains from sizes alone."""

    def __init__(self, options: BoxOptions, seed: int, context: int) -> None:
        self.share = options.habits.reasoning  # of replies that begin with reasoning
        self.seed, self.context = seed, context

    def ask(self, flight: Flight) -> Request:
        chat = flight.chat
        context, output = chat.context, chat.max_tokens
        if not context.encoded:
            context.encoded.append(Prompt())
        known: Prompt = context.encoded[0]
        known.extend(context.messages)
        size = known.size
        if not fits(size, output, self.context):
            raise too_long(size, output, self.context)
        thought = chat.reasoning
        if thought is None or not self.share:
            flight.thought = thought_of(size, output, self.seed, self.share)
        else:
            flight.thought = min(thought, output)
        flight.reply, ids = known.ask(output, flight.thought)
        return Request(size, output, ids, flight)

    def answer(self, flight: Flight) -> tuple[Reply, int]:
        request = flight.request
        assert request is not None
        text = said(flight.reply, request.output - flight.thought)
        return Reply("ok", text, "", (), "length", request.prompt, request.output, flight.thought), 0


class Texts:
    """Answers live chains, and agents of the user's own: text, tools and all."""

    def __init__(self, spec: Spec, encoder: Encoder, context: int) -> None:
        self.options, self.encoder, self.context = spec.box, encoder, context
        self.sampling = spec.endpoint.sampling
        self.template = Template()

    def ask(self, flight: Flight) -> Request:
        chat = flight.chat
        encoded = chat.context.encoded
        encoded += [self.encoder.plain(m) for m in chat.context.messages[len(encoded) :]]
        body: dict[str, Any] = {"messages": encoded, "max_tokens": chat.max_tokens, "seed": self.sampling.get("seed")}
        if chat.exact:
            body |= {"ignore_eos": True, "min_tokens": chat.max_tokens}
        if chat.context.tools:
            body["tools"] = [msgspec.to_builtins(described(tool)) for tool in chat.context.tools]
            if not chat.call_tools:
                body["tool_choice"] = "none"
        flight.script, request = reply_to(msgspec.convert(body, ChatAsk), self.template, self.options, self.context)
        flight.seen = [bool(delta) for delta in deltas(flight.script)]
        request.tag = flight
        return request

    def answer(self, flight: Flight) -> tuple[Reply, int]:
        request, script = flight.request, flight.script
        assert request is not None and script is not None
        heard = Answer()
        used = usage(request.prompt, request.cached, request.generated, script.reasoning_tokens)
        choice = {"message": message(script), "finish_reason": script.finish_reason}
        heard.body(msgspec.json.encode({"choices": [choice], "usage": used}), flight.sent)
        call, reply = heard.finish(Place(0, "", "", 0, 0, 0.0), flight.chat, flight.sent, lambda: 0, False)
        return reply, call.argument_tokens


def needs_text(spec: Spec) -> bool:
    """Whether it matters what the model says: to live chains, and to agents of the user's own."""
    return spec.mode == "live" or bool(spec.own_agents())


def model_of(spec: Spec, context: int, encoder: Encoder) -> Model:
    """Who answers the calls of a spec."""
    if needs_text(spec):
        return Texts(spec, encoder, context)
    seed = spec.endpoint.sampling.get("seed")
    return Sizes(spec.box, spec.box.seed if seed is None else int(seed), context)
