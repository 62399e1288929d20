"""What a server may do and still be right, and what must be recorded: cases of the torture tests, for both clients."""

import gzip
from typing import Any, Literal

from msgspec import Struct

from agents.endpoint import Timeouts
from tests.torture import (
    CLOSE,
    COUNTS,
    DONE,
    END,
    JSON,
    RESET,
    ROLE,
    SSE,
    STALL,
    Step,
    chunk,
    completion,
    cut,
    event,
    framed,
    head,
    sized,
    stream,
    tool,
    usage,
    words,
)

STOP = chunk({}, "stop")
HELLO: list[Any] = [ROLE, *words("Hel", "lo ", "wörld"), STOP, usage(), DONE]


class Case(Struct, frozen=True):
    """A script, and the fields of the record and of the reply that it must lead to."""

    script: list[Any]
    call: dict[str, Any] = {}
    reply: dict[str, Any] = {}
    sdk: dict[str, Any] | None = None  # fields of the record that are otherwise with the SDK, which hides something
    stream: bool = True
    limits: Timeouts = Timeouts()
    api: Literal["chat", "responses", "completions"] = "chat"


COUNTED = {"usage": "server", "input_tokens": 11, "output_tokens": 4}
OK = {"status": "ok", "finish_reason": "stop", **COUNTED}
GUESSED = {"status": "ok", "usage": "estimated", "input_tokens": 7, "output_tokens": 3, "error": ""}
SAID = {"text": "Hello wörld", "finish_reason": "stop"}
HELLO_SCRIPT = stream(*HELLO)


def counting(**counts: Any) -> list[Step]:
    return stream(*HELLO[:-2], usage(**counts), DONE)


def raw(*pieces: bytes) -> list[Step]:
    """A chunked event stream of those bytes."""
    return [head(), *framed(*pieces), END]


