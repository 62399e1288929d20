"""The box's /metrics read by Prometheus' own parser: vLLM's families, labels and edges, and counts that add up."""

import json
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from agentload.box.options import BoxOptions, Offload
from agentload.box.serve import BoxProcess
from tests.vllm_made import vllm

SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000]  # up to the model's context, 8,192
SECONDS = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1_920, 7_680]
GAPS = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
FIRST = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
         2_560]  # fmt: skip
ENGINE = ("engine", "model_name")
FAMILIES: dict[str, tuple[str, dict[str, set[str]], list[float]]] = {  # seen on vLLM 0.32.0: type, labels, edges
    "num_requests_running": ("gauge", {}, []),
    "num_requests_waiting": ("gauge", {}, []),
    "num_requests_waiting_by_reason": ("gauge", {"reason": {"capacity", "deferred"}}, []),
    "engine_sleep_state": ("gauge", {"sleep_state": {"awake", "weights_offloaded", "discard_all"}}, []),
    "kv_cache_usage_perc": ("gauge", {}, []),
    "prefix_cache_queries": ("counter", {}, []),
    "prefix_cache_hits": ("counter", {}, []),
    "external_prefix_cache_queries": ("counter", {}, []),
    "external_prefix_cache_hits": ("counter", {}, []),
    "num_preemptions": ("counter", {}, []),
    "prompt_tokens": ("counter", {}, []),
    "prompt_tokens_by_source": (
        "counter", {"source": {"local_compute", "local_cache_hit", "external_kv_transfer"}}, []),
    "prompt_tokens_cached": ("counter", {}, []),
    "prompt_tokens_cached_by_source": (
        "counter", {"source": {"device", "host", "p2p", "disk", "external_unspecified"}}, []),
    "generation_tokens": ("counter", {}, []),
    "request_success": ("counter", {"finished_reason": {"stop", "length", "abort", "error", "repetition"}}, []),
    "request_prompt_tokens": ("histogram", {}, SIZES),
    "request_generation_tokens": ("histogram", {}, SIZES),
    "request_max_num_generation_tokens": ("histogram", {}, SIZES),
    "request_params_max_tokens": ("histogram", {}, SIZES),
    "request_prefill_kv_computed_tokens": ("histogram", {}, SIZES),
    "request_params_n": ("histogram", {}, [1, 2, 5, 10, 20]),
    "request_num_preemptions": ("histogram", {}, [1, 2, 3, 4, 5, 10, 20]),
    "iteration_tokens_total": ("histogram", {}, [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]),
    "time_to_first_token_seconds": ("histogram", {}, FIRST),
    "inter_token_latency_seconds": ("histogram", {}, GAPS),
    "request_time_per_output_token_seconds": ("histogram", {}, GAPS),
    "e2e_request_latency_seconds": ("histogram", {}, SECONDS),
    "request_queue_time_seconds": ("histogram", {}, SECONDS),
    "request_inference_time_seconds": ("histogram", {}, SECONDS),
    "request_prefill_time_seconds": ("histogram", {}, SECONDS),
    "request_decode_time_seconds": ("histogram", {}, SECONDS),
}  # fmt: skip
WITHOUT_ENGINE: dict[str, dict[str, set[str]]] = {
    "admission_rejections": {"reason": {"max_num_queued_reqs", "max_num_queued_tokens"}},
    "tool_call_parser_invocations": {
        "mode": {"streaming", "non_streaming"},
        "outcome": {"tool_call", "no_tool_call"},
        "request_type": {"chat_completions", "responses", "other"},
    },
}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def scrape(root: str) -> dict[str, Metric]:
    page = urllib.request.urlopen(f"{root}/metrics", timeout=5).read().decode()
    return {family.name: family for family in text_string_to_metric_families(page)}


