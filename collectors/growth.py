"""How demand grows along a chain, with sub-agents, and with retries: the closed forms, and their fits to records.

Tokens and model calls; a chain is one agent's calls in order. Fits raise `CannotSay` where the records are too few.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from collectors.curves import PowerLaw, power_law
from collectors.load import Array, Columns
from collectors.metrics import accounts, answered, roots
from collectors.steady import CannotSay, Estimate, resampled

RESAMPLES = 1_000


# Along the chain.


def chain_input(base: Array | float, per_turn: float, turns: Array | float) -> Array:
    """Input tokens of a whole chain that resends its history: sT + dT(T-1)/2, of order T².

    `base` s is the first prompt, `per_turn` d what each turn adds, both in tokens.
    """
    t = np.asarray(turns, float)
    total: Array = np.asarray(base) * t + per_turn * t * (t - 1) / 2
    return total


def chain_fresh(base: float, per_turn: float, turns: Array | float) -> Array:
    """What is left to compute of it under a prefix cache that forgets nothing: s + d(T-1), of order T."""
    fresh: Array = base + per_turn * (np.asarray(turns, float) - 1)
    return fresh


def overtakes(base: float, per_turn: float) -> float:
    """The turn from which the quadratic term is the larger: dT(T-1)/2 = sT at T = 2s/d + 1."""
    if not base > 0 or not per_turn > 0:
        raise ValueError(f"the first prompt and what a turn adds must be > 0 tokens, got {base:g} and {per_turn:g}")
    return 2 * base / per_turn + 1


class Chain(NamedTuple):
    """How the input of a chain grows."""

    base: Estimate  # s, tokens
    per_turn: Estimate  # d, tokens
    overtakes: float | None  # turns until the quadratic term is the larger; None where contexts do not grow
    total: PowerLaw | None  # input of a whole chain against its calls; None where all are of about one length
    fresh: PowerLaw | None  # the part of it that no cache served; None also where it served everything
    linear: float  # root mean square error of ln(input of a chain) under cT, with the best c
    quadratic: float  # under sT + dT(T-1)/2 with the s and d above
    compacted: float  # share of chains whose context shrank at least once
    chains: int


def chain_growth(calls: Columns, rng: np.random.Generator, resamples: int = RESAMPLES) -> Chain:
    """Fits of answered calls: s is the mean first prompt, d the mean step from one prompt of a chain to its next where
    it did not shrink (a compaction starts anew), and whole chains' input ∝ calls^γ. Intervals resample chains.

    CannotSay below 10 chains of 2 calls.
    """
    chains = Chains(answered(calls))
    several = chains.steps > 0
    if several.sum() < 10:
        raise CannotSay(f"{several.sum()} chains of two calls or more; growth along the chain needs 10")
    weights = rng.multinomial(int(several.sum()), np.full(several.sum(), 1 / several.sum()), size=resamples)
    per_turn = _ratio(chains.risen[several], chains.steps[several], weights)
    first = chains.first[np.isfinite(chains.first)]
    rows = min(resamples, 2_000_000 // len(first) + 1)
    base = Estimate(float(first.mean()), *_interval(rng.choice(first, size=(rows, len(first))).mean(axis=1)))

    def law(tokens: Array) -> PowerLaw | None:
        with suppress(CannotSay):
            return power_law(chains.count, tokens, rng, resamples)
        return None

    error = np.log(chains.total / chains.count)
    own = np.where(np.isfinite(chains.first), chains.first, base.value)
    bent = np.log(chains.total / chain_input(own, max(per_turn.value, 0.0), chains.count))
    return Chain(
        base=base,
        per_turn=per_turn,
        overtakes=overtakes(base.value, per_turn.value) if per_turn.value > 0 else None,
        total=law(chains.total),
        fresh=law(chains.fresh),
        linear=float(error.std()),
        quadratic=float(np.sqrt((bent**2).mean())),
        compacted=float((chains.shrunk > 0).mean()),
        chains=len(chains.count),
    )


class Chains:
    """Sums over each chain (session and agent) of answered calls; arrays with one item per chain."""

    def __init__(self, calls: Columns) -> None:
        words = {word: i for i, word in enumerate(sorted(set(calls.agent.tolist())))}
        agent = np.fromiter((words[word] for word in calls.agent.tolist()), np.int64, len(calls))
        _, which = np.unique(calls.session * max(len(words), 1) + agent, return_inverse=True)
        order = np.lexsort((calls.step, which))
        which, step, x = which[order], calls.step[order], calls.input_tokens[order].astype(float)
        size = int(which.max(initial=-1)) + 1
        rise = np.diff(x)
        next_one = (which[1:] == which[:-1]) & (step[1:] == step[:-1] + 1)
        grew, behind = next_one & (rise >= 0), which[1:]
        self.count = np.bincount(which, minlength=size).astype(float)
        self.total = np.bincount(which, x, size)
        self.fresh = np.bincount(which, accounts(calls)["input_fresh"][order].astype(float), size)
        self.risen = np.bincount(behind[grew], rise[grew], size)  # tokens, over those of its
        self.steps = np.bincount(behind[grew], minlength=size).astype(float)  # steps that did not shrink
        self.shrunk = np.bincount(behind[next_one & (rise < 0)], minlength=size)
        self.first = np.full(size, np.nan)
        self.first[which[step == 0]] = x[step == 0]


def by_turn(calls: Columns, most: int = 300) -> dict[str, Array]:
    """Mean input of a chain up to each turn, in tokens: `resent` what was sent, `fresh` what no cache served; with how
    many `chains` got there. Up to `most` turns, as far as five chains went. The increments are means over those who got
    so far, so that the curve does not bend where short chains end.
    """
    ok = answered(calls)
    chains = np.bincount(ok.step, minlength=1)
    far = int(np.argmax(np.append(chains, 0) < 5))
    far = min(far, most)
    inside = ok.where(ok.step < far)
    parts = {"resent": inside.input_tokens, "fresh": accounts(inside)["input_fresh"]}
    sums = {name: np.cumsum(np.bincount(inside.step, part, far)[:far] / chains[:far]) for name, part in parts.items()}
    return {"turn": np.arange(1, far + 1), "chains": chains[:far], **sums}


def _interval(values: Array) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


# Sub-agents: a branching process (Galton and Watson 1875; Harris 1963, The Theory of Branching Processes).


def progeny(mean: float, depth: int | None = None) -> float:
    """Agents per session, its root included, where each starts `mean` R others: 1/(1-R), or to a depth D
    (R^(D+1) - 1)/(R - 1). ValueError for R >= 1 without a depth: the expectation is infinite.
    """
    if not mean >= 0:
        raise ValueError(f"R must be >= 0 sub-agents per agent, got {mean:g}")
    if depth is None:
        if mean >= 1:
            raise ValueError(f"R = {mean:g} without a depth has no finite expectation; give a depth, or R below 1")
        return 1 / (1 - mean)
    if depth < 0:
        raise ValueError(f"depth must be >= 0, got {depth}")
    return float(sum(mean**level for level in range(depth + 1)))


def progeny_variance(mean: float, variance: float) -> float:
    """Variance of the total progeny, σ²/(1-R)³ for offspring of mean R < 1 and variance σ² (Harris 1963)."""
    if not 0 <= mean < 1 or not variance >= 0:
        raise ValueError(f"R must be within [0, 1) and the variance >= 0, got {mean:g} and {variance:g}")
    return variance / (1 - mean) ** 3


def extinction(mean: float, shares: Array | None = None) -> float:
    """The chance that a family of sub-agents dies out: the smallest root of q = G(q), found from below.

    G is the generating function of offspring, Poisson of mean R, or of the given `shares` of 0, 1, 2, … children.
    """
    if not mean >= 0:
        raise ValueError(f"R must be >= 0 sub-agents per agent, got {mean:g}")
    if shares is not None:
        shares = np.asarray(shares, float) / np.sum(shares)
        mean = float(shares @ np.arange(len(shares)))
    if mean < 1 or (mean == 1 and (shares is None or shares[0] > 0)):
        return 1.0
    q = 0.0
    for _ in range(10_000):
        following = (
            float(np.exp(mean * (q - 1))) if shares is None else float(np.polynomial.polynomial.polyval(q, shares))
        )
        if abs(following - q) < 1e-13:
            break
        q = following
    return q


def amplified(mean: float, child_share: float, depth: int | None = None) -> float:
    """Tokens of a session over its root's alone, where a sub-agent takes `child_share` of what its root takes."""
    if not child_share >= 0:
        raise ValueError(f"a sub-agent's share of its root's tokens must be >= 0, got {child_share:g}")
    return 1 + (progeny(mean, depth) - 1) * child_share


