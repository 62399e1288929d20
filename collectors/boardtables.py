"""Tables of the planners' pages, money as text, and rows as CSV."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from collectors import moneycharts
from collectors.economics import PriceTable
from collectors.factory import Factory, money
from collectors.page import table
from collectors.study import Swept
from collectors.text import duration_text, number, share

Study = dict[str, Any]


def usd(value: float | None) -> str:
    """Dollars to three significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    sign, size = "−" if value < 0 else "", abs(value)
    if size >= 1000:
        return f"{sign}${large(size).replace('G', 'B')}"
    return f"{sign}${size:.2f}" if size >= 0.1 or size == 0 else f"{sign}${size:.3g}"


def large(value: float | None) -> str:
    """Three significant digits with k, M, G, T and beyond: P and E."""
    for limit, unit in ((1e18, "E"), (1e15, "P")):
        if value is not None and abs(value) >= limit * 0.9995:
            return f"{value / limit:#.3g}".rstrip(".") + unit if abs(value) < 1e21 else f"{value:.2e}"
    return number(value)


def between(found: Any, show: Callable[[float], str] = number) -> str:
    """A figure with its interval."""
    if found is None or not math.isfinite(found.value):
        return "–"
    return f"{show(found.value)} ({show(found.low)} – {show(found.high)})"


def about(found: Any, show: Callable[[float], str] = number) -> str:
    """A figure with half its interval as a share of it."""
    if found is None or not math.isfinite(found.value):
        return "–"
    wide = found.width
    return show(found.value) + (f" ± {wide:.0%}" if math.isfinite(wide) and wide >= 0.005 else "")


def curves_table(rows: Study) -> str:
    """Power law and scalability law of each series, or why there is none."""
    lines = []
    for name, row in rows.items():
        law, grown = row["tokens_power"], row["saturation"]
        power = law if isinstance(law, str) else between(law["exponent"], _two)
        above = "–" if isinstance(law, str) else f"{law['p_superlinear']:.2g}"
        usl, peak, meet = "–", "–", "–"
        if not isinstance(grown, str):
            fit = grown["usl"]
            usl = grown["no_usl"] if fit is None else f"σ {fit.contention.value:.3g}, κ {fit.coherency.value:.2g}"
            peak = "–" if fit is None else fit.note if fit.best is None else between(fit.best)
            meet = "–" if grown["bounds"] is None else number(grown["bounds"].knee)
        lines.append([name, power, above, usl, peak, meet, row["ended"]])
    head = ["", "tokens/s ∝ N^β", "p (β > 1 by chance)", "scalability law", "N*", "(R0+Z)/D", "the series ended"]
    return table(head, lines, words=True)


def causes(rows: Study) -> str:
    """A sentence for each series."""
    lines = []
    for name, row in rows.items():
        grown = row["saturation"]
        lines.append(
            [name, grown, "–"] if isinstance(grown, str) else [name, grown["says"], grown["cause"].replace("kv", "KV")]
        )
    return table(["", "what happens", "cause"], lines, words=True)


TAILS = {"power law and lognormal fit alike": "either", "power law": "power law", "lognormal": "lognormal"}


def chains_table(rows: Study) -> str:
    """Growth along the chain and sub-agents of each series."""
    lines = []
    for name, row in rows.items():
        chain, kin = row["chain"], row["family"]
        if isinstance(chain, str):
            cells = [chain, "–", "–", "–", "–"]
        else:
            over = "–" if chain["overtakes"] is None else number(chain["overtakes"])
            grown = ("–" if chain[key] is None else between(chain[key].exponent, _two) for key in ("total", "fresh"))
            cells = [about(chain["base"]), about(chain["per_turn"]), over, *grown]
        agents = kin if isinstance(kin, str) else between(kin["measured"], _two)
        theory = "–" if isinstance(kin, str) or kin["theory"] is None else f"{kin['theory']:.2f}"
        tail = row["tail"]
        heavy = "–" if isinstance(tail, str) else f"{TAILS[tail['verdict']]}, α {tail['alpha'].value:.1f}"
        lines.append([name, *cells, agents, theory, heavy])
    head = ["", "first prompt s", "per turn d", "d overtakes s at", "input ∝ calls^γ", "fresh ∝ calls^γ",
            "agents per session", "by theory", "tail of tokens"]  # fmt: skip
    return table(head, lines)


def _two(value: float) -> str:
    return f"{value:.2f}"


def people_table(people: Study) -> str:
    """Per intent, each archetype."""
    lines = []
    for name, row in people.items():
        x = row["per_intent"]
        plain = (about(x[key]) for key in ("calls", "tokens", "agents", "calls in flight", "seconds"))
        lines.append([name, f"{row['sessions']:,}", *plain, about(x["cost"], usd)])
    head = ["per intent", "sessions", "calls", "tokens", "agents", "calls in flight", "seconds", "cost"]
    return table(head, lines)


