"""What a server may do wrong, and what it is called in the record: cases of the torture tests, for both clients."""

import json
from typing import Any

from agents.endpoint import Timeouts
from tests.cases import STOP, Case, raw
from tests.torture import (
    CLOSE,
    DONE,
    JSON,
    RESET,
    ROLE,
    SSE,
    STALL,
    Step,
    chunk,
    completion,
    event,
    framed,
    head,
    sized,
    stream,
    words,
)

SHORT = Timeouts(connect=5, first_token=0.2, between_tokens=0.2, call=5)
TINY_CALL = Timeouts(connect=5, first_token=5, between_tokens=5, call=0.3)


def refused(status: str, body: bytes, kind: str = JSON, *lines: str) -> list[Step]:
    return [sized(status, kind, body, *lines)]


def openai_error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": 400}}).encode()


NOTHING = {"input_tokens": 0, "output_tokens": 0, "first": None, "usage": "estimated"}
PART = {"input_tokens": 7, "output_tokens": 2, "usage": "estimated", "finish_reason": ""}
ERROR = event({"error": {"message": "engine\x00 died", "type": "x", "code": 500}})
TWO: list[Any] = [ROLE, *words("Hel", "lo")]

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
    "silence_inside_an_event": Case(
        [head(), *framed(*map(event, TWO), event(STOP)[:40]), STALL], {"status": "timeout_gap", **PART}, limits=SHORT
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
    "empty_stream": Case([sized("200 OK", SSE, b"")], {"status": "truncated", **NOTHING}),
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
    "forbidden": Case(refused("403 Forbidden", b'{"detail":"no"}'), {"status": "http_403", "error": "no"}),
    "refused_with_a_number_for_a_message": Case(
        refused("400 Bad Request", b'{"error":{"message":5,"code":"400"}}'), {"status": "http_400", "error": "5"}
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
    "moved": Case(
        refused("301 Moved Permanently", b"", "text/html", "Location: https://elsewhere.example/"),
        {"status": "http_301", **NOTHING},
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
