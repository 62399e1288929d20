"""Locust's web page with a tab of ours: tokens by account, agents, latencies and trust, worker by worker, as they move.

The tab is Locust's own extension of its page (`extended_tabs`, `extended_tables`, `extended_stats`); the same figures
are at `/agentload` as JSON.
"""

import collections
import contextlib
import math
import os
import secrets
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from agentload.doors import misled, open_door
from agentload.errors import BadInput
from agentload.fleet.channel import State
from agentload.fleet.master import Master
from agentload.screen import WINDOW, Samples
from agentload.terminal import warn
from collectors.health import LIMITS, ms
from collectors.records import Call

if TYPE_CHECKING:
    from flask import Flask, Response
    from locust.env import Environment
    from locust.web import WebUI

LAGS = attrgetter("send_lag"), attrgetter("loop_lag"), attrgetter("cpu_share")
TAB = "agentload"
USER = "agentload"
PASSWORD_ENV = "AGENTLOAD_WEB_PASSWORD"  # noqa: S105  # its name
GOODBYE = 3.0
"""Seconds that a request gets to be answered when the run ends."""
COLUMNS = {
    "name": "Worker",
    "verdict": "Verdict",
    "agents": "Agents",
    "in_flight": "Calls in flight",
    "fresh": "Fresh input tokens/s",
    "cached": "Cached input tokens/s",
    "visible": "Visible output tokens/s",
    "reasoning": "Reasoning tokens/s",
    "arguments": "Tool-call tokens/s",
    "ttft": "TTFT p50 / p99",
    "itl": "ITL p50 / p99",
    "send_lag": "Send lag p99",
}


