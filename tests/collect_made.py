"""A made-up run: seeded sessions of several archetypes, with sub-agents, tools, retries, failures and a hard end.

Not a model of a server: times and sizes are only plausible, so that every column and every chart has something in it.
"""

from collections.abc import Iterator

import msgspec
import numpy as np

from collectors.records import CALIBRATION, Call, Session, Tool

SHAPES = {  # first input, growth per step, output, steps, tool seconds, human wait, share of reasoning
    "coder": (18_000, 1_100, 260, 9, 0.5, 0.0, 0.3),
    "support": (1_500, 180, 60, 8, 0.1, 0.0, 0.1),
    "orchestrator": (9_000, 900, 300, 6, 0.4, 0.0, 0.4),
    "explorer": (4_000, 700, 120, 5, 0.3, 0.0, 0.2),
    "chat": (900, 350, 140, 3, 0.0, 6.0, 0.0),
}


class Clock:
    """One agent's time and what it has done so far."""

    def __init__(self, now: float) -> None:
        self.start = self.now = now
        self.calls: list[Call] = []
        self.tools: list[Tool] = []
        self.waited = self.joined = 0.0


def made_run(seed: int = 7, agents: int = 30, seconds: float = 60.0, errors: float = 0.02) -> list[msgspec.Struct]:
    """The records of a population of always-on agents, in the order in which they end."""
    records: list[msgspec.Struct] = [_calibration(i) for i in range(3)]
    names = ["coder", "support", "chat", "orchestrator"]
    number = 0
    for slot, rng in enumerate(np.random.default_rng(seed).spawn(agents)):
        now = float(rng.uniform(0, 3))
        while now < seconds:
            made = list(_session(number, "", names[slot % len(names)], now, seconds, errors, rng))
            records += made
            number += 1
            now = next(r.end for r in made if isinstance(r, Session) and r.agent == "") + 0.05
    return sorted(records, key=lambda r: r.end)


def _session(
    number: int, agent: str, name: str, start: float, stop: float, errors: float, rng: np.random.Generator
) -> Iterator[Call | Tool | Session]:
    first, growth, output, steps, tool_seconds, wait, thinking = SHAPES[name]
    clock, outcome, children = Clock(start), "done", 0
    context, known = int(first * rng.lognormal(0, 0.2)), int(first * 0.6)
    for step in range(max(1, int(rng.poisson(steps)))):
        for attempt in range(4):
            call = _call(number, agent, name, step, attempt, clock, context, known, output, thinking, errors, rng)
            if call.end > stop:
                call, outcome = _cut(call, stop), "unfinished"
            clock.calls.append(call)
            clock.now = call.end
            if call.status == "ok" or outcome != "done":
                break
            clock.now += 0.2 * 2**attempt
            clock.waited += 0.2 * 2**attempt
        if call.status != "ok":
            outcome = "failed" if outcome == "done" else outcome
            break
        known, context = context, context + call.output_tokens + int(growth * rng.lognormal(0, 0.5))
        if tool_seconds and clock.now < stop:
            _use_tool(number, agent, name, step, clock, tool_seconds, rng)
        if name == "orchestrator" and step == 1 and clock.now < stop:
            children, began = int(rng.integers(2, 5)), clock.now
            for child in range(children):
                path = f"{agent}.{child}".lstrip(".")
                for record in _session(number, path, "explorer", began, stop, errors, rng):
                    clock.now = max(clock.now, record.end)
                    yield record
            clock.joined += clock.now - began
        pause = float(rng.exponential(wait)) if wait else 0.0
        clock.waited += pause
        clock.now += pause
        if clock.now > stop:
            clock.now, outcome = stop, "unfinished"
            break
    yield from clock.calls
    yield from clock.tools
    yield _row(number, agent, name, clock, outcome, children)


