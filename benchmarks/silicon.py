"""The engine by itself: against rows measured on silicon, against one step at a time, and in a preemption storm."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from agentload.box.engine import Engine
from agentload.box.presets import DEFAULT, PRESETS, Preset
from agentload.box.request import DONE, Request
from benchmarks.drawing import Line, chart
from benchmarks.page import DOCS, table

ANCHORS = (  # Llama-3.1-70B fp8, vLLM, H100: TP, users, prompt, TTFT ms, TPOT ms (aiconfigurator 095f58a)
    (4, 4, 1_024, 81, 11.78), (4, 16, 1_024, 121, 13.19), (4, 64, 1_024, 256, 19.51),
    (4, 4, 8_192, 453, 13.27), (4, 16, 8_192, 732, 21.06), (4, 64, 8_192, 1_745, 53.49),
    (8, 4, 1_024, 70, 9.11), (8, 64, 1_024, 185, 15.45), (8, 4, 8_192, 301, 10.22), (8, 64, 8_192, 1_150, 34.48),
    (2, 64, 1_024, 415, 28.77), (2, 64, 8_192, 59_175, 52.41),
)  # fmt: skip
NAMES = {2: "llama-3.1-70b-2xh100", 4: "llama-3.1-70b-4xh100", 8: "llama-3.1-70b-8xh100"}
EACH = (6, 8, 10)
"""Requests that a user makes, which the rows do not say; the middle one is shown row by row."""


def closed_loop(preset: Preset, users: int, prompt: int, output: int, each: int, seed: int) -> tuple[float, float]:
    """Mean TTFT and TPOT in ms of users who ask again at once, lengths uniform in 0.8–1.0 of nominal, as in the fit."""
    rng = np.random.default_rng(seed)
    engine, now, left, times = Engine(preset, rng, 0.0, each=False), 0.0, users * each, []
    first: dict[Request, float] = {}

    def ask() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            sizes = [int(rng.integers(int(0.8 * most), most + 1)) for most in (prompt, output)]
            engine.submit(Request(*sizes, (), now), now)

    for _ in range(users):
        ask()
    while (ready := engine.ready()) is not None:
        step = engine.begin(max(now, ready), 256)
        now = step.end
        for request in engine.finish(step):
            first.setdefault(request, now)
            if request.state == DONE:
                asked: Any = request.tag
                times.append((first[request] - asked, (now - first[request]) / (request.output - 1)))
                ask()
    ttft, tpot = np.mean(times, axis=0)
    return 1e3 * float(ttft), 1e3 * float(tpot)


def predicted(loads: Iterable[tuple[str, int, int, int]], each: int) -> NDArray[np.float64]:
    """TTFT and TPOT in ms of each load (preset, users, prompt, output), medians of three seeds."""
    return np.array(
        [
            np.median([closed_loop(PRESETS[name], *load, each, seed) for seed in range(3)], axis=0)
            for name, *load in loads
        ]
    )


def spread(by_each: Mapping[int, NDArray[np.float64]], measured: NDArray[np.float64]) -> str:
    """A table of the errors by the number of requests that a user is taken to make."""
    rows = []
    for each, times in by_each.items():
        off = np.abs(times / measured - 1)
        rows.append((each, *(f"{x:.1%}" for x in (*np.median(off, axis=0), *off.max(axis=0)))))
    return table(("requests of each user", "TTFT, median error", "TPOT", "TTFT, worst", "TPOT, worst"), rows)


def anchors() -> str:
    measured = np.array([row[3:] for row in ANCHORS])
    loads = [(NAMES[tp], users, prompt, 1_024) for tp, users, prompt, *_ in ANCHORS]
    by_each = {each: predicted(loads, each) for each in EACH}
    said = by_each[EACH[1]]
    errors = said / measured - 1
    rows = [
        (f"TP{tp}", users, f"{prompt:,}", f"{ttft:,}", f"{s[0]:,.0f}", f"{e[0]:+.0%}",
         f"{tpot:.2f}", f"{s[1]:.2f}", f"{e[1]:+.1%}")
        for (tp, users, prompt, ttft, tpot), s, e in zip(ANCHORS, said, errors, strict=True)
    ]  # fmt: skip
    chart(
        DOCS / "validation-anchors.svg", "Predicted against measured (ms)", "measured", "predicted",
        [Line("TTFT", measured[:, 0].tolist(), said[:, 0].tolist(), dots=True),
         Line("TPOT", measured[:, 1].tolist(), said[:, 1].tolist(), dots=True), Line("equal", [5, 1e5], [5, 1e5])],
        log=True,
    )  # fmt: skip
    head = ("", "users", "prompt", "TTFT ms", "predicted", "error", "TPOT ms", "predicted", "error")
    return f"""## Against measured silicon

Llama-3.1-70B (fp8) with vLLM on H100, 1,024 output tokens: every anchor of the sample of measured rows in NVIDIA
aiconfigurator (commit 095f58a) that we have.

{table(head, rows)}

