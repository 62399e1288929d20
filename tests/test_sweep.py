"""A sweep in virtual time: its steps, its resumption, its page; and one against an endpoint that exists."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pytest import approx

from agentload import spec as specs
from agentload.box.serve import BoxProcess
from agentload.errors import BadInput
from agentload.spec import Spec
from agentload.sweep import Options, Sweep, check, finer, over, read, step_spec, sweep, values_of
from collectors.boards import write_sweep
from collectors.load import load_run
from collectors.points import measure, window_of
from tests.sweep_made import made_point


def spec(**fields: Any) -> Spec:
    """Short sessions of an agent and of a person, held."""
    plain: dict[str, Any] = {
        "duration": 60, "salt": 1, "scale": 0.2, "longest_wait": 2.0, "profile": {"type": "held", "agents": 8},
        "population": [{"archetype": "coder"}, {"archetype": "chat"}],
        "archetypes": {"coder": {"steps": 6.0, "task_tokens": 3_000.0}},
    }  # fmt: skip
    return specs.decode(plain | fields)


SMALL = Options(values=(1, 2, 4, 8), measure=60.0, fill=4.0, repeats=1, census=20, simulate=True)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, code = sweep(spec(), tmp_path_factory.mktemp("runs"), SMALL)
    assert code == 0
    return folder


def points(folder: Path) -> Any:
    return read(folder).points


def test_every_archetype_is_swept_through_every_value(swept: Path) -> None:
    found = [(point.series, point.value) for point in points(swept)]

    assert found == [(name, value) for name in ("coder", "chat") for value in (1, 2, 4, 8)]
    assert set(read(swept).ended) == set(read(swept).census) == {"coder", "chat"}


def test_a_step_measures_what_its_run_recorded(swept: Path) -> None:
    point = points(swept)[2]
    run = load_run(swept / point.runs[0])
    start, stop, _ = window_of(run)
    calls = run.calls.where((run.calls.end >= start) & (run.calls.end < stop))

    assert sum(point.accounts.values()) == approx((calls.input_tokens + calls.output_tokens).sum() / (stop - start))
    assert point.agents == approx(4.0, rel=0.01)
    assert point.tokens.value == approx(sum(point.accounts.values()))
    assert point.tokens.low < point.tokens.value < point.tokens.high
    assert abs(point.little_gap or 0.0) < 0.2
    assert 0.3 < sum(point.busy.values()) < 1.1 or point.in_flight < 1.5


def test_more_agents_ask_for_more(swept: Path) -> None:
    coder = [point.tokens.value for point in points(swept) if point.series == "coder"]

    assert coder == sorted(coder)
    assert coder[-1] > 3 * coder[0]


def test_a_finished_step_is_not_run_twice(swept: Path, tmp_path: Path) -> None:
    cut = msgspec.json.decode((swept / "sweep.json").read_bytes())
    cut["points"] = cut["points"][:5]
    cut["ended"] = {"coder": cut["ended"]["coder"]}
    (tmp_path / "sweep.json").write_bytes(msgspec.json.encode(cut))
    before = points(swept)
    lines: list[str] = []

    folder, code = sweep(spec(), tmp_path, Options(simulate=True), lines.append, resume=tmp_path)

    assert (folder, code) == (tmp_path, 0)
    assert len(lines) == 3
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3
    again = points(tmp_path)
    assert [p.value for p in again] == [p.value for p in before]
    assert [p.accounts for p in again] == [p.accounts for p in before]  # the same seeds


def test_a_sweep_whose_time_is_up_stops_between_steps_and_can_go_on(tmp_path: Path) -> None:
    lines: list[str] = []
    folder, code = sweep(spec(), tmp_path, msgspec.structs.replace(SMALL, seconds=0.0, census=0), lines.append)

    assert code == 0
    assert points(folder) == []
    assert all("the time is up" in line for line in lines)
    sweep(spec(), tmp_path, Options(simulate=True), resume=folder)
    assert len(points(folder)) == 8


def test_a_wide_interval_is_run_again_and_a_narrow_one_is_not(tmp_path: Path) -> None:
    wide = Options(values=(1, 2), measure=30.0, fill=1.0, repeats=3, precision=0.001, simulate=True)
    loose = msgspec.structs.replace(wide, precision=10.0)
    one = spec(population=[{"archetype": "coder"}])

    assert [len(p.runs) for p in points(sweep(one, tmp_path, wide)[0])] == [3, 3]
    assert all(len(p.runs) == 1 or not p.steady for p in points(sweep(one, tmp_path, loose)[0]))


def test_the_page_answers_its_four_questions(swept: Path) -> None:
    page = write_sweep(swept)
    html, factory = page.read_text(), (swept / "factory.html").read_text()
    study = json.loads((swept / "study.json").read_text())

    for question in ("How demand scales with agents", "Where it saturates, and why", "What a task costs",
                     "Which tier pays best", "SIMULATED CLUSTER", "Human against machine"):  # fmt: skip
        assert question in html
    assert "The best split of a megawatt" in factory
    assert set(study["series"]) == {"coder", "chat"}
    assert study["people"]["coder"]["times"]["tokens"]["value"] > 5
    assert study["best"]["coder"]
    assert (swept / "points.csv").read_text().count("\n") == 9
    assert "http" not in html.split("<script", 1)[0].replace("http-equiv", "")  # nothing is fetched


def test_sub_agents_and_chain_length_can_be_swept(tmp_path: Path) -> None:
    kin = {"coder": {"steps": 4.0, "child": "chat", "children": 1.0, "task_tokens": 3_400.0}}
    base = spec(population=[{"archetype": "coder"}], archetypes=kin)
    fan = Options(axis="fanout", values=(0, 0.5, 2), measure=60.0, fill=4.0, repeats=1, simulate=True)
    folder, _ = sweep(base, tmp_path, fan)
    agents = [point.agents_per_session for point in points(folder)]

    assert agents[0] == 1.0
    assert agents == [approx(1 + r, rel=0.25) for r in (0, 0.5, 2)]
    assert "agents per session" in write_sweep(folder).read_text()

    fresh = {
        "coder": kin["coder"] | {"children": 0.0, "task_tokens": 3_000.0}
    }  # no resumed ones: those are large alone
    alike = msgspec.structs.replace(base, archetypes=fresh)
    folder, _ = sweep(alike, tmp_path, msgspec.structs.replace(fan, axis="steps", values=(2, 8)))
    two, eight = points(folder)
    assert eight.tokens.value / eight.jobs_per_hour > 4 * two.tokens.value / two.jobs_per_hour  # context is resent
    assert "What a job takes" in write_sweep(folder).read_text()


def test_the_share_of_agents_among_people_can_be_swept(tmp_path: Path) -> None:
    options = Options(axis="share", values=(0.0, 0.5, 1.0), measure=60.0, repeats=1, simulate=True)
    folder, _ = sweep(spec(), tmp_path, options)
    tokens = [point.tokens.value for point in points(folder)]

    assert tokens == sorted(tokens)
    assert [point.series for point in points(folder)] == ["coder and chat"] * 3
    assert write_sweep(folder).exists()


def test_a_rate_of_sessions_can_be_swept(tmp_path: Path) -> None:
    options = Options(axis="rate", values=(0.1, 0.4), measure=100.0, repeats=1, simulate=True)
    folder, _ = sweep(spec(population=[{"archetype": "chat"}]), tmp_path, options)
    slow, fast = points(folder)

    assert fast.tokens.value > 2 * slow.tokens.value


def test_a_sweep_runs_against_an_endpoint(tmp_path: Path) -> None:
    quick = {"fixed": {"steps": 3.0, "task_tokens": 100.0, "output_tokens": 5.0, "turns": 1.0}}
    base = spec(population=[{"archetype": "fixed"}], archetypes=quick, scale=1.0)
    with BoxProcess(base.box) as url:
        there = msgspec.structs.replace(base, endpoint=msgspec.structs.replace(base.endpoint, url=url))
        quickly = Options(values=(1, 4), measure=3.0, repeats=1, census=2)
        folder, code = sweep(there, tmp_path, quickly)
        found = points(folder)
        if len(found) == 1:  # what else runs on this machine filled it: a series ends there, and says so
            assert read(folder).ended == {"fixed": f"this machine was the limit at 1: {found[0].limited[0]}"}
            more, _ = sweep(there, tmp_path, msgspec.structs.replace(quickly, values=(4, 8)))
            found += points(more)[:1]

    assert code == 0
    one, four = found
    assert four.tokens.value > one.tokens.value > 0
    assert one.simulated  # the box says what it is
    assert write_sweep(folder).exists()


# Decisions.


def test_values_double_and_agents_that_mostly_wait_are_quadrupled() -> None:
    idle = {"model": 0.02, "tool": 0.0, "wait": 0.98}

    assert values_of(Options(), []) == 1.0
    assert values_of(Options(), [made_point(4)]) == 8.0
    assert values_of(Options(), [made_point(4, time_share=idle)]) == 16.0
    assert values_of(Options(most=4), [made_point(4)]) is None
    assert values_of(Options(values=(1, 3)), [made_point(1)]) == 3
    assert values_of(Options(values=(1, 3)), [made_point(1), made_point(3)]) is None


def test_a_series_ends_on_collapse_saturation_or_this_machines_limit() -> None:
    rising = [made_point(1, 100), made_point(2, 200), made_point(4, 400)]

    assert over(Options(), rising) == ""
    assert "throughput fell to 40%" in over(Options(), [*rising, made_point(8, 160)])
    assert "30% of the calls" in over(Options(), [*rising, made_point(8, 420, error_rate=0.3)])
    assert over(Options(), [*rising, made_point(8, 410)]) == ""
    assert "added nothing" in over(Options(), [*rising, made_point(8, 410), made_point(16, 405)])
    assert over(Options(values=(1, 2, 4, 8, 16)), [*rising, made_point(8, 410), made_point(16, 405)]) == ""
    assert "this machine" in over(Options(), [*rising, made_point(8, 800, limited=("send lag",))])


def test_the_best_value_is_looked_at_more_closely() -> None:
    done = [made_point(n, x) for n, x in ((2, 200), (4, 400), (8, 800), (16, 700), (32, 600))]
    low = finer(Options(), done)
    high = finer(Options(), [*done, made_point(6, 600)])

    assert (low, high) == (6.0, 11.0)
    assert finer(Options(), [*done, made_point(6, 600), made_point(11, 790)]) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(values=(4,)), r"a sweep of one point \(4\) has no curve"),
        (Options(values=(4, 2)), "must rise"),
        (Options(values=(0, 2)), "whole numbers >= 1"),
        (Options(values=(1.5, 2)), "whole numbers >= 1"),
        (Options(axis="share"), "needs --values"),
        (Options(axis="share", values=(0.5, 1.5)), "within 0 and 1"),
        (Options(axis="fanout", values=(1, 2)), "starts no sub-agents"),
        (Options(measure=0.0), "--measure must be > 0"),
        (Options(start=8, most=4), "--most must be"),
        (Options(gpus=-1.0), "--gpus"),
    ],
)
def test_what_cannot_be_swept_gets_one_clear_line(options: Options, said: str) -> None:
    with pytest.raises(BadInput, match=said) as error:
        check(spec(population=[{"archetype": "chat"}, {"archetype": "support"}]), options)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_sweep_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no sweep\.json"):
        sweep(spec(), tmp_path, Options(), resume=tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(BadInput, match="cannot be read"):
        read(tmp_path)


def test_a_sweep_without_points_has_no_page(tmp_path: Path) -> None:
    empty = Sweep("agents", "agents", "", Options(), msgspec.convert({}, type=Sweep.__annotations__["cluster"]))
    (tmp_path / "sweep.json").write_bytes(msgspec.json.encode(empty))

    with pytest.raises(ValueError, match="holds no point"):
        write_sweep(tmp_path)


def test_runs_without_a_call_make_no_point(swept: Path) -> None:
    run = load_run(swept / points(swept)[0].runs[0])
    empty = run._replace(calls=run.calls.where(run.calls.end < 0))

    with pytest.raises(ValueError, match="made no call that counts"):
        measure([empty], ["empty"], "coder", 1.0)


def test_repeats_have_other_seeds_and_steps_the_same_spec_otherwise() -> None:
    base, options = spec(), Options(simulate=True)
    first, second = (step_spec(base, options, "coder", base.population[:1], 4, repeat) for repeat in (0, 1))

    assert first.seed != second.seed
    assert first.salt != second.salt
    assert first.profile == second.profile
    assert first.duration == second.duration == 1_800 * 8
