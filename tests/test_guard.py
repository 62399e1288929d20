"""Load against somebody else's endpoint is asked about once, and has caps; limits on cost end a run."""

import io
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from agentload import commands
from agentload.doors import loopback, misled, private
from agentload.errors import BadInput
from agentload.fleet.launch import Fleet
from agentload.guard import CAP_TOKENS, CAP_USD, guarded, price_of, priced, strangers
from agentload.screen import Watch
from agentload.spec import Prices, Spec, decode, encode
from collectors.load import load_run
from collectors.records import Call

GLOBAL = "https://8.8.8.8/v1"
"""A global address. Nothing is ever sent there: the guard asks before anything is."""


def spec(url: str, **flags: Any) -> Spec:
    return commands.resolve(None, {"url": url, "archetype": ["chat"], "agents": 2, "duration": 5.0} | flags)


class Terminal(io.StringIO):
    """A stdin or stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


OWN = ["127.0.0.1:1", "[::1]:1", "10.1.2.3", "192.168.0.9", "localhost", "no.such.host.invalid"]


@pytest.mark.parametrize("url", ["", *(f"http://{host}/v1" for host in OWN)])
def test_what_is_ones_own_is_neither_asked_about_nor_capped(url: str, tmp_path: Path) -> None:
    made = spec(url)

    assert guarded(made, tmp_path / "runs", yes=False) is made
    assert not (tmp_path / "runs").exists()


def test_the_first_run_elsewhere_is_refused_without_a_terminal_and_says_what_it_would_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = spec(GLOBAL, model="openai/gpt-5.4")

    with pytest.raises(BadInput, match=r"the first run against 8\.8\.8\.8 must be confirmed; add --yes"):
        guarded(made, tmp_path, yes=False)

    said = capsys.readouterr().err
    assert "calls" in said and "input tokens" in said and "at list prices up to $" in said
    assert f"ends at the latest at {CAP_TOKENS:,} tokens or ${CAP_USD:,.2f}" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("answer", "meant"), [("y\n", True), ("yes\n", True), ("\n", False), ("no\n", False)])
def test_on_a_terminal_it_asks_once(answer: str, meant: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", Terminal())
    if not meant:
        with pytest.raises(BadInput, match="nothing was sent"):
            guarded(spec(GLOBAL), tmp_path, yes=False)
        assert not (tmp_path / ".hosts").exists()
        return

    guarded(spec(GLOBAL), tmp_path, yes=False)
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    guarded(spec(GLOBAL), tmp_path, yes=False)  # nobody answers, since nobody is asked

    assert (tmp_path / ".hosts").read_text() == "8.8.8.8\n"
    with pytest.raises(BadInput):
        guarded(spec("https://9.9.9.9/v1"), tmp_path, yes=False)  # another host is another first run


def test_there_are_caps_elsewhere_unless_the_run_has_its_own(tmp_path: Path) -> None:
    capped = guarded(spec(GLOBAL, model="gpt-5.4"), tmp_path, yes=True)
    unknown = guarded(spec(GLOBAL, model="a-model-without-a-price"), tmp_path, yes=True)
    own = guarded(spec(GLOBAL, model="gpt-5.4", max_tokens=5), tmp_path, yes=True)

    assert (capped.limits.tokens, capped.limits.cost) == (CAP_TOKENS, CAP_USD)
    assert capped.limits.prices == Prices(2.5, 0.25, 15.0)
    assert (unknown.limits.tokens, unknown.limits.cost) == (CAP_TOKENS, None)
    assert (own.limits.tokens, own.limits.cost) == (5, None)
    assert strangers(structs.replace(own, urls={GLOBAL: 1.0, "http://127.0.0.1/v1": 1.0})) == ["8.8.8.8"]


def test_a_proxy_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")

    assert strangers(spec("http://no.such.host.invalid/v1")) == ["no.such.host.invalid"]


def test_a_limit_on_cost_counts_every_token_at_its_price() -> None:
    watch, prices = Watch(), Prices(input=10.0, cached=1.0, output=100.0)
    times = {"due": 0.0, "sent": 0.0, "opened": 0.1, "first": 0.2, "last": 0.3, "end": 0.4}
    watch.emit(Call(0, "", "a", 0, 0, **times, input_tokens=300_000, cached_tokens=100_000, output_tokens=10_000))
    limits = spec("", max_cost=3.2).limits

    assert prices.cost(200_000, 100_000, 10_000) == pytest.approx(2.0 + 0.1 + 1.0)
    assert watch.beyond(structs.replace(limits, prices=prices)) == ""
    assert watch.beyond(structs.replace(limits, prices=prices, cost=3.09)) == "max_cost"
    assert watch.beyond(structs.replace(limits, prices=prices, tokens=310_000)) == "max_tokens"


def test_a_limit_on_cost_needs_a_price() -> None:
    with pytest.raises(BadInput, match=r"needs the price of 'box-7'.*limits\.prices"):
        priced(spec("", model="box-7", max_cost=1.0))
    known = priced(spec("", model="vendor/claude-sonnet-4.6", max_cost=1.0))

    assert known.limits.prices == price_of("claude-sonnet-4.6") == Prices(3.75, 0.3, 15.0)
    assert decode(tomllib.loads(encode(known))).limits == known.limits


def test_a_run_ends_when_it_has_cost_enough(tmp_path: Path) -> None:
    toml = tmp_path / "spec.toml"
    toml.write_text(
        'limits = { cost = 0.02, prices = { input = 10.0, cached = 0.0, output = 10.0 } }\nduration = 100_000.0\n'
        'population = [{ archetype = "chat" }]\nprofile = { type = "held", agents = 4 }\n'
    )  # fmt: skip

    made = commands.resolve(toml, {})

    assert commands.simulate_spec(made, tmp_path / "runs", quiet=True, as_json=False) == 0

    run = load_run(next((tmp_path / "runs").iterdir()))
    fresh = (run.calls.input_tokens - run.calls.cached_tokens).sum()
    assert run.header["health"]["stop_reason"] == "max_cost"
    assert 0.02 <= 10.0 * (fresh + run.calls.output_tokens.sum()) / 1e6 < 0.2


def test_a_door_on_loopback_is_not_led_to_by_other_names() -> None:
    for host in ("127.0.0.1:80", "localhost:5", "[::1]:9", "127.0.0.1"):
        assert not misled(host, "127.0.0.1")
    assert misled("evil.example:8000", "127.0.0.1") and misled("", "127.0.0.1") and misled("evil.example", "localhost")
    assert not misled("gpu7.example", "0.0.0.0") and not misled("10.0.0.1:80", "10.0.0.1")


def test_who_reaches_what() -> None:
    assert loopback("127.0.0.1") and loopback("localhost") and loopback("::1") and loopback("[::1]")
    assert not loopback("0.0.0.0") and not loopback("10.0.0.1") and not loopback("*")
    assert private("10.0.0.1") and private("127.0.0.1") and not private("8.8.8.8") and not private("0.0.0.0")
    assert Fleet(workers=1, web_host="0.0.0.0").login and not Fleet(workers=1).login
    assert Fleet(workers=1, web_login=True).login
