"""What servers say of themselves, in one small vocabulary: `WORDS`, and as a table who says them under which name.

Names were seen on vLLM 0.32.0, SGLang 0.5.23, llama.cpp and LiteLLM 1.106.2 or read in their sources (TensorRT-LLM
@ 050f80d, TGI's and Dynamo's reference of metrics, dcgm-exporter's default-counters.csv), old spellings too. The box
speaks as vLLM does.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Word(NamedTuple):
    """A word of the vocabulary. Counters only rise, but for restarts; other figures are levels."""

    unit: str
    says: str
    counter: bool = False
    mean: bool = False  # over replicas; others add up


WORDS = {
    "up": Word("", "1 when the page could be read, 0 when not"),
    "seconds": Word("s", "how long reading the page took"),
    "running": Word("requests", "in the running batch"),
    "waiting": Word("requests", "accepted, waiting for a place in it"),
    "kv_usage": Word("share", "of the KV cache in use, 0 to 1", mean=True),
    "prefix_queries": Word("tokens", "looked up in the prefix cache", counter=True),
    "prefix_hits": Word("tokens", "found there", counter=True),
    "prompt_tokens": Word("tokens", "of prompts, cached ones included", counter=True),
    "cached_tokens": Word("tokens", "of prompts that came from the prefix cache", counter=True),
    "generation_tokens": Word("tokens", "generated", counter=True),
    "preemptions": Word("requests", "thrown out of the batch, to start over", counter=True),
    "steps": Word("steps", "in which a simulated cluster wrote tokens", counter=True),
    "late_steps": Word("steps", "of those, written more than 20 ms after their time", counter=True),
    "power": Word("W", "drawn by a GPU"),
    "energy": Word("J", "used by a GPU", counter=True),
    "gpu_usage": Word("share", "of the time that a GPU was busy, 0 to 1", mean=True),
    "gpu_memory": Word("bytes", "of a GPU's memory in use"),
}


class Source(NamedTuple):
    """A server's name for a word. Where several names stand for one word, the first that a page has is taken."""

    word: str
    server: str
    names: tuple[str, ...]
    plus: tuple[str, ...] = ()  # names whose figures are added
    scale: float = 1.0


