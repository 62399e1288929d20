"""A run in virtual time: the same chains, profiles and records as `agentload.realtime`, against the cluster in the box.

No sockets, no event loop and no text: an agenda says who acts next, the clock jumps there, and a prompt is the list of
its messages. The same seed and spec give the same sessions as `run` gives against a served box; `docs/validation.md`
says how closely their times agree.
"""

import contextlib
import gc
import resource
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from agentload.box.cluster import Cluster
from agentload.box.gaps import Gaps
from agentload.box.prompts import said
from agentload.box.reading import Readings
from agentload.disk import finish, kept, open_store
from agentload.errors import BadInput, Failed
from agentload.flights import model_of, needs_text
from agentload.guard import priced
from agentload.plan import check_room
from agentload.prepare import Prepared, check_folder
from agentload.realtime import describe, make_folder
from agentload.screen import Watch
from agentload.shards import Ended, Job, Parts, Share, part
from agentload.shards import check as check_shards
from agentload.spec import Spec
from agentload.virtual import World
from agents.endpoint import Features
from agents.text import Calibration, Encoder
from collectors.store import Store

CALIBRATION = Calibration(per_word=1.0, per_message=5.0, per_system=5.0, per_request=3.0, counted=True)
"""What calibrating against a served box finds: its template is known (`agentload.box.words`)."""


def simulate(spec: Spec, out: Path, watch: Watch | None = None, shards: int = 1) -> tuple[Path, str]:
    """Run a spec in virtual time; return its folder, all but the report in it, and why the run ended.

    `shards` is how many independent parts it is split into (`agentload.shards`); `watch` sees the records of one that
    is whole. Raises BadInput where the spec asks for what only real time has, or cannot be split.
    """
    check(spec)
    check_shards(spec, shards)
    cluster = Cluster(part(spec.box, 0, shards))
    context = min(spec.box.context or cluster.preset.context, cluster.capacity)
    context = min(context, spec.endpoint.context_length or context)
    check_room(spec, context)
    check_folder(out)
    salt = secrets.randbits(31) if spec.salt is None else spec.salt
    endpoint = structs.replace(spec.endpoint, url="", model=spec.box.model)
    spec = priced(structs.replace(spec, endpoint=endpoint))
    features = Features(context_length=context, simulated=True, timing=structs.replace(spec.box, speed=1.0).timing)
    prepared = Prepared(spec, f"{secrets.randbits(32):08x}", salt, features, CALIBRATION, "agentload (simulated)")
    header = describe(prepared) | {"virtual": True, "clock_anchor": {"monotonic": 0.0, "unix": time.time()}}
    where = f"the cluster in the box ({cluster.preset.name}), in virtual time"
    if shards > 1:
        where += f", as {shards} clusters that know nothing of each other"
    header["endpoint"] |= {"url": where, "client": "none"}
    store = open_store(make_folder(spec, out), header)
    if watch is None and spec.limits.any:
        watch = Watch()
    began = time.perf_counter()
    try:
        with kept(store):
            if shards > 1:
                ended = Parts(prepared, shards, store.folder).run(store)
            else:
                ended = [play(prepared, store, Share(), watch)]
    except OSError as error:
        again = "make room, and simulate again: the same seed gives the same sessions"
        raise Failed(f"{store.folder} takes no more records ({error.strerror or error}); {again}") from None
    gaps = Gaps()
    for each in ended:
        gaps.take(*each.gaps)
    reasons = [each.reason for each in ended]
    reason = next((why for why in ("interrupted", "duration") if why in reasons), reasons[0])
    offered = [each.offered for each in ended if each.offered is not None]
    health = {
        "sessions_offered": sum(offered) if offered else None,
        "sessions_started": sum(each.started for each in ended),
        "interrupted": reason == "interrupted",
        "stop_reason": reason,
        "peak_memory_bytes": max(each.peak_bytes for each in ended),
        "simulation_seconds": time.perf_counter() - began,
        "simulation_cpu_seconds": sum(each.cpu_seconds for each in ended),
        "shards": shards,
        "shard_replicas": (spec.box.replicas + spec.box.prefill) // shards,
    }
    duration = max(each.now for each in ended)
    finish(store, header | {"duration": duration, "health": health, "itl": gaps.summary()})
    return store.folder, reason


def simulate_part(job: Job) -> Ended:
    """One of the parts that a simulation is split into; its records stay in its folder."""
    prepared = job.prepared
    store = Store(job.folder)
    try:
        return play(prepared, store, Share(job.index, job.count, prepared.plan().order), None)
    finally:
        store.leave()


def play(prepared: Prepared, store: Store, share: Share, watch: Watch | None) -> Ended:
    """Let everything happen that a share of the sessions does."""
    cpu, spec = time.process_time(), prepared.spec
    box = part(spec.box, share.index, share.count)
    cluster = Cluster(box, each=wants_each(spec), part=share.index)
    context = prepared.features.context_length
    assert context is not None
    world = World(prepared.plan(said), cluster, model_of(spec, context, Encoder(CALIBRATION)), store, watch, share)
    readings = Readings(cluster, store.emit, world.enter, f"part={share.index}" if share.count > 1 else "")
    with uncollected():
        reason = world.perform()
        readings.now(world.now)
    return Ended(
        reason,
        world.now,
        world.started,
        world.offered,
        cluster.gaps.sums(),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        time.process_time() - cpu,
    )


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Spare the search for cycles of references while inside: a simulation leaves none, and it took a sixth of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def check(spec: Spec) -> None:
    """Refuse what virtual time cannot do."""
    if spec.endpoint.url or spec.urls:
        raise BadInput("an endpoint with a url exists in real time only; leave it out to simulate, or use `run`")
    if spec.endpoint.api == "completions":
        raise BadInput("endpoint.api = 'completions' cannot be simulated; use 'chat' or 'responses'")
    for tenant in spec.tenants:
        if tenant.requests_per_minute or tenant.tokens_per_minute:
            raise BadInput(f"tenant {tenant.name!r}: the client's own quotas are held in real time only; use `run`")
    if spec.mode == "live":
        kinds = spec.kinds()
        for name in spec.named():
            if kinds[name].python_tools:
                raise BadInput(f"archetype {name!r}: python tools run in real time only; leave them out, or use `run`")


def wants_each(spec: Spec) -> bool:
    """Whether every token matters by itself, and not only the first and the last of a call."""
    faults = spec.box.faults
    counts = any(kind.patience is not None and kind.patience.tokens is not None for kind in spec.kinds().values())
    return needs_text(spec) or spec.itl or counts or faults.reset + faults.stall + faults.broken > 0