def _call(
    number: int, agent: str, name: str, step: int, attempt: int, clock: Clock, context: int, known: int, output: int,
    thinking: float, errors: float, rng: np.random.Generator,
) -> Call:  # fmt: skip
    due = clock.now + 0.002
    sent = due + float(rng.exponential(0.0004))
    out = max(2, int(output * rng.lognormal(0, 0.6)))
    cached = known // 16 * 16
    first = sent + 0.04 + (context - cached) / 15_000 + float(rng.exponential(0.02))
    last = first + (out - 1) * 0.012 * float(rng.lognormal(0, 0.15))
    who = (number, agent, name, step, attempt, due, sent)
    if rng.random() < errors:
        return Call(*who, sent + 0.01, None, None, sent + 0.012, status="http_429", error="Rate limit <b>reached</b>")
    uses_tool = name not in ("chat",)
    return Call(
        *who, sent + 0.03, first, last, last + 0.001, finish_reason="tool_calls" if uses_tool else "stop",
        input_tokens=context, cached_tokens=cached, output_tokens=out, reasoning_tokens=int(out * thinking),
        argument_tokens=int(out * 0.3) if uses_tool else 0, wanted_input_tokens=int(context * rng.normal(1.0, 0.004)),
        wanted_output_tokens=out, chunks=out, tool_calls=int(uses_tool),
        itl=tuple(np.full(min(out - 1, 8), (last - first) / (out - 1)).tolist()),
    )  # fmt: skip


def _cut(call: Call, stop: float) -> Call:
    """The call as it is when the run ends in the middle of it."""
    begun = call.first is not None and call.first < stop
    part = int(call.output_tokens * 0.5) if begun else 0
    return msgspec.structs.replace(
        call, sent=min(call.sent, stop), due=min(call.due, stop), status="cancelled", finish_reason="", end=stop,
        first=call.first if begun else None, last=stop if begun else None, opened=None, output_tokens=part,
        reasoning_tokens=0, argument_tokens=0, usage="estimated", itl=None,
    )  # fmt: skip


def _use_tool(
    number: int, agent: str, name: str, step: int, clock: Clock, seconds: float, rng: np.random.Generator
) -> None:
    end = clock.now + float(seconds * rng.lognormal(0, 1.0))
    tool = ("read_file", "run_tests", "search")[int(rng.integers(3))]
    clock.tools.append(Tool(number, agent, name, step, tool, clock.now, end, bool(rng.random() > 0.05), 300))
    clock.now = end


def _row(number: int, agent: str, name: str, clock: Clock, outcome: str, children: int) -> Session:
    done = [c for c in clock.calls if c.attempt == 0]
    intents = {"done": len(done) if name == "chat" else 1}.get(outcome, 0)
    tokens = [sum(getattr(c, f"{k}_tokens") for c in clock.calls) for k in _ACCOUNTED]
    model, tool = sum(c.end - c.sent for c in clock.calls), sum(t.end - t.start for t in clock.tools)
    return Session(
        number, agent, name, clock.start, clock.start, clock.now, outcome, intents, len(done), len(clock.calls),
        len(clock.tools), children, 0, *tokens, model, tool, clock.waited, clock.joined,
    )  # fmt: skip


_ACCOUNTED = ("input", "cached", "output", "reasoning", "argument")


def _calibration(i: int) -> Call:
    return Call(
        CALIBRATION, "", "", i, 0, -1.0 + i / 10, -1.0 + i / 10, None, -0.95 + i / 10, -0.95 + i / 10, -0.94 + i / 10,
        input_tokens=100, output_tokens=1,
    )  # fmt: skip


HEADER = {
    "schema": 1,
    "agentload": "0.1.0",
    "started": "2026-11-23T14:02:11+00:00",
    "seed": 7,
    "duration": 60.0,
    "spec": {"agents": 30, "duration": 60.0, "mix": {"coder": 1, "support": 1, "chat": 1, "orchestrator": 1}},
    "spec_toml": 'duration = 60\n[endpoint]\nmodel = "</script><script>alert(1)</script>"\n',
    "endpoint": {"url": "http://127.0.0.1:8000/v1", "model": "box", "client": "wire", "simulated": True},
    "profile": {"agents": 30, "rate": None},
    "health": {"loop_lag_p50": 0.0001, "loop_lag_p99": 0.0013, "loop_lag_max": 0.004, "cpu_share": 0.31,
               "machine_cpu": 0.4, "agents_asked": 30, "interrupted": False, "stop_reason": "duration reached"},
}  # fmt: skip