def costs_table(rows: Study) -> str:
    """USD of a finished task by model, and on the cluster itself."""
    models = list(next(iter(rows.values()))["costs"])
    lines = []
    for name, row in rows.items():
        own = row["own_cost"]
        made = usd(sum(own.values())) if own else "–"
        lines.append([name, *(about(row["costs"][model]["task"], usd) for model in models), made])
    return table(["per finished task", *models, "to make, on this cluster"], lines)


def tiers_table(found: Study) -> str:
    """The best point of each tier for each series."""
    lines = []
    for name, rows in found["best"].items():
        best = max((row["money"]["margin"] for row in rows), default=None)
        for row in rows:
            m = row["money"]
            mark = " ★" if m["margin"] == best else ""
            lines.append(
                [f"{name}{mark}", row["tier"], number(row["value"]), f"{m['speed']:.0f}", number(m["tokens_per_gpu"]),
                 number(m["jobs_per_gpu_hour"]), usd(m["revenue"]), usd(m["cost"]), usd(m["margin"]),
                 usd(m["margin_per_megawatt_hour"]), usd(m["break_even"])]
            )  # fmt: skip
        if not rows:
            lines.append([name, "none is served", *["–"] * 9])
    head = ["", "tier", "best load", "tokens/s/user", "tokens/s/GPU", "jobs/h/GPU", "revenue /GPU-h", "cost /GPU-h",
            "margin /GPU-h", "margin /MW-h", "break-even $/M out"]  # fmt: skip
    return table(head, lines)


def money_table(swept: Swept, prices: PriceTable, factory: Factory) -> str:
    """Every operating point at the dearest tier it serves."""
    lines = []
    for name, points in swept.points.items():
        for point in points:
            tier = moneycharts.dearest(point, prices)
            price = prices.tier_price(tier) if tier != "none" else prices.tier_price(next(iter(prices.tiers)))
            m = money(point, factory, price)
            sold = [usd(m.revenue), usd(m.margin)] if tier != "none" else ["–", usd(-m.cost)]
            lines.append([name, number(point.value), tier, number(m.tokens_per_gpu), number(m.output_per_gpu),
                          f"{m.speed:.0f}", number(m.jobs_per_gpu_hour), number(m.jobs_per_user_hour),
                          usd(m.usd_per_million), usd(m.usd_per_million_fresh), *sold])  # fmt: skip
    head = ["", "load", "tier", "tokens/s/GPU", "output/s/GPU", "tokens/s/user", "jobs/h/GPU", "jobs/h/user",
            "$/M, all", "$/M, fresh", "revenue /GPU-h", "margin /GPU-h"]  # fmt: skip
    return table(head, lines)


def steps_table(swept: Swept, factory: Factory) -> str:
    """Every step of the sweep."""
    lines = []
    for name, points in swept.points.items():
        for p in points:
            lines.append(
                [name, number(p.value), about(p.tokens) + ("" if p.steady else " not steady"),
                 number(p.tokens_per_agent_hour), number(p.jobs_per_hour), number(p.in_flight),
                 "–" if p.little_gap is None else f"{p.little_gap:+.1%}", share(p.hit), share(p.resent),
                 duration_text(p.ttft_p95), share(p.error_rate), f"{p.attempts:.3g}", f"{p.warmup:.0f} s",
                 f"{len(p.runs)}"]
            )  # fmt: skip
    head = ["", "load", "tokens/s", "per agent-hour", "jobs/h", "in flight", "Little's law gap", "cache hit",
            "resent", "TTFT p95", "errors", "attempts", "warm-up", "runs"]  # fmt: skip
    return table(head, lines)


def assumptions_table(factory: Factory, prices: PriceTable) -> str:
    """What the money rests on."""
    rows = [[name.replace("_", " "), "–" if value is None else f"{value:g}", "factory"] for name, value in
            msgspec.to_builtins(factory).items()]  # fmt: skip
    rows += [
        [f"tier {name}", f"${t.price:g}/M output, ≥ {t.speed:g} tokens/s/user, ≤ {t.context:,} tokens", t.source]
        for name, t in prices.tiers.items()
    ]
    rows.append(["tier input", f"{prices.tiering.input_share:g} of the price of output, cached "
                 f"{prices.tiering.cached_share:g}", "ours, after list prices"])  # fmt: skip
    rows.append(["price table", f"collected {prices.collected}", "prices.toml; any file of its form replaces it"])
    return table(["", "value", "source"], rows, words=True)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with every column that any of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
