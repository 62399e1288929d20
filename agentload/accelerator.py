"""Where the simulated accelerators' time goes, by the formula that times them (`agentload.box.presets`), from records.

Of a real cluster nobody can say this from outside: there the economics use the ratios of list prices.
"""

import numpy as np

from agentload.box.options import BoxOptions
from collectors import metrics
from collectors.load import Run
from collectors.metrics import ACCOUNTS, accounts, answered
from collectors.points import window_of
from collectors.saturation import Cluster


def cluster_of(options: BoxOptions) -> Cluster:
    """What the box is."""
    preset, replicas = options.scaled(), options.replicas + options.prefill
    return Cluster(gpus=preset.gpus * replicas, kv_tokens=preset.kv_tokens * options.replicas)


def seconds_per_token(runs: list[Run], options: BoxOptions) -> tuple[dict[str, float], dict[str, float]]:
    """The share of time the accelerators spend on prefill, on reading contexts and on the rest of decoding, and their
    seconds per token by account. They decode whenever one request does, so that being busy is not being full.

    From T = T0 + a·P + b·D + c·K + d·A: a fresh token takes a and its part of d·A, an output token b and its part of
    T0 (over the D requests that decode together), and the reading of the context, c·K, belongs to the tokens that are
    read. What preemption computes again is not in the records, and so not here.
    """
    preset, replicas = options.scaled(), options.replicas + options.prefill
    prefill = reading_fresh = reading_cached = reading_output = window = flying = some = 0.0
    total = dict.fromkeys(ACCOUNTS, 0.0)
    for run in runs:
        start, stop, _ = window_of(run)
        ok = answered(run.calls)
        ok = ok.where((ok.end >= start) & (ok.end < stop))
        parts = {name: part.astype(float) for name, part in accounts(ok).items()}
        fresh, cached, out = parts["input_fresh"], parts["input_cached"], ok.output_tokens.astype(float)
        prefill += float((preset.prefill_ms * fresh + preset.attention_ms * fresh * (cached + fresh / 2)).sum())
        reading_fresh += preset.context_ms * float((fresh * out).sum())
        reading_cached += preset.context_ms * float((cached * out).sum())
        reading_output += preset.context_ms * float((out * out / 2).sum())
        level = metrics.sweep(ok.first, ok.last)
        flying += metrics.time_mean(level, start, stop) * (stop - start)
        busy = metrics.Level(level.times, np.minimum(level.level, replicas))
        some += metrics.time_mean(busy, start, stop) * (stop - start)
        window += stop - start
        total = {name: total[name] + float(part.sum()) for name, part in parts.items()}
    output = sum(total[name] for name in ACCOUNTS[2:])
    if not output or not some:
        return {}, {}
    step = preset.base_ms / max(1.0, flying / some) + preset.decode_ms  # of one output token
    reading = reading_fresh + reading_cached + reading_output
    weights = {
        "input_fresh": _per(prefill + reading_fresh, total["input_fresh"]),
        "input_cached": _per(reading_cached, total["input_cached"]),
    }
    each = _per(step * output + reading_output, output)
    shares = {"prefill": prefill, "reading contexts": reading, "decoding": step * output}
    return (
        {name: ms / 1000 / (window * replicas) for name, ms in shares.items()},
        {name: weights.get(name, each) for name in ACCOUNTS},
    )


def _per(ms: float, tokens: float) -> float:
    return ms / 1000 / tokens if tokens else 0.0
