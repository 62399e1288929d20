"""What a server may do, and what must be recorded: the cases of the torture tests, for both clients."""

import gzip
import json
from typing import Any

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
HELLO = [ROLE, *words("Hel", "lo ", "wörld"), STOP, usage(), DONE]
SHORT = Timeouts(connect=5, first_token=0.2, between_tokens=0.2, call=5)
TINY_CALL = Timeouts(connect=5, first_token=5, between_tokens=5, call=0.3)


class Case(Struct, frozen=True):
    """A script, and the fields of the record and of the reply that it must lead to."""

    script: list[Any]
    call: dict[str, Any] = {}
    reply: dict[str, Any] = {}
    sdk: dict[str, Any] | None = None  # fields of the record that are otherwise with the SDK, which hides something
    stream: bool = True
    limits: Timeouts = Timeouts()


COUNTED = {"usage": "server", "input_tokens": 11, "output_tokens": 4}
OK = {"status": "ok", "finish_reason": "stop", **COUNTED}
GUESSED = {"status": "ok", "usage": "estimated", "input_tokens": 7, "output_tokens": 3, "error": ""}
SAID = {"text": "Hello wörld", "finish_reason": "stop"}
HELLO_SCRIPT = stream(*HELLO)


def refused(status: str, body: bytes, kind: str = JSON, *lines: str) -> list[Step]:
    return [sized(status, kind, body, *lines)]


def openai_error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": 400}}).encode()


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
    "whole_one_byte_at_a_time": Case(
        cut([sized("200 OK", JSON, completion({"content": "Hello wörld"}))], 1), OK, SAID, stream=False
    ),
}
"""Answers that are right, however odd: both clients must write the same record."""

NOTHING = {"input_tokens": 0, "output_tokens": 0, "first": None, "usage": "estimated"}
PART = {"input_tokens": 7, "output_tokens": 2, "usage": "estimated", "finish_reason": ""}
ERROR = event({"error": {"message": "engine\x00 died", "type": "x", "code": 500}})
TWO = [ROLE, *words("Hel", "lo")]

