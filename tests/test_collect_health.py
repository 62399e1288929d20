"""The verdict, in words a person understands."""

import pytest
from test_collect_metrics import call, made, session

from collectors.health import Verdict, judge, ms


def verdict(lag: float = 0.001, calls: int = 200, alive: int = 1, **health: object) -> Verdict:
    run = made(*(call(sent=1.0 + lag) for _ in range(calls)), *(session(session=i) for i in range(alive)))
    return judge(run.calls, run.sessions, health)


def test_a_healthy_run_is_trustworthy_without_a_word() -> None:
    seen = verdict(loop_lag_p99=0.002, cpu_share=0.4, machine_cpu=0.5, agents_asked=1, interrupted=False)

    assert seen == Verdict(True, [], [])


def test_late_sending_is_this_machines_fault_and_says_what_to_do() -> None:
    assert verdict(lag=0.084).reasons == [
        "limited by this machine: p99 send lag 84 ms is above 10 ms; use --workers 4 or fewer agents"
    ]


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ({"loop_lag_p99": 0.0123}, "p99 event-loop lag 12.3 ms is above 10 ms"),
        ({"cpu_share": 0.97}, "the sender used 97% of a core, above 90%; use --workers 2"),
        ({"machine_cpu": 0.99}, "all cores were 99% busy, above 95%; stop what else runs here"),
        (
            {"late_steps": 0.2},
            "the simulated cluster fell behind: 20% of its steps were written late; stop what else runs",
        ),
        ({"agents_asked": 40}, "40 agents were asked for, but at most 1 were alive at once"),
        ({"sessions_offered": 100, "sessions_started": 60}, "only 60 of the 100 sessions that were due"),
    ],
)
def test_every_limit_that_is_broken_is_named(health: dict[str, float], words: str) -> None:
    seen = verdict(**health)

    assert not seen.trustworthy and len(seen.reasons) == 1 and words in seen.reasons[0]


def test_figures_nobody_recorded_are_not_held_against_a_run() -> None:
    assert verdict(machine_cpu=None, loop_lag_p99=None).trustworthy


def test_a_run_that_was_ended_early_need_not_have_reached_its_population() -> None:
    assert verdict(agents_asked=40, interrupted=True).trustworthy
    assert verdict(agents_asked=40, stop_reason="max_tokens").trustworthy


def test_nothing_answered_is_nothing_measured() -> None:
    run = made(call(status="connect_failed", sent=5.0))

    assert judge(run.calls, run.sessions, {}).reasons == ["no call was answered, so there is nothing to measure"]
    assert judge(run.calls.where(run.calls.step > 0), run.sessions, {}).reasons == ["no call was made"]


def test_what_a_reader_must_know_is_noted_without_spoiling_the_verdict() -> None:
    bad = [call(status="reset", usage="estimated"), call(usage="estimated")]
    run = made(*bad, session(outcome="unfinished"), session(session=1))

    assert judge(run.calls, run.sessions, {"interrupted": True}).notes == [
        "the run was interrupted: its figures are of what was recorded until then",
        "1 of 2 calls were not answered (1 reset); latencies are those of the rest",
        "only 1 calls were answered: a p99 of so few is their slowest",
        "tokens of 2 of 2 calls are estimates: the server sent no usage for them",
        "1 of 2 sessions were unfinished when the run ended",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "10 ms"), (0.000287, "0.287 ms"), (0.0169, "16.9 ms"), (1.234, "1,234 ms"), (0, "0 ms")],
)
def test_milliseconds_have_three_digits(seconds: float, text: str) -> None:
    assert ms(seconds) == text
