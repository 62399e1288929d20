"""Rows measured on silicon that the fit of the presets did not see, predicted as its own rows are.

They are those of Llama-3.1-70B (fp8) with vLLM, 1,024 input and 8,192 output tokens, in NVIDIA aiconfigurator's sample
of measured rows: github.com/ai-dynamo/aiconfigurator (Apache-2.0), `src/aiconfigurator/systems/silicon_sample.csv` at
commit ed133e9; source_file 2026-04-06.csv, measured 2025-10-29, without a version of vLLM. Its columns
silicon_concurrency, silicon_ttft_ms and silicon_tpot_ms are here, rounded; whether the times are means or medians
it does not say.
"""

from textwrap import fill

import numpy as np
from numpy.typing import NDArray

from benchmarks.page import table
from benchmarks.silicon import EACH, predicted, spread

HELD_OUT = {  # preset: users, TTFT ms, TPOT ms
    "llama-3.1-70b-2xh100": (
        (4, 124.02, 17.971), (8, 155.35, 19.194), (16, 191.27, 22.130), (32, 288.95, 27.694), (64, 30_787.09, 41.682),
    ),
    "llama-3.1-70b-4xh100": (
        (4, 85.91, 11.995), (8, 99.32, 12.656), (16, 127.91, 14.095), (32, 171.73, 18.386), (64, 261.44, 23.407),
    ),
    "llama-3.1-70b-8xh100": (
        (4, 73.08, 9.195), (8, 82.27, 9.815), (16, 93.18, 11.584), (32, 119.10, 12.865), (64, 176.20, 16.489),
    ),
    "llama-3.1-70b-4xh200": (
        (4, 89.58, 9.958), (8, 111.28, 10.306), (16, 135.84, 11.290), (32, 177.95, 15.835), (64, 256.79, 18.464),
    ),
}  # fmt: skip
LOADS = [(name, users, 1_024, 8_192) for name, rows in HELD_OUT.items() for users, *_ in rows]
MEASURED = np.array([times for rows in HELD_OUT.values() for _, *times in rows])
AIM = 0.10
"""The median error that the presets are to keep on such rows, of TTFT and of TPOT."""


def heldout() -> str:
    by_each = {each: predicted(LOADS, each) for each in EACH}
    said = by_each[EACH[1]]
    errors = said / MEASURED - 1
    rows = [
        (f"`{name}`", users, f"{m[0]:,.0f}", f"{s[0]:,.0f}", f"{e[0]:+.1%}",
         f"{m[1]:.2f}", f"{s[1]:.2f}", f"{e[1]:+.1%}")
        for (name, users, *_), m, s, e in zip(LOADS, MEASURED, said, errors, strict=True)
    ]  # fmt: skip
    head = ("preset", "users", "TTFT ms", "predicted", "error", "TPOT ms", "predicted", "error")
    return f"""## Rows that the fit did not see

The presets were fitted to rows of 1,024 output tokens. The same sample has five rows for each of them with 8,192 output
tokens (1,024 input; Llama-3.1-70B fp8, vLLM of a version not given; ai-dynamo/aiconfigurator, Apache-2.0,
`src/aiconfigurator/systems/silicon_sample.csv` at commit ed133e9). Predicted like the anchors, {EACH[1]} requests of
each user:

{table(head, rows)}

The aim is a median error of at most {100 * AIM:.0f} %:

{by_preset(np.abs(errors))}

{fill(apart(errors), 120, break_long_words=False, break_on_hyphens=False)}

The requests of each user were chosen on the anchors, not on these rows. TTFT hangs on them here too, TPOT does not:

{spread(by_each, MEASURED)}

Of the sample's other rows of this length with vLLM, those of two and eight H200 have no preset, and the preset of one
H200 is called rough by itself: they are not predicted here.
"""


def by_preset(off: NDArray[np.float64]) -> str:
    """A table of the median and mean of those errors, of each preset and of all rows."""
    of = np.array([name for name, *_ in LOADS])
    rows, parts = [], {f"`{name}`": off[of == name] for name in HELD_OUT}
    for name, part in (*parts.items(), ("all", off)):
        median, mean = np.median(part, axis=0), part.mean(axis=0)
        said = (f"{x:.1%}" for x in (median[0], mean[0], median[1], mean[1]))
        rows.append((name, *said, "yes" if (median <= AIM).all() else "**no**"))
    return table(("rows", "TTFT, median error", "mean", "TPOT, median error", "mean", "medians within the aim"), rows)


def apart(errors: NDArray[np.float64]) -> str:
    """Where measured and predicted do not agree."""
    outside = [
        f"{what} of `{name}` at {users} users by {error:+.1%}"
        for (name, users, *_), pair in zip(LOADS, errors, strict=True)
        for what, error in zip(("TTFT", "TPOT"), pair, strict=True)
        if abs(error) > AIM
    ]
    most = errors[[users == 64 for _, users, *_ in LOADS], 1].mean()
    return (
        f"Off by more than that, {len(outside)} of {errors.size} figures: {'; '.join(outside) or 'none'}. "
        f"{(errors[:, 1] > 0).sum()} of {len(errors)} TPOT are predicted too long, at 64 users by {most:.1%} in the "
        f"mean; {(errors[:, 0] < 0).sum()} of {len(errors)} TTFT are predicted too short. The fit itself reported for "
        "these rows mean errors of TTFT / TPOT of 3.3 / 4.1 % (TP2), 4.7 / 6.2 % (TP4), 3.1 / 5.7 % (TP8) and "
        "6.9 / 5.4 % (TP4 on H200)."
    )
