"""What tokens cost at published prices: the price table, service classes and tiers, and the cost of recorded work.

Prices are USD per million tokens and lie in `prices.toml` with their dates and sources; any file of that form can take
its place. Nonsense raises ValueError, one line.
"""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from collectors.humans import SessionTable, session_table
from collectors.ledger import ledger
from collectors.load import Array, Columns
from collectors.metrics import ACCOUNTS, accounts
from collectors.steady import Estimate, resampled

MILLION = 1e6
RESAMPLES = 1_000


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's tokens cost, in USD per million."""

    input: float
    cached: float
    output: float
    write: float | None = None  # of fresh input that is written to the prefix cache; None: as `input`
    as_of: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("input", "cached", "output", "write"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < np.inf:
                raise ValueError(f"{name} must be a price >= 0 (USD per million tokens), got {value}")

    def times(self, factor: float) -> "Price":
        """The same with every number multiplied."""
        write = None if self.write is None else self.write * factor
        return msgspec.structs.replace(
            self, input=self.input * factor, cached=self.cached * factor, output=self.output * factor, write=write
        )


class ServiceClass(Struct, frozen=True, forbid_unknown_fields=True):
    """How the same tokens are sold sooner or later."""

    factor: float
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.factor < np.inf:
            raise ValueError(f"factor must be >= 0 (of the list price), got {self.factor}")


class Tier(Struct, frozen=True, forbid_unknown_fields=True):
    """A way to sell tokens: a price, and what must be delivered for it."""

    price: float  # USD per million output tokens
    speed: float  # least tokens per second that a user sees
    context: int  # largest prompt, tokens
    model: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("price", "speed", "context"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} of a tier must be >= 0, got {getattr(self, name)}")


class Tiering(Struct, frozen=True, forbid_unknown_fields=True):
    """What input costs in a tier, as shares of its price for output."""

    input_share: float = 0.2
    cached_share: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.cached_share <= self.input_share:
            raise ValueError(f"cached_share must lie within 0 and input_share, got {self.cached_share}")


class PriceTable(Struct, frozen=True, forbid_unknown_fields=True):
    """`prices.toml`."""

    collected: str
    models: dict[str, Price]
    classes: dict[str, ServiceClass] = msgspec.field(default_factory=lambda: {"standard": ServiceClass(1.0)})
    tiers: dict[str, Tier] = {}
    tiering: Tiering = Tiering()

    def price(self, model: str, service: str = "standard") -> Price:
        """A model's price in a service class. ValueError for what the table lacks."""
        if model not in self.models:
            raise ValueError(f"model {model!r} is not in the price table; there are {', '.join(self.models)}")
        if service not in self.classes:
            raise ValueError(f"service class {service!r} is not in the table; there are {', '.join(self.classes)}")
        return self.models[model].times(self.classes[service].factor)

    def tier_price(self, name: str, service: str = "standard") -> Price:
        """A tier's price with its shares for input. ValueError for what the table lacks."""
        if name not in self.tiers:
            raise ValueError(f"tier {name!r} is not in the price table; there are {', '.join(self.tiers)}")
        if service not in self.classes:
            raise ValueError(f"service class {service!r} is not in the table; there are {', '.join(self.classes)}")
        tier, shares = self.tiers[name], self.tiering
        price = tier.price * self.classes[service].factor
        return Price(price * shares.input_share, price * shares.cached_share, price, source=tier.source)


def load_prices(path: Path | None = None) -> PriceTable:
    """The price table: yours, or the one that ships with agentload. ValueError where it is none."""
    name = "the price table" if path is None else str(path)
    text = (resources.files("collectors") / "prices.toml" if path is None else path).read_text("utf-8")
    try:
        return msgspec.convert(tomllib.loads(text), PriceTable)
    except (ValueError, RecursionError) as error:  # no TOML, or of another form
        raise ValueError(f"{name}: {error}") from None


def rates(price: Price) -> dict[str, float]:
    """USD per token by account. Fresh input costs `write` where the table has it: agents cache all that they send."""
    fresh = price.input if price.write is None else price.write
    output = price.output / MILLION
    usd = {"input_fresh": fresh / MILLION, "input_cached": price.cached / MILLION}
    return {name: usd.get(name, output) for name in ACCOUNTS}


def call_costs(calls: Columns, price: Price) -> Array:
    """USD of each call: tokens by account times price."""
    usd = rates(price)
    cost: Array = np.sum([part * usd[name] for name, part in accounts(calls).items()], axis=0)
    return cost


def session_costs(table: SessionTable, price: Price) -> Array:
    """USD of each session that came to its own end, sub-agents included."""
    usd = rates(price)
    cost: Array = np.sum([table.tokens[name] * usd[name] for name in ACCOUNTS], axis=0)
    return cost


def entry_cost(entry: dict[str, int], price: Price) -> float:
    """USD of an entry of the token ledger."""
    usd = rates(price)
    return float(sum(entry[name] * usd[name] for name in ACCOUNTS))


def costs(
    calls: Columns, sessions: Columns, price: Price, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """What a run cost: in all and by use (from the ledger, so that its tokens are these tokens), by account, and per
    session, per finished task and per intent with bootstrap intervals over sessions.

    The cost of a finished task carries that of the sessions that failed. ValueError for a run without calls.
    """
    if not len(calls):
        raise ValueError("the run holds no call; there is nothing to price")
    whole, table = ledger(calls, sessions), session_table(calls, sessions)
    usd = rates(price)
    return {
        "total": entry_cost(whole, price),
        "tokens": whole["total"],
        "accounts": {name: whole[name] * usd[name] for name in ACCOUNTS},
        "uses": {name: entry_cost(entry, price) for name, entry in whole["uses"].items()},
        **task_costs(table, price, rng, resamples),
    }


def task_costs(
    table: SessionTable, price: Price, rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Estimate | int | None]:
    """USD per session, per finished task and per intent, of sessions that came to their own end; None for none."""
    cost = session_costs(table, price)
    weights = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=resamples) if len(table) else None

    def per(whole: Array) -> Estimate | None:
        if weights is None or not whole.sum():
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = (weights @ cost) / (weights @ whole)
        return resampled(float(cost.sum() / whole.sum()), drawn, len(table))

    per_unit = {"session": per(np.ones(len(table))), "task": per(table.done), "intent": per(table.intents)}
    return {**per_unit, "sessions": len(table)}


# Price and demand.

ELASTICITY = 1.11
"""Of tokens to price, short run: "The Emerging Market for Intelligence" (NBER working paper), from within-model price
changes of open models on OpenRouter; seen in a secondary source."""


def elastic(price_ratio: float, elasticity: float = ELASTICITY) -> tuple[float, float]:
    """Tokens and spending over what they were, when the price is `price_ratio` of what it was: r^-ε and r^(1-ε).

    A tenfold cut at 1.11 is 12.9 times the tokens and 1.29 times the spending. ValueError for a ratio that is not > 0.
    """
    if not price_ratio > 0 or not elasticity >= 0:
        raise ValueError(f"the price ratio must be > 0 and the elasticity >= 0, got {price_ratio:g} and {elasticity:g}")
    return price_ratio**-elasticity, price_ratio ** (1 - elasticity)