class Family(NamedTuple):
    """Sub-agents as they were started, beside theory."""

    mean: Estimate  # R: children per agent, all generations together
    generations: tuple[float, ...]  # children per agent of the root, of its children, …
    measured: Estimate  # agents per session
    theory: float | None  # progeny to the measured depth if every generation had the root's R
    extinct: float  # chance that such a family ends, without a limit of depth, for the measured shares of children
    child_share: float | None  # tokens of a sub-agent over those of a root
    tokens: Estimate  # tokens of a session over those of its root
    sessions: int


def family(calls: Columns, sessions: Columns, rng: np.random.Generator, resamples: int = RESAMPLES) -> Family:
    """The branching of the recorded sessions. Intervals resample sessions. CannotSay below 10 sessions."""
    root = roots(sessions)
    ids = np.unique(root.session)
    if len(ids) < 10:
        raise CannotSay(f"{len(ids)} sessions say nothing of how sub-agents branch; it takes 10")
    mine = sessions.where(np.isin(sessions.session, ids))
    code = np.searchsorted(ids, mine.session)
    agents, children = np.bincount(code, minlength=len(ids)), np.bincount(code, mine.children, len(ids))
    size = (mine.input_tokens + mine.output_tokens).astype(float)
    is_root = mine.agent == ""
    own = np.bincount(code[is_root], size[is_root], len(ids))
    whole = np.bincount(code, size, len(ids))
    levels = np.fromiter((path.count(".") + 1 if path else 0 for path in mine.agent.tolist()), np.int64, len(mine))
    generations = tuple(
        float(mine.children[levels == level].mean())
        for level in range(int(levels.max()) + 1)
        if (levels == level).any()
    )
    w = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=resamples)
    offspring = np.bincount(mine.children)
    below = size[~is_root]
    return Family(
        mean=_ratio(children, agents, w),
        generations=generations,
        measured=_ratio(agents, np.ones(len(ids)), w),
        theory=progeny(generations[0], len(generations) - 1),
        extinct=extinction(float(mine.children.mean()), offspring),
        child_share=float(below.mean() / own.mean()) if len(below) and own.mean() else None,
        tokens=_ratio(whole, own, w),
        sessions=len(ids),
    )


