"""The cluster in the box: routers, prefill and decode apart, failures, scale-up, and a fuzz of all of them."""

import itertools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from pytest import approx

from agentload.box.cluster import Cluster
from agentload.box.host import Host
from agentload.box.kv import BlockCache
from agentload.box.options import BoxOptions, Failure, Offload, Scaling, Transfer
from agentload.box.presets import DEFAULT, PRESETS
from agentload.box.prompts import Prompt, said
from agentload.box.request import DONE, Request
from agentload.box.routers import Candidate, Prefix, kv_cost, positions, router
from agents.chain import Message

EXACT = BoxOptions(sigma=0.0)
TP4 = PRESETS[DEFAULT]
OFFSET = 1e-3 * TP4.offset_ms


def ask(to: Cluster, prompt: int = 100, output: int = 5, now: float = 0.0, first: int = 0) -> Request:
    """A request whose blocks have the identities `first` and on."""
    request = Request(prompt, output, range(first, first + (prompt + output) // 16))
    assert to.submit(request, now)
    return request


def play(cluster: Cluster, until: float = np.inf) -> dict[Request, list[float]]:
    """Let everything happen; the instants at which each request was named."""
    times: dict[Request, list[float]] = {}
    while (at := cluster.next()) is not None and at <= until:
        for request in cluster.advance():
            times.setdefault(request, []).append(at)
    return times


def test_round_robin_takes_turns():
    cluster = Cluster(structs.replace(EXACT, replicas=3))
    requests = [ask(cluster) for _ in range(6)]

    assert [request.replica for request in requests] == [0, 1, 2, 0, 1, 2]


def test_least_outstanding_goes_where_fewest_are():
    cluster = Cluster(structs.replace(EXACT, replicas=3, router="least_outstanding"))
    long, short = ask(cluster, output=500), ask(cluster, output=1)
    play(cluster, until=1.0)

    assert (long.replica, short.replica, short.state) == (0, 1, DONE)
    assert [ask(cluster, now=1.0).replica for _ in range(3)] == [1, 2, 0]


def test_of_two_choices_the_less_loaded_is_taken():
    cluster = Cluster(structs.replace(EXACT, replicas=20, router="two_choices"))
    alone = Cluster(structs.replace(EXACT, replicas=20, router="random"))
    for _ in range(2_000):
        ask(cluster), ask(alone)
    most = [max(replica.outstanding for replica in one.replicas) for one in (cluster, alone)]

    assert most[0] <= 105  # mean 100 and log log 20 / log 2 above it
    assert most[1] >= 110  # mean 100, standard deviation 10, the largest of 20


def seen(
    outstanding: int = 0, match: int = 0, held: int = 0, idle: int = 0, filling: int = 0, host: int = 0
) -> tuple[int, Candidate]:
    """A replica as routers see it, with a real cache: tokens of our prompt that it has, and then the host's; blocks of
    others that somebody holds, or nobody. How many requests are outstanding there comes first."""
    memory = Host(1_000)
    cache = BlockCache(1_000, 16, memory)
    for ids, blocks in ((PROMPT, match // 16), (range(10_000, 11_000), idle), (range(20_000, 21_000), held)):
        lease = cache.admit(ids, 16 * blocks)
        assert lease is not None
        cache.grow(lease, 16 * blocks)
        if ids.start < 20_000:
            cache.release(lease)
    memory.keep(PROMPT, match // 16, (match + host) // 16)
    replica = Candidate(0, cache)
    replica.filling = filling
    return outstanding, replica


PROMPT = range(63)


def chosen(rule: Any, *replicas: tuple[int, Candidate]) -> int:
    loads, up = zip(*replicas, strict=True)
    index: int = rule(Request(1_000, 10, PROMPT), list(up), list(loads))
    return index


def test_prefix_takes_a_long_match_unless_load_is_unbalanced():
    assert chosen(Prefix(), seen(5), seen(50, match=900)) == 1
    assert chosen(Prefix(), seen(5), seen(70, match=900)) == 0  # 65 more, and more than one and a half times as many
    assert chosen(Prefix(), seen(150), seen(215, match=900)) == 1  # 65 more, not one and a half times as many


def test_prefix_without_a_match_takes_the_one_with_the_least_cached():
    assert chosen(Prefix(), seen(0, match=200, idle=90), seen(9, held=20, idle=10), seen(0, held=40)) == 1


def test_kv_cost_weighs_prefill_against_held_blocks():
    """Dynamo's formula by hand: (prefill to do + prompt − match) / 16 + held blocks."""
    assert chosen(kv_cost, seen(match=960, held=100), seen(held=41)) == 0  # 2.5 + 100 against 62.5 + 41
    assert chosen(kv_cost, seen(match=960, held=100), seen(held=39)) == 1  # 102.5 against 101.5
    assert chosen(kv_cost, seen(filling=640), seen(held=39)) == 1  # 102.5 against 101.5
    assert chosen(kv_cost, seen(match=480), seen(match=160, host=448)) == 1  # 32.5 against 31.5: three quarters count


def test_every_router_gives_every_seed_the_same_places():
    for name in ("random", "two_choices"):
        up = [seen()[1]] * 9
        places = [[router(name, np.random.default_rng(3))(Request(1, 1, ()), up, [0] * 9) for _ in range(2)]
                  for _ in range(2)]  # fmt: skip
        assert places[0] == places[1]


def test_places_are_found_among_those_that_are_up():
    replicas = [Candidate(index, BlockCache(10, 16)) for index in range(3, 100)]
    for places in ((), (3,), (50,), (3, 4, 99), tuple(range(3, 100))):
        bits = sum(1 << place for place in places)
        assert positions(bits, replicas) == [place - 3 for place in places]
        for some in (replicas[:20] + replicas[40:], replicas[:90], replicas[10:]):
            assert positions(bits, some) == [i for i, replica in enumerate(some) if replica.index in places]


def test_a_conversation_stays_where_its_prefix_is_cached():
    cluster = Cluster(structs.replace(EXACT, replicas=4, router="prefix"))
    first = [ask(cluster, prompt=1_600, now=float(i), first=1_000 * i) for i in range(4)]
    play(cluster)
    second = [ask(cluster, prompt=3_200, now=10.0 + i, first=1_000 * i) for i in range(4)]
    play(cluster)

    assert sorted(request.replica for request in first) == [0, 1, 2, 3]
    assert [request.replica for request in second] == [request.replica for request in first]
    assert all(request.cached == 1_600 for request in second)


def test_a_prompt_computed_elsewhere_travels_before_its_first_token():
    options = structs.replace(EXACT, prefill=1, transfer=Transfer(setup_ms=2.0, token_us=8.0))
    cluster = Cluster(options)
    request = ask(cluster, prompt=1_000, output=3)
    (times,) = play(cluster).values()

    prefill = TP4.step_seconds(1_000, 0, 0, 1_000 * 500)
    travel = 0.002 + 1_000 * 8e-6
    last_token_again = TP4.step_seconds(1, 0, 0, 999.5)
    assert times[0] == approx(OFFSET + prefill + travel + last_token_again)
    assert times[2] - times[1] == approx(TP4.step_seconds(0, 1, 1_002, 0.0))
    assert (request.generated, request.replica) == (3, 0)
    counts = cluster.counts()
    assert (counts.prompt, counts.generated, counts.queries) == (1_000, 3, 1_000)  # each counted once


def test_a_second_prompt_finds_its_past_on_the_prefill_replica():
    cluster = Cluster(structs.replace(EXACT, prefill=2, router="prefix"))
    ask(cluster, prompt=1_600)
    play(cluster)
    again = ask(cluster, prompt=1_700, now=9.0)
    play(cluster)

    assert again.cached == 1_600


def test_a_replica_that_dies_loses_what_it_had_and_comes_back_cold():
    options = structs.replace(EXACT, replicas=2, failures=(Failure(at=0.1, replica=0, after=1.0),))
    cluster = Cluster(options)
    lost, kept = ask(cluster, prompt=320, output=200), ask(cluster, output=200)
    named = play(cluster, until=0.5)

    assert named[lost][-1] == 0.1
    assert lost.state == DONE
    assert 0 < lost.generated < 200
    assert [ask(cluster, now=0.6, output=1).replica for _ in range(2)] == [1, 1]  # nobody else is up
    play(cluster)
    again = [ask(cluster, prompt=320, output=1, now=3.0) for _ in range(2)]
    play(cluster)
    assert sorted(request.replica for request in again) == [0, 1]
    assert [request.cached for request in again if request.replica == 0] == [0]
    assert kept.generated == 200


def test_no_replica_up_takes_nothing():
    cluster = Cluster(structs.replace(EXACT, failures=(Failure(at=0.0, after=5.0),)))
    play(cluster, until=1.0)

    assert not cluster.submit(Request(10, 1, ()), 1.0)


def test_a_crowd_brings_up_replicas_after_their_cold_start():
    options = structs.replace(EXACT, scaling=Scaling(most=3, outstanding=4, cold_start=2.0))
    cluster = Cluster(options)
    early = [ask(cluster, output=1_000) for _ in range(30)]
    play(cluster, until=1.9)
    assert len(cluster.replicas) == 1
    play(cluster, until=2.1)
    assert len(cluster.replicas) == 3
    late = [ask(cluster, now=2.2) for _ in range(6)]
    play(cluster)

    assert {request.replica for request in early} == {0}
    assert {request.replica for request in late} == {0, 1, 2}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.integers(2, 6))
def test_prefix_finds_what_looking_into_every_cache_finds(seed, replicas):
    """Conversations that share, fork, repeat themselves and are forgotten; the blocks as runs, and one by one."""
    rng = np.random.default_rng(seed)
    options = structs.replace(EXACT, replicas=replicas, kv_tokens=3_000, seats=4, step_tokens=256, router="prefix")
    cluster, talks, now = Cluster(options, each=False), list[list[Message]](), 0.0
    choose = cluster._choose
    assert isinstance(choose, Prefix)
    for turn in range(60):
        if turn == 30:  # as when so much was sent that the oldest will be forgotten next time
            choose._sent, choose._before = {}, choose._sent
        if not talks or rng.random() < 0.2:
            talks.append([Message("system", int(rng.choice([20, 90])), key=int(rng.integers(3)))])
        talk = talks[int(rng.integers(len(talks)))]
        if rng.random() < 0.3:  # the same start goes on in another way
            talk = [*talk[: int(rng.integers(1, len(talk) + 1))]]
            talks.append(talk)
        talk.append(Message("user", int(rng.integers(8, 200)), key=int(rng.integers(9))))
        prompt, output = Prompt(), int(rng.integers(1, 60))
        prompt.extend(talk)
        if prompt.size + output > 1_400:
            talks.remove(talk)
            continue
        number, ids = prompt.ask(output, 0)
        written = Request(prompt.size, output, [ids[i] for i in range(len(ids))])
        expected = Prefix()(written, cluster.replicas, cluster.replicas[0].loads)
        request = Request(prompt.size, output, ids)
        assert cluster.submit(request, now)
        assert request.replica == expected
        talk.append(Message("assistant", output, text=said(number, output)))
        now += float(rng.exponential(0.3))
        while (at := cluster.next()) is not None and at <= now:
            cluster.advance()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**9),
    st.sampled_from(["round_robin", "random", "least_outstanding", "two_choices", "prefix", "kv_cost"]),
    st.integers(1, 4),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 320, 4_000]),
)
def test_no_request_is_lost_or_served_twice_whatever_happens(seed, name, replicas, fillers, fails, each, host):
    rng = np.random.default_rng(seed)
    failures = tuple(
        Failure(float(rng.uniform(0, 2)), int(rng.integers(replicas + fillers)), float(rng.uniform(0, 1)))
        for _ in range(fails * 2)
    )
    options = BoxOptions(
        sigma=0.05, kv_tokens=1_600, seats=4, step_tokens=64, replicas=replicas, router=name, prefill=fillers,
        failures=failures, scaling=Scaling(most=replicas + 1, outstanding=6, cold_start=0.3),
        offload=Offload(tokens=host) if host else None,
    )  # fmt: skip
    cluster, queue = Cluster(options, each=each), sorted(float(t) for t in rng.uniform(0, 2, 40))
    firsts: dict[Request, int] = {}
    ended: dict[Request, int] = {}
    refused, cancelled = 0, set()
    while queue or cluster.next() is not None:
        at = cluster.next()
        if queue and (at is None or queue[0] < at):
            now = queue.pop(0)
            size = int(rng.integers(1, 500))
            first = 1_000 * int(rng.integers(3))
            ids = range(first, first + size // 16 + 9)
            request = Request(size, int(rng.integers(1, 60)), ids)
            if cluster.submit(request, now):
                firsts[request] = ended[request] = 0
            else:
                refused += 1
            if rng.random() < 0.2 and firsts:
                victim = list(firsts)[int(rng.integers(len(firsts)))]
                cluster.cancel(victim, now)
                cancelled.add(victim)
        else:
            for request in cluster.advance():
                assert not ended[request]
                lost = request.state == DONE and request.generated < request.output
                firsts[request] += request.generated == 1 and not lost
                ended[request] = request.state == DONE

    assert refused == 0 or fails
    for request, over in ended.items():
        assert over or request in cancelled
        assert firsts[request] <= 1
        assert request.generated == request.output or fails or request in cancelled
    for replica in cluster.replicas:
        assert replica.cache.held == 0
        assert replica.cache.host is None or replica.cache.host.held <= replica.cache.host.usable
        assert (replica.outstanding, replica.filling, replica.engine.requests()) == (0, 0, [])


def test_steps_taken_many_at_a_time_are_the_same_in_a_cluster():
    """The cluster named at every token, and only at first and last ones, gives the same instants to the last bit."""
    rng = np.random.default_rng(1)
    work = sorted(
        (float(rng.uniform(0, 20)), int(rng.integers(1, 3_000)), int(rng.integers(1, 400))) for _ in range(150)
    )
    seen = []
    for each in (True, False):
        cluster = Cluster(BoxOptions(replicas=2, kv_tokens=20_000, router="least_outstanding"), each=each)
        queue, numbers, times = list(work), itertools.count(), {}
        while queue or cluster.next() is not None:
            at = cluster.next()
            if queue and (at is None or queue[0][0] < at):
                now, prompt, output = queue.pop(0)
                number = next(numbers)
                request = Request(prompt, output, range(1_000 * number, 1_000 * number + 200), number)
                cluster.submit(request, now)
            else:
                for request in cluster.advance():
                    if request.generated in (1, request.output):
                        times[request.tag, request.generated] = at
        seen.append((times, cluster.counts().preemptions, cluster.counts().steps))

    assert seen[0] == seen[1]
    assert seen[0][1] > 0
