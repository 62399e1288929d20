"""What the box says about itself on /metrics: vLLM's names, labels and bucket edges, and its own lag.

Names and the edges of the TTFT and ITL histograms are those seen on vLLM 0.32.0; the other edges are those of its
v1/metrics/loggers.py. All times are seconds on the cluster's clock.
"""

from bisect import bisect_left
from collections.abc import Mapping

from agentload.box.cluster import Cluster
from agentload.box.replica import BEHIND, Lag
from agentload.box.request import Counts, Request, Step

TTFT = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
        2560)  # fmt: skip
ITL = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)  # fmt: skip
LATENCY = (.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)  # fmt: skip
ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
FEW = (1, 2, 5, 10, 20)


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
    "request_params_max_tokens": ((), "Most tokens a request may be answered with."),
    "request_prefill_kv_computed_tokens": ((), "Prompt tokens of a request that were not in the cache."),
    "request_params_n": (FEW, "Answers asked for in a request."),
    "request_num_preemptions": ((0.0, *FEW), "Times a request had to start over."),
}


class Observations:
    """What one replica's histograms have seen, and why its requests ended."""

    def __init__(self, context: int) -> None:
        self.finished = {"stop": 0, "length": 0, "abort": 0, "error": 0}
        sizes = one_two_five(context)
        self.histograms = {name: Histogram(edges or sizes) for name, (edges, _) in HISTOGRAMS.items()}
        self.first_token = self.histograms["time_to_first_token_seconds"]
        self.gap = self.histograms["inter_token_latency_seconds"]
        self._iteration = self.histograms["iteration_tokens_total"]

    def step(self, step: Step) -> None:
        self._iteration.add(step.prefill + step.decodes, len(step.ends))

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
            "request_params_max_tokens": most,
            "request_prefill_kv_computed_tokens": request.prompt - request.cached,
            "request_params_n": 1,
            "request_num_preemptions": request.preempted,
        }
        if request.generated > 1:
            seen["request_time_per_output_token_seconds"] = (last - first) / (request.generated - 1)
        for name, value in seen.items():
            self.histograms[name].add(value)


def exposition(
    cluster: Cluster, seen: Mapping[int, Observations], lag: Lag, rejected: Mapping[str, int], model: str
) -> bytes:
    """The page in Prometheus' text format, with a series for every replica.

    The lag is this machine's: how late tokens were written, in seconds.
    """
    quoted = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    page: dict[str, tuple[str, str, list[str]]] = {}  # by name: kind, help, lines

    def add(name: str, kind: str, text: str, label: str, value: float) -> None:
        lines = page.setdefault(name, (kind, text, []))[2]
        lines.append(f"{name}{{{label}}} {value}")

    for replica in cluster.replicas:
        label, engine = f'engine="{replica.index}",model_name="{quoted}"', replica.engine
        waiting = len(engine.waiting)
        gauges = {
            "num_requests_running": (len(engine.running), "Requests in the running batch."),
            "num_requests_waiting": (waiting, "Requests waiting for a seat."),
            "kv_cache_usage_perc": (engine.cache.usage, "Share of cache blocks held, 0 to 1."),
            "engine_sleep_state": (0 if replica.up else 1, "1 while the replica is down."),
        }
        for name, (value, text) in gauges.items():
            add(f"vllm:{name}", "gauge", text, label, value)
        for reason, value in (("capacity", waiting), ("deferred", 0)):
            name = "vllm:num_requests_waiting_by_reason"
            add(name, "gauge", "Requests waiting, by reason.", f'{label},reason="{reason}"', value)
        for name, value, text in counters(replica.counts):
            add(f"vllm:{name}_total", "counter", text, label, value)
        for reason, value in seen[replica.index].finished.items():
            add("vllm:request_success_total", "counter", "Requests finished, by reason.",
                f'{label},finished_reason="{reason}"', value)  # fmt: skip
        config = (
            f'engine="{replica.index}",block_size="{engine.cache.block}",num_gpu_blocks="{engine.cache.usable + 1}"'
        )
        add("vllm:cache_config_info", "gauge", "Size of the cache.", config, 1.0)
        for name, histogram in seen[replica.index].histograms.items():
            lines = page.setdefault(f"vllm:{name}", ("histogram", HISTOGRAMS[name][1], []))[2]
            lines += histogram.lines(f"vllm:{name}", label)
    whole = f'engine="0",model_name="{quoted}"'
    for reason, value in rejected.items():
        add("vllm:admission_rejections_total", "counter", "Requests turned away.", f'{whole},reason="{reason}"', value)
    add("agentload:steps_total", "counter", "Iterations of all replicas.", whole, cluster.counts().steps)
    for name, kind, value, text in (
        ("write_lag_seconds_last", "gauge", lag.last, "How late the last step's tokens were written."),
        ("write_lag_seconds_max", "gauge", lag.worst, "How late the worst step's tokens were written."),
        ("write_lag_seconds_total", "counter", lag.total, "Lateness of all steps that wrote tokens, summed."),
        ("write_lag_steps_total", "counter", lag.steps, "Steps that wrote tokens."),
        ("behind_steps_total", "counter", lag.behind, f"Of those, the ones more than {BEHIND:g} s late."),
    ):
        add(f"agentload:{name}", kind, text, whole, value)
    lines = []
    for name, (kind, text, series) in page.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *series]
    return "\n".join([*lines, ""]).encode()


def counters(lives: list[Counts]) -> list[tuple[str, float, str]]:
    """Names, values and meanings of a replica's counters, over all its lives."""

    def total(name: str) -> int:
        return sum(getattr(counts, name) for counts in lives)

    return [
        ("prompt_tokens", total("prompt"), "Prompt tokens of requests that got their first token."),
        ("prompt_tokens_cached", total("cached"), "Of prompt_tokens, those found in the cache."),
        ("generation_tokens", total("generated"), "Tokens generated."),
        ("num_preemptions", total("preemptions"), "Times a running request had to start over."),
        ("prefix_cache_queries", total("queries"), "Tokens looked up in the prefix cache."),
        ("prefix_cache_hits", total("hits"), "Tokens found in the prefix cache."),
    ]