SOURCES = (
    Source("running", "vllm", ("vllm:num_requests_running",)),
    Source("waiting", "vllm", ("vllm:num_requests_waiting",)),
    Source("kv_usage", "vllm", ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
    Source("prefix_queries", "vllm", ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total")),
    Source("prefix_hits", "vllm", ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total")),
    Source("prompt_tokens", "vllm", ("vllm:prompt_tokens_total",)),
    Source("cached_tokens", "vllm", ("vllm:prompt_tokens_cached_total",)),
    Source("generation_tokens", "vllm", ("vllm:generation_tokens_total",)),
    Source("preemptions", "vllm", ("vllm:num_preemptions_total",)),
    Source("running", "sglang", ("sglang:num_running_reqs",)),
    Source("waiting", "sglang", ("sglang:num_queue_reqs",)),
    Source("kv_usage", "sglang", ("sglang:token_usage",)),
    Source("prefix_queries", "sglang", ("sglang:prompt_tokens_total",)),
    Source("prefix_hits", "sglang", ("sglang:cached_tokens_total",)),
    Source("prompt_tokens", "sglang", ("sglang:prompt_tokens_total",)),
    Source("cached_tokens", "sglang", ("sglang:cached_tokens_total",)),
    Source("generation_tokens", "sglang", ("sglang:generation_tokens_total",)),
    Source("preemptions", "sglang", ("sglang:num_retracted_requests_total",)),
    Source("running", "trtllm", ("trtllm_num_requests_running", "trtllm:num_requests_running")),
    Source("waiting", "trtllm", ("trtllm_num_requests_waiting", "trtllm:num_requests_waiting")),
    Source("kv_usage", "trtllm", ("trtllm_kv_cache_utilization", "trtllm:kv_cache_utilization")),
    Source("prompt_tokens", "trtllm", ("trtllm_prompt_tokens_total", "trtllm:prompt_tokens_total")),
    Source("generation_tokens", "trtllm", ("trtllm_generation_tokens_total", "trtllm:generation_tokens_total")),
    Source("running", "tgi", ("tgi_batch_current_size",)),
    Source("waiting", "tgi", ("tgi_queue_size",)),
    Source("prompt_tokens", "tgi", ("tgi_request_input_length_sum",)),
    Source("generation_tokens", "tgi", ("tgi_request_generated_tokens_sum",)),
    Source("running", "llamacpp", ("llamacpp:requests_processing",)),
    Source("waiting", "llamacpp", ("llamacpp:requests_deferred",)),
    Source("kv_usage", "llamacpp", ("llamacpp:kv_cache_usage_ratio",)),
    # Its prompt_tokens_total are those that were computed.
    Source(
        "prompt_tokens", "llamacpp", ("llamacpp:prompt_tokens_total",), plus=("llamacpp:prompt_tokens_cached_total",)
    ),
    Source("cached_tokens", "llamacpp", ("llamacpp:prompt_tokens_cached_total",)),
    Source("generation_tokens", "llamacpp", ("llamacpp:tokens_predicted_total",)),
    # Its litellm_in_flight_requests counts every HTTP request, the one for this page too.
    Source("prompt_tokens", "litellm", ("litellm_input_tokens_metric_total",)),
    Source("cached_tokens", "litellm", ("litellm_input_cached_tokens_metric_total",)),
    Source("generation_tokens", "litellm", ("litellm_output_tokens_metric_total",)),
    Source("running", "dynamo", ("dynamo_frontend_active_requests", "dynamo_frontend_inflight_requests")),
    Source("waiting", "dynamo", ("dynamo_frontend_queued_requests",)),
    Source("kv_usage", "dynamo", ("dynamo_component_gpu_cache_usage_percent",
                                  "dynamo_component_kvstats_gpu_cache_usage_percent")),
    Source("prompt_tokens", "dynamo", ("dynamo_frontend_input_sequence_tokens_sum",)),
    Source("cached_tokens", "dynamo", ("dynamo_frontend_cached_tokens_sum",)),
    Source("generation_tokens", "dynamo", ("dynamo_frontend_output_tokens_total",
                                           "dynamo_frontend_output_sequence_tokens_sum")),
    Source("power", "dcgm", ("DCGM_FI_DEV_POWER_USAGE",)),
    Source("energy", "dcgm", ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",), scale=1e-3),  # mJ
    Source("gpu_usage", "dcgm", ("DCGM_FI_DEV_GPU_UTIL",), scale=1e-2),  # per cent
    Source("gpu_memory", "dcgm", ("DCGM_FI_DEV_FB_USED",), scale=2.0**20),  # MiB
    Source("steps", "box", ("agentload:write_lag_steps_total",)),
    Source("late_steps", "box", ("agentload:behind_steps_total",)),
)  # fmt: skip

KNOWN = frozenset(name for source in SOURCES for name in (*source.names, *source.plus))
"""Every name that is understood. Of a page of thousands of lines, a dozen are read."""

SERIES = ("engine", "dp_rank", "worker_id", "dynamo_component", "Hostname", "gpu")
"""Labels that tell replicas and GPUs of one page apart. Over all others (models, reasons, keys) figures add up."""


class Figure(NamedTuple):
    """One line of a page."""

    name: str
    labels: Mapping[str, str]
    value: float


def translate(page: Iterable[Figure]) -> list[tuple[str, str, str, float]]:
    """Server, series, word and value of everything on a page that is understood."""
    found: dict[str, dict[str, float]] = {}  # by name, by series
    for name, labels, value in page:
        series = ",".join(f"{label}={labels[label]}" for label in SERIES if label in labels)
        sums = found.setdefault(name, {})
        sums[series] = sums.get(series, 0.0) + value
    rows = []
    for word, server, names, plus, scale in SOURCES:
        first = next((name for name in names if name in found), None)
        if first is None:
            continue
        for series, value in found[first].items():
            more = sum(found.get(name, {}).get(series, 0.0) for name in plus)
            rows.append((server, series, word, (value + more) * scale))
    return rows
