"""How long a step of the simulated engine takes, per model and accelerator.

    T_step[ms] = T0 + a·P + b·D + c·K + d·A          TTFT += o

P prefill tokens in the step; D decoding requests; K the sum of their contexts in tokens; A the sum over prefill
chunks of n·(context before + n/2). T0 is weight reading and launch overhead, a the compute of a prefill token, b a
batch seat, c the reading of one token's keys and values, d attention of prefill; o is the API server, the tokenizer
and the network.

The parameters were fitted (Nelder-Mead, 10 rows each) to rows measured with vLLM at 1,024 output tokens, 1,024 and
8,192 input tokens and 4–64 concurrent requests, taken from the sample of measured rows in the repository of NVIDIA
aiconfigurator (commit 095f58a), by putting this formula into the scheduling loop of `agentload.box.engine`: a closed
loop of users, lengths uniform in 0.8–1.0 of nominal, 8,192 tokens a step, 256 seats, no prefix cache. Errors are mean
absolute percentages of TTFT and TPOT, on the fitted rows and on rows held out (longer outputs). No source gives the
spread of step times; a lognormal of sigma 0.05 is assumed. `a` and `d` are not separately identified by these rows.

A preset of one's own is a table with the same fields (`[box.preset]` in a spec, or a file for `--preset`): all of them,
or those that differ from the preset that its `base` names.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct, to_builtins

Milliseconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Text = Annotated[str, Meta(min_length=1)]


class Preset(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of one model on one accelerator. Times are milliseconds, sizes are tokens unless said otherwise."""

    name: Text
    serves: Text  # source: model, precision, accelerator, engine
    validity: Text  # how far it can be trusted
    base_ms: Positive  # T0, each step
    prefill_ms: Milliseconds  # a, per prefill token
    decode_ms: Milliseconds  # b, per decoding request
    context_ms: Milliseconds  # c, per token of context read by decoding requests
    attention_ms: Milliseconds  # d, per token pair of prefill attention
    offset_ms: Milliseconds  # o, per request, before it reaches the queue
    kv_tokens: Annotated[int, Meta(ge=1_024)]  # what the key-value cache holds
    step_tokens: Count = 8_192  # token budget of a step; vLLM's API server on GPUs of 70 GiB and more
    seats: Count = 256  # most requests running at once, as in the fit
    block: Count = 16  # tokens in a block of the key-value cache
    context: Count = 131_072  # longest prompt and answer together
    gpus: Count = 4

    def step_seconds(self, prefill: int, decodes: int, context: int, attention: float) -> float:
        """Seconds of one step, without noise, from P, D, K and A of the module's formula."""
        return 1e-3 * (
            self.base_ms
            + self.prefill_ms * prefill
            + self.decode_ms * decodes
            + self.context_ms * context
            + self.attention_ms * attention
        )


def _errors(fit: str, held_out: str) -> str:
    return f"TTFT / TPOT error {fit} on the fitted rows, {held_out} on held-out rows"


_ALL = (
    Preset(
        "llama-3.1-70b-2xh100",
        "Llama-3.1-70B, fp8 weights, vLLM, TP2 on 2×H100 SXM",
        _errors("5.2 / 1.2 %", "3.3 / 4.1 %"),
        base_ms=16.76,
        prefill_ms=0.0538,
        decode_ms=0.0279,
        context_ms=7.74e-5,
        attention_ms=5.8e-6,
        offset_ms=29,
        kv_tokens=233_792,
        gpus=2,
    ),
    Preset(
        "llama-3.1-70b-4xh100",
        "Llama-3.1-70B, fp8 weights, vLLM, TP4 on 4×H100 SXM",
        _errors("7.3 / 1.7 %", "4.7 / 6.2 %"),
        base_ms=11.11,
        prefill_ms=0.0369,
        decode_ms=0.0365,
        context_ms=4.64e-5,
        attention_ms=7e-8,
        offset_ms=18,
        kv_tokens=681_216,
    ),
    Preset(
        "llama-3.1-70b-8xh100",
        "Llama-3.1-70B, fp8 weights, vLLM, TP8 on 8×H100 SXM",
        _errors("4.6 / 2.6 %", "3.1 / 5.7 %"),
        base_ms=8.85,
        prefill_ms=0.0186,
        decode_ms=0.0558,
        context_ms=2.13e-5,
        attention_ms=1.95e-6,
        offset_ms=36,
        kv_tokens=1_576_080,
        gpus=8,
    ),
    Preset(
        "llama-3.1-70b-4xh200",
        "Llama-3.1-70B, fp8 weights, vLLM, TP4 on 4×H200",
        _errors("6.2 / 2.7 %", "6.9 / 5.4 %"),
        base_ms=9.29,
        prefill_ms=0.0350,
        decode_ms=0.0416,
        context_ms=2.83e-5,
        attention_ms=2.5e-6,
        offset_ms=22,
        kv_tokens=1_286_608,
    ),
    Preset(
        "llama-3.1-70b-1xh200",
        "Llama-3.1-70B, fp8 weights and (assumed) fp8 cache, vLLM, 1×H200",
        _errors("12.4 / 3.2 %", "26 (median 8.5) / 16.5 %") + "; rough",
        base_ms=20.28,
        prefill_ms=0.0798,
        decode_ms=0.0391,
        context_ms=1.46e-4,
        attention_ms=4.5e-6,
        offset_ms=39,
        kv_tokens=323_072,
        gpus=1,
    ),
    Preset(
        "llama-3.1-8b-1xh100",
        "Llama-3.1-8B, fp8 weights, TensorRT-LLM 1.0.0rc3, 1×H100 SXM",
        _errors("39 / 2.8 %", "41 / 4.6 %") + "; trust its decoding, not its TTFT (the rows carry a start-up burst)",
        base_ms=7.01,
        prefill_ms=0.0146,
        decode_ms=0.0215,
        context_ms=4.0e-5,
        attention_ms=5.0e-6,
        offset_ms=25,
        kv_tokens=400_000,
        gpus=1,
    ),
    Preset(
        "deepseek-r1-8xh200",
        "DeepSeek-R1, fp8, SGLang 0.5.9, TP8 on 8×H200",
        _errors("5.7 / 3.9 %", "7.1 / 11.7 %") + "; up to 64 concurrent requests; the cache size is nominal",
        base_ms=8.89,
        prefill_ms=0.0220,
        decode_ms=0.424,
        context_ms=1.28e-5,
        attention_ms=0.0,
        offset_ms=195,
        kv_tokens=5_000_000,
        gpus=8,
    ),
)

PRESETS = {preset.name: preset for preset in _ALL}
"""Every preset by name. Left out because they did not fit: 70B on B200, gpt-oss-120b on H100, 8B on H200."""

DEFAULT = "llama-3.1-70b-4xh100"


def from_table(table: dict[str, Any]) -> dict[str, Any]:
    """The whole table of a preset of one's own: its fields over those of its `base`, if it names one.

    ValueError where there is no such base, or where what is based on another does not say what it is itself.
    """
    fields = dict(table)
    if "base" not in fields:
        return fields
    base = fields.pop("base")
    if base not in PRESETS:
        raise ValueError(f"preset: base must be one of {', '.join(PRESETS)}, got {base!r}")
    silent = [name for name in ("name", "validity") if not fields.get(name)]
    if silent:
        raise ValueError(f"preset: {' and '.join(silent)} cannot be those of {base}; say your own")
    return to_builtins(PRESETS[base]) | fields  # type: ignore[no-any-return]  # a struct's builtins are a dict
