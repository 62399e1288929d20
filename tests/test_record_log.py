"""A recording's log: what it says of calls, what it does not say, and the sessions that are made of it."""

import io
import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agentload.record.heard import Heard, path_of, prompt_of, reply_of
from agentload.record.log import PIECE, Log, Times
from agentload.traces.analyse import analyse
from agentload.traces.calls import Grouper, Header, Line, what_is_wrong
from agentload.traces.detect import read
from agentload.traces.graph import Agent, Call, Gap, Join, Session, Start, Tools, agents
from agentload.traces.source import Complaints
from agents.chain import Reply, ToolCall

SYSTEM = {"role": "system", "content": "You are a careful assistant. " * 40}


class Client:
    """Makes calls of chat completions and logs them, as the proxy does."""

    def __init__(self, api: str = "chat/completions") -> None:
        self.file, self.api = io.BytesIO(), api
        self.log = Log(self.file)

    def call(
        self,
        begin: float,
        messages: list[Any],
        *,
        tools: tuple[str, ...] = (),
        session: str = "",
        end: float = 0.0,
        counted: bool = True,
        reply: str = "a",
        **body: Any,
    ) -> None:
        field = "messages" if self.api != "responses" else "input"
        request = json.dumps({field: messages, **body}).encode()
        called = tuple(ToolCall(name, "{}", f"call-{name}") for name in tools)
        answer = Reply("ok", reply, tool_calls=called, input_tokens=len(request) // 4, output_tokens=10)
        heard = Heard(answer, 0, counted, body.get("id", ""))
        self.log.answered(Times(begin, end or begin + 1.0), prompt_of(self.api, request), heard, session)

    def sessions(self, folder: Path) -> list[Session]:
        path = folder / "log.calls"
        path.write_bytes(self.file.getvalue())
        return list(read(path, Complaints(fatal=True)))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def result(name: str, text: str) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": f"call-{name}", "content": text}


def calls(session: Session) -> dict[str, int]:
    return {path: sum(isinstance(step, Call) for step in agent.steps) for path, agent in agents(session.root)}


def test_a_conversation_that_grows_is_one_session(tmp_path: Path) -> None:
    client = Client()
    first = [SYSTEM, user("Find the bug.")]
    client.call(0.0, first, tools=("grep", "ls"))
    second = [*first, said(""), result("grep", "x" * 4_000), result("ls", "y" * 40)]
    client.call(4.0, second)
    client.call(65.0, [*second, said("Done."), user("Thanks. And now?")])
    (session,) = client.sessions(tmp_path)

    one, tools, two, gap, three = session.root.steps
    assert isinstance(one, Call) and isinstance(two, Call) and isinstance(three, Call)
    assert isinstance(tools, Tools) and [tool.name for tool in tools.calls] == ["grep", "ls"]
    assert [tool.seconds for tool in tools.calls] == [3.0, 3.0]
    assert 900 < tools.calls[0].tokens < 1_100 and tools.calls[1].tokens < 15
    assert gap == Gap(60.0, person=True)
    assert (two.keep, three.keep) == (one.input, two.input)
    assert analyse([session]).hit == pytest.approx((one.input + two.input) / (one.input + two.input + three.input))


def test_the_same_task_asked_again_and_other_tasks_are_sessions_of_their_own(tmp_path: Path) -> None:
    client = Client()
    task = [SYSTEM, user("Count to three.")]
    for i in range(3):  # at once: the second calls come when all first ones are over
        client.call(i / 10, task)
    for i in range(3):
        client.call(3.0 + i, [*task, said("1"), user(f"go on, {i % 2}")])
    client.call(9.0, [SYSTEM, user("Count to four.")])
    found = client.sessions(tmp_path)

    assert [calls(session) for session in found] == [{"": 2}] * 3 + [{"": 1}]
    kept = [step.input for step in found[3].root.steps if isinstance(step, Call)]
    alone, together = (analyse(sessions).hit for sessions in ([found[3]], found))
    assert kept and alone == 0.0 and together is not None and together > 0.5  # the system prompt is shared


def test_sessions_that_begin_alike_are_told_apart_by_what_was_answered(tmp_path: Path) -> None:
    client = Client()
    task = [SYSTEM, user("Count to three.")]
    for i, (reply, tools) in enumerate((("one", ()), ("two", ()), ("", ("sh",)), ("", ("ls",)))):
        client.call(i / 10, task, reply=reply, tools=tools)
    second = {0: [said("one"), user("go on")], 2: [said(""), result("sh", "1" * 99)],
              1: [said(" two\n"), user("go on " * 40)], 3: [said(""), result("ls", "2" * 500)]}  # fmt: skip
    for i, turns in second.items():
        client.call(3.0 + i, [*task, *turns])
    found = client.sessions(tmp_path)
    lines = [msgspec.json.decode(line, type=Line) for line in client.file.getvalue().splitlines()[1:]]

    ends = [session.root.steps[-1] for session in found]
    assert len({line.input for line in lines[4:]}) == 4
    assert [lines[4 + list(second).index(i)].input for i in range(4)] == [
        call.input for call in ends if isinstance(call, Call)]  # fmt: skip


def test_a_conversation_that_goes_two_ways_at_once_has_a_sub_agent(tmp_path: Path) -> None:
    client = Client()
    first = [SYSTEM, user("Plan.")]
    client.call(0.0, first)
    both = [*first, said("Two ways.")]
    client.call(2.0, [*both, user("Left.")], end=8.0)
    client.call(2.5, [*both, user("Right.")], end=9.0)
    client.call(10.0, [*both, user("Left."), said("ok"), user("Merge.")])
    (session,) = client.sessions(tmp_path)

    assert calls(session) == {"": 3, "0": 1}
    kinds = [type(step) for step in session.root.steps]
    assert kinds == [Call, Start, Gap, Call, Gap, Join, Call]
    start = session.root.steps[1]
    assert isinstance(start, Start) and start.wait == 0
    (child,) = start.agents
    (call,) = child.steps
    assert isinstance(call, Call) and isinstance(session.root.steps[0], Call)
    assert call.keep >= session.root.steps[0].input  # begins with its parent's prompt
    assert child.delay == pytest.approx(1.5)


def test_a_client_that_names_its_session_has_sub_agents_with_prompts_of_their_own(tmp_path: Path) -> None:
    client = Client()
    root = [SYSTEM, user("Build it.")]
    client.call(0.0, root, tools=("task",), session="s-1")
    kid = [{"role": "system", "content": "You explore."}, user("Where is it?")]
    client.call(1.5, kid, tools=("grep",), session="s-1")
    client.call(3.0, [*kid, said(""), result("grep", "there")], session="s-1")
    client.call(5.0, [*root, said(""), result("task", "found")], session="s-1")
    client.call(5.0, [*root, said(""), result("task", "found")], session="s-2")
    one, two = client.sessions(tmp_path)

    assert calls(one) == {"": 2, "0": 2} and calls(two) == {"": 1}
    assert [type(step) for step in one.root.steps] == [Call, Start, Tools, Call]
    assert one.root.steps[1].wait is None  # type: ignore[union-attr]  # a Start
    assert "s-1" not in client.file.getvalue().decode() and one.id != "s-1"


def test_responses_that_go_on_from_what_the_server_keeps(tmp_path: Path) -> None:
    client = Client("responses")
    client.call(0.0, [user("Hello " * 50)], instructions="Be kind.", id="resp-1")
    client.call(2.0, [user("And?")], instructions="Be kind.", previous_response_id="resp-1", id="resp-2")
    (session,) = client.sessions(tmp_path)

    assert calls(session) == {"": 2}


def test_cache_marks_of_anthropic_clients_do_not_break_the_prefix(tmp_path: Path) -> None:
    client = Client("messages")
    mark = {"cache_control": {"type": "ephemeral"}}
    first = {"role": "user", "content": [{"type": "text", "text": "Fix it. " * 200}]}
    marked = {"role": "user", "content": [first["content"][0] | mark]}
    tool = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call-sh", "content": "ok " * 300}]}
    client.call(0.0, [marked], tools=("sh",), system=[{"type": "text", "text": "Be exact.", **mark}])
    client.call(2.0, [first, said("…"), tool], system=[{"type": "text", "text": "Be exact."}])
    (session,) = client.sessions(tmp_path)

    one, tools, two = session.root.steps
    assert isinstance(one, Call) and isinstance(tools, Tools) and isinstance(two, Call)
    assert two.keep == one.input
    assert 150 < tools.calls[0].tokens < 350


def test_no_text_is_in_the_log_and_another_recording_has_other_hashes() -> None:
    one, two, secret = Client(), Client(), "the secret plan of Zanzibar"
    for client in (one, two):
        client.call(0.0, [SYSTEM, user(secret)], tools=("grep",), session="my-session")
    lines = [client.file.getvalue().decode() for client in (one, two)]

    for line in lines:
        assert "grep" in line  # tools have their names
        assert not any(word in line for word in ("Zanzibar", "careful", "my-session", "call-grep"))
    keys = [{key for key, _ in msgspec.json.decode(text.splitlines()[1], type=Line).new} for text in lines]
    assert not keys[0] & keys[1] and keys[0]


def test_sizes_that_nobody_counted_are_marked(tmp_path: Path) -> None:
    client = Client()
    client.call(0.0, [user("Hello")], counted=False)
    (session,) = client.sessions(tmp_path)

    assert [step.estimated for step in session.root.steps if isinstance(step, Call)] == [True]
    assert client.log.estimated == 1


def test_pieces_are_the_prompt_and_add_up_to_it() -> None:
    client = Client()
    client.call(0.0, [SYSTEM, user("x" * 3 * PIECE)])
    line = msgspec.json.decode(client.file.getvalue().splitlines()[1], type=Line)

    assert sum(tokens for _, tokens in line.new) == line.input
    assert len(line.new) >= 5
    assert 0 < line.head < line.input


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"after": 7}, "after: is 7, which no earlier line has"),
        ({"end": -1.0}, "end: must be float >= 0.0"),
        ({"begin": 9.0, "end": 1.0}, "end: is 1, before begin, which is 9"),
        ({"new": []}, "new: is empty, so there is no prompt"),
        ({"new": [[5, 1], [5, 1]]}, "new: has a piece that an earlier line has, or one twice"),
        ({"input": "many"}, "input: must be int, got str"),
    ],
)
def test_a_damaged_line_is_named(damage: dict[str, Any], reason: str, tmp_path: Path) -> None:
    good = {"begin": 0.0, "end": 1.0, "input": 4, "output": 1, "new": [[3, 4]]}
    path = tmp_path / "log.calls"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, [Header(1), good | damage, good])))
    complaints = Complaints()
    found = list(read(path, complaints))

    assert [session.root for session in found] == [Agent((Call(4, 1, 0, ((3, 4, 1),), cached=0, seconds=1.0),))]  # type: ignore[arg-type]
    assert [str(complaint).removeprefix(f"{path}:2: ") for complaint in complaints.found] == [reason]


