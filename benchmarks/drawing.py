"""Line charts as small SVG files: axes, ticks, lines or dots, a legend, and nothing else."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 64, 48, 36, 120
MARKED = 60
"""Most points of a line that are marked by a dot."""
COLOURS = ("#2563eb", "#dc2626", "#6b7280", "#059669")


class Line(NamedTuple):
    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


class Axis:
    """From values to pixels; logarithmic or from zero."""

    def __init__(self, values: Sequence[float], start: float, stop: float, *, log: bool) -> None:
        self.log, self.start, self.stop = log, start, stop
        if log:
            self.low, self.high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
            self.ticks = [10.0**e for e in range(self.low, self.high + 1)]
        else:
            top = max(values)
            step = 10 ** math.floor(math.log10(top))
            step = next(s for s in (step / 5, step / 2, step, 2 * step) if top / s <= 6)
            self.ticks = [step * i for i in range(math.ceil(top / step) + 1)]
            self.low, self.high = 0, self.ticks[-1]  # type: ignore[assignment]  # a float where it is not logarithmic

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def chart(
    path: Path, title: str, x_name: str, y_name: str, lines: Sequence[Line], *, log: bool = False, logx: bool = False
) -> None:
    """Write a chart; `log` makes both axes logarithmic, `logx` the horizontal one."""
    write(path, HEIGHT, picture(title, x_name, y_name, lines, log=log, logx=logx))


def stack(path: Path, pictures: Sequence[Sequence[str]]) -> None:
    """Write pictures below each other."""
    parts = [
        part
        for i, lines in enumerate(pictures)
        for part in (f'<g transform="translate(0 {i * HEIGHT})">', *lines, "</g>")
    ]
    write(path, HEIGHT * len(pictures), parts)


def write(path: Path, height: int, parts: Sequence[str]) -> None:
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
    path.write_text("\n".join([start + 'font-size="12">', *parts, "</svg>", ""]))


def picture(
    title: str, x_name: str, y_name: str, lines: Sequence[Line], *, log: bool = False, logx: bool = False
) -> list[str]:
    """A chart's parts, without what makes a file of them."""
    x = Axis([v for line in lines for v in line.x], LEFT, WIDTH - RIGHT, log=log or logx)
    y = Axis([v for line in lines for v in line.y], HEIGHT - BOTTOM, TOP, log=log)
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{title}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{x_name}</text>',
        f'<text x="14" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 14 {HEIGHT / 2})">{y_name}</text>',
    ]
    for tick in x.ticks:
        parts += [rule(x(tick), TOP, x(tick), HEIGHT - BOTTOM), text(x(tick), HEIGHT - BOTTOM + 16, tick, "middle")]
    for tick in y.ticks:
        parts += [rule(LEFT, y(tick), WIDTH - RIGHT, y(tick)), text(LEFT - 6, y(tick) + 4, tick, "end")]
    for i, (line, colour) in enumerate(zip(lines, COLOURS, strict=False)):
        points = [(x(a), y(b)) for a, b in zip(line.x, line.y, strict=True)]
        if not line.dots:
            path_ = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(f'<polyline points="{path_}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if line.dots or 2 < len(points) <= MARKED:
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{TOP + 18 * i + 10}" fill="{colour}">{line.name}</text>')
    return parts


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e5e7eb"/>'


def text(x: float, y: float, value: float, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{value:,.6g}</text>'
