"""The world in virtual time: an agenda of what happens next, and agents driven through it as `agentload.session` does.

Nobody waits here: a chain that wants something is left alone until the agenda, or the cluster, has its answer.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

import numpy as np

from agentload.actors import Actor, Deadlines, back_off, results
from agentload.box.cluster import Cluster
from agentload.box.door import Door
from agentload.box.options import Faults, Quota
from agentload.box.protocol import Refused
from agentload.flights import Flight, Model
from agentload.kin import bereft, join, spawn
from agentload.plan import Plan
from agentload.screen import Watch
from agentload.session import BREATH, again
from agentload.shards import Share
from agentload.tally import Tally
from agents.chain import Agent, Ask, Chat, Note, Outcome, Reply, Spawn, ToolCall, Until, Wait
from collectors.records import Call, Session, Tool
from collectors.store import Store
from loadprofiles import slots

LOOK: Final = 0.25
"""Seconds between two looks at the limits that end a run early."""
REFUSAL: Final = 0.001
"""Seconds that a refused call takes [ours]; a server on the same machine takes about that long."""
TIE: Final = 1e-12
"""Seconds by which a token of its prompt holds a call back: of calls made in one instant the short ones leave first, as
they do a client, which has to make their text and send it."""
HELD: Final = 2_000
"""Records that are held before they are written."""


class World:
    """Everything that acts, and the clock."""

    def __init__(
        self, plan: Plan, cluster: Cluster, model: Model, store: Store, watch: Watch | None, share: Share
    ) -> None:
        self.plan, self.spec, self.cluster, self.model = plan, plan.spec, cluster, model
        self.store, self.watch, self.share = store, watch, share
        self._gathered = store.gathered
        self.now = 0.0
        self.ending = False
        self.reason = "done"
        self.started = 0
        self.offered: int | None = None
        box = self.spec.box
        self._door = Door(box.quota, box.queued, box.faults, box.seed + share.index)
        self._open = (box.quota, box.queued, box.faults) == (Quota(), None, Faults())  # nobody is turned away
        self._tenants = [(t.name, t.retry or self.spec.retry) for t in self.spec.tenants] or [("", self.spec.retry)]
        self._agenda: list[tuple[float, int, Callable[[Any], None], Any]] = []  # a heap
        self._entries = 0
        self._alive: dict[Actor, None] = {}
        self._coming = 0  # entries that may start a session
        self._arrivals: list[tuple[int, float]] = []  # the last one first: number, instant
        self._stream, limits = self.spec.endpoint.stream, self.spec.endpoint.timeouts
        self._whole = Deadlines(self, limits.call, lambda flight: self.give_up(flight, "timeout_call"))
        self._watched = self._whole
        if self._stream and limits.first_token < limits.call:
            self._watched = Deadlines(self, limits.first_token, self.first_due)
        self._wake: Callable[[Any], None] = self.wake  # one object for all that sleep
        self._held = 0  # records not written yet
        self._calling = 0

    # The clock

    def perform(self) -> str:
        """Run all sessions; why it ended."""
        spec = self.spec
        stops = np.inf if spec.duration is None else spec.duration + spec.drain
        if spec.limits.any:
            self.enter(LOOK, self.check_limits, None)
        self.schedule()
        try:
            self.turn(float(stops))
        except KeyboardInterrupt:
            self.reason = "interrupted"
        self.ending = True
        self.cut()
        return self.reason

    def turn(self, stops: float) -> None:
        """Let everything happen in the order of time, until the last agent has ended or it is time to stop."""
        agenda, cluster = self._agenda, self.cluster
        while self._alive or self._coming:
            at = cluster.next()
            if agenda and (at is None or agenda[0][0] < at):
                at, _, act, what = heappop(agenda)
                if at >= stops:
                    break
                self.now = at
                act(what)
            elif at is None or at >= stops:
                break
            else:
                self.now = at
                for request in cluster.advance():
                    flight: Flight | None = request.tag  # type: ignore[assignment]  # every request here carries one
                    if flight is not None:
                        flight.token(at, self)
        else:
            return
        self.now = min(stops, 1e18) if stops < np.inf else self.now
        if not self.ending:
            self.reason = "duration"

    def enter(self, at: float, act: Callable[[Any], None], what: Any) -> int:
        """Have something done at an instant; the entry's number."""
        self._entries += 1
        heappush(self._agenda, (at, self._entries, act, what))
        return self._entries

    def check_limits(self, _: None) -> None:
        assert self.watch is not None
        if reached := self.watch.beyond(self.spec.limits):
            self.stop(reached)
        else:
            self.enter(self.now + LOOK, self.check_limits, None)

    def stop(self, reason: str) -> None:
        """Agents end at their next step, those asleep now; what still runs after the drain is cut."""
        self.reason, self.ending = reason, True
        for actor in [actor for actor in self._alive if actor.sleep]:
            self.cancel(actor, Outcome("unfinished"))
        self.enter(self.now + self.spec.drain, lambda _: self.cut(), None)

    def cut(self) -> None:
        """End everything at once."""
        self.ending = True
        for actor in [actor for actor in self._alive if actor.parent is None]:
            self.cancel(actor, Outcome("unfinished"))
        self._coming = 0

    def cancel(self, actor: Actor, outcome: Outcome) -> None:
        """End an agent, what it waits for, and all that it has started."""
        flight, task = actor.flight, actor.task
        if flight is not None:
            if flight.request is not None:
                self.cluster.cancel(flight.request, self.now)
            self.record(flight, "cancelled", self.now)
        elif actor.sleep and isinstance(task, list):
            self.record_tools(actor, task)
        if actor.joining is not None:
            actor.tally.join += self.now - actor.joining.start
        elif actor.outcome is not None:
            actor.tally.join += self.now - actor.over
        actor.sleep, actor.joining = 0, None
        actor.outcome, actor.over = outcome, self.now
        for child in [child for child in actor.children if isinstance(child, Actor)]:
            self.cancel(child, outcome)
        if not actor.running and actor in self._alive:
            self.leave(actor)

    # Who starts when

    def schedule(self) -> None:
        """Enter every seat, or the first arrival."""
        spec = self.spec
        duration = spec.duration or np.inf
        if spec.profile.closed:
            seats = slots(*spec.profile.population(duration), duration)
            for seat, (start, stop) in enumerate(seats.tolist()):
                if self.share.takes(seat):
                    self._coming += 1
                    self.enter(start, self.sit, (seat, seat, len(seats), min(stop, duration)))
            return
        times = enumerate(self.plan.arrivals().tolist())
        self._arrivals = [(number, at) for number, at in times if self.share.takes(number)][::-1]
        self.offered = self._coming = len(self._arrivals)
        self.await_arrival()

    def sit(self, seat: tuple[int, int, int, float]) -> None:
        """The next session of a seat of the population: its number, the seat, of how many, until when."""
        number, place, seats, stop = seat
        self._coming -= 1
        wanted = self.spec.sessions is None or number < self.spec.sessions
        if not wanted or self.now >= stop or self.ending:
            return

        def after(outcome: Outcome) -> None:
            self._coming += 1
            pause = BREATH if outcome.status == "broken" or self.now == begun else 0.0
            self.enter(self.now + pause, self.sit, (number + seats, place, seats, stop))

        self.started, begun = self.started + 1, self.now
        root = self.start(self.plan.agent(number, place), number, "")
        root.after = after
        self.resume(root, None)

    def await_arrival(self) -> None:
        if self._arrivals:
            number, at = self._arrivals.pop()
            self.enter(at, self.arrive, number)

    def arrive(self, number: int) -> None:
        """Open loop: a session starts at its arrival, whatever became of the others."""
        self._coming -= 1
        if self.ending:
            self._coming = 0
            return
        self.await_arrival()
        self.started += 1
        self.resume(self.start(self.plan.agent(number), number, ""), None)

    def start(self, agent: Agent, session: int, path: str, parent: Actor | None = None, number: int = 0) -> Actor:
        tenant = agent.tenant if parent is None else parent.tenant
        tally = Tally(path, agent.archetype, session, self.now, self.now, self._tenants[tenant][0])
        actor = Actor(agent, tally, self.now, tenant, parent, number)
        actor.family[0] += 1
        self._alive[actor] = None
        return actor

    # What agents do

    def resume(self, actor: Actor, answer: Any) -> None:
        """Give an agent its answer and take what it asks for next."""
        send = actor.chain.send
        while not self.ending:
            try:
                ask = send(answer)
            except StopIteration as stop:
                self.end(actor, stop.value)
                return
            if type(ask) is Chat:
                actor.tally.steps += 1
                self.call(actor, ask, 0)
                return
            if isinstance(ask, list):
                end = actor.due
                for tool in ask:
                    end = max(end, actor.due + tool.seconds)
                    if tool.run is not None:
                        self.end(actor, Outcome("broken", error=f"tool {tool.name!r} runs in real time only"))
                        return
                if end > self.now:
                    self.rest(actor, end, ask)
                    return
                self.record_tools(actor, ask)
                answer, actor.due = results(ask), end
            elif isinstance(ask, Wait | Until):
                end = max(actor.due, ask.instant) if isinstance(ask, Until) else actor.due + ask.seconds
                actor.tally.wait += end - actor.due
                if end > self.now:
                    self.rest(actor, end, ask)
                    return
                answer, actor.due = end if isinstance(ask, Until) else None, end
            elif isinstance(ask, Note):
                actor.tally.note(ask)
                answer = None
            else:
                became = spawn(self, actor, ask) if isinstance(ask, Spawn) else join(self, actor, ask)
                if became is None:
                    return
                answer, actor.due = became, self.now
        self.end(actor, Outcome("unfinished"))

    def rest(self, actor: Actor, until: float, task: Ask | tuple[Chat, int]) -> None:
        """Let an agent wait for an instant."""
        actor.task = task
        actor.sleep = self.enter(until, self._wake, actor)

    def wake(self, actor: Actor) -> None:
        if not actor.sleep:  # ended meanwhile
            return
        task, actor.task, actor.sleep = actor.task, None, 0
        if isinstance(task, tuple):
            actor.due = self.now
            self.call(actor, *task)
            return
        answer: Any = None
        if isinstance(task, list):
            self.record_tools(actor, task)
            answer = results(task)
        elif isinstance(task, Until):
            answer = self.now
        actor.due = self.now
        self.resume(actor, answer)

    def end(self, actor: Actor, outcome: Outcome) -> None:
        """The chain of an agent is over; the agent is when its sub-agents are."""
        actor.outcome, actor.over = outcome, self.now
        if not actor.running:
            self.leave(actor)

    def leave(self, actor: Actor) -> None:
        """An agent has ended: its record, and whatever follows."""
        outcome, parent = actor.outcome, actor.parent
        assert outcome is not None
        del self._alive[actor]
        actor.tally.join += self.now - actor.over
        actor.chain.close()
        self.emit(actor.tally.record(self.now, outcome))
        actor.parent = None
        if actor.after is not None:
            actor.after(outcome)
        if parent is not None:
            bereft(self, parent, actor.number, outcome)

    def record_tools(self, actor: Actor, calls: list[ToolCall]) -> None:
        """Records of tools called when the agent was due; those not done by now were cut short."""
        tally, start, longest = actor.tally, actor.due, 0.0
        for call in calls:
            end = max(start, min(start + call.seconds, self.now))
            longest = max(longest, end - start)
            error = "" if call.ok else call.text or "the tool failed"
            self.emit(
                Tool(tally.session, tally.agent, tally.archetype, tally.steps - 1, call.name, start, end, call.ok,
                     call.tokens, call.kind, error)
            )  # fmt: skip
        tally.tool_calls += len(calls)
        tally.tools += longest

    # Model calls

    def call(self, actor: Actor, chat: Chat, attempt: int) -> None:
        """Make one attempt at a call."""
        flight = actor.flight = Flight(actor, chat, attempt, actor.due, self.now)
        if self.spec.itl:
            flight.gaps = []
        self._calling += 1
        try:
            request = self.model.ask(flight)
            fault = ""
            if not self._open:
                waiting = self.cluster.waiting if self._door.queued is not None else 0
                size = request.prompt + chat.max_tokens
                fault = self._door.enter(self._tenants[actor.tenant][0], size, waiting, self.now).fault
        except Refused as refused:
            self.refuse(flight, refused)
            return
        flight.request, flight.fault = request, fault
        hang_up = chat.hang_up
        if hang_up is not None:
            for patience, act in ((hang_up.first_token, self.first_wanted), (hang_up.call, self.hang_up)):
                if patience < np.inf:
                    self.enter(self.now + patience, act, flight)
        if fault == "slow":
            self.enter(self.now + self.spec.box.faults.slow_seconds, self.submit, flight)
        else:
            self.submit(flight)

    def submit(self, flight: Flight) -> None:
        request = flight.request
        if flight.over or request is None:
            return
        if self.cluster.submit(request, self.now + TIE * request.prompt):
            self._watched.watch(flight)
        else:
            self.refuse(flight, Refused(503, "no replica is up", "ServiceUnavailableError"))

    def first_due(self, flight: Flight) -> None:
        """The first token should be there by now."""
        if flight.first is None:
            self.give_up(flight, "timeout_first")
        else:
            self._whole.watch(flight)

    def first_wanted(self, flight: Flight) -> None:
        """Its agent waits no longer for a first token."""
        if flight.first is None or not self._stream:
            self.hang_up(flight)

    def hang_up(self, flight: Flight, error: str = "") -> None:
        """Its agent waits no longer."""
        if not flight.over and flight.request is not None:
            self.give_up(flight, "gave_up", error)

    def give_up(self, flight: Flight, status: str, error: str = "") -> None:
        assert flight.request is not None
        self.cluster.cancel(flight.request, self.now)
        self.answered(flight, status, self.now, error)

    def refuse(self, flight: Flight, refused: Refused) -> None:
        """Answer with an error, a moment later."""
        after = refused.headers.get("retry-after-ms")
        wait = None if after is None else float(after) / 1000
        status, error = f"http_{refused.status}", str(refused)
        flight.request = None

        def answer(flight: Flight) -> None:
            if not flight.over:
                self.answered(flight, status, self.now, error, wait)

        self.enter(self.now + REFUSAL, answer, flight)

    def arrived(self, flight: Flight) -> None:
        """The answer to a call has come, after its stream stood still."""
        self.answered(flight, "ok", self.now)

    def answered(self, flight: Flight, status: str, at: float, error: str = "", wait: float | None = None) -> None:
        """A call has ended: its record, and its reply to the agent, or another attempt."""
        actor, retry = flight.actor, self._tenants[flight.actor.tenant][1]
        reply, ok = self.record(flight, status, at, error), status == "ok"
        if ok or self.ending or not again(flight.chat, status, flight.attempt, retry):
            actor.tally.error = "" if ok else status
            actor.due = at
            self.resume(actor, reply)
            return
        pause = 0.0 if status == "gave_up" else back_off(retry, self.spec.seed, flight) if wait is None else wait
        actor.tally.wait += pause
        self.rest(actor, at + pause, (flight.chat, flight.attempt + 1))

    def record(self, flight: Flight, status: str, at: float, error: str = "") -> Reply:
        """The record of a call, and the reply to its agent."""
        actor, chat, request = flight.actor, flight.chat, flight.request
        tally = actor.tally
        actor.flight, flight.over = None, True
        self._watched.forget(flight)
        self._whole.forget(flight)
        if request is not None:
            request.tag = None  # no cycle of references is left behind
        self._calling -= 1
        prompt = cached = output = arguments = 0
        if status == "ok":
            assert request is not None
            reply, arguments = self.model.answer(flight)
            prompt, cached, output = request.prompt, request.cached, request.output
            if not self._stream:
                flight.first, flight.last, flight.count = at, at, 1
        else:
            reply = Reply(status)
            if request is not None and request.generated and self._stream:
                prompt, output = request.prompt, request.generated  # seen, but without the server's own count
            else:
                flight.first = flight.last = None
        call = Call(
            tally.session, tally.agent, tally.archetype, tally.steps - 1, flight.attempt, flight.due, flight.sent,
            flight.sent if request is not None and self._stream else at if status[0] in "oh" else None,
            flight.first, flight.last, at, 0.0, status, reply.finish_reason, prompt, cached, output,
            reply.reasoning_tokens, arguments, "server" if status == "ok" else "estimated", chat.wanted_input,
            chat.max_tokens if chat.exact else None, flight.count, len(reply.tool_calls), 0, tally.tenant, "", 0.0, "",
            error, None if flight.gaps is None else tuple(flight.gaps),
        )  # fmt: skip
        tally.count(call)
        self.emit(call)
        return reply

    def emit(self, record: Call | Tool | Session) -> None:
        self._gathered[type(record)].append(record)
        self._held += 1
        if self._held >= HELD:
            self.store.flush()
            self._held = 0
        watch = self.watch
        if watch is not None:
            watch.emit(record)
            watch.now, watch.alive, watch.in_flight = self.now, len(self._alive), self._calling
            if not watch.history or self.now - watch.history[-1][0] >= 1.0:
                watch.history.append((self.now, watch.calls, watch.fresh, watch.cached, watch.output))
