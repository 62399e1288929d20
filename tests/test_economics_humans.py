"""Human against machine on made-up sessions of a known multiple, and a day of both."""

import numpy as np
import pytest
from pytest import approx

from collectors.economics import Price, rates
from collectors.humans import crossover, day, joined, per_intent, session_table
from collectors.load import from_records
from collectors.records import Call, Session
from collectors.steady import CannotSay


def sessions(archetype: str, first: int, sizes: list[int], calls: int, seconds: float, outcome: str = "done") -> list:
    """Sessions whose calls are side by side, each of a tenth of the session."""
    rows: list = []
    for i, size in enumerate(sizes):
        number = first + i
        for step in range(calls):
            at = 0.1 * seconds
            rows.append(
                Call(number, "", archetype, step, 0, 0.0, 0.0, 0.1, 0.1, at, at, finish_reason="stop",
                     input_tokens=size, output_tokens=0)
            )  # fmt: skip
        rows.append(
            Session(number, "", archetype, 0.0, 0.0, seconds, outcome, 1, calls, calls, 0, 0, 0, size * calls, 0, 0, 0,
                    0, 1.0, 0.0, 0.0, 0.0)
        )  # fmt: skip
    return rows


def made(rng: np.random.Generator) -> list:
    chat, coder = (rng.lognormal(7, 0.4, 80).astype(int).tolist() for _ in range(2))
    return sessions("chat", 0, chat, 1, 100.0) + sessions("coder", 1_000, [20 * n for n in coder], 5, 200.0)


def test_a_machine_is_as_many_people_as_it_asks_for_in_nine_of_ten_seeds() -> None:
    held = 0
    for rng in np.random.default_rng(0).spawn(200):
        run = from_records({}, made(rng))
        times = per_intent(session_table(run.calls, run.sessions), rng, resamples=200)["coder"]["times"]["tokens"]
        held += times.low <= 100.0 <= times.high

    assert held >= 180


def test_every_measure_has_its_multiple() -> None:
    rng = np.random.default_rng(1)
    run = from_records({}, made(rng))
    found = per_intent(session_table(run.calls, run.sessions), rng, rates(Price(1.0, 0.1, 5.0)))
    times, chat = found["coder"]["times"], found["chat"]

    assert times["calls"].value == approx(5.0)
    assert times["seconds"].value == approx(2.0)
    assert times["calls in flight"].value == approx(5.0)
    assert times["cost"].value == approx(times["input_fresh"].value)
    assert chat["times"]["tokens"].value == 1.0
    assert chat["per_intent"]["cost"].value == approx(chat["per_intent"]["tokens"].value / 1e6)
    assert np.isnan(times["output_visible"].value)  # neither answered anything


def test_sessions_that_were_cut_off_do_not_count() -> None:
    rows = made(np.random.default_rng(2)) + sessions("coder", 5_000, [10**9] * 5, 1, 1.0, outcome="unfinished")
    run = from_records({}, rows)

    assert session_table(run.calls, run.sessions).total.max() < 10**9


def test_too_few_sessions_are_not_compared() -> None:
    run = from_records({}, sessions("chat", 0, [100] * 4, 1, 1.0))

    with pytest.raises(CannotSay, match="5 sessions"):
        per_intent(session_table(run.calls, run.sessions), np.random.default_rng(0))
    with pytest.raises(CannotSay, match="no session"):
        joined([session_table(*from_records({}, [])[1:4:2])])


def test_machines_exceed_people_from_one_in_a_hundred_and_one() -> None:
    share = crossover(100.0)

    assert share == approx(1 / 101)
    assert share * 100 == approx((1 - share) * 1)


def test_over_a_day_the_wave_of_people_keeps_its_mean_and_its_peak() -> None:
    found = day(people=100.0, agents=50.0, peak_to_mean=2.5)
    wave = found["people"][:-1]

    assert wave.mean() == approx(100.0, rel=1e-6)
    assert wave.max() == approx(250.0, rel=1e-6)
    assert found["hours"][np.argmax(found["people"])] == 14.0
    both = found["people"] + found["agents"]
    assert found["peak_to_mean"]["both"] == approx(both.max() / both[:-1].mean(), rel=1e-6)


@pytest.mark.parametrize(("people", "agents", "peak"), [(-1, 1, 2), (0, 0, 2), (1, 1, 0.5)])
def test_a_day_without_sense_is_refused(people: float, agents: float, peak: float) -> None:
    with pytest.raises(ValueError, match="must"):
        day(people, agents, peak)
