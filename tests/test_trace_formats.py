"""Every trace format: told from its content, read into the session graph."""

from pathlib import Path

import msgspec
import pytest

from agentload.errors import BadInput
from agentload.traces.detect import FORMATS, format_of, read
from agentload.traces.graph import Agent, Call, Gap, Join, Run, Session, Start, Tool, Tools, agents
from agentload.traces.source import Complaints
from tests.trace_files import AIPERF, BURSTGPT_OLD, FILES, put


def sessions(path: Path, format: str | None = None) -> list[Session]:
    complaints = Complaints()
    found = list(read(path, complaints, format))
    assert not complaints.found, [str(complaint) for complaint in complaints.found]
    return found


@pytest.mark.parametrize("format", FILES)
def test_a_format_is_told_from_its_content_and_read_without_complaint(format: str, tmp_path: Path) -> None:
    path = put(tmp_path, format)

    assert format_of(path) == format
    found = sessions(path)
    assert found
    for session in found:
        calls = [step for _, agent in agents(session.root) for step in agent.steps if isinstance(step, Call)]
        assert calls
        for call in calls:
            assert call.keep + sum(run.tokens * run.times for run in call.new) <= call.input


def test_every_reader_has_a_file_here() -> None:
    assert set(FORMATS) == {*FILES, "run"}


