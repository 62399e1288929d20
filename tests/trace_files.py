"""A small file of every trace format, made up, and what must come out of it."""

import json
from pathlib import Path
from typing import Any


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def said(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def asked(id: str, name: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": '{"id": "EHGLP3"}'}}


def span(id: str, parent: str, name: str, start: float, end: float, **attributes: Any) -> dict[str, Any]:
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue"}
    return {
        "traceId": "t1", "spanId": id, "parentSpanId": parent, "name": name,
        "startTimeUnixNano": str(int(start * 1e9)), "endTimeUnixNano": str(int(end * 1e9)),
        "attributes": [
            {"key": f"gen_ai.{key.replace('__', '.')}", "value": {kinds[type(v)]: str(v) if type(v) is int else v}}
            for key, v in attributes.items()
        ],
    }  # fmt: skip


def chat(id: str, parent: str, start: float, end: float, input: int, output: int, cached: int) -> dict[str, Any]:
    return span(id, parent, "chat m", start, end, operation__name="chat", conversation__id="s1",
                usage__input_tokens=input, usage__output_tokens=output,
                usage__cache_read__input_tokens=cached)  # fmt: skip


MOONCAKE = lines(
    {"timestamp": 0, "input_length": 1300, "output_length": 50, "hash_ids": [0, 1, 2]},
    {"timestamp": 3000, "input_length": 1100, "output_length": 40, "hash_ids": [0, 1, 9]},
    {"timestamp": 6000, "input_length": 600, "output_length": 30, "hash_ids": [7, 8]},
)
AIPERF = lines(
    {"session_id": "a", "input_length": 768, "output_length": 180, "hash_ids": [1000, 1001], "timestamp": 0},
    {"session_id": "b", "input_length": 512, "output_length": 10, "hash_ids": [1000], "timestamp": 100},
    {"session_id": "a", "input_length": 100, "output_length": 20, "hash_ids": [1002], "delay": 2450.3},
)
BAILIAN = lines(
    {"chat_id": 1, "parent_chat_id": -1, "timestamp": 1.0, "input_length": 40, "output_length": 10, "type": "text",
     "turn": 1, "hash_ids": [1, 2, 3]},
    {"chat_id": 2, "parent_chat_id": -1, "timestamp": 2.0, "input_length": 20, "output_length": 5, "type": "coder",
     "turn": 1, "hash_ids": [1, 9]},
    {"chat_id": 3, "parent_chat_id": 1, "timestamp": 61.5, "input_length": 70, "output_length": 12, "type": "text",
     "turn": 2, "hash_ids": [1, 2, 3, 4, 5]},
)  # fmt: skip
WEKA = lines(
    {
        "id": "trace_1", "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 5,
        "system_tokens": 5, "requests": [
            {"t": 0.0, "type": "n", "model": "m", "in": 200, "out": 30, "hash_ids": [1, 2, 3], "input_types": ["text"],
             "output_types": ["tool_use"], "stop": "tool_use", "api_time": 4.0, "think_time": 0.0},
            {"t": 14.0, "type": "subagent", "agent_id": "x", "subagent_type": "Explore", "duration_ms": 9000,
             "total_tokens": 9, "tool_use_count": 1, "status": "completed", "requests": [
                {"t": 0.0, "type": "n", "in": 150, "out": 10, "hash_ids": [50, 51], "api_time": 3.0},
                {"t": 5.0, "type": "n", "in": 210, "out": 10, "hash_ids": [50, 51, 52], "api_time": 4.0}]},
            {"t": 16.0, "type": "subagent", "agent_id": "y", "subagent_type": "Explore", "duration_ms": 11000,
             "requests": [{"t": 1.0, "type": "n", "in": 140, "out": 10, "hash_ids": [50, 51], "api_time": 2.0}]},
            {"t": 18.0, "type": "n", "in": 330, "out": 20, "hash_ids": [1, 2, 3, 4, 5], "input_types": ["tool_result"],
             "stop": "end_turn", "api_time": 2.0, "think_time": 14.0},
            {"t": 80.0, "type": "s", "in": 400, "out": 20, "hash_ids": [1, 2, 3, 4, 5, 6], "input_types": ["text"],
             "stop": "", "api_time": 3.0, "ttft": 1.0, "think_time": 60.0},
        ],
    }
)  # fmt: skip
TRT = json.dumps({
    "trace_id": "job1",
    "events": [
        {"event_type": "message", "branch_path": [], "conversation_id": 0, "role": "system", "message_index": 0,
         "system_prompt_id": 4, "tokens": 1000},
        {"event_type": "message", "branch_path": [], "conversation_id": 0, "role": "user", "message_index": 1,
         "tokens": 100},
        {"event_type": "message", "branch_path": [], "conversation_id": 0, "role": "assistant", "message_index": 2,
         "tool_calls": ["shell"], "prompt_tokens": 1110, "completion_tokens": 60, "reasoning_tokens": 20,
         "finish_reason": "tool_calls"},
        {"event_type": "tool_call", "branch_path": [], "tool_call_id": "u", "tool_name": "shell",
         "duration_ms": 39132.7},
        {"event_type": "message", "branch_path": [], "conversation_id": 0, "role": "tool", "message_index": 3,
         "tokens": 299},
        {"event_type": "parallel_start", "branch_path": []},
        {"event_type": "message", "branch_path": [0], "conversation_id": 1, "role": "system", "message_index": 0,
         "system_prompt_id": 4, "tokens": 1000},
        {"event_type": "message", "branch_path": [0], "conversation_id": 1, "role": "assistant", "message_index": 1,
         "prompt_tokens": 1005, "completion_tokens": 10},
        {"event_type": "message", "branch_path": [1], "conversation_id": 2, "role": "user", "message_index": 0,
         "tokens": 50},
        {"event_type": "message", "branch_path": [1], "conversation_id": 2, "role": "assistant", "message_index": 1,
         "prompt_tokens": 55, "completion_tokens": 10},
        {"event_type": "parallel_end", "branch_path": []},
        {"event_type": "drop_kv_cache", "branch_path": []},
        {"event_type": "message", "branch_path": [], "conversation_id": 0, "role": "assistant", "message_index": 4,
         "prompt_tokens": 1450, "completion_tokens": 30},
    ],
}, indent=1).encode()  # fmt: skip
DAG = lines(
    {"session_id": "root", "turns": [
        {"messages": [said("user", "plan the work")], "max_tokens": 128, "spawns": ["a", "b"]},
        {"messages": [said("user", "merge it")], "forks": [{"child": "c", "background": True}], "delay": 500}]},
    {"session_id": "a", "turns": [{"messages": [said("user", "part A")], "max_tokens": 96}]},
    {"session_id": "b", "turns": [{"messages": [said("user", "part B")], "max_tokens": 96, "delay": 250}]},
    {"session_id": "c", "turns": [{"messages": [said("user", "and then")], "max_tokens": 64}]},
)  # fmt: skip
TRACELAB = lines(*(
    {"provider": "claude", "session_id": "claude:92", "round_index": i, "round_id": "r", "model": "m",
     "input_tokens_total": total, "prefix_tokens": prefix, "newly_append_tokens": total - prefix, "output_tokens": 90,
     "reasoning_output_tokens": None, "first_input_event_type": first,
     "timing_events": [{"event_type": first, "timestamp": f"2026-01-01T00:0{i}:00Z", "source": "x"},
                       {"event_type": "text", "timestamp": f"2026-01-01T00:0{i}:07Z", "source": "x"}],
     "tools": tools}
    for i, (total, prefix, first, tools) in enumerate([
        (5_000, 0, "user_message", [{"tool_name": "Bash", "tool_wall_latency_ms": 860, "is_error": False,
                                     "result_chars": 400}]),
        (6_000, 5_000, "tool_result", []),
        (7_000, 6_000, "user_message", [])])
))  # fmt: skip
MESSAGES = lines(
    {"messages": [
        said("system", "You are helpful."), said("user", "cancel EHGLP3"),
        said("assistant", None, tool_calls=[asked("c1", "get_reservation"), asked("c2", "get_user")]),
        said("tool", "{…}" * 20, tool_call_id="c1"), said("tool", "x" * 40, tool_call_id="c2"),
        said("assistant", "Done.")],
     "tools": [{"type": "function", "function": {"name": "get_reservation"}}]},
    {"messages": [said("user", [{"type": "text", "text": "hello"}]), said("assistant", "Hi.")]},  # type: ignore[arg-type]
)  # fmt: skip
SHAREGPT = json.dumps([
    {"id": "one", "conversations": [{"from": "human", "value": "What is { a \"brace\" }?"},
                                    {"from": "gpt", "value": "A bracket: } or ]."},
                                    {"from": "human", "value": "Thanks"}, {"from": "gpt", "value": "Welcome."}]},
    {"id": "two", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
], indent=2).encode()  # fmt: skip
SWEAGENT = json.dumps({
    "environment": "swe_main",
    "trajectory": [{"action": "ls -F\n", "observation": "AUTHORS.rst", "response": "Look.", "thought": "Look",
                    "state": "{}", "execution_time": 0.7},
                   {"action": "submit", "observation": "", "response": "Done", "thought": "", "state": "{}"}],
    "history": [said("system", "SETTING: …", agent="main"), said("user", "Fix the bug " * 9, agent="main"),
                said("assistant", "Look.", agent="main", action="ls -F\n"),
                said("user", "AUTHORS.rst", agent="main"), said("assistant", "Done", agent="main", action="submit")],
    "info": {"exit_status": "submitted", "model_stats": {"api_calls": 2, "tokens_sent": 122, "tokens_received": 13}},
}, indent=1).encode()  # fmt: skip
AZURE = b"""TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:13.9799600,110,27
"""
BURSTGPT = b"""Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,1,1.9,ChatGPT,472,18,490,Conversation log
9,,3.0,GPT-4,1087,230,1317,API log
45,1,3.1,ChatGPT,600,30,630,Conversation log
"""
BURSTGPT_OLD = b"""Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
"""
SHAPE = b"""trace,agent,turn,t,in,out,hit,api,think,stop
1,0,0,0,1000,50,0,2.0,0,t
1,1,0,3,300,10,0,1.0,0,
1,0,1,12,1200,60,960,3.0,10,e
1,0,2,100,1300,60,1200,,85,
2,0,0,0,5000,70,0,4.0,0,e
"""
SERVEGEN = b"""0,0.5,0.9252505817858778,Gamma,1.1681033415865265,8.05582170861377
600,0.2,0.8868927506143982,Gamma,1.271328520688236,5.063838413767256
1200,0.0,,,,
"""
SERVEGEN_LENGTHS = json.dumps({
    "0": {"input_tokens": "{100: 0.5, 200: 0.5}", "output_tokens": "{10: 1.0}", "reason_ratio": "{0.5: 1.0}"},
    "600": {"input_tokens": "{700: 1.0}", "output_tokens": "{20: 1.0}"},
}).encode()  # fmt: skip
OTEL = lines({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": [
    span("r", "", "invoke_agent main", 0.0, 30.0, operation__name="invoke_agent", agent__name="main"),
    chat("1", "r", 0.0, 2.0, 8704, 540, 0),
    span("2", "r", "execute_tool grep", 2.0, 2.5, operation__name="execute_tool", tool__name="grep"),
    span("3", "r", "execute_tool ls", 2.0, 3.5, operation__name="execute_tool", tool__name="ls"),
    span("4", "r", "invoke_agent explore", 4.0, 10.0, operation__name="invoke_agent", agent__name="explore"),
    chat("5", "4", 4.5, 6.0, 900, 40, 0),
    chat("6", "4", 7.0, 9.0, 1000, 40, 900),
    chat("7", "r", 12.0, 14.0, 9600, 100, 8192),
]}]}]})  # fmt: skip
OWN = lines(
    {"agentload_trace": 1, "source": "x", "format": "weka"},
    {"id": "s", "start": 1.5, "root": {"steps": [
        {"do": "call", "input": 100, "output": 10, "new": [[5, 16, 4]]},
        {"do": "tools", "calls": [{"name": "sh", "seconds": 0.25, "tokens": 30}]},
        {"do": "start", "agents": [{"name": "kid", "steps": [{"do": "call", "input": 50, "output": 5}]}], "wait": 0},
        {"do": "gap", "seconds": 2.0, "person": True},
        {"do": "join", "agents": [0]},
        {"do": "call", "input": 150, "output": 10, "keep": 100}]}},
)  # fmt: skip

