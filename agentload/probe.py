"""What an endpoint can do, found out by asking it: its models, what it takes, and what its `usage` counts.

The few calls made here are recorded like any other, as `session` -1, since they cause tokens.
"""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from msgspec import Struct, structs

from agentload.errors import BadInput
from agents.chain import Chat, Context, Message, Reply
from agents.endpoint import Client, Emit, Endpoint, Features, Place
from agents.request import headers
from agents.text import VOCABULARY, Calibration, Encoder
from collectors.records import CALIBRATION

Connect = Callable[[Endpoint, Features, Encoder], Client]

FEW, MANY = len(VOCABULARY), 2 * len(VOCABULARY)
"""Words of the calibration prompts: whole rounds of the vocabulary, so that their mean cost is exact."""


class Model(Struct, frozen=True):
    """A row of /v1/models, as far as servers agree on it."""

    name: str
    context: int | None = None
    simulated: bool = False
    server: str = ""


def models(endpoint: Endpoint) -> list[Model]:
    """What /v1/models lists; [] where the endpoint has no such page. BadInput when there is no endpoint at all."""
    url = endpoint.url.rstrip("/") + "/models"
    if not url.startswith(("http://", "https://")):
        raise BadInput(
            f"url must begin with http:// or https://, got {endpoint.url!r} (for example http://127.0.0.1:8000/v1)"
        )
    request = urllib.request.Request(url, headers=headers(endpoint))
    try:
        with urllib.request.urlopen(request, timeout=endpoint.timeouts.connect) as answer:
            page = json.loads(answer.read(8_000_000))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            key = endpoint.api_key_env
            raise BadInput(f"{endpoint.url} refused the key ({error.code}); put a valid one into ${key}") from None
        return []
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput(f"cannot reach {endpoint.url}: {reason}; is the server up, and --url right?") from None
    except (ValueError, RecursionError):
        raise BadInput(
            f"{url} did not answer with JSON; is this an OpenAI-compatible endpoint (ending in /v1)?"
        ) from None
    rows = page.get("data") if isinstance(page, dict) else None
    if not isinstance(rows, list):
        raise BadInput(f'{url} has no "data" list; is this an OpenAI-compatible endpoint (ending in /v1)?')
    return [row_of(row) for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def row_of(row: dict[str, Any]) -> Model:
    context = row.get("max_model_len") or row.get("context_length")
    whole = context if isinstance(context, int) and context > 0 else None
    return Model(row["id"], whole, row.get("simulated") is True, str(row.get("owned_by", "")))


def choose(endpoint: Endpoint, listed: list[Model]) -> tuple[Endpoint, Model]:
    """The model to use: the named one, or the only one."""
    names = [model.name for model in listed]
    if not endpoint.model:
        if len(listed) != 1:
            have = f"it lists {', '.join(names[:8])}" if names else "it lists none; should the URL end in /v1?"
            raise BadInput(f"{endpoint.url} needs a model named, with --model NAME: {have}")
        return structs.replace(endpoint, model=names[0]), listed[0]
    for model in listed:
        if model.name == endpoint.model:
            return endpoint, model
    if names:
        raise BadInput(f"model {endpoint.model!r} is not at {endpoint.url}; it lists {', '.join(names[:8])}")
    return endpoint, Model(endpoint.model)


async def probe(
    endpoint: Endpoint, model: Model, connect: Connect, emit: Emit, now: Callable[[], float], salt: int
) -> tuple[Features, Calibration]:
    """Find out what the endpoint takes, and count with it. A call that fails costs a feature, not the run."""
    features = Features(context_length=endpoint.context_length or model.context, simulated=model.simulated)
    asker = Asker(endpoint, connect, emit, now)
    short = [Message("user", FEW, key=salt)]
    reply = await asker.ask(features, short)
    for spared in SPARED:
        if reply.status not in ("http_400", "http_422"):
            break
        features = structs.replace(features, **spared)
        reply = await asker.ask(features, short)
    if reply.status == "connect_failed":
        raise BadInput(f"cannot reach {endpoint.url}: {asker.error}; is the server up, and --url right?")
    if reply.status in ("http_401", "http_403"):
        raise BadInput(
            f"{endpoint.url} refused the key ({reply.status[5:]}); put a valid one into ${endpoint.api_key_env}"
        )
    if reply.status in ("http_404", "http_405", "bad_reply"):
        raise BadInput(f"{endpoint.url} has no chat completions for model {endpoint.model!r}: {asker.error}")
    if not reply.ok or not asker.counted:
        usage = asker.counted or not reply.ok
        return structs.replace(features, usage=usage), Calibration()
    return features, await calibrate(asker, features, salt, reply.input_tokens)


SPARED: tuple[dict[str, Any], ...] = (
    {"force_length": False},
    {"stream_usage": False},
    {"max_tokens_field": "max_completion_tokens"},
)
"""What is left out, one after the other, when an endpoint refuses the fields we would like to send."""


class Asker:
    """Makes calibration calls; prompts are plain words, so that what they count says what words and templates cost."""

    def __init__(self, endpoint: Endpoint, connect: Connect, emit: Emit, now: Callable[[], float]) -> None:
        self.endpoint, self.connect, self.emit, self.now = endpoint, connect, emit, now
        self.step = 0
        self.error = ""
        self.counted = False

    async def ask(self, features: Features, messages: list[Message]) -> Reply:
        """One call whose messages have exactly `tokens` words each."""
        client = self.connect(
            self.endpoint, features, Encoder(Calibration(per_message=0.0, per_system=0.0, per_request=0.0))
        )

        def emit(call: Any) -> None:
            self.error, self.counted = call.error, call.usage == "server"
            self.emit(call)

        try:
            place = Place(CALIBRATION, "", "calibration", self.step, 0, self.now())
            return await client.send(Chat(Context(messages), 4, exact=True), place, emit)
        finally:
            self.step += 1
            await client.close()


async def calibrate(asker: Asker, features: Features, salt: int, few: int) -> Calibration:
    """What a word, a message, a system prompt and a request cost, by the endpoint's own count."""

    async def counted(*messages: Message) -> int | None:
        reply = await asker.ask(features, list(messages))
        return reply.input_tokens if reply.ok and asker.counted else None

    many = await counted(Message("user", MANY, key=salt + 1))
    if many is None:
        return Calibration()
    per_word = (many - few) / (MANY - FEW)
    if not 0.2 < per_word < 20:  # the count has nothing to do with the words: a constant, say
        return Calibration()
    alone = many - MANY * per_word  # what a request with one user message costs beyond its words
    turns = await counted(
        Message("user", MANY, key=salt + 1), Message("assistant", FEW, key=salt), Message("user", FEW, key=salt)
    )
    per_message = 4.0 if turns is None else max(0.0, (turns - many - 2 * (few - alone)) / 2)
    system = await counted(Message("system", FEW, key=salt), Message("user", MANY, key=salt + 1))
    per_system = per_message if system is None else max(0.0, system - many - (few - alone))
    return Calibration(per_word, per_message, per_system, max(0.0, alone - per_message), counted=True)