BROKEN = {
    "error_event_then_done": Case(stream(*TWO, ERROR, DONE), {"status": "error_event", "error": "engine died", **PART}),
    "error_event_without_done": Case(stream(*TWO, ERROR), {"status": "error_event", "error": "engine died", **PART}),
    "error_event_first": Case(stream(ERROR, DONE), {"status": "error_event", **NOTHING}),
    "error_event_text": Case(stream(*TWO, event({"error": "died"}), DONE), {"status": "error_event", **PART}),
    "error_event_after_finish": Case(stream(*TWO, STOP, ERROR, DONE), {"status": "error_event"}),
    "done_without_finish": Case(stream(*TWO, DONE), {"status": "truncated", **PART}),
    "end_without_finish": Case(stream(*TWO), {"status": "truncated", **PART}),
    "end_without_anything": Case(stream(), {"status": "truncated", **NOTHING}),
    "finish_without_blank_line": Case(raw(*map(event, TWO), b"data: " + event(STOP)[6:-2]), {"status": "truncated"}),
    "closed_mid_stream": Case(stream(*TWO, end=(CLOSE,)), {"status": "truncated", **PART}),
    "closed_mid_chunk": Case(stream(*TWO, end=(b"ff\r\ndata: {", CLOSE)), {"status": "truncated", **PART}),
    "closed_mid_body": Case(
        [head("200 OK", JSON, "Content-Length: 999") + b'{"ch', CLOSE], {"status": "truncated"}, stream=False
    ),
    "closed_before_answer": Case([CLOSE], {"status": "reset", "opened": None, **NOTHING}),
    "closed_mid_headers": Case(
        [b"HTTP/1.1 200 OK\r\nContent-Ty", CLOSE], {"status": "truncated", **NOTHING}, sdk={"status": "reset"}
    ),
    "reset_before_answer": Case([RESET], {"status": "reset", **NOTHING}),
    "reset_mid_headers": Case([b"HTTP/1.1 200 OK\r\n", 0.05, RESET], {"status": "reset", **NOTHING}),
    "reset_mid_stream": Case(stream(*TWO, end=(0.05, RESET)), {"status": "reset", **PART}),
    "reset_mid_chunk": Case(stream(*TWO, end=(b"ff\r\ndata", 0.05, RESET)), {"status": "reset", **PART}),
    "silence": Case([STALL], {"status": "timeout_first", "opened": None, **NOTHING}, limits=SHORT),
    "silence_after_headers": Case([head(), STALL], {"status": "timeout_first", **NOTHING}, limits=SHORT),
    "silence_after_role": Case(stream(ROLE, end=(STALL,)), {"status": "timeout_first", **NOTHING}, limits=SHORT),
    "comments_instead_of_tokens": Case(
        [head(), *([*framed(b": wait\n\n"), 0.05] * 20), STALL], {"status": "timeout_first", **NOTHING}, limits=SHORT
    ),
    "role_chunks_instead_of_tokens": Case(
        [head(), *([*framed(event(ROLE)), 0.05] * 20), STALL], {"status": "timeout_first", **NOTHING}, limits=SHORT
    ),
    "silence_after_first_token": Case(stream(*TWO, end=(STALL,)), {"status": "timeout_gap", **PART}, limits=SHORT),
    "comments_after_first_token": Case(
        [*stream(*TWO, end=()), *([*framed(b": wait\n\n"), 0.05] * 20), STALL],
        {"status": "timeout_gap", **PART},
        limits=SHORT,
    ),
    "blank_lines_after_first_token": Case(
        [*stream(*TWO, end=()), *([*framed(b"\n\n"), 0.05] * 20), STALL], {"status": "timeout_gap"}, limits=SHORT
    ),
    "silence_after_finish": Case(stream(*TWO, STOP, end=(STALL,)), {"status": "timeout_gap"}, limits=SHORT),
    "endless": Case(
        [*stream(*TWO, end=()), *([*framed(event(words("x")[0])), 0.02] * 50), STALL],
        {"status": "timeout_call"},
        limits=TINY_CALL,
    ),
    "whole_silence": Case([STALL], {"status": "timeout_call", **NOTHING}, limits=TINY_CALL, stream=False),
    "whole_silence_in_body": Case(
        [head("200 OK", JSON, "Content-Length: 99") + b"{", STALL],
        {"status": "timeout_call", **NOTHING},
        limits=TINY_CALL,
        stream=False,
    ),
    "broken_json": Case(stream(*TWO, event(b'{"choices":[')), {"status": "bad_reply", **PART}),
    "not_an_object": Case(stream(*TWO, event(b"5")), {"status": "bad_reply", **PART}),
    "text_instead_of_json": Case(stream(*TWO, event(b"hello")), {"status": "bad_reply", **PART}),
    "wrong_type_of_content": Case(stream(*TWO, chunk({"content": 5})), {"status": "bad_reply", **PART}),
    "wrong_type_of_choices": Case(stream(*TWO, chunk(choices="x")), {"status": "bad_reply", **PART}),
    "wrong_type_of_tool_calls": Case(stream(*TWO, chunk({"tool_calls": {"a": 1}})), {"status": "bad_reply", **PART}),
    "deep_json": Case(stream(*TWO, event(b"[" * 100_000)), {"status": "bad_reply", **PART}),
    "not_utf_8": Case(
        stream(*TWO, event(b'{"choices":[{"delta":{"content":"\xff"}}]}')), {"status": "bad_reply", **PART}
    ),
    "empty_event": Case(stream(*TWO, b"data:\n\n"), {"status": "bad_reply", **PART}),
    "wrong_content_type": Case(
        refused("200 OK", b"<html><body>Welcome</body></html>", "text/html"),
        {"status": "bad_reply", "error": "wanted text/event-stream, got text/html: Welcome", **NOTHING},
    ),
    "json_instead_of_stream": Case(refused("200 OK", completion({"content": "x"})), {"status": "bad_reply", **NOTHING}),
    "empty_body": Case([sized("200 OK", JSON, b"")], {"status": "bad_reply", **NOTHING}, stream=False),
    "whole_broken_json": Case(
        [sized("200 OK", JSON, b'{"choices":')], {"status": "bad_reply", **NOTHING}, stream=False
    ),
    "whole_html": Case(
        [sized("200 OK", "text/html", b"<h1>Hi</h1>")], {"status": "bad_reply", **NOTHING}, stream=False
    ),
    "whole_array": Case([sized("200 OK", JSON, b"[1]")], {"status": "bad_reply", **NOTHING}, stream=False),
    "whole_error": Case(
        [sized("200 OK", JSON, openai_error("no"))], {"status": "error_event", "error": "no", **NOTHING}, stream=False
    ),
    "whole_without_finish": Case(
        [sized("200 OK", JSON, completion({"content": "Hi"}, None))], {"status": "truncated"}, stream=False
    ),
    "not_http": Case([b"SSH-2.0-OpenSSH_9.6\r\n\r\n", CLOSE], {"status": "bad_reply", **NOTHING}),
    "broken_chunk_size": Case([head(), *framed(event(ROLE)), b"zz\r\n", CLOSE], {"status": "bad_reply", **NOTHING}),
    "broken_gzip": Case(
        [sized("200 OK", SSE, b"not gzip", "Content-Encoding: gzip")], {"status": "bad_reply", **NOTHING}
    ),
    "unauthorized": Case(
        refused("401 Unauthorized", openai_error("Bad key: a-secret-key")),
        {"status": "http_401", "error": "Bad key: [secret]", **NOTHING},
    ),
    "not_found": Case(
        refused("404 Not Found", openai_error("no such model")),
        {"status": "http_404", "error": "no such model", **NOTHING},
    ),
    "request_timeout": Case(refused("408 Request Timeout", b""), {"status": "http_408", "error": ""}),
    "too_large": Case(
        refused("413 Payload Too Large", b"too big", "text/plain"), {"status": "http_413", "error": "too big"}
    ),
    "unprocessable": Case(
        refused("422 Unprocessable Entity", b'{"detail":[{"loc":["body"],"msg":"bad field"}]}'),
        {"status": "http_422", "error": "bad field"},
    ),
    "limited": Case(
        refused("429 Too Many Requests", openai_error("slow down")),
        {"status": "http_429", "error": "slow down"},
        {"retry_after": None},
    ),
    "limited_seconds": Case(
        refused("429 Too Many Requests", b"", JSON, "Retry-After: 7"), {"status": "http_429"}, {"retry_after": 7.0}
    ),
    "limited_milliseconds": Case(
        refused("429 Too Many Requests", b"", JSON, "retry-after-ms: 1500", "Retry-After: 9"),
        {"status": "http_429"},
        {"retry_after": 1.5},
    ),
    "limited_date": Case(
        refused(
            "429 Too Many Requests",
            b"",
            JSON,
            "Date: Wed, 21 Oct 2015 07:28:00 GMT",
            "Retry-After: Wed, 21 Oct 2015 07:28:09 GMT",
        ),
        {"status": "http_429"},
        {"retry_after": 9.0},
    ),
    "limited_nonsense": Case(
        refused("429 Too Many Requests", b"", JSON, "Retry-After: soon"), {"status": "http_429"}, {"retry_after": None}
    ),
    "server_error": Case(
        refused("500 Internal Server Error", b"Internal Server Error", "text/plain"),
        {"status": "http_500", "error": "Internal Server Error"},
    ),
    "bad_gateway": Case(
        refused(
            "502 Bad Gateway",
            b"<html><head><style>p{}</style><title>502</title></head>\r\n<h1>Bad &amp; Gateway</h1></html>",
            "text/html",
        ),
        {"status": "http_502", "error": "502 Bad & Gateway"},
    ),
    "unavailable": Case(
        refused("503 Service Unavailable", b'{"error":"queue full"}', JSON, "Retry-After: 2"),
        {"status": "http_503", "error": "queue full"},
        {"retry_after": 2.0},
    ),
    "redirect": Case(
        refused("307 Temporary Redirect", b"", JSON, "Location: /plain/v1/chat/completions"),
        {"status": "http_307", **NOTHING},
    ),
    "endless_error": Case(
        [head("500 Oops", "text/plain"), *framed(*[b"x" * 10_000] * 400), STALL], {"status": "http_500", **NOTHING}
    ),
    "error_body_cut_off": Case(
        [head("500 Oops", "text/plain", "Content-Length: 99") + b"oops", CLOSE],
        {"status": "http_500", "error": "oops"},
    ),
}
"""Answers that are wrong, and what they are called."""
