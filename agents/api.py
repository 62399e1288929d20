"""The three APIs of an endpoint: where each is, how it wants the conversation, and how it answers.

A message goes into a request once, in a form that is only ever appended to: the dictionary of a chat message, the
items of the Responses API, or a passage of a plain prompt.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from agents.answer import Answer
from agents.chain import ToolSchema
from agents.responses import ResponsesAnswer, items
from agents.responses import described as described_flat
from agents.text import Write, described

CUE = "assistant:\n"
"""Ends a plain prompt; the model goes on from here."""


class Api(NamedTuple):
    """One API."""

    path: str  # below the base URL
    conversation: str  # the field of the body that holds it
    max_tokens: str  # the field that limits the answer; "" leaves the name to the endpoint's features
    min_tokens: bool  # vLLM takes it, to force the answer's length; `ignore_eos` it takes everywhere
    stream_options: bool  # has to be asked for usage in a stream
    before: bytes  # around and between the messages in the JSON body
    between: bytes
    after: bytes
    write: Write  # a message there
    shape: Callable[[dict[str, Any]], Any]  # the same, not yet JSON
    gather: Callable[[list[Any]], Any]  # the conversation field, from shaped messages
    describe: Callable[[ToolSchema], dict[str, Any]]  # a tool
    answer: type[Answer]


def passage(message: dict[str, Any]) -> str:
    """A message in a plain prompt. The model's own words stand behind `CUE` again, so that their blocks are reused."""
    return f"{message['role']}:\n{message['content']}\n\n"


def same(message: dict[str, Any]) -> dict[str, Any]:
    return message


def write_items(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(items(message))[1:-1]


def write_passage(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(passage(message))[1:-1]


def flat(shaped: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [item for each in shaped for item in each]


def prompt(shaped: list[str]) -> str:
    return "".join([*shaped, CUE])


APIS = {
    "chat": Api(
        path="chat/completions",
        conversation="messages",
        max_tokens="",
        min_tokens=True,
        stream_options=True,
        before=b',"messages":[',
        between=b",",
        after=b"]}",
        write=msgspec.json.encode,
        shape=same,
        gather=list,
        describe=described,
        answer=Answer,
    ),
    "responses": Api(
        path="responses",
        conversation="input",
        max_tokens="max_output_tokens",
        min_tokens=False,
        stream_options=False,
        before=b',"input":[',
        between=b",",
        after=b"]}",
        write=write_items,
        shape=items,
        gather=flat,
        describe=described_flat,
        answer=ResponsesAnswer,
    ),
    "completions": Api(
        path="completions",
        conversation="prompt",
        max_tokens="max_tokens",
        min_tokens=True,
        stream_options=True,
        before=b',"prompt":"',
        between=b"",
        after=msgspec.json.encode(CUE)[1:] + b"}",
        write=write_passage,
        shape=passage,
        gather=prompt,
        describe=described,
        answer=Answer,
    ),
}