RECORDING = lines(
    {"agentload_recording": 1},
    {"begin": 0.0, "end": 1.5, "input": 400, "output": 20, "cached": 0, "new": [[11, 128], [12, 272]], "head": 128,
     "tools": [["c1", "grep"]], "person": True},
    {"begin": 0.5, "end": 2.5, "input": 300, "output": 9, "session": "s2", "after": 11, "new": [[21, 172]], "head": 128,
     "estimated": True},
    {"begin": 3.0, "end": 4.0, "input": 600, "output": 30, "after": 12, "new": [[13, 200]], "head": 128,
     "results": [["c1", 150]]},
    {"begin": 3.5, "end": 5.0, "input": 500, "output": 30, "after": 12, "new": [[14, 100]], "head": 128},
)  # fmt: skip

FILES: dict[str, tuple[str, bytes]] = {
    "mooncake": ("conversation.jsonl", MOONCAKE),
    "bailian": ("usage.jsonl", BAILIAN),
    "weka": ("trace_1.jsonl", WEKA),
    "trt": ("job.json", TRT),
    "dag": ("dag.jsonl", DAG),
    "tracelab": ("round_trace.jsonl", TRACELAB),
    "messages": ("messages.jsonl", MESSAGES),
    "sharegpt": ("sharegpt.json", SHAREGPT),
    "sweagent": ("one.traj", SWEAGENT),
    "azure": ("azure.csv", AZURE),
    "burstgpt": ("burst.csv", BURSTGPT),
    "shape": ("shape.csv", SHAPE),
    "servegen": ("chunk-7-trace.csv", SERVEGEN),
    "otel": ("spans.jsonl", OTEL),
    "agentload": ("own.jsonl", OWN),
    "recording": ("trace.calls", RECORDING),
}
"""A file of each format, but for our own run folders."""


def put(folder: Path, format: str, content: bytes | None = None) -> Path:
    """The file of a format on disk, or other content under its name."""
    name, whole = FILES[format]
    path = folder / name
    path.write_bytes(whole if content is None else content)
    if format == "servegen":
        (folder / "chunk-7-dataset.json").write_bytes(SERVEGEN_LENGTHS)
    return path
