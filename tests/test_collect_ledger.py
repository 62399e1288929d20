"""The ledger: every token in exactly one place."""

import msgspec
from collect_made import made_run
from hypothesis import given
from hypothesis import strategies as st
from test_collect_metrics import call, made, session

from collectors.ledger import ledger
from collectors.metrics import ACCOUNTS
from collectors.records import CALIBRATION


@st.composite
def runs(draw: st.DrawFn) -> list[msgspec.Struct]:
    count, agent = st.integers(0, 10_000), st.sampled_from(["", "0", "0.1", "1"])
    status, outcome = st.sampled_from(["ok", "reset"]), st.sampled_from(["done", "failed", "cancelled", "unfinished"])
    keys = draw(st.lists(st.tuples(st.integers(-1, 3), agent), max_size=12))
    return [session(session=s, agent=a, outcome=draw(outcome)) for s, a in set(keys) if s >= 0] + [
        call(
            session=s, agent=a, status=draw(status), usage=draw(st.sampled_from(["server", "estimated"])),
            input_tokens=draw(count), cached_tokens=draw(count), output_tokens=draw(count),
            reasoning_tokens=draw(count), argument_tokens=draw(count),
        )
        for s, a in keys
    ]  # fmt: skip


@given(runs())
def test_every_sum_of_the_ledger_equals_the_sum_of_the_columns(records: list[msgspec.Struct]) -> None:
    run = made(*records)
    found = ledger(run.calls, run.sessions)
    total = int(run.calls.input_tokens.sum() + run.calls.output_tokens.sum())

    assert found["input"] == run.calls.input_tokens.sum() and found["output"] == run.calls.output_tokens.sum()
    assert sum(found[name] for name in ACCOUNTS) == found["total"] == total
    for name in (*ACCOUNTS, "input", "output", "total"):
        assert sum(use[name] for use in found["uses"].values()) == found[name]
    assert sum(found["wasted_by"].values()) == found["uses"]["wasted"]["total"]
    assert sum(found["counted_by"].values()) == total
    agents = sum(entry["total"] for entry in found["archetypes"].values())
    assert agents + found["uses"]["calibration"]["total"] == total
    assert sum(entry["wasted"] for entry in found["archetypes"].values()) == found["uses"]["wasted"]["total"]


def test_tokens_are_wasted_by_failed_attempts_and_by_agents_that_failed_with_all_below_them() -> None:
    run = made(
        session(), session(agent="0", outcome="failed"), session(agent="0.1"), session(agent="1"),
        session(session=1, outcome="failed"), session(session=1, agent="0"), session(session=2, outcome="unfinished"),
        call(), call(status="reset", input_tokens=1_000), call(agent="0"), call(agent="0.1"), call(agent="1"),
        call(agent="01"), call(session=1), call(session=1, agent="0"), call(session=2), call(session=CALIBRATION),
    )  # fmt: skip

    found = ledger(run.calls, run.sessions)

    assert found["wasted_by"] == {"failed_calls": 1_011, "failed_sessions": 4 * 111}
    assert found["uses"]["useful"]["total"] == 4 * 111
    assert found["uses"]["calibration"]["total"] == 111


def test_archetypes_leave_calibration_out() -> None:
    run = made(*made_run(agents=4, seconds=10))

    assert "" not in ledger(run.calls, run.sessions)["archetypes"]
