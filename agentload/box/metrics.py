"""What the box says about itself on /metrics: vLLM's names and labels, and its own lag."""

from collections.abc import Mapping

from agentload.box.engine import Engine
from agentload.box.replica import Lag


def exposition(engine: Engine, lag: Lag, finished: Mapping[str, int], model: str) -> bytes:
    """The page in Prometheus' text format. The lag is this machine's: how late tokens were written, in seconds."""
    counts = engine.counts
    quoted = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    label = f'engine="0",model_name="{quoted}"'
    gauges = {
        "vllm:num_requests_running": (len(engine.running), "Requests in the running batch."),
        "vllm:num_requests_waiting": (len(engine.waiting), "Requests waiting for a seat."),
        "vllm:kv_cache_usage_perc": (engine.cache.usage, "Share of cache blocks held, 0 to 1."),
        "agentload:write_lag_seconds_last": (lag.last, "How late the last step's tokens were written."),
        "agentload:write_lag_seconds_max": (lag.worst, "How late the worst step's tokens were written."),
    }
    counters = {
        "vllm:prompt_tokens": (counts.prompt, "Prompt tokens of requests that got their first token."),
        "vllm:prompt_tokens_cached": (counts.cached, "Of prompt_tokens, those found in the cache."),
        "vllm:generation_tokens": (counts.generated, "Tokens generated."),
        "vllm:num_preemptions": (counts.preemptions, "Times a running request had to start over."),
        "vllm:prefix_cache_queries": (counts.queries, "Tokens looked up in the prefix cache."),
        "vllm:prefix_cache_hits": (counts.hits, "Tokens found in the prefix cache."),
        "agentload:steps": (counts.steps, "Iterations of the engine."),
        "agentload:write_lag_seconds": (lag.total, "Lateness of all steps that wrote tokens, summed."),
        "agentload:write_lag_steps": (lag.steps, "Steps that wrote tokens."),
    }
    lines = []
    for name, (value, text) in gauges.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name}{{{label}}} {value}"]
    for name, (value, text) in counters.items():
        lines += [f"# HELP {name}_total {text}", f"# TYPE {name}_total counter", f"{name}_total{{{label}}} {value}"]
    lines += [
        "# HELP vllm:request_success_total Requests finished, by reason.",
        "# TYPE vllm:request_success_total counter",
    ]
    for reason, count in finished.items():
        lines.append(f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {count}')
    config = f'engine="0",block_size="{engine.cache.block}",num_gpu_blocks="{engine.cache.usable + 1}"'
    lines += ["# HELP vllm:cache_config_info Size of the cache.", "# TYPE vllm:cache_config_info gauge"]
    lines.append(f"vllm:cache_config_info{{{config}}} 1.0")
    return "\n".join([*lines, ""]).encode()