def call(url: str, text: str, **fields: object) -> dict[str, int]:
    """The usage of one call."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 5, **fields}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    usage: dict[str, int] = json.loads(urllib.request.urlopen(request, timeout=20).read())["usage"]
    return usage


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[str, list[dict[str, int]]]]:
    """A small box with memory on its host, and the usage of calls that filled both."""
    options = BoxOptions(context=8_192, kv_tokens=9_000, offload=Offload(tokens=100_000), speed=20.0, replicas=1)
    with BoxProcess(options) as url:
        texts = ["a " + f"{name} " * 4_000 for name in ("first", "second", "third")]
        usages = [call(url, text) for text in (*texts, *texts)]
        usages += [call(url, "use it", tools=[TOOL], tool_choice="required", max_tokens=100)]
        yield url.removesuffix("/v1"), usages


def shape(family: Metric) -> tuple[str, dict[str, set[str]], list[float]]:
    """Type, values of the labels that not every series has, and bucket edges."""
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    labels: dict[str, set[str]] = {}
    for sample in samples:
        for name, value in sample.labels.items():
            if name not in ("le", *ENGINE):
                labels.setdefault(name, set()).add(value)
    edges = [float(sample.labels["le"]) for sample in samples if sample.name.endswith("_bucket")]
    return family.type, labels, edges[:-1] if edges else []


def check(families: dict[str, Metric]) -> None:
    """Names, types, labels and edges are those of the tables above."""
    for name, expected in FAMILIES.items():
        family = families[f"vllm:{name}"]
        assert shape(family) == expected, name
        assert all(set(ENGINE) <= set(sample.labels) for sample in family.samples), name
    for name, labels in WITHOUT_ENGINE.items():
        assert shape(families[f"vllm:{name}"]) == ("counter", labels, []), name
        assert all("engine" not in sample.labels for sample in families[f"vllm:{name}"].samples), name


def test_the_box_has_vllms_families_labels_and_edges(made):
    check(scrape(made[0]))


def test_real_vllm_has_them(made):
    with vllm() as url:
        real = scrape(url)
    check(real)
    lacking = {name for name in real if name.startswith("vllm:") and not name.endswith("_created")} - set(
        scrape(made[0])
    )
    assert {name.removeprefix("vllm:") for name in lacking} <= {
        "estimated_flops_per_gpu", "estimated_read_bytes_per_gpu", "estimated_write_bytes_per_gpu",
        "mm_cache_hits", "mm_cache_queries",
    }  # fmt: skip


def test_tokens_add_up_over_their_sources(made):
    families, usages = scrape(made[0]), made[1]
    total = {name: sum(s.value for s in families[f"vllm:{name}"].samples if s.name.endswith("_total"))
             for name in ("prompt_tokens", "prompt_tokens_cached", "prompt_tokens_by_source", "prefix_cache_hits",
                          "external_prefix_cache_hits", "prompt_tokens_cached_by_source")}  # fmt: skip
    by_source = {s.labels["source"]: s.value for s in families["vllm:prompt_tokens_by_source"].samples}
    by_tier = {s.labels["source"]: s.value for s in families["vllm:prompt_tokens_cached_by_source"].samples}

    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert total["prompt_tokens"] == total["prompt_tokens_by_source"] == sum(usage["prompt_tokens"] for usage in usages)
    assert total["prompt_tokens_cached"] == cached == by_source["local_cache_hit"] + by_source["external_kv_transfer"]
    assert by_tier["host"] == total["external_prefix_cache_hits"] == by_source["external_kv_transfer"] > 4_000
    assert total["prompt_tokens_cached_by_source"] == total["prefix_cache_hits"] + total["external_prefix_cache_hits"]


def test_what_the_server_itself_counts_is_there(made):
    families = scrape(made[0])
    parses = {tuple(s.labels[name] for name in ("mode", "outcome", "request_type")): s.value
              for s in families["vllm:tool_call_parser_invocations"].samples}  # fmt: skip
    names = ("write_lag_seconds_last", "write_lag_seconds_max", "write_lag_steps", "behind_steps")
    lag = {name: families[f"agentload:{name}"].samples[0].value for name in names}

    assert parses["non_streaming", "tool_call", "chat_completions"] == sum(parses.values()) == 1
    assert 0 <= lag["write_lag_seconds_last"] <= lag["write_lag_seconds_max"]
    assert lag["behind_steps"] <= lag["write_lag_steps"]
    assert lag["write_lag_steps"] >= 6 * 5  # each of the calls had five steps that wrote a token