WELL_FORMED = {
    "plain": Case(HELLO_SCRIPT, {**OK, "tool_calls": 0}, SAID),
    "role_null": Case(stream(chunk({"role": "assistant", "content": None}), *HELLO[1:]), OK, SAID),
    "role_alone": Case(stream(chunk({"role": "assistant"}), *HELLO[1:]), OK, SAID),
    "usage_in_finish_chunk_and_no_done": Case(stream(*HELLO[:4], chunk({}, "stop", usage=COUNTS)), OK, SAID),
    "usage_with_choices": Case(stream(*HELLO[:-2], chunk({}, usage=COUNTS), DONE), OK, SAID),
    "usage_with_null_choices": Case(stream(*HELLO[:-2], chunk(choices=None, usage=COUNTS), DONE), OK, SAID),
    "usage_everywhere_keep_last": Case(
        stream(
            *(c | {"usage": COUNTS | {"completion_tokens": n}} for n, c in enumerate(words("Hel", "lo ", "wörld"))),
            STOP,
            usage(),
            DONE,
        ),
        OK,
        SAID,
    ),
    "usage_null_elsewhere": Case(stream(*(c | {"usage": None} for c in HELLO[:-2]), usage(), DONE), OK, SAID),
    "usage_details": Case(
        counting(
            completion_tokens=9,
            prompt_tokens_details={"cached_tokens": 8},
            completion_tokens_details={"reasoning_tokens": 5},
        ),
        {"cached_tokens": 8, "reasoning_tokens": 5, "output_tokens": 9},
    ),
    "usage_details_null": Case(counting(prompt_tokens_details=None, completion_tokens_details=None), OK),
    "usage_reasoning_at_top": Case(counting(reasoning_tokens=3), {**OK, "reasoning_tokens": 3}),
    "usage_never": Case(stream(*HELLO[:-2], DONE), GUESSED, SAID),
    "usage_negative": Case(counting(completion_tokens=-4), GUESSED, SAID),
    "usage_huge": Case(counting(prompt_tokens=10**18), GUESSED, SAID),
    "usage_nan": Case(counting(completion_tokens=float("nan")), GUESSED, SAID),
    "usage_in_quotes": Case(counting(prompt_tokens="11"), OK, SAID),
    "usage_no_object": Case(stream(*HELLO[:-2], chunk(choices=[], usage="none"), DONE), GUESSED, SAID),
    "usage_more_cached_than_input": Case(counting(prompt_tokens_details={"cached_tokens": 99}), {"cached_tokens": 11}),
    "reasoning": Case(
        stream(ROLE, chunk({"reasoning": "hm"}), *words("so"), STOP, usage(), DONE),
        {**OK, "reasoning_tokens": 2},
        {"text": "so", "reasoning": "hm"},
    ),
    "reasoning_content": Case(
        stream(ROLE, chunk({"reasoning_content": "hm"}), *words("so"), STOP, usage(), DONE),
        {**OK, "reasoning_tokens": 2},
        {"text": "so", "reasoning": "hm"},
    ),
    "reasoning_in_think_tags": Case(
        stream(ROLE, *words("<think>", "hm", "</think>", "so"), STOP, usage(), DONE),
        {**OK, "reasoning_tokens": 0},
        {"text": "<think>hm</think>so", "reasoning": ""},
    ),
    "refusal": Case(stream(ROLE, chunk({"refusal": "No."}), STOP, usage(), DONE), OK, {"text": "No."}),
    "several_tokens_in_one_chunk": Case(stream(ROLE, *words("Hello wörld"), STOP, usage(), DONE), OK, SAID),
    "finish_with_text": Case(stream(ROLE, chunk({"content": "Hello wörld"}, "stop"), usage(), DONE), OK, SAID),
    "surrogate_pair_in_two_chunks": Case(
        stream(
            ROLE,
            event(rb'{"choices":[{"delta":{"content":"a\ud83d"}}]}'),
            event(rb'{"choices":[{"delta":{"content":"\ude00"}}]}'),
            STOP,
            usage(),
            DONE,
        ),
        OK,
        {"text": "a😀"},
    ),
    "half_a_surrogate_pair": Case(
        stream(ROLE, event(rb'{"choices":[{"delta":{"content":"a\ud83d"}}]}'), STOP, usage(), DONE),
        OK,
        {"text": "a\ufffd"},
    ),
    "quotes_and_escapes": Case(
        stream(ROLE, *words('say "hi"\\', "\n\t", '"', "\\", "end"), STOP, usage(), DONE),
        OK,
        {"text": 'say "hi"\\\n\t"\\end'},
    ),
    "tools_as_vllm": Case(
        stream(
            ROLE,
            chunk({"content": None, "tool_calls": [tool(0, "call-a", "read_file")]}),
            *(chunk({"content": None, "tool_calls": [tool(0, arguments=a)]}) for a in ('{"', "path", '":"x"}')),
            chunk({"content": None, "tool_calls": [tool(1, "call-b", "run")]}),
            chunk({"content": None, "tool_calls": [tool(1, arguments="{}")]}),
            chunk({}, "tool_calls"),
            usage(),
            DONE,
        ),
        {"status": "ok", "finish_reason": "tool_calls", "tool_calls": 2, "argument_tokens": 4, "output_tokens": 4},
        {"tools": [("call-a", "read_file", '{"path":"x"}'), ("call-b", "run", "{}")]},
    ),
    "tools_as_llama_cpp": Case(
        stream(
            chunk({"role": "assistant", "content": None, "tool_calls": [tool(0, "a", "read_file", "{")]}),
            chunk({"tool_calls": [tool(0, arguments='"path":1}')]}),
            chunk({}, "tool_calls"),
            usage(),
            DONE,
        ),
        {"status": "ok", "tool_calls": 1},
        {"tools": [("a", "read_file", '{"path":1}')]},
    ),
    "tools_several_in_one_chunk": Case(
        stream(chunk({"tool_calls": [tool(0, "a", "f", "{}"), tool(1, "b", "g", "{}")]}, "tool_calls"), usage(), DONE),
        {"status": "ok", "tool_calls": 2},
        {"tools": [("a", "f", "{}"), ("b", "g", "{}")]},
    ),
    "tools_all_numbered_zero": Case(
        stream(
            chunk({"tool_calls": [tool(0, "a", "f", "{}")]}),
            chunk({"tool_calls": [tool(0, "b", "g", "{}")]}, "tool_calls"),
            usage(),
            DONE,
        ),
        {"status": "ok", "tool_calls": 2},
        {"tools": [("a", "f", "{}"), ("b", "g", "{}")]},
    ),
    "tools_without_index": Case(
        stream(chunk({"tool_calls": [tool(None, "a", "f", "{}"), tool(None, "b", "g")]}, "tool_calls"), usage(), DONE),
        {"status": "ok", "tool_calls": 2},
        {"tools": [("a", "f", "{}"), ("b", "g", "")]},
    ),
    "tools_arguments_as_object": Case(
        stream(chunk({"tool_calls": [tool(0, "a", "f", {"x": 1})]}, "tool_calls"), usage(), DONE),
        {"status": "ok", "tool_calls": 1},
        {"tools": [("a", "f", '{"x": 1}')]},
    ),
    "tools_numbered_apart_with_one_id": Case(
        stream(
            chunk({"tool_calls": [tool(0, "a", "f", "{}")]}),
            chunk({"tool_calls": [tool(1, "a", "g", "{}")]}, "tool_calls"),
            usage(),
            DONE,
        ),
        {"status": "ok", "tool_calls": 2},
        {"tools": [("a", "f", "{}"), ("a", "g", "{}")]},
    ),
    "tools_with_id_and_name_in_every_chunk": Case(
        stream(
            chunk({"tool_calls": [tool(0, "a", "f", "")]}),
            chunk({"tool_calls": [tool(0, "a", "f", '{"x"')]}),
            chunk({"tool_calls": [tool(0, "a", "f", ":1}")]}, "tool_calls"),
            usage(),
            DONE,
        ),
        {"status": "ok", "tool_calls": 1},
        {"tools": [("a", "f", '{"x":1}')]},
    ),
    "tools_with_empty_id_and_name_after_the_first": Case(
        stream(
            chunk({"tool_calls": [tool(0, "a", "f", "")]}),
            chunk({"tool_calls": [tool(0, "", "", '{"x":1}')]}, "tool_calls"),
            usage(),
            DONE,
        ),
        {"status": "ok", "tool_calls": 1},
        {"tools": [("a", "f", '{"x":1}')]},
    ),
    "tools_with_nulls": Case(
        stream(
            chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": None}}]}),
            chunk({"tool_calls": [{"index": 0, "id": None, "function": {"name": None, "arguments": "{}"}}]}),
            chunk({"tool_calls": None}, "tool_calls"),
            usage(),
            DONE,
        ),
        {"status": "ok", "tool_calls": 1},
        {"tools": [("a", "f", "{}")]},
    ),
    "tools_before_role": Case(
        stream(chunk({"tool_calls": [tool(0, "a", "f", "{}")]}), ROLE, chunk({}, "tool_calls"), usage(), DONE),
        {"status": "ok", "tool_calls": 1},
        {"tools": [("a", "f", "{}")]},
    ),
    "tools_after_text": Case(
        stream(ROLE, *words("1234"), chunk({"tool_calls": [tool(0, "a", "f", "{1}")]}, "tool_calls"), usage(), DONE),
        {"status": "ok", "argument_tokens": 2, "output_tokens": 4},
        {"text": "1234"},
    ),
    "crlf": Case(raw(*(event(e, b"\r\n") if isinstance(e, dict) else e for e in HELLO)), OK, SAID),
    "cr": Case(raw(*(event(e, b"\r") if isinstance(e, dict) else e for e in HELLO)), OK, SAID),
    "no_space_after_colon": Case(raw(*(event(e, field=b"data:") if isinstance(e, dict) else e for e in HELLO)), OK),
    "comments": Case(
        raw(b": hi\n\n", *(b": keep-alive\n\n" + (e if e is DONE else event(e)) for e in HELLO)), OK, SAID
    ),
    "comment_inside_an_event": Case(raw(*(b": x\n" + (e if e is DONE else event(e)) for e in HELLO)), OK, SAID),
    "blank_lines": Case(raw(*(b"\n\n\n" + (e if e is DONE else event(e)) for e in HELLO)), OK, SAID),
    "event_lines": Case(raw(*(b"event: chunk\n" + (e if e is DONE else event(e)) for e in HELLO)), OK, SAID),
    "retry_and_unknown_lines": Case(raw(b"retry: 10\nx: y\nz\n" + event(ROLE), *map(event, HELLO[1:-1]), DONE), OK),
    "foreign_event": Case(stream(ROLE, b"event: sglext_ids\n" + event({"ids": [1]}), *HELLO[1:]), OK, SAID),
    "data_on_two_lines": Case(
        raw(event(ROLE), b'data: {"choices":[{"delta":\ndata: {"content":"Hi"}}]}\n\n', *map(event, HELLO[4:-1]), DONE),
        OK,
        {"text": "Hi"},
    ),
    "all_in_one_write": Case([b"".join(HELLO_SCRIPT)], OK, SAID),  # type: ignore[arg-type] # all bytes
    "one_byte_at_a_time": Case(cut(HELLO_SCRIPT, 1), OK, SAID),
    "seven_bytes_at_a_time": Case(cut(HELLO_SCRIPT, 7), OK, SAID),
    "crlf_one_byte_at_a_time": Case(
        cut(raw(*(event(e, b"\r\n") if isinstance(e, dict) else e for e in HELLO)), 1), OK, SAID
    ),
    "chunks_cut_through_events": Case(
        [head(), *framed(*cut(framed_body := [*map(event, HELLO[:-1]), DONE], 100)), END], OK, SAID
    ),
    "chunk_extensions_and_trailers": Case(
        [head(), *(f.replace(b"\r\n", b";x=1\r\n", 1) for f in framed(*framed_body)), b"0\r\nX-T: 1\r\n\r\n"], OK, SAID
    ),
    "content_length": Case([sized("200 OK", SSE, b"".join(framed_body))], OK, SAID),
    "http_1_0": Case([head("200 OK", SSE, "Connection: close", version="1.0"), *framed_body, CLOSE], OK, SAID),
    "no_length_at_all": Case([head("200 OK", SSE, "X: y"), *framed_body, CLOSE], OK, SAID),
    "early_hints": Case([b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", *HELLO_SCRIPT], OK, SAID),
    "no_content_type": Case([head("200 OK", ""), *framed(*framed_body), END], OK, SAID),
    "gzip": Case(
        [
            head("200 OK", SSE, "Content-Encoding: gzip", "Transfer-Encoding: chunked"),
            *framed(*cut([gzip.compress(b"".join(framed_body))], 50)),
            END,
        ],
        OK,
        SAID,
    ),
    "done_and_then_nothing": Case([head(), *framed(*framed_body), STALL], OK, SAID),
    "done_and_then_closed": Case([head(), *framed(*framed_body), CLOSE], OK, SAID),
    "done_and_then_reset": Case([head(), *framed(*framed_body), RESET], OK, SAID),
    "finish_and_then_closed": Case([head(), *framed(*framed_body[:-1]), CLOSE], OK, SAID),
    "text_after_done": Case(stream(*HELLO, *words("more")), OK, SAID),
    "obfuscation": Case(stream(*(c | {"obfuscation": "xx" * 9} for c in HELLO[:-1]), DONE), OK, SAID),
    "whole": Case([sized("200 OK", JSON, completion({"content": "Hello wörld"}))], OK, SAID, stream=False),
    "whole_with_tools": Case(
        [
            sized(
                "200 OK",
                JSON,
                completion({"content": None, "tool_calls": [tool(None, "a", "f", "{}"), tool(None, "b", "g", "{}")]}),
            )
        ],
        {"status": "ok", "tool_calls": 2, "argument_tokens": 4},
        {"tools": [("a", "f", "{}"), ("b", "g", "{}")]},
        stream=False,
    ),
    "whole_with_reasoning": Case(
        [sized("200 OK", JSON, completion({"content": "so", "reasoning": "hm"}))],
        {"status": "ok", "reasoning_tokens": 2},
        {"text": "so", "reasoning": "hm"},
        stream=False,
    ),
    "whole_without_usage": Case(
        [sized("200 OK", JSON, completion({"content": "Hello wörld"}, usage=None))], GUESSED, SAID, stream=False
    ),
    "whole_after_empty_lines": Case(
        [head("200 OK", JSON), *framed(b"\n", b"\n", completion({"content": "Hello wörld"})), END],
        OK,
        SAID,
        stream=False,
    ),
    "whole_gzip": Case(
        [sized("200 OK", JSON, gzip.compress(completion({"content": "Hello wörld"})), "Content-Encoding: gzip")],
        OK,
        SAID,
        stream=False,
    ),
    "whole_http_1_0": Case(
        [head("200 OK", JSON, "Connection: close", version="1.0"), completion({"content": "Hello wörld"}), CLOSE],
        OK,
        SAID,
        stream=False,
    ),
    "whole_one_byte_at_a_time": Case(
        cut([sized("200 OK", JSON, completion({"content": "Hello wörld"}))], 1), OK, SAID, stream=False
    ),
}
"""Answers that are right, however odd: both clients must write the same record."""