class Figures:
    """What the tab shows: the calls of the last `WINDOW` seconds, and what workers said of themselves."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.recent: dict[str, collections.deque[Call]] = collections.defaultdict(collections.deque)
        master.see = lambda name, call: self.recent[name].append(call)

    def rows(self) -> list[dict[str, str]]:
        """The whole run, then each worker."""
        now, members = self.master.clock.now(), list(self.master.members.values())
        calls: dict[str, list[Call]] = {}
        for member in members:
            recent = self.recent[member.name]
            while recent and recent[0].end < now - WINDOW:
                recent.popleft()
            calls[member.name] = list(recent)
        working = [member.state for member in members if member.working]
        alive, in_flight = sum(s.alive for s in working), sum(s.in_flight for s in working)
        send_lag, loop_lag, cpu = (max((lag(s) for s in working), default=0.0) for lag in LAGS)
        worst = State(now, alive, in_flight, send_lag, loop_lag, cpu)
        gaps = Samples()
        for member in members:
            member.state.gaps.add_to(gaps)
        together = [call for mine in calls.values() for call in mine]
        rows = [row("all", verdict(worst), worst, together, gaps, now)]
        for member in members:
            said = f"lost at {member.lost:.0f} s" if member.lost is not None else verdict(member.state)
            own = Samples()
            member.state.gaps.add_to(own)
            rows.append(row(member.name, said, member.state, calls[member.name], own, now))
        return rows


def row(name: str, said: str, state: State, calls: list[Call], gaps: Samples, now: float) -> dict[str, str]:
    span = max(1.0, min(WINDOW, now))

    def rate(tokens: int) -> str:
        return f"{tokens / span:,.0f}"

    waits = np.array([call.first - call.sent for call in calls if call.first is not None and call.status == "ok"])
    ttft = [float(np.quantile(waits, q)) if waits.size else math.nan for q in (0.5, 0.99)]
    return {
        "name": name,
        "verdict": said,
        "agents": f"{state.alive:,}",
        "in_flight": f"{state.in_flight:,}",
        "fresh": rate(sum(call.input_tokens - call.cached_tokens for call in calls)),
        "cached": rate(sum(call.cached_tokens for call in calls)),
        "visible": rate(sum(call.output_tokens - call.reasoning_tokens - call.argument_tokens for call in calls)),
        "reasoning": rate(sum(call.reasoning_tokens for call in calls)),
        "arguments": rate(sum(call.argument_tokens for call in calls)),
        "ttft": " / ".join(map(shown, ttft)),
        "itl": " / ".join(shown(gaps.quantile(q)) for q in (0.5, 0.99)),
        "send_lag": shown(state.send_lag),
    }


def shown(seconds: float) -> str:
    return "–" if math.isnan(seconds) else ms(seconds)


def verdict(state: State) -> str:
    """The verdict so far, by the limits that the report uses."""
    broken = [
        f"{name} {said}"
        for name, value, limit, said in (
            ("send lag", state.send_lag, LIMITS.send_lag, ms(state.send_lag)),
            ("loop lag", state.loop_lag, LIMITS.loop_lag, ms(state.loop_lag)),
            ("CPU", state.cpu_share, LIMITS.cpu_share, f"{state.cpu_share:.0%}"),
        )
        if value > limit
    ]
    return f"limited by the client: {', '.join(broken)}" if broken else "trustworthy"


@contextlib.contextmanager
def served(master: Master, environment: "Environment", host: str, port: int, *, login: bool) -> Iterator[str]:
    """Serve the page; gives its URL. BadInput where the address cannot be had."""
    import gevent
    from locust.stats import stats_history

    open_door("the run's page", host, f"it asks for a password, in ${PASSWORD_ENV} or made up")
    web: WebUI = environment.create_web_ui(host, port, web_login=login, delayed_start=True)
    assert web.app is not None
    extend(web, Figures(master))
    if login:
        protect(web, web.app)
    web.start()
    while web.server is None or not web.server.started:
        gevent.sleep(0.01)
        if web.greenlet is not None and web.greenlet.ready():
            raise BadInput(
                f"the web page cannot be at {host}:{port}: {web.greenlet.exception}; name another --web-port"
            )
    history = gevent.spawn(stats_history, environment.runner)
    try:
        yield f"http://{host}:{web.server.server_port}/?tab={TAB}"
    finally:
        history.kill()
        web.server.stop_timeout = GOODBYE
        web.stop()


def extend(web: "WebUI", figures: Figures) -> None:
    """Our tab in Locust's page."""
    from flask import abort, jsonify, request

    app = web.app
    assert app is not None
    web.template_args |= {
        "extended_tabs": [{"title": "Agents", "key": TAB}],
        "extended_tables": [
            {"key": TAB, "structure": [{"key": key, "title": title} for key, title in COLUMNS.items()]}
        ],
    }

    @app.after_request
    def add_rows(response: "Response") -> "Response":
        if request.path == "/stats/requests" and response.is_json and isinstance(response.json, dict):
            table = [{"key": TAB, "data": figures.rows()}]
            response.set_data(jsonify(response.json | {"extended_stats": table}).get_data())
        return response

    def refuse() -> "Response":
        said = "This run's agents are decided by its spec; it can only be stopped from here."
        return jsonify({"success": False, "message": said})

    def stop() -> "Response":
        figures.master.end("stopped")
        return jsonify({"success": True, "message": "Sessions end at their next step"})

    instead = {"/swarm": refuse, "/user": refuse, "/stop": stop}

    @app.before_request
    def answer_instead() -> "Response | None":
        if misled(request.host, web.host) or request.headers.get("Sec-Fetch-Site") == "cross-site":
            abort(403)  # a page of somebody else's, in a browser on this machine
        ours = instead.get(request.path)
        return None if ours is None else web.auth_required_if_enabled(ours)()

    def rows() -> "Response":
        return jsonify(figures.rows())

    app.add_url_rule("/agentload", view_func=web.auth_required_if_enabled(rows))


def protect(web: "WebUI", app: "Flask") -> None:
    """Locust's login, with one user. The password comes from the environment, or is made up and said once."""
    from flask import redirect, request, session, url_for
    from flask_login import UserMixin, login_user

    password = os.environ.get(PASSWORD_ENV, "")
    if not password:
        password = secrets.token_urlsafe(12)
        warn(f"log in as {USER!r} with {password!r} (or set {PASSWORD_ENV})")
    app.secret_key = secrets.token_bytes(32)

    class Only(UserMixin):  # type: ignore[misc]  # flask_login has no types
        """The one user."""

        id = USER

    web.login_manager.user_loader(lambda name: Only() if name == USER else None)
    web.auth_args = {"username_password_callback": "/login_submit"}

    @app.route("/login_submit", methods=["POST"])
    def submit() -> Any:
        given = request.form.get("username", ""), request.form.get("password", "")
        if all(secrets.compare_digest(a.encode(), b.encode()) for a, b in zip(given, (USER, password), strict=True)):
            login_user(Only())
            return redirect(url_for("locust.index"))
        session["auth_error"] = "Invalid username or password"
        return redirect(url_for("locust.login"))
