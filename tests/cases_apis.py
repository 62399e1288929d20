"""The cases of the torture tests for the Responses API and for plain completions; shapes are those of real servers."""

import json
from typing import Any, Literal

from msgspec import structs

from tests.cases import COUNTED, GUESSED, HELLO, OK, SAID, Case
from tests.cases_broken import ERROR, NOTHING, PART, SHORT
from tests.torture import CLOSE, DONE, JSON, RESET, ROLE, STALL, chunk, completion, cut, event, sized, stream, usage

COUNTS = {"input_tokens": 11, "output_tokens": 4, "total_tokens": 15, "input_tokens_details": {"cached_tokens": 8}}


def told(kind: str, **fields: Any) -> bytes:
    """An event as vLLM and OpenAI send it."""
    return b"event: response.%b\n" % kind.encode() + event({"type": f"response.{kind}", "sequence_number": 1} | fields)


def whole(*output: dict[str, Any], status: str = "completed", reason: str = "", **more: Any) -> dict[str, Any]:
    """The answer as one object."""
    made = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": status, "error": None}
    details = {"reason": reason} if reason else None
    return made | {"incomplete_details": details, "output": list(output), "usage": COUNTS} | more


def end(*output: dict[str, Any], kind: str = "completed", **more: Any) -> bytes:
    return told(kind, response=whole(*output, **more))


def message(text: str = "", id: str = "msg_1") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": content}


def call(id: str, name: str, arguments: str = "") -> dict[str, Any]:
    return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": arguments}


def thought(text: str, field: str = "content") -> dict[str, Any]:
    kind = "reasoning_text" if field == "content" else "summary_text"
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, field: [{"type": kind, "text": text}]}


def texts(*pieces: str) -> list[bytes]:
    fields = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return [told("output_text.delta", delta=piece, **fields) for piece in pieces]


def arguments(id: str, place: int, *pieces: str) -> list[bytes]:
    return [
        told("function_call_arguments.delta", item_id=f"fc_{id}", output_index=place, delta=piece) for piece in pieces
    ]


