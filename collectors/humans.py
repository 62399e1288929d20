"""Human against machine: what a session of each archetype asks for, beside a person who chats.

A session is its root agent with all its sub-agents; only those that came to their own end count, since nobody can say
what the others would have bought. An intent is one thing that a person asked for and got.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from collectors.load import Array, Columns
from collectors.metrics import ACCOUNTS, accounts, agents_calls, e2e, ended, kinds
from collectors.steady import CannotSay, resampled

BASELINE = "chat"
RESAMPLES = 1_000
FEWEST = 5
"""Sessions below which an archetype is not compared."""


class SessionTable(Struct, frozen=True):
    """One row for each session that came to its own end; columns are arrays. Tokens, USD and seconds."""

    archetype: Array
    done: Array  # 1.0 where its outcome was "done"
    intents: Array
    seconds: Array  # from start to end
    calls: Array  # attempts included, sub-agents' too
    agents: Array  # the root and its sub-agents
    call_seconds: Array  # of all its calls, side by side ones added up
    tokens: dict[str, Array]  # by account

    def __len__(self) -> int:
        return len(self.archetype)

    @property
    def total(self) -> Array:
        """Tokens of all accounts."""
        whole: Array = np.sum(list(self.tokens.values()), axis=0)
        return whole

    def where(self, keep: Array) -> "SessionTable":
        """The rows for which `keep` holds."""
        columns = {name: getattr(self, name)[keep] for name in _COLUMNS}
        return SessionTable(**columns, tokens={name: part[keep] for name, part in self.tokens.items()})


_COLUMNS = ("archetype", "done", "intents", "seconds", "calls", "agents", "call_seconds")


def session_table(calls: Columns, sessions: Columns) -> SessionTable:
    """Records as one row per ended session; the tokens of every call that such a session caused are in it."""
    root = ended(sessions)
    order = np.argsort(root.session, kind="stable")
    ids = root.session[order]
    mine = agents_calls(calls)
    mine = mine.where(np.isin(mine.session, ids))
    code = np.searchsorted(ids, mine.session)

    def total(values: Array | None) -> Array:
        return np.bincount(code, values, minlength=len(ids)).astype(float)

    every = sessions.session[np.isin(sessions.session, ids)]
    return SessionTable(
        archetype=root.archetype[order],
        done=(root.outcome[order] == "done").astype(float),
        intents=root.intents[order].astype(float),
        seconds=(root.end - root.start)[order],
        calls=total(None),
        agents=np.bincount(np.searchsorted(ids, every), minlength=len(ids)).astype(float),
        call_seconds=total(e2e(mine)),
        tokens={name: total(part.astype(float)) for name, part in accounts(mine).items()},
    )


def joined(tables: list[SessionTable]) -> SessionTable:
    """Several tables as one. CannotSay where all are empty."""
    if not sum(len(table) for table in tables):
        raise CannotSay("no session came to its own end; run longer, or count sessions instead of seconds")
    columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMNS}
    return SessionTable(
        **columns, tokens={name: np.concatenate([table.tokens[name] for table in tables]) for name in ACCOUNTS}
    )


# What an intent costs, and how many people a machine is.


def measures(table: SessionTable, usd_per_token: Mapping[str, float] | None = None) -> dict[str, tuple[Array, Array]]:
    """What is compared, each a ratio of two columns: per intent, or, for concurrency, per second of a session.

    `usd_per_token` by account (`economics.rates`) adds the cost.
    """
    intents = table.intents
    found = {
        "calls": (table.calls, intents),
        "tokens": (table.total, intents),
        **{name: (table.tokens[name], intents) for name in ACCOUNTS},
        "seconds": (table.seconds, intents),
        "agents": (table.agents, np.ones(len(table))),
        "calls in flight": (table.call_seconds, table.seconds),
        "tokens per hour": (table.total * 3600, table.seconds),
    }
    if usd_per_token is not None:
        found["cost"] = (np.sum([table.tokens[name] * usd_per_token[name] for name in ACCOUNTS], axis=0), intents)
    return found


def per_intent(
    table: SessionTable,
    rng: np.random.Generator,
    usd_per_token: Mapping[str, float] | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, dict[str, Any]]:
    """Of each archetype every measure, and its multiple of the baseline's, with bootstrap intervals over sessions.

    Ratio of sums, so that long sessions count as much as they cause. Archetypes with fewer than 5 sessions that ended
    are left out; without the baseline there are no multiples. CannotSay where nothing is left.
    """
    drawn: dict[str, dict[str, tuple[float, Array]]] = {}
    counts: dict[str, int] = {}
    for name in kinds(table.archetype):
        mine = table.where(table.archetype == name)
        counts[name] = len(mine)
        if len(mine) >= FEWEST:
            weights = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=resamples).astype(float)
            drawn[name] = {key: _resampled(*pair, weights) for key, pair in measures(mine, usd_per_token).items()}
    if not drawn:
        raise CannotSay(f"no archetype has {FEWEST} sessions that came to their own end; run longer")
    base, rows = drawn.get(BASELINE), {}
    for name, figures in drawn.items():
        rows[name] = {
            "sessions": counts[name],
            "per_intent": {k: resampled(v, d, counts[name]) for k, (v, d) in figures.items()},
        }
        if base is not None:
            fewest = min(counts[name], counts[BASELINE])
            with np.errstate(divide="ignore", invalid="ignore"):
                rows[name]["times"] = {
                    key: resampled(value / base[key][0] if base[key][0] else np.nan, draws / base[key][1], fewest)
                    for key, (value, draws) in figures.items()
                }
    return rows


def _resampled(part: Array, whole: Array, weights: Array) -> tuple[float, Array]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(part.sum(), whole.sum())), (weights @ part) / (weights @ whole)


def crossover(times: float) -> float:
    """The share of agents in a mix from which they ask for more than the people: 1 / (1 + A), where one agent asks for
    A times what one person does (per intent, or per hour: the share is then of intents, or of those present).
    """
    if not times > 0:
        raise ValueError(f"an agent's multiple of a person's demand must be > 0, got {times:g}")
    return 1 / (1 + times)


# A day: people sleep, agents do not.

PEOPLE_PEAK_TO_MEAN = 2.0
"""Within the 1.9 to 3.0 of the production traces in alibaba/ServeGen @ f891d11 (their peak over their mean rate)."""


def day(
    people: float, agents: float, peak_to_mean: float = PEOPLE_PEAK_TO_MEAN, peak_hour: float = 14.0, points: int = 97
) -> dict[str, Any]:
    """Demand over 24 hours: of people, whose mean is `people`, a wave exp(κ cos)/I0(κ) with the given peak to mean at
    `peak_hour`; of agents, flat at `agents`. Units as given (tokens/s, calls/s).

    `peak_to_mean` of people, agents and both says how much a cluster must hold for its busiest hour.
    """
    if people < 0 or agents < 0 or people + agents == 0:
        raise ValueError(f"mean demand of people and agents must be >= 0 and not both 0, got {people:g} and {agents:g}")
    if not 1 <= peak_to_mean <= 8:
        raise ValueError(f"peak to mean must lie within 1 and 8, got {peak_to_mean:g}")
    kappa = _concentration(peak_to_mean)
    hours = np.linspace(0.0, 24.0, points)
    wave = np.exp(kappa * np.cos(2 * np.pi * (hours - peak_hour) / 24)) / np.i0(kappa)
    return {
        "hours": hours,
        "people": people * wave,
        "agents": np.full(points, agents),
        "peak_to_mean": {
            "people": peak_to_mean if people else None,
            "agents": 1.0 if agents else None,
            "both": (people * peak_to_mean + agents) / (people + agents),
        },
    }


def _concentration(peak_to_mean: float) -> float:
    """κ with exp(κ)/I0(κ) = peak to mean, by bisection."""
    low, high = 0.0, 500.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if np.exp(middle) / np.i0(middle) < peak_to_mean else (low, middle)
    return (low + high) / 2
