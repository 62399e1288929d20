"""A load profile as a page, to look at before anything is sent."""

from html import escape

import numpy as np

from agentload.spec import Spec
from collectors.page import page, plot, section
from loadprofiles import levels

BINS = 240


def chart(spec: Spec, duration: float) -> str:
    """The schedule that this spec and seed make: agents held, or sessions starting, over time."""
    closed = spec.profile.closed
    values = levels(spec.shape(), duration, np.random.default_rng([spec.seed, 1 << 32]), BINS)
    at = (np.arange(BINS) + 0.5) * (duration / BINS)
    figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "fill": "tozeroy",
                "line": {"color": "#2b6fd6", "width": 2, "shape": "hvh"},
                "x": at.round(6).tolist(),
                "y": values.round(6).tolist(),
                "hovertemplate": "%{x:.4g} s: %{y:.4g}<extra></extra>",
            }
        ],
        "layout": {
            "height": 360,
            "margin": {"l": 60, "r": 20, "t": 20, "b": 45},
            "xaxis": {"title": {"text": "seconds"}},
            "yaxis": {"title": {"text": "agents" if closed else "sessions per second"}, "rangemode": "tozero"},
        },
    }
    counted = ", ".join(f"{escape(name)} {start:g}–{stop or np.inf:g} s" for name, start, stop, _ in spec.windows())
    says = (
        f"Population: at most {values.max():.0f} agents, {values.mean():.3g} on average."
        if closed
        else f"Open loop: {round(values.sum() * duration / BINS):,} sessions, {values.mean():.3g} a second on average."
    )
    title = f"Load profile: {type(spec.profile).__name__.lower()}"
    return page(title, [f"<h1>{title}</h1>", section(says, counted, plot("schedule", 360))], {"schedule": figure})
