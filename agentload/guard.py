"""A guard against mistakes: what a run against somebody else's endpoint may cost, and a question before the first one.

An endpoint on this machine or on a private network is one's own. Any other is asked about once for each folder of runs,
and no run against it goes beyond the caps below unless its limits say so.
"""

import sys
import urllib.parse
from pathlib import Path

from msgspec import structs

from agentload.doors import addresses, private
from agentload.errors import BadInput
from agentload.spec import Prices, Spec
from agentload.terminal import note, warn
from agents.request import needs_sdk

CAP_TOKENS = 10_000_000
"""Input and output of a run against somebody else's endpoint whose limits do not say."""
CAP_USD = 25.0
"""What such a run may cost, where the price of its model is known."""
KNOWN = ".hosts"
"""The file in the folder of runs that names the hosts that were confirmed."""


def guarded(spec: Spec, out: Path, yes: bool) -> Spec:
    """The spec with its caps, once it is clear that the run is meant. BadInput where nobody says so."""
    hosts = strangers(spec)
    if not hosts:
        return spec
    spec = capped(spec)
    known = out / KNOWN
    confirmed = known.read_text().splitlines() if known.is_file() else []
    new = [host for host in hosts if host not in confirmed]
    if new:
        confirm(spec, new, yes)
        out.mkdir(parents=True, exist_ok=True)
        known.write_text("\n".join([*confirmed, *new]) + "\n")
    return spec


def strangers(spec: Spec) -> list[str]:
    """Hosts of the spec that are on the internet. One that nobody can resolve is not: there will be no run."""
    found = []
    for url in spec.urls or [spec.endpoint.url]:
        host = urllib.parse.urlsplit(url).hostname or ""
        behind_proxy = needs_sdk(structs.replace(spec.endpoint, url=url)) is not None
        if host and host not in found and (behind_proxy or (addresses(host) and not private(host))):
            found.append(host)
    return found


def capped(spec: Spec) -> Spec:
    """The spec with the caps where it has no limits of its own."""
    limits = spec.limits
    if limits.tokens is None and limits.cost is None:
        prices = limits.prices or price_of(spec.endpoint.model)
        limits = structs.replace(limits, tokens=CAP_TOKENS, cost=None if prices is None else CAP_USD, prices=prices)
        dollars = "" if prices is None else f" or ${CAP_USD:g}"
        warn(f"the run ends at {CAP_TOKENS:,} tokens{dollars}; --max-tokens and --max-cost say otherwise")
    return structs.replace(spec, limits=limits)


def price_of(model: str) -> Prices | None:
    """The list price of a model, by its name or by the end of that ("vendor/name")."""
    from collectors.economics import load_prices

    price = load_prices().models.get(model.rpartition("/")[2])
    return None if price is None else Prices(max(price.input, price.write or 0.0), price.cached, price.output)


def priced(spec: Spec) -> Spec:
    """The spec with the prices that its limit on cost needs. BadInput where nobody knows them."""
    if spec.limits.cost is None or spec.limits.prices is not None:
        return spec
    prices = price_of(spec.endpoint.model)
    if prices is None:
        raise BadInput(
            f"a limit on cost needs the price of {spec.endpoint.model!r}, which is not in the price table; put it into "
            "the spec: limits.prices = { input = 1.0, cached = 0.1, output = 4.0 } (USD per million tokens)"
        )
    return structs.replace(spec, limits=structs.replace(spec.limits, prices=prices))


def confirm(spec: Spec, hosts: list[str], yes: bool) -> None:
    """Say what is about to happen, and go on if that is wanted."""
    where = ", ".join(hosts)
    warn(f"the first run here against {where}, which is neither this machine nor on a private network")
    note("".join(f"  {line}\n" for line in outlook(spec)), end="")
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise BadInput(f"the first run against {where} must be confirmed; add --yes")
    note("Go on? [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadInput(f"nothing was sent to {where}")


def outlook(spec: Spec) -> list[str]:
    """What to expect of a run, one line each."""
    from agentload.expect import expect
    from agentload.plan import NO_LIMIT
    from agents.text import Room

    figures = expect(spec, Room(spec.endpoint.context_length or NO_LIMIT))
    limits, prices = spec.limits, spec.limits.prices or price_of(spec.endpoint.model)
    if figures is None:
        lines = ["how many calls and tokens there will be is the model's decision, or your own code's"]
    else:
        tokens = figures["input_tokens"], figures["output_tokens"]
        lines = [f"about {figures['calls']:,.0f} calls, {tokens[0]:,.0f} input tokens, {tokens[1]:,.0f} output tokens"]
        if prices is not None:
            lines.append(
                f"at list prices up to ${prices.cost(tokens[0], 0.0, tokens[1]):,.2f}, less what the cache serves"
            )
    if prices is None:
        lines.append(f"what that costs is not known: {spec.endpoint.model or 'the model'} is not in the price table")
    ends = [f"{limits.tokens:,} tokens" if limits.tokens else "", f"${limits.cost:,.2f}" if limits.cost else ""]
    return [*lines, f"it ends at the latest at {' or '.join(filter(None, ends))}"]