The mean TTFT of a closed loop depends on how much of the first burst is in the mean, and the rows do not say how many
requests each user made. So it is an assumption, chosen for the rows above because it comes closest; how much of TTFT
hangs on it is here, and that TPOT does not:

{spread(by_each, measured)}

**All twelve rows are in-sample**: rows like them fitted the parameters. Those that the fit did not see follow below.

![Predicted against measured](validation-anchors.svg)
"""


def stepping() -> str:
    """Closed form against one step at a time, on the same work."""
    rows = []
    for name, users, prompt, output in (("chat", 8, 800, 400), ("agents", 48, 12_000, 250), ("long", 4, 2_000, 3_000)):
        results = []
        for most in (1, 256):
            began = time.process_time()
            results.append((drive(users, prompt, output, most), time.process_time() - began))
        (one, slow), (many, fast) = results
        same = all(np.array_equal(a, b) for a, b in zip(one[0], many[0], strict=True))
        rows.append((name, f"{one[1]:,}", f"{one[2]:,}", "yes" if same and one[1:] == many[1:] else "NO",
                     f"{slow / one[1] * 1e6:.1f}", f"{fast / many[1] * 1e6:.2f}", f"{slow / fast:.1f}×"))  # fmt: skip
    head = (
        "workload",
        "steps",
        "preemptions",
        "equal to the last bit",
        "µs of CPU a step",
        "taken together",
        "gain",
    )
    return f"""## Many steps at once

A stretch in which nobody arrives, ends, starts or runs out of blocks is one step of many: times are the running sum of
the same formula, the noise of each step is drawn from the same stream (σ = 0.05 here), and blocks are counted for all
requests together. So instants, evictions and counters are equal, not close; `tests/test_box_glide.py` holds that
against vLLM's loop written down plainly, over random arrivals, cancels, host memory and caches too small.

{table(head, rows)}
"""


def drive(users: int, prompt: int, output: int, most: int) -> tuple[list[list[float]], int, int]:
    """First and last tokens' instants of `users` who ask 20 times each; steps and preemptions."""
    rng = np.random.default_rng(0)
    engine, now, left = Engine(PRESETS[DEFAULT], rng, 0.05, each=False), 0.0, users * 20
    draws = np.random.default_rng(1)
    seen: list[list[float]] = []
    for _ in range(users):
        engine.submit(Request(int(draws.integers(1, prompt)), int(draws.integers(1, output)), ()), now)
    while (ready := engine.ready()) is not None:
        step = engine.begin(max(now, ready), most)
        now = step.end
        for request in engine.finish(step):
            seen.append([now, request.prompt, request.generated])
            if request.state == DONE and left > 0:
                left -= 1
                engine.submit(Request(int(draws.integers(1, prompt)), int(draws.integers(1, output)), ()), now)
    return seen, engine.counts.steps, engine.counts.preemptions


STORMS = {0: ("77", 0), 2: ("117", 24_320), 4: ("185, 196", 48_640)}
"""Shared blocks of 128: preemptions and prefix hits in tokens of a real vLLM 0.32.0 (CPU, 66 blocks, 32 seats, 2,048
tokens a step), by `benchmarks.storm`; the last was asked twice."""


def storm() -> str:
    """96 streams on a cache of 66 blocks, as on a real vLLM."""
    rows = []
    for shared, (preemptions, hits) in STORMS.items():
        made = [storm_of(shared, apart) for apart in (0.0, 0.002, 0.02)]
        rows.append((shared, preemptions, ", ".join(str(engine.counts.preemptions) for engine in made),
                     f"{hits:,}", f"{made[0].counts.hits:,}"))  # fmt: skip
    head = ("blocks shared by all prompts", "preemptions, vLLM", "the box", "prefix hits, vLLM", "the box")
    return f"""## A preemption storm

96 streams of 607 + 600 tokens on a cache of 66 blocks of 128 and 32 seats: a real vLLM 0.32.0 (CPU) and the box, asked
for the same prompts. Of the five blocks of a prompt none, two or four are those of all others. How often the box
preempts depends on how fast the streams come, which on a real server nobody knows to the step: given are 0, 2 and 20 ms
between two of them.

{table(head, rows)}

All 96 were answered every time, by both. An earlier count on vLLM, with chat prompts, was 192.
"""


def storm_of(shared: int, apart: float) -> Engine:
    """An engine that has answered all streams, which came that many seconds apart."""
    small = structs.replace(PRESETS[DEFAULT], block=128, seats=32, step_tokens=2_048, offset_ms=0.0)
    engine, now = Engine(small, np.random.default_rng(0), 0.05, 66 * 128), 0.0
    for i in range(96):
        own = range(1_000 + 100 * i, 1_000 + 100 * i + 9 - shared)
        engine.submit(Request(607, 600, [*range(1, shared + 1), *own]), apart * i)
    answered = 0
    while (ready := engine.ready()) is not None:
        step = engine.begin(max(now, ready))
        now = step.end
        answered += sum(request.state == DONE for request in engine.finish(step))
    assert answered == 96
    return engine
