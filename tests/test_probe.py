"""What a run finds out about an endpoint before it starts, and which endpoints stop it."""

import asyncio
import socket
import time
from dataclasses import dataclass

import pytest

from agentload.errors import BadInput
from agentload.prepare import connect
from agentload.probe import choose, models, probe
from agents.endpoint import Client, Endpoint, Features, Timeouts
from agents.text import Calibration, Encoder
from collectors.records import Call
from tests.probe_made import MODELS, Behave, endpoint, failing, picky
from tests.torture import STALL, Torture


@dataclass
class Found:
    features: Features
    calibration: Calibration
    calls: list[Call]


def found(url: str, model: str = "", timeouts: Timeouts | None = None) -> Found:
    """What `run` would find there."""
    calls: list[Call] = []

    def client(endpoint: Endpoint, features: Features, encoder: Encoder) -> Client:
        return connect(endpoint, features, encoder, time.perf_counter, "test")

    named = Endpoint(url=url, model=model, timeouts=timeouts or Timeouts())
    asked, row = choose(named, models(named))
    features, calibration = asyncio.run(probe(asked, row, client, calls.append, time.perf_counter, 7))
    return Found(features, calibration, calls)


def found_at(behave: Behave, model: str = "") -> Found:
    with endpoint(behave) as (url, _):
        return found(url, model)


def test_words_and_templates_are_counted_by_the_endpoints_own_usage() -> None:
    all_taken = found_at(picky())

    assert all_taken.calibration == Calibration(2.0, 5.0, 5.0, 3.0, counted=True)
    assert all_taken.features == Features(context_length=4096)
    assert {call.session for call in all_taken.calls} == {-1}
    assert len(all_taken.calls) == 4


@pytest.mark.parametrize(
    ("refuses", "code", "features"),
    [
        (("ignore_eos",), 422, Features(force_length=False)),
        (("stream_options",), 400, Features(stream_usage=False, usage=False)),
        (("max_tokens",), 400, Features(max_tokens_field="max_completion_tokens")),
        (("min_tokens", "max_tokens"), 400, Features(force_length=False, max_tokens_field="max_completion_tokens")),
        (("ignore_eos", "stream_options"), 422, Features(force_length=False, stream_usage=False, usage=False)),
    ],
)
def test_only_the_fields_that_an_endpoint_refuses_are_left_out(
    refuses: tuple[str, ...], code: int, features: Features
) -> None:
    adapted = found_at(picky(refuses, code))

    assert adapted.features == Features(
        force_length=features.force_length,
        stream_usage=features.stream_usage,
        usage=features.usage,
        max_tokens_field=features.max_tokens_field,
        context_length=4096,
    )
    assert adapted.calibration.counted == features.usage


def test_an_endpoint_without_usage_leaves_the_default_counts() -> None:
    silent = found_at(picky(usage=False))

    assert not silent.features.usage
    assert silent.calibration == Calibration()


@pytest.mark.parametrize(
    "behave",
    [
        failing(500, {"error": "cuda"}),
        failing(503, "busy"),
        failing(429, {"error": {"message": "slow down"}}),
        failing(400, {"error": {"message": "no"}}),
        failing(200, "<html>a gateway's page</html>"),
        failing(200, b"data: {broken\n\n"),
        failing(200, b""),
    ],
)
def test_calls_that_fail_do_not_stop_a_run(behave: Behave) -> None:
    with_models = found_at(behave)

    assert with_models.features == Features(context_length=4096)
    assert with_models.calibration == Calibration()
    assert all(call.status != "ok" for call in with_models.calls)


@pytest.mark.parametrize(
    ("behave", "complaint"),
    [
        (failing(401, {"error": "no"}), "refused the key"),
        (failing(200, "", models=(403, {})), "refused the key"),
        (failing(404, {"error": {"message": "no model m"}}), "no chat API for model 'm'"),
        (failing(400, {"error": {"message": "Invalid model name passed in model=m"}}), "no chat API for model 'm'"),
        (failing(200, "<html>", models=(404, {})), "no chat API for model 'm'"),
        (failing(200, "", models=(200, {"data": [{"id": "other"}]})), "it lists other"),
    ],
)
def test_no_key_and_no_model_stop_a_run_and_say_so(behave: Behave, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        found_at(behave, "m")


@pytest.mark.parametrize("page", [(404, {}), (500, "oops"), (200, "<html>"), (200, [1]), (200, {"data": "none"})])
def test_a_named_model_needs_no_list_of_models(page: tuple[int, object]) -> None:
    def behave(path: str, body: dict[str, object]) -> tuple[int, object]:
        return page if path.endswith("/models") else picky()(path, body)

    assert found_at(behave, "m").calibration.counted
    with pytest.raises(BadInput):
        found_at(behave)


def test_a_list_of_models_that_never_comes_is_not_waited_for() -> None:
    limits = Timeouts(connect=0.2)
    with Torture({"slow": [STALL]}) as server:
        named = Endpoint(url=server.url("slow"), model="m", timeouts=limits)

        assert models(named) == []
        with pytest.raises(BadInput, match="cannot reach"):
            models(Endpoint(url=server.url("slow"), timeouts=limits))


def test_an_endpoint_that_stays_silent_costs_its_time_limit_once() -> None:
    def behave(path: str, body: dict[str, object]) -> tuple[int, object]:
        if not path.endswith("/models"):
            time.sleep(0.5)
        return 200, MODELS

    with endpoint(behave) as (url, _):
        silent = found(url, timeouts=Timeouts(first_token=0.1))

    assert [call.status for call in silent.calls] == ["timeout_first"]
    assert silent.calibration == Calibration()


def test_a_closed_port_stops_a_run_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(BadInput, match="cannot reach"):
        found(f"http://127.0.0.1:{port}/v1", "m")


def test_redirects_take_the_key_nowhere_else() -> None:
    with endpoint(picky()) as (elsewhere, seen):
        script = f"HTTP/1.1 307 Go\r\nLocation: {elsewhere}/models\r\nContent-Length: 0\r\n\r\n".encode()
        with Torture({"moved": [script]}) as server:
            assert models(Endpoint(url=server.url("moved"), model="m")) == []

    assert seen == []
