"""What a run must know of an endpoint, found out by asking: its models, the fields it takes, what its `usage` counts.

Only an endpoint that cannot be reached, refuses the key or does not know the model stops a run; whatever else goes
wrong here costs a feature, and is what the run is there to record. The few calls made here are recorded like any other,
as `session` -1, since they cause tokens. `agentload.abilities` asks the rest, for `agentload probe`.
"""

import asyncio
import re
import urllib.error
from collections.abc import Callable
from typing import Any

from msgspec import Struct, structs

from agentload.errors import BadInput
from agentload.fetch import fetch
from agents.chain import Chat, Context, Message, Reply
from agents.endpoint import Client, Emit, Endpoint, Features, Place
from agents.limits import MAX_NAME
from agents.request import join
from agents.text import VOCABULARY, Calibration, Encoder
from agents.trouble import shorten
from collectors.records import CALIBRATION, Call

Connect = Callable[[Endpoint, Features, Encoder], Client]

FEW, MANY = len(VOCABULARY), 2 * len(VOCABULARY)
"""Words of the calibration prompts: whole rounds of the vocabulary, so that their mean cost is exact."""

PATIENCE = 30.0
"""Seconds that a call here may take: a cold model needs some, a run should not wait minutes for its first session."""


class Model(Struct, frozen=True):
    """A row of /v1/models, as far as servers agree on it."""

    name: str
    context: int | None = None
    simulated: bool = False
    server: str = ""
    timing: str = ""  # what a simulated cluster says of its times
    listed: bool = True  # False: there is no list, and the name was taken on trust


def models(endpoint: Endpoint) -> list[Model]:
    """What /v1/models lists; [] where the endpoint has no such page, or none that makes sense and the model is named.

    BadInput when there is no endpoint at all.
    """
    if not endpoint.url.startswith(("http://", "https://")):
        raise BadInput(
            f"url must begin with http:// or https://, got {endpoint.url!r} (for example http://127.0.0.1:8000/v1)"
        )
    try:
        url = str(join(endpoint.url, "models", endpoint.model))
        page = fetch(endpoint, url, limit=endpoint.timeouts.connect)
    except ValueError as error:
        raise BadInput(str(error)) from None
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if endpoint.model and reason is error:  # it was reached, and did not answer
            return []
        raise BadInput(f"cannot reach {endpoint.url}: {reason}; is the server up, and --url right?") from None
    if page.code in (401, 403):
        raise BadInput(refused_key(endpoint, page.code))
    rows = page.plain.get("data")
    if isinstance(rows, list):
        return [row_of(row) for row in rows if isinstance(row, dict) and is_name(row.get("id"))]
    if endpoint.model or not page.ok:
        return []
    what = 'has no "data" list' if page.plain else "did not answer with JSON"
    raise BadInput(f"{url} {what}; is this an OpenAI-compatible endpoint (ending in /v1)?")


def refused_key(endpoint: Endpoint, code: int | str) -> str:
    return f"{endpoint.url} refused the key ({code}); put a valid one into ${endpoint.api_key_env}"


def is_name(name: object) -> bool:
    """Whether a model can be called that: a name is printed, recorded and sent."""
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()


def row_of(row: dict[str, Any]) -> Model:
    context = row.get("max_model_len") or row.get("context_length")
    whole = context if isinstance(context, int) and context > 0 else None
    owner = shorten(str(row.get("owned_by", "")), MAX_NAME)
    return Model(row["id"], whole, row.get("simulated") is True, owner, shorten(str(row.get("timing", ""))))


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
    return endpoint, Model(endpoint.model, listed=False)


async def probe(
    endpoint: Endpoint, model: Model, connect: Connect, emit: Emit, now: Callable[[], float], salt: int
) -> tuple[Features, Calibration]:
    """Find out what the endpoint takes, and count with it. A call that fails costs a feature, not the run."""
    features = Features(
        context_length=endpoint.context_length or model.context, simulated=model.simulated, timing=model.timing
    )
    limits = structs.replace(
        endpoint.timeouts,
        first_token=min(PATIENCE, endpoint.timeouts.first_token),
        call=min(2 * PATIENCE, endpoint.timeouts.call),
    )
    asker = Asker(structs.replace(endpoint, timeouts=limits), connect, emit, now, salt)
    try:
        features, asked = await adapt(asker, features)
        stop(endpoint, model, asked)
        if not asked.ok or not asked.counted:
            return structs.replace(features, usage=asked.counted or not asked.ok), Calibration()
        return features, await calibrate(asker, features, asked.tokens)
    finally:
        await asker.close()