def test_paths_of_the_apis() -> None:
    assert path_of("/v1/chat/completions?api-version=1") == "chat/completions"
    assert path_of("/openai/deployments/x/chat/completions") == "chat/completions"
    assert [path_of(path) for path in ("/v1/messages", "/v1/responses", "/v1/completions", "/v1/models")] == [
        "messages", "responses", "completions", ""]  # fmt: skip
    assert path_of("/v1/messages/count_tokens") == ""


ANTHROPIC: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"content": [], "usage": {
        "input_tokens": 10, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 90, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me look."}},
    {"type": "content_block_start", "index": 1,
     "content_block": {"type": "tool_use", "id": "t1", "name": "sh", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"c\":"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 40}},
    {"type": "message_stop"},
]  # fmt: skip


def test_an_anthropic_answer_streamed_and_whole() -> None:
    events = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in ANTHROPIC)
    asked = {"type": "tool_use", "id": "t1", "name": "sh", "input": {"c": 1}}
    whole = {"type": "message", "stop_reason": "tool_use", "content": [{"type": "text", "text": "Let me look."}, asked],
             "usage": ANTHROPIC[0]["message"]["usage"] | {"output_tokens": 40}}  # fmt: skip
    for heard in (
        reply_of("messages", True, events.encode(), 0),
        reply_of("messages", False, json.dumps(whole).encode(), 0),
    ):
        assert heard.counted and heard.cached == 900
        assert (heard.reply.status, heard.reply.finish_reason) == ("ok", "tool_calls")
        assert (heard.reply.input_tokens, heard.reply.output_tokens) == (1_000, 40)
        assert heard.reply.text == "Let me look."
        (call,) = heard.reply.tool_calls
        assert (call.id, call.name, json.loads(call.arguments)) == ("t1", "sh", {"c": 1})


def test_a_long_recording_is_read_in_little_memory_and_loses_no_call() -> None:
    """Many sessions side by side, of which the silent ones have to make room: their calls are all there, and what a
    session goes on with is still kept."""
    grouper, lines = Grouper(most=2_000), 0
    found: list[Session] = []
    states: dict[int, tuple[int, int]] = {}
    rng, keys = np.random.default_rng(3), itertools.count(1)
    for n in range(4_000):
        who = int(rng.integers(40)) + 40 * (n // 1_000)
        after, held = states.get(who, (0, 0))
        new = [(next(keys), 50) for _ in range(4)]
        line = Line(n * 1.0, n + 0.5, held + 200, 5, after=after, new=new)
        assert what_is_wrong(line, grouper) is None
        grouper.add(line)
        states[who], lines = (line.last, held + 200), lines + 1
        if n % 100 == 0:
            found += grouper.close(grouper.crowded())
            assert len(grouper.spots) < 4_000
    found += grouper.close(np.inf)

    calls = [step for session in found for step in session.root.steps if isinstance(step, Call)]
    assert len(calls) == lines
    kept = sum(call.keep for call in calls) / sum(call.input for call in calls)
    assert kept > 0.8  # all but what was cut in two