def test_what_is_no_trace_is_refused_with_the_formats_there_are(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear reader,\n")

    with pytest.raises(BadInput, match="is of no known format; name one with --format: agentload, mooncake"):
        list(read(tmp_path / "letter.txt", Complaints()))
    with pytest.raises(BadInput, match="does not exist"):
        list(read(tmp_path / "nothing", Complaints()))
    with pytest.raises(BadInput, match="trace format 'mooncace' is not known"):
        list(read(tmp_path / "letter.txt", Complaints(), "mooncace"))


def test_a_folder_of_files_is_one_trace_and_gzip_is_unpacked(tmp_path: Path) -> None:
    import gzip

    put(tmp_path, "azure")
    (tmp_path / "second.csv.gz").write_bytes(gzip.compress(FILES["azure"][1]))

    assert len(sessions(tmp_path)) == 6


def test_mooncake_lines_are_sessions_that_share_blocks(tmp_path: Path) -> None:
    first, second, third = sessions(put(tmp_path, "mooncake"))

    assert (first.start, second.start, third.start) == (0.0, 3.0, 6.0)
    assert first.root.steps == (Call(1300, 50, 0, (Run(0, 512, 2), Run(2, 276))),)
    assert second.root.steps == (Call(1100, 40, 0, (Run(0, 512, 2), Run(9, 76))),)
    assert third.shared


def test_a_recording_is_sessions_told_apart_by_their_prompts(tmp_path: Path) -> None:
    first, second = sessions(put(tmp_path, "recording"))

    assert first.root.steps == (
        Call(400, 20, 0, (Run(11, 128), Run(12, 272)), cached=0, seconds=1.5),
        Start((Agent((Call(500, 30, 400, (Run(14, 100),), cached=0, seconds=1.5),), delay=2.0),), wait=0),
        Tools((Tool("grep", 1.5, 150),)),
        Call(600, 30, 400, (Run(13, 200),), cached=0, seconds=1.0),
        Join(),
    )
    assert second.root.steps == (Call(300, 9, 0, (Run(11, 128), Run(21, 172)), cached=0, seconds=2.0, estimated=True),)
    assert (first.start, second.start, second.id) == (0.0, 0.5, "s2")


def test_aiperfs_sessions_add_to_what_was_said_before(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(AIPERF)
    b, a = sorted(sessions(tmp_path / "m.jsonl"), key=lambda session: len(session.root.steps))

    assert [step.input for step in b.root.steps if isinstance(step, Call)] == [512]
    first, gap, second = a.root.steps
    assert isinstance(gap, Gap) and gap.person and gap.seconds == pytest.approx(2.4503)
    assert isinstance(first, Call) and isinstance(second, Call)
    assert (first.input, second.input, second.keep) == (768, 768 + 180 + 100, 768)


def test_bailian_turns_are_linked_by_their_parents(tmp_path: Path) -> None:
    other, one = sorted(sessions(put(tmp_path, "bailian")), key=lambda session: len(session.root.steps))

    assert (one.id, one.start, other.id) == ("1", 1.0, "2")
    assert one.root.steps == (
        Call(40, 10, 0, (Run(1, 16, 2), Run(3, 8))),
        Gap(60.5, person=True),
        Call(70, 12, 32, (Run(3, 16, 2), Run(5, 6))),
    )


def test_weka_sub_agents_start_side_by_side_and_are_joined_before_the_next_call(tmp_path: Path) -> None:
    (session,) = sessions(put(tmp_path, "weka"))
    first, start, wait, second, pause, third = session.root.steps

    assert first == Call(200, 30, 0, (Run(1, 64, 3),), seconds=4.0)
    assert isinstance(start, Start)
    assert (start.wait, [child.delay for child in start.agents]) == (None, [1.0, 2.0])  # t - duration - end of call
    assert [step for step in start.agents[0].steps if isinstance(step, Call)] == [
        Call(150, 10, 0, (Run(50, 64, 2),), seconds=3.0),
        Call(210, 10, 128, (Run(52, 64),), seconds=4.0),
    ]
    assert wait == Tools((Tool(seconds=2.0),))  # from the last sub-agent's end at 16 to 18
    assert isinstance(second, Call) and second.keep == 192
    assert pause == Gap(60.0, person=True)
    assert isinstance(third, Call) and third.keep == 320


def test_weka_times_inside_a_sub_agent_may_count_from_the_session(tmp_path: Path) -> None:
    trace = msgspec.json.decode(FILES["weka"][1])
    for entry in trace["requests"]:
        for inner in entry.get("requests", []):
            inner["t"] += entry["t"] - entry["duration_ms"] / 1000
    path = tmp_path / "absolute.json"
    path.write_bytes(msgspec.json.encode(trace))

    assert sessions(path) == sessions(put(tmp_path, "weka"))


def test_a_weka_sub_agent_that_goes_on_is_joined_later(tmp_path: Path) -> None:
    trace = msgspec.json.decode(FILES["weka"][1])
    trace["requests"][2] |= {"t": 65.0, "duration_ms": 60_000}
    path = tmp_path / "long.json"
    path.write_bytes(msgspec.json.encode(trace))
    (session,) = sessions(path)

    starts = [step for step in session.root.steps if isinstance(step, Start)]
    assert [step.wait for step in starts] == [0]
    assert [step for step in session.root.steps if isinstance(step, Join)] == [Join((0,)), Join((1,))]


def test_trt_branches_run_in_parallel_and_a_dropped_cache_shares_nothing(tmp_path: Path) -> None:
    (session,) = sessions(put(tmp_path, "trt"))
    first, tools, start, last = session.root.steps

    assert isinstance(first, Call) and isinstance(start, Start) and isinstance(last, Call)
    assert (first.input, first.output, first.reasoning) == (1110, 60, 20)
    assert tools == Tools((Tool("shell", 39.1327, 299),))
    assert len(start.agents) == 2
    (branch,) = start.agents[0].steps
    assert isinstance(branch, Call)
    assert branch.new[0] == first.new[0]  # the same system prompt
    assert last.keep == 0


def test_dag_spawns_are_joined_and_forks_inherit(tmp_path: Path) -> None:
    (session,) = sessions(put(tmp_path, "dag"))
    first, spawn, gap, join, second, fork = session.root.steps

    assert isinstance(first, Call) and isinstance(spawn, Start) and isinstance(second, Call) and isinstance(fork, Start)
    assert [child.name for child in spawn.agents] == ["a", "b"]
    assert (spawn.wait, join, gap) == (0, Join((0, 1)), Gap(0.5))
    assert spawn.agents[1].delay == 0.25
    assert second.keep == first.input
    (child,) = fork.agents
    (call,) = child.steps
    assert isinstance(call, Call) and call.keep == second.input


def test_tracelab_rounds_become_calls_tools_and_gaps(tmp_path: Path) -> None:
    (session,) = sessions(put(tmp_path, "tracelab"))

    first, tools, gap, second, pause, third = session.root.steps
    assert isinstance(first, Call) and isinstance(second, Call) and isinstance(third, Call)
    assert (first.input, first.seconds, second.keep, third.keep) == (5_000, 7.0, 5_000, 6_000)
    assert tools == Tools((Tool("Bash", 0.86, 100),))
    assert isinstance(gap, Gap) and gap.seconds == pytest.approx(60 - 7 - 0.86)
    assert pause == Gap(53.0, person=True)


def test_messages_become_a_call_for_each_reply(tmp_path: Path) -> None:
    first, second = sessions(put(tmp_path, "messages"))

    call, tools, last = first.root.steps
    assert isinstance(call, Call) and isinstance(tools, Tools) and isinstance(last, Call)
    assert [tool.name for tool in tools.calls] == ["get_reservation", "get_user"]
    assert last.keep == call.input
    assert second.id == "line-2"


def test_text_never_leaves_a_conversation_only_its_digest(tmp_path: Path) -> None:
    for format in ("messages", "sharegpt", "sweagent", "dag"):
        whole = msgspec.json.encode(sessions(put(tmp_path, format)))
        for secret in (b"EHGLP3", b"brace", b"AUTHORS", b"part A"):
            assert secret not in whole


def test_sharegpt_and_swe_agent_count_a_quarter_of_the_characters(tmp_path: Path) -> None:
    one, two = sessions(put(tmp_path, "sharegpt"))
    (trajectory,) = sessions(put(tmp_path, "sweagent"))

    calls = [step for step in one.root.steps if isinstance(step, Call)]
    assert [call.input for call in calls] == [6 + 4, 6 + 4 + 5 + 4 + 2 + 4]
    assert two.id == "two"
    call, tools, last = trajectory.root.steps
    assert isinstance(call, Call) and isinstance(last, Call)
    assert tools == Tools((Tool("ls", 0.7, 3 + 4),))
    assert last.keep == call.input


def test_azure_times_count_from_the_first_row_with_all_seven_digits(tmp_path: Path) -> None:
    starts = [session.start for session in sessions(put(tmp_path, "azure"))]

    assert starts[0] == pytest.approx(0.97996)
    assert [start - (starts[0] or 0) for start in starts[1:] if start is not None] == pytest.approx([0.052, 10.0])


def test_burstgpt_rows_of_a_session_follow_each_other(tmp_path: Path) -> None:
    found = {session.id: session for session in sessions(put(tmp_path, "burstgpt"))}
    (tmp_path / "old.csv").write_bytes(BURSTGPT_OLD)

    assert found["1"].root.steps == (
        Call(472, 18, seconds=1.9),
        Gap(45 - 5 - 1.9, person=True),
        Call(600, 30, seconds=3.1),
    )
    assert found["line-3"].start == 9.0
    assert sessions(tmp_path / "old.csv")[0].root.steps == (Call(472, 18),)


def test_shape_tables_keep_hits_thinking_and_sub_agents(tmp_path: Path) -> None:
    first, second = sessions(put(tmp_path, "shape"))

    _, start, tools, again, pause, last = first.root.steps
    assert isinstance(start, Start) and isinstance(again, Call) and isinstance(last, Call)
    assert (start.agents[0].delay, again.keep, last.keep, last.seconds) == (1.0, 960, 1200, None)
    assert tools == Tools((Tool(seconds=10.0),))
    assert pause == Gap(85.0, person=True)
    assert second.root.steps == (Call(5000, 70, seconds=4.0),)


def test_servegen_chunks_are_drawn_alike_each_time(tmp_path: Path) -> None:
    path = put(tmp_path, "servegen")
    found = sessions(path)

    assert found == sessions(path)
    assert len(found) == pytest.approx(0.5 * 600 + 0.2 * 600, abs=4 * (420**0.5))
    late = [session for session in found if (session.start or 0) >= 600]
    assert {step.input for session in late for step in session.root.steps if isinstance(step, Call)} == {700}
    early = found[0].root.steps[0]
    assert isinstance(early, Call) and (early.output, early.reasoning) == (10, 5)


def test_otel_spans_nest_into_sub_agents_and_parallel_tools(tmp_path: Path) -> None:
    (session,) = sessions(put(tmp_path, "otel"))

    assert session.id == "s1"
    call, tools, gap, start, wait, last = session.root.steps
    assert tools == Tools((Tool("grep", 0.5), Tool("ls", 1.5)))
    assert isinstance(start, Start)
    assert start.agents[0].name == "explore"
    assert [step.keep for step in start.agents[0].steps if isinstance(step, Call)] == [0, 900]
    assert (gap, wait) == (Gap(0.5), Gap(2.0))
    assert isinstance(last, Call) and (last.keep, last.cached) == (8192, 8192)
    assert isinstance(call, Call) and call.seconds == 2.0


def test_our_own_format_says_all_there_is(tmp_path: Path) -> None:
    (session,) = sessions(put(tmp_path, "agentload"))

    assert session == Session(
        "s",
        Agent(
            (
                Call(100, 10, 0, (Run(5, 16, 4),)),
                Tools((Tool("sh", 0.25, 30),)),
                Start((Agent((Call(50, 5),), "kid"),), 0),
                Gap(2.0, person=True),
                Join((0,)),
                Call(150, 10, 100),
            )
        ),
        1.5,
    )
