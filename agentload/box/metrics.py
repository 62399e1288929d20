"""What the box says about itself on /metrics: vLLM's names, labels and bucket edges, and its own lag.

All are those of the page of vLLM 0.32.0, less what the box has not: FLOPs and bytes estimated per GPU, the multi-modal
cache, and the `_created` series. All times are seconds on the cluster's clock.
"""

from bisect import bisect_left
from collections.abc import Mapping
from itertools import product
from typing import TypeAlias

from agentload.box.cluster import Cluster, Replica
from agentload.box.door import Door
from agentload.box.replica import BEHIND, Lag
from agentload.box.request import Counts, Request, Step

TTFT = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
        2560)  # fmt: skip
ITL = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)  # fmt: skip
LATENCY = (.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)  # fmt: skip
ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
FEW = (1, 2, 5, 10, 20)
TIMES = (1, 2, 3, 4, 5, 10, 20)


def one_two_five(most: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50, … up to `most`."""
    edges = [m * 10**e for e in range(len(str(most))) for m in (1, 2, 5)]
    return tuple(float(edge) for edge in edges if edge <= most)


class Histogram:
    """Counts of values at or below each edge."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.edges, value)] += times
        self.total += value * times

    def lines(self, name: str, label: str) -> list[str]:
        below, lines = 0, []
        for edge, count in zip((*map(str, map(float, self.edges)), "+Inf"), self.counts, strict=True):
            below += count
            lines.append(f'{name}_bucket{{{label},le="{edge}"}} {below}')
        return [*lines, f"{name}_sum{{{label}}} {self.total}", f"{name}_count{{{label}}} {below}"]


HISTOGRAMS = {
    "time_to_first_token_seconds": (TTFT, "From arrival to the first token."),
    "inter_token_latency_seconds": (ITL, "Between two tokens of a request."),
    "request_time_per_output_token_seconds": (ITL, "Mean of those of one request."),
    "e2e_request_latency_seconds": (LATENCY, "From arrival to the last token."),
    "request_queue_time_seconds": (LATENCY, "From the queue to the first step."),
    "request_prefill_time_seconds": (LATENCY, "From the first step to the first token."),
    "request_decode_time_seconds": (LATENCY, "From the first to the last token."),
    "request_inference_time_seconds": (LATENCY, "From the first step to the last token."),
    "iteration_tokens_total": (ITERATION, "Tokens computed in a step."),
    "request_prompt_tokens": ((), "Prompt tokens of a request."),
    "request_generation_tokens": ((), "Tokens generated for a request."),
    "request_max_num_generation_tokens": ((), "The same, of the longest of its answers."),
    "request_params_max_tokens": ((), "Most tokens a request may be answered with."),
    "request_prefill_kv_computed_tokens": ((), "Prompt tokens of a request that were not in the cache."),
    "request_params_n": (FEW, "Answers asked for in a request."),
    "request_num_preemptions": (TIMES, "Times a request had to start over."),
}


class Observations:
    """What one replica's histograms have seen, and why its requests ended."""

    def __init__(self, context: int) -> None:
        self.finished = {"stop": 0, "length": 0, "abort": 0, "error": 0, "repetition": 0}
        sizes = one_two_five(context)
        self.histograms = {name: Histogram(edges or sizes) for name, (edges, _) in HISTOGRAMS.items()}
        self.first_token = self.histograms["time_to_first_token_seconds"]
        self.gap = self.histograms["inter_token_latency_seconds"]
        self._iteration = self.histograms["iteration_tokens_total"]

    def step(self, step: Step) -> None:
        self._iteration.add(step.prefill + step.decodes, step.count)

    def ended(self, request: Request, came: float, first: float, last: float, most: int) -> None:
        """A request that was answered in full; instants on the cluster's clock."""
        seen = {
            "e2e_request_latency_seconds": last - came,
            "request_queue_time_seconds": max(0.0, request.admitted - request.arrival),
            "request_prefill_time_seconds": first - request.admitted,
            "request_decode_time_seconds": last - first,
            "request_inference_time_seconds": last - request.admitted,
            "request_prompt_tokens": request.prompt,
            "request_generation_tokens": request.generated,
            "request_max_num_generation_tokens": request.generated,
            "request_params_max_tokens": most,
            "request_prefill_kv_computed_tokens": request.prompt - request.cached,
            "request_params_n": 1,
            "request_num_preemptions": request.preempted,
        }
        if request.generated > 1:
            seen["request_time_per_output_token_seconds"] = (last - first) / (request.generated - 1)
        for name, value in seen.items():
            self.histograms[name].add(value)


Parse: TypeAlias = tuple[str, str, str]
PARSED = ("mode", "outcome", "request_type")
"""Labels of the replies to requests with tools: whether they were streamed, called a tool, and which API asked."""
PARSES = tuple(
    product(("streaming", "non_streaming"), ("tool_call", "no_tool_call"), ("chat_completions", "responses", "other"))
)


class Page:
    """A page in Prometheus' text format."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, list[str]]] = {}  # by name: kind, help, lines

    def add(self, name: str, kind: str, text: str, label: str, value: float) -> None:
        self._family(name, kind, text).append(f"{name}{{{label}}} {value}")

    def add_histogram(self, name: str, text: str, label: str, histogram: Histogram) -> None:
        self._family(name, "histogram", text).extend(histogram.lines(name, label))

    def _family(self, name: str, kind: str, text: str) -> list[str]:
        return self._families.setdefault(name, (kind, text, []))[2]

    def __bytes__(self) -> bytes:
        lines = []
        for name, (kind, text, series) in self._families.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *series]
        return "\n".join([*lines, ""]).encode()


def exposition(
    cluster: Cluster, seen: Mapping[int, Observations], lag: Lag, door: Door, parsed: Mapping[Parse, int],
    model: str,
) -> bytes:  # fmt: skip
    """The whole page, with a series for every replica; `parsed` has the replies to requests with tools, by PARSED.

    The lag is this machine's: how late tokens were written, in seconds.
    """
    page, quoted = Page(), model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    for replica in cluster.replicas:
        add_replica(page, replica, seen[replica.index], f'engine="{replica.index}",model_name="{quoted}"')
    whole = f'model_name="{quoted}"'
    for reason, count in (("max_num_queued_reqs", door.crowded), ("max_num_queued_tokens", 0)):
        label = f'{whole},reason="{reason}"'
        page.add("vllm:admission_rejections_total", "counter", "Requests turned away with 503.", label, count)
    for values, count in parsed.items():
        label = ",".join(f'{name}="{value}"' for name, value in zip(PARSED, values, strict=True))
        text = "Replies to requests with tools."
        page.add("vllm:tool_call_parser_invocations_total", "counter", text, f"{label},{whole}", count)
    for name, kind, number, text in (
        ("steps_total", "counter", cluster.counts().steps, "Iterations of all replicas."),
        ("rate_limited_requests_total", "counter", door.limited, "Requests turned away with 429."),
        ("write_lag_seconds_last", "gauge", lag.last, "How late the last step's tokens were written."),
        ("write_lag_seconds_max", "gauge", lag.worst, "How late the worst step's tokens were written."),
        ("write_lag_seconds_total", "counter", lag.total, "Lateness of all steps that wrote tokens, summed."),
        ("write_lag_steps_total", "counter", lag.steps, "Steps that wrote tokens."),
        ("behind_steps_total", "counter", lag.behind, f"Of those, the ones more than {BEHIND:g} s late."),
    ):
        page.add(f"agentload:{name}", kind, text, whole, number)
    return bytes(page)


def add_replica(page: Page, replica: Replica, seen: Observations, label: str) -> None:
    """What one replica is doing and has done."""
    engine = replica.engine
    waiting = len(engine.waiting)
    add = page.add
    add("vllm:num_requests_running", "gauge", "Requests in the running batch.", label, len(engine.running))
    add("vllm:num_requests_waiting", "gauge", "Requests waiting for a seat.", label, waiting)
    for reason, count in (("capacity", waiting), ("deferred", 0)):
        name = "vllm:num_requests_waiting_by_reason"
        add(name, "gauge", "Requests waiting, by reason.", f'{label},reason="{reason}"', count)
    add("vllm:kv_cache_usage_perc", "gauge", "Share of cache blocks held, 0 to 1.", label, engine.cache.usage)
    for state, holds in (("awake", replica.up), ("weights_offloaded", False), ("discard_all", not replica.up)):
        text = "1 for the state that the replica is in; one that died has discarded all."
        add("vllm:engine_sleep_state", "gauge", text, f'{label},sleep_state="{state}"', float(holds))
    for name, more, value, text in counters(replica.counts):
        add(f"vllm:{name}_total", "counter", text, label + more, value)
    for reason, count in seen.finished.items():
        text = "Requests finished, by reason."
        add("vllm:request_success_total", "counter", text, f'{label},finished_reason="{reason}"', count)
    cache = engine.cache
    config = f'engine="{replica.index}",block_size="{cache.block}",num_gpu_blocks="{cache.usable + 1}"'
    config += f',num_cpu_blocks="{cache.host.usable if cache.host else 0}"'
    add("vllm:cache_config_info", "gauge", "Size of the cache.", config, 1.0)
    for name, histogram in seen.histograms.items():
        page.add_histogram(f"vllm:{name}", HISTOGRAMS[name][1], label, histogram)


def counters(lives: list[Counts]) -> list[tuple[str, str, float, str]]:
    """Names, further labels, values and meanings of a replica's counters, over all its lives."""

    def total(name: str) -> int:
        return sum(getattr(counts, name) for counts in lives)

    prompt, cached, restored = (total(name) for name in ("prompt", "cached", "restored"))
    sources = {"local_compute": prompt - cached, "local_cache_hit": cached - restored, "external_kv_transfer": restored}
    tiers = {"device": total("hits"), "host": total("host_hits"), "p2p": 0, "disk": 0, "external_unspecified": 0}
    by_source = "Prompt tokens, by where their keys and values came from."
    by_tier = "Prompt tokens found in a cache when a request was admitted, by tier."
    return [
        ("prompt_tokens", "", prompt, "Prompt tokens of requests that got their first token."),
        ("prompt_tokens_cached", "", cached, "Of prompt_tokens, those found in a cache."),
        *(("prompt_tokens_by_source", f',source="{name}"', value, by_source) for name, value in sources.items()),
        *(("prompt_tokens_cached_by_source", f',source="{name}"', value, by_tier) for name, value in tiers.items()),
        ("generation_tokens", "", total("generated"), "Tokens generated."),
        ("num_preemptions", "", total("preemptions"), "Times a running request had to start over."),
        ("prefix_cache_queries", "", total("queries"), "Tokens looked up in the prefix cache."),
        ("prefix_cache_hits", "", total("hits"), "Tokens found in the prefix cache."),
        ("external_prefix_cache_queries", "", total("host_queries"), "Tokens looked up in the host's memory."),
        ("external_prefix_cache_hits", "", total("host_hits"), "Tokens found there and brought back."),
    ]
