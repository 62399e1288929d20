"""What is decided before the first session: the endpoint asked, the text calibrated, the ways to it laid out."""

import asyncio
import math
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, structs

from agentload.errors import BadInput
from agentload.guard import priced
from agentload.limits import raise_file_limit
from agentload.plan import NO_LIMIT, Plan, check_room, interleave
from agentload.probe import choose, models, probe
from agentload.quota import Quota
from agentload.session import Clock, Lane
from agentload.spec import Spec, Tenant
from agents.endpoint import Client, Endpoint, Features
from agents.text import Calibration, Encoder, Room, filler
from collectors.records import Call


class Prepared(Struct, frozen=True):
    """Everything that is decided before the first session: what workers need to know to do the same."""

    spec: Spec  # with the model named
    run_id: str
    salt: int
    features: Features
    calibration: Calibration
    server: str = ""

    def room(self) -> Room:
        return Room(self.features.context_length or NO_LIMIT, self.calibration, self.features.force_length)

    def plan(self, tell: Callable[[int, int], str] = filler) -> Plan:
        return Plan(self.spec, self.room(), self.salt, tell)

    def lanes(self, clock: Clock, part: float = 1.0) -> "Lanes":
        """Ways to the endpoint; `part` of every quota, for one of several workers."""
        return Lanes(self, clock, part)


class Lanes:
    """A lane for every tenant and endpoint, made when it is first used."""

    def __init__(self, prepared: Prepared, clock: Clock, part: float) -> None:
        self.prepared, self.clock, self.part = prepared, clock, part
        self.tenants = prepared.spec.tenants or [Tenant("")]
        self.urls = interleave(prepared.spec.urls) if prepared.spec.urls else [prepared.spec.endpoint.url]
        self.encoder = Encoder(prepared.calibration)
        self.quotas = [self.quota(tenant) for tenant in self.tenants]
        self.made: dict[tuple[int, str], Lane] = {}

    def of(self, tenant: int, session: int) -> Lane:
        """The lane of a session: its tenant's, to the endpoint that the session keeps to."""
        url = self.urls[session % len(self.urls)]
        lane = self.made.get((tenant, url))
        if lane is None:
            lane = self.made[tenant, url] = self.make(tenant, url)
        return lane

    def make(self, tenant: int, url: str) -> Lane:
        spec, who = self.prepared.spec, self.tenants[tenant]
        endpoint = for_tenant(structs.replace(spec.endpoint, url=url), who)
        client = connect(endpoint, self.prepared.features, self.encoder, self.clock.now, self.prepared.run_id)
        several = url if len(self.urls) > 1 else ""
        return Lane(client, who.retry or spec.retry, who.name, several, self.quotas[tenant])

    def quota(self, tenant: Tenant) -> Quota | None:
        requests, tokens = (
            limit and max(1, round(limit * self.part))
            for limit in (tenant.requests_per_minute, tenant.tokens_per_minute)
        )
        return Quota(requests, tokens) if requests or tokens else None

    async def close(self) -> None:
        for lane in self.made.values():
            await lane.client.close()


def for_tenant(endpoint: Endpoint, tenant: Tenant) -> Endpoint:
    """The endpoint as that tenant calls it."""
    tier = {"service_tier": tenant.service_tier} if tenant.service_tier else {}
    salt = {"cache_salt": tenant.cache_salt} if tenant.cache_salt else {}
    return structs.replace(
        endpoint,
        api_key_env=tenant.api_key_env or endpoint.api_key_env,
        headers=endpoint.headers | tenant.headers,
        sampling=endpoint.sampling | tier,
        extra_body=endpoint.extra_body | salt,
    )


async def prepare(spec: Spec, out: Path) -> tuple[Prepared, list[Call]]:
    """Check what can be checked, ask the endpoint what it can do; return that and the calls it took, which all lie
    before time 0 of the run clock. BadInput where there can be no run."""
    if spec.urls:
        spec = structs.replace(spec, endpoint=structs.replace(spec.endpoint, url=next(iter(spec.urls))))
    endpoint, model = choose(spec.endpoint, await asyncio.to_thread(models, spec.endpoint))
    for url in list(spec.urls)[1:]:  # the first is asked in full, the others must be there
        choose(structs.replace(endpoint, url=url), await asyncio.to_thread(models, structs.replace(endpoint, url=url)))
    spec = priced(structs.replace(spec, endpoint=endpoint))
    check_room(spec, endpoint.context_length or model.context or NO_LIMIT)
    check_folder(out)
    room_for_connections(spec)
    salt = secrets.randbits(31) if spec.salt is None else spec.salt
    clock, run_id = Clock(), f"{secrets.randbits(32):08x}"
    asked: list[Call] = []

    def client(endpoint: Endpoint, features: Features, encoder: Encoder) -> Client:
        return connect(endpoint, features, encoder, clock.now, run_id)

    features, calibration = await probe(endpoint, model, client, asked.append, clock.now, salt)
    now = clock.now()
    prepared = Prepared(spec, run_id, salt, features, calibration, model.server)
    return prepared, [shifted(call, now) for call in asked]


def connect(endpoint: Endpoint, features: Features, encoder: Encoder, now: Callable[[], float], run_id: str) -> Client:
    """The client that the spec asks for."""
    if endpoint.client == "sdk":
        from agents.sdk import Sdk

        return Sdk(endpoint, features, encoder, now, run_id, itl=True)
    from agents.wire import Wire

    return Wire(endpoint, features, encoder, now, run_id, itl=True)


FILES = 64
"""Open files beside the connections: libraries, records, the terminal."""


def room_for_connections(spec: Spec) -> None:
    """Raise the limit on open files to what a closed loop's agents may need."""
    if not spec.profile.closed:
        return
    agents = int(spec.profile.population(spec.duration or math.inf)[1].max())
    short = raise_file_limit(agents + FILES)
    if short:
        raise BadInput(short)


def check_folder(out: Path) -> None:
    """Run folders can be made there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise BadInput(f"--out {str(out)!r} cannot hold run folders: {error.strerror}") from None


def shifted(call: Call, by: float) -> Call:
    """The same call on a clock that started `by` seconds later."""
    times = {name: getattr(call, name) for name in ("due", "sent", "opened", "first", "last", "end")}
    return structs.replace(call, **{name: at - by for name, at in times.items() if at is not None})