BEGIN = [
    told("created", response=whole(status="in_progress", usage=None)),
    told("in_progress", response=whole(status="in_progress", usage=None)),
]
ADDED = [
    told("output_item.added", output_index=0, item=message()),
    told(
        "content_part.added", item_id="msg_1", output_index=0, content_index=0, part={"type": "output_text", "text": ""}
    ),
]
ENDED = [
    told("output_text.done", item_id="msg_1", output_index=0, content_index=0, text="Hello wörld"),
    told("output_item.done", output_index=0, item=message("Hello wörld")),
]
HI = [*BEGIN, *ADDED, *texts("Hel", "lo ", "wörld"), *ENDED, end(message("Hello wörld"))]
HI_SCRIPT = stream(*HI)
CACHED = OK | {"cached_tokens": 8}
CALLS = {"status": "ok", "finish_reason": "tool_calls", **COUNTED}
TWO_CALLS = [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def plain(line: bytes) -> bytes:
    """The event without its `event:` line."""
    return line[line.index(b"data:") :]


RESPONSES = {
    "as_vllm": Case(HI_SCRIPT, {**CACHED, "tool_calls": 0, "reasoning_tokens": 0}, SAID),
    "data_lines_alone": Case(stream(*map(plain, HI)), CACHED, SAID),
    "done_after_the_end": Case(stream(*map(plain, HI), DONE), CACHED, SAID),
    "one_byte_at_a_time": Case(cut(HI_SCRIPT, 1), CACHED, SAID),
    "all_in_one_write": Case([b"".join(HI_SCRIPT)], CACHED, SAID),  # type: ignore[arg-type] # all bytes
    "comments": Case(stream(*(b": keep-alive\n\n" + line for line in HI)), CACHED, SAID),
    "foreign_events": Case(
        stream(
            *HI[:5],
            b"event: sglext_ids\n" + event({"ids": [1]}),
            told("web_search_call.searching", item_id="ws_1", output_index=0),
            told("reasoning_summary_part.added", item_id="rs", part={"type": "summary_text", "text": ""}),
            *HI[5:],
        ),
        CACHED,
        SAID,
    ),
    "obfuscation": Case(
        stream(*HI[:4], *(line.replace(b'"delta":', b'"obfuscation":"xxxx","delta":') for line in HI[4:])), CACHED, SAID
    ),
    "refusal": Case(
        stream(*BEGIN, told("refusal.delta", item_id="msg_1", output_index=0, delta="No."), end()), OK, {"text": "No."}
    ),
    "reasoning": Case(
        stream(*BEGIN, told("reasoning_text.delta", item_id="rs_1", output_index=0, delta="hm"), *texts("so"), end()),
        {**OK, "reasoning_tokens": 2},
        {"text": "so", "reasoning": "hm"},
    ),
    "reasoning_summary": Case(
        stream(
            *BEGIN,
            told("reasoning_summary_text.delta", item_id="rs_1", output_index=0, summary_index=0, delta="hm"),
            *texts("so"),
            end(usage=COUNTS | {"output_tokens_details": {"reasoning_tokens": 3}}),
        ),
        {**OK, "reasoning_tokens": 3},
        {"text": "so", "reasoning": "hm"},
    ),
    "tools_as_vllm": Case(
        stream(
            *BEGIN,
            told("output_item.added", output_index=1, item=call("a", "f")),
            *arguments("a", 1, '{"', 'x":', "1}"),
            told("function_call_arguments.done", item_id="fc_a", output_index=1, name="f", arguments='{"x":1}'),
            told("output_item.done", output_index=1, item=call("a", "f", '{"x":1}')),
            told("output_item.added", output_index=2, item=call("b", "g")),
            *arguments("b", 2, "{}"),
            told("output_item.done", output_index=2, item=call("b", "g", "{}")),
            end(call("a", "f", '{"x":1}'), call("b", "g", "{}")),
        ),
        {**CALLS, "tool_calls": 2, "argument_tokens": 4},
        {"tools": TWO_CALLS},
    ),
    "tools_interleaved_in_one_place": Case(
        stream(
            told("output_item.added", output_index=0, item=call("a", "f")),
            told("output_item.added", output_index=0, item=call("b", "g")),
            *arguments("a", 0, '{"x":'),
            *arguments("b", 0, "{}"),
            *arguments("a", 0, "1}"),
            end(),
        ),
        {**CALLS, "tool_calls": 2},
        {"tools": TWO_CALLS},
    ),
    "tools_with_other_ids_in_every_event": Case(
        stream(
            told("output_item.added", output_index=0, item=call("a", "f")),
            *arguments("p", 0, '{"x":'),
            *arguments("q", 0, "1}"),
            told("output_item.added", output_index=1, item=call("b", "g")),
            *arguments("r", 1, "{}"),
            told("output_item.done", output_index=1, item=call("b", "g", "{}") | {"id": "fc_s"}),
            end(),
        ),
        {**CALLS, "tool_calls": 2},
        {"tools": TWO_CALLS},
    ),
    "tools_without_deltas": Case(
        stream(
            told("output_item.added", output_index=0, item=call("a", "f")),
            told("function_call_arguments.done", item_id="fc_a", output_index=0, name="f", arguments='{"x":1}'),
            told("output_item.done", output_index=1, item=call("b", "g", "{}")),
            end(call("a", "f", '{"x":1}'), call("b", "g", "{}")),
        ),
        {**CALLS, "tool_calls": 2},
        {"tools": TWO_CALLS},
    ),
    "tools_at_the_end_alone": Case(
        stream(*texts("so"), end(message("so"), call("a", "f", '{"x":1}'), call("b", "g", "{}"))),
        {**CALLS, "tool_calls": 2},
        {"tools": TWO_CALLS, "text": "so"},
    ),
    "text_at_the_end_alone": Case(stream(*BEGIN, end(message("Hello wörld"))), CACHED, SAID),
    "too_long": Case(
        stream(*texts("so"), end(kind="incomplete", status="incomplete", reason="max_output_tokens")),
        {"status": "ok", "finish_reason": "length", **COUNTED},
    ),
    "too_long_as_vllm": Case(
        stream(*texts("so"), end(status="incomplete", reason="max_output_tokens")),
        {"status": "ok", "finish_reason": "length", **COUNTED},
    ),
    "filtered": Case(
        stream(*texts("so"), end(kind="incomplete", status="incomplete", reason="content_filter")),
        {"status": "ok", "finish_reason": "content_filter"},
    ),
    "usage_never": Case(stream(*HI[:-1], end(usage=None)), GUESSED, SAID),
    "usage_of_nonsense": Case(stream(*HI[:-1], end(usage={"input_tokens": -1, "output_tokens": 1})), GUESSED, SAID),
    "end_and_then_nothing": Case(stream(*HI, end=(STALL,)), CACHED, SAID),
    "end_and_then_closed": Case(stream(*HI, end=(CLOSE,)), CACHED, SAID),
    "end_and_then_reset": Case(stream(*HI, end=(RESET,)), CACHED, SAID),
    "whole": Case(
        [sized("200 OK", JSON, json.dumps(whole(message("Hello wörld"))).encode())], CACHED, SAID, stream=False
    ),
    "whole_with_everything": Case(
        [
            sized(
                "200 OK",
                JSON,
                json.dumps(
                    whole(
                        thought("hm"),
                        thought("m", "summary"),
                        message("so"),
                        call("a", "f", '{"x":1}'),
                        call("b", "g", "{}"),
                    )
                ).encode(),
            )
        ],
        {**CALLS, "tool_calls": 2},
        {"text": "so", "reasoning": "hmm", "tools": TWO_CALLS},
        stream=False,
    ),
    "whole_too_long": Case(
        [
            sized(
                "200 OK",
                JSON,
                json.dumps(whole(message("so"), status="incomplete", reason="max_output_tokens")).encode(),
            )
        ],
        {"status": "ok", "finish_reason": "length", **COUNTED},
        stream=False,
    ),
}
SO_FAR = [*BEGIN, *ADDED, *texts("Hel", "lo")]
DIED = {"code": "server_error", "message": "engine died"}
RESPONSES_BROKEN = {
    "failed": Case(
        stream(*SO_FAR, end(kind="failed", status="failed", error=DIED, usage=None)),
        {"status": "error_event", "error": "engine died", **PART},
    ),
    "failed_with_usage": Case(
        stream(*SO_FAR, end(kind="failed", status="failed", error=DIED)),
        {"status": "error_event", "error": "engine died", **COUNTED},
    ),
    "cancelled_by_the_server": Case(
        stream(*SO_FAR, end(kind="cancelled", status="cancelled")), {"status": "error_event"}
    ),
    "error_event": Case(
        stream(
            *SO_FAR, b"event: error\n" + event({"type": "error", "message": "engine died", "code": "x", "param": None})
        ),
        {"status": "error_event", "error": "engine died", **PART},
    ),
    "error_event_nested": Case(
        stream(*SO_FAR, event({"type": "error", "error": {"message": "engine died"}})),
        {"status": "error_event", "error": "engine died", **PART},
    ),
    "error_as_in_chat": Case(stream(*SO_FAR, ERROR, DONE), {"status": "error_event", "error": "engine died", **PART}),
    "end_without_the_last_event": Case(stream(*SO_FAR), {"status": "truncated", **PART}),
    "done_without_the_last_event": Case(stream(*SO_FAR, DONE), {"status": "truncated", **PART}),
    "closed_mid_stream": Case(stream(*SO_FAR, end=(CLOSE,)), {"status": "truncated", **PART}),
    "reset_mid_stream": Case(stream(*SO_FAR, end=(0.05, RESET)), {"status": "reset", **PART}),
    "silence_after_the_first_events": Case(
        stream(*BEGIN, *ADDED, end=(STALL,)), {"status": "timeout_first", **NOTHING}, limits=SHORT
    ),
    "silence_after_first_token": Case(stream(*SO_FAR, end=(STALL,)), {"status": "timeout_gap", **PART}, limits=SHORT),
    "delta_that_is_no_text": Case(
        stream(*SO_FAR, told("output_text.delta", delta={"a": 1})), {"status": "bad_reply", **PART}
    ),
    "broken_json": Case(stream(*SO_FAR, b'data: {"type":\n\n'), {"status": "bad_reply", **PART}),
    "chat_instead": Case(stream(*HELLO), {"status": "truncated", **NOTHING}),
    "not_found": Case(
        [sized("404 Not Found", JSON, b'{"detail":"Not Found"}')],
        {"status": "http_404", "error": "Not Found", **NOTHING},
    ),
    "whole_failed": Case(
        [sized("200 OK", JSON, json.dumps(whole(status="failed", error=DIED, usage=None)).encode())],
        {"status": "error_event", "error": "engine died", **NOTHING},
        stream=False,
    ),
    "whole_in_the_background": Case(
        [sized("200 OK", JSON, json.dumps(whole(status="queued", usage=None)).encode())],
        {"status": "truncated", **NOTHING},
        stream=False,
    ),
    "whole_array": Case([sized("200 OK", JSON, b"[1]")], {"status": "bad_reply", **NOTHING}, stream=False),
}


def text(piece: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": piece, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    made = chunk(choices=[choice], id="cmpl-1", object="text_completion")
    return made | more


USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
WORDS = [text("Hel"), text("lo "), text("wörld")]
COMPLETIONS = {
    "as_vllm": Case(
        stream(*WORDS[:2], text("wörld", "stop"), chunk(choices=[], object="text_completion", usage=USAGE), DONE),
        OK,
        SAID,
    ),
    "as_llama_cpp": Case(stream(*WORDS, text("", "stop", usage=USAGE), DONE), OK, SAID),
    "without_done": Case(stream(*WORDS, text("", "stop", usage=USAGE)), OK, SAID),
    "usage_never": Case(stream(*WORDS, text("", "stop"), DONE), GUESSED, SAID),
    "one_byte_at_a_time": Case(cut(stream(*WORDS, text("", "stop", usage=USAGE), DONE)), OK, SAID),
    "whole": Case(
        [sized("200 OK", JSON, json.dumps(text("Hello wörld", "stop", usage=USAGE)).encode())], OK, SAID, stream=False
    ),
}
COMPLETIONS_BROKEN = {
    "error_event": Case(stream(*WORDS[:2], ERROR, DONE), {"status": "error_event", "error": "engine died", **PART}),
    "done_without_finish": Case(stream(*WORDS[:2], DONE), {"status": "truncated", **PART}),
    "text_that_is_no_text": Case(stream(*WORDS[:2], text(5)), {"status": "bad_reply", **PART}),
    "whole_without_finish": Case(
        [sized("200 OK", JSON, json.dumps(text("Hello", None, usage=USAGE)).encode())],
        {"status": "truncated"},
        stream=False,
    ),
}


ONE = {"completion_tokens": 1}
SILENT = {
    "chat": Case(stream(ROLE, chunk({}, "stop"), usage(**ONE), DONE)),
    "chat_whole": Case([sized("200 OK", JSON, completion({"content": ""}, usage=USAGE | ONE))], stream=False),
    "responses": Case(stream(*BEGIN, end(usage=COUNTS | {"output_tokens": 1})), api="responses"),
    "completions": Case(stream(text("", "stop"), usage(**ONE), DONE), api="completions"),
}
"""Answers whose only token has no text, a special one: the server counts it."""


def named(api: Literal["responses", "completions"], cases: dict[str, Case]) -> dict[str, Case]:
    return {f"{api}_{name}": structs.replace(case, api=api) for name, case in cases.items()}


API_WELL_FORMED = (
    named("responses", RESPONSES)
    | named("completions", COMPLETIONS)
    | {
        f"silent_{name}": structs.replace(
            case, call={"status": "ok", "output_tokens": 1, "chunks": 1}, reply={"text": ""}
        )
        for name, case in SILENT.items()
    }
)
API_BROKEN = named("responses", RESPONSES_BROKEN) | named("completions", COMPLETIONS_BROKEN)