def _ratio(part: Array, whole: Array, weights: Array) -> Estimate:
    """A ratio of sums, with its interval from resampled weights."""
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (weights @ part) / (weights @ whole)
        value = float(np.sum(part) / np.sum(whole)) if np.sum(whole) else float("nan")
    return resampled(value, drawn, len(part))


# Retries.


def retry_amplification(failure: float, retries: int | None = None, layers: int = 1) -> float:
    """Attempts per call when each fails with chance p: 1/(1-p) without a limit, (1-p^(k+1))/(1-p) with k retries; to
    the power of the `layers` that each retry on their own. ValueError for p = 1 without a limit.
    """
    if not 0 <= failure <= 1:
        raise ValueError(f"the chance of failure must be within [0, 1], got {failure:g}")
    if layers < 1 or (retries is not None and retries < 0):
        raise ValueError(f"retries must be >= 0 and layers >= 1, got {retries} and {layers}")
    if retries is None:
        if failure == 1:
            raise ValueError("calls that always fail, retried without a limit, never end; give a limit of retries")
        return float((1 / (1 - failure)) ** layers)
    return float(sum(failure**attempt for attempt in range(retries + 1)) ** layers)


def retry_equilibria(failure: Callable[[Array], Array], offered: float, retries: int) -> list[float]:
    """Loads (attempts per second) at which retries feed just themselves: roots of λ = offered · amplification(p(λ)).

    Three roots mean a metastable system: a spike can lift it over the middle one, to stay at the highest (Bronson et
    al., HotOS 2021). `failure` gives the share of attempts that fail at each load.
    """
    if not offered > 0 or retries < 0:
        raise ValueError(f"offered load must be > 0 and retries >= 0, got {offered:g} and {retries}")
    load = np.linspace(offered * 0.999, offered * (retries + 1) * 1.001, 20_001)
    p = np.clip(failure(load), 0.0, 1.0)
    gap = offered * sum(p**k for k in range(retries + 1)) - load
    change = np.flatnonzero((gap[:-1] > 0) != (gap[1:] > 0))
    part = gap[change] / (gap[change] - gap[change + 1])
    return [float(x) for x in load[change] + part * (load[change + 1] - load[change])]