class Asked(Struct, frozen=True):
    """What became of one calibration call."""

    status: str
    error: str = ""
    counted: bool = False  # the server sent usage
    tokens: int = 0  # of the prompt, by that

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def refused(self) -> bool:
        """Some field of the request is not taken."""
        return self.status in ("http_400", "http_422")


SPARED: tuple[dict[str, Any], ...] = (
    {"force_length": False},
    {"stream_usage": False},
    {"max_tokens_field": "max_completion_tokens"},
)
"""What is left out, one after the other, when an endpoint refuses the fields we would like to send."""


async def adapt(asker: "Asker", features: Features) -> tuple[Features, Asked]:
    """The features with which the endpoint takes a request, and what it made of that."""
    asked = await asker.ask(features, *SHORT)
    wanted, spared = features, list[dict[str, Any]]()
    while asked.refused and len(spared) < len(SPARED):
        spared.append(SPARED[len(spared)])
        features = structs.replace(features, **spared[-1])
        asked = await asker.ask(features, *SHORT)
    if asked.refused:  # not for these fields: the run will show what for
        return wanted, asked
    for change in spared[:-1]:  # the last one was needed; the others perhaps not
        more = structs.replace(features, **{name: getattr(wanted, name) for name in change})
        again = await asker.ask(more, *SHORT)
        if again.ok:
            features, asked = more, again
    return features, asked


UNKNOWN = re.compile(r"(invalid|unknown|unsupported) model|model.{0,80}not (exist|found)", re.IGNORECASE)
"""How endpoints that answer 400 for it say that they do not have a model (LiteLLM: "Invalid model name passed in")."""


def stop(endpoint: Endpoint, model: Model, asked: Asked) -> None:
    """Raise BadInput where there can be no run."""
    if asked.status in ("connect_failed", "timeout_connect"):
        raise BadInput(f"cannot reach {endpoint.url}: {asked.error}; is the server up, and --url right?")
    if asked.status in ("http_401", "http_403"):
        raise BadInput(refused_key(endpoint, asked.status[5:]))
    unknown = asked.status in ("http_404", "http_405") or (asked.refused and UNKNOWN.search(asked.error))
    if unknown or (asked.status == "bad_reply" and not model.listed):
        raise BadInput(f"{endpoint.url} has no {endpoint.api} API for model {endpoint.model!r}: {asked.error}")


class Asker:
    """Makes calibration calls; prompts are plain words, so that what they count says what words and templates cost."""

    def __init__(self, endpoint: Endpoint, connect: Connect, emit: Emit, now: Callable[[], float], salt: int) -> None:
        self.endpoint, self.connect, self.emit, self.now, self.salt = endpoint, connect, emit, now, salt
        self.clients: dict[Features, Client] = {}
        self.step = 0

    async def ask(self, features: Features, *parts: tuple[str, int]) -> Asked:
        """One call whose messages have that role and exactly that many words each."""
        client = self.clients.get(features)
        if client is None:
            exactly = Encoder(Calibration(per_message=0.0, per_system=0.0, per_request=0.0))
            client = self.clients[features] = self.connect(self.endpoint, features, exactly)
        messages = [Message(role, words, key=self.salt + words) for role, words in parts]
        made: list[Call] = []
        place = Place(CALIBRATION, "", "calibration", self.step, 0, self.now())
        self.step += 1
        reply: Reply = await client.send(Chat(Context(messages), 4, exact=True), place, made.append)
        for call in made:
            self.emit(call)
        return Asked(reply.status, made[-1].error, made[-1].usage == "server", reply.input_tokens)

    async def close(self) -> None:
        for client in self.clients.values():
            await client.close()


SHORT, LONG = (("user", FEW),), (("user", MANY),)
TURNS = (("user", MANY), ("assistant", FEW), ("user", FEW))
SYSTEM = (("system", FEW), ("user", MANY))


async def calibrate(asker: Asker, features: Features, few: int) -> Calibration:
    """What a word, a message, a system prompt and a request cost, by the endpoint's own count."""
    found = await asyncio.gather(*(asker.ask(features, *parts) for parts in (LONG, TURNS, SYSTEM)))
    many, turns, system = (asked.tokens if asked.ok and asked.counted else None for asked in found)
    if many is None:
        return Calibration()
    per_word = (many - few) / (MANY - FEW)
    if not 0.2 < per_word < 20:  # the count has nothing to do with the words: a constant, say
        return Calibration()
    alone = many - MANY * per_word  # what a request with one user message costs beyond its words
    per_message = 4.0 if turns is None else max(0.0, (turns - many - 2 * (few - alone)) / 2)
    per_system = per_message if system is None else max(0.0, system - many - (few - alone))
    return Calibration(per_word, per_message, per_system, max(0.0, alone - per_message), counted=True)
