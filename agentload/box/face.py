"""The box's HTTP server: an OpenAI-compatible face on a simulated replica.

Tokens do not pass through aiohttp's response writer: what a connection gets in a step, framing included, is joined and
written to its transport once. What is a fault of the request is an OpenAI-shaped error, never a traceback.
"""

import asyncio
import time
import uuid
from collections.abc import Iterator
from typing import IO, Any

import msgspec
import numpy as np
from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec import Struct

from agentload.box.engine import Engine, Request
from agentload.box.metrics import exposition
from agentload.box.model import Question, Script, Words, answer
from agentload.box.options import BoxOptions, Habits
from agentload.box.protocol import Ask, ChatAsk, Framer, Refused, TextAsk, deltas, message, parse, texts, usage
from agentload.box.replica import Replica
from agentload.box.words import BLOCK, Template, Tokens, digest, identities, tokenize

MOST_BYTES = 256 * 2**20
"""Of a request's body; a megabyte, aiohttp's own limit, is a short history for an agent."""


class Answered(Struct):
    """A line of the access log. Instants are time.monotonic(), which all processes of a machine share."""

    id: str  # the client's x-request-id
    received: float
    prompt_tokens: int
    cached: int
    output_tokens: int
    status: str
    first_write: float | None  # with a token in it, not just the role; None where nothing was streamed
    last_write: float | None
    writes: list[float]


class Stream(web.StreamResponse):
    """A response whose body, chunk framing and its end included, is written to the transport by an `Exchange`."""

    _length_check = False  # so that aiohttp neither frames the body nor ends it (as it does for websockets)


class Exchange:
    """A request being answered: what will be said, and how its tokens leave."""

    __slots__ = (
        "_deltas",
        "_framer",
        "_transport",
        "_wants_usage",
        "done",
        "first",
        "id",
        "request",
        "script",
        "writes",
    )

    def __init__(self, identity: str, script: Script, request: Request) -> None:
        self.id = identity
        self.script = script
        self.request = request
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.first: float | None = None  # time.monotonic() of the first write with a token in it
        self.writes: list[float] = []  # and of every write
        self._transport: asyncio.WriteTransport | None = None

    def stream(
        self, framer: Framer, deltas: Iterator[bytes], transport: asyncio.WriteTransport, *, wants_usage: bool
    ) -> None:
        """Send each token as it comes, instead of all at the end."""
        self._framer, self._deltas, self._transport, self._wants_usage = framer, deltas, transport, wants_usage

    def usage(self) -> dict[str, Any]:
        request = self.request
        return usage(request.prompt, request.cached, request.generated, self.script.reasoning_tokens)

    def token(self) -> None:
        """The next token is there."""
        request, transport = self.request, self._transport
        last = request.generated == request.output
        if transport is not None and not transport.is_closing():
            delta = next(self._deltas)
            data = self._framer.token(delta) if delta else b""
            if request.generated == 1:
                data = self._framer.opening + data
            if last:
                data += self._framer.end(self.script.finish_reason, self.usage() if self._wants_usage else None)
            if data:
                now = time.monotonic()
                transport.write(data)
                self.writes.append(now)
                if delta and self.first is None:
                    self.first = now
        if last and not self.done.done():
            self.done.set_result(None)


class Face:
    """Handlers of the server, on one engine."""

    def __init__(self, engine: Engine, options: BoxOptions, log: IO[bytes] | None = None) -> None:
        self.engine = engine
        self.options = options
        self.context = min(options.context or engine.preset.context, engine.capacity)
        self.finished = {"stop": 0, "length": 0, "abort": 0}
        self.replica = Replica(engine, serve, options.speed)
        self._log = log
        self._template = Template()
        self._created = int(time.time())

    def application(self) -> web.Application:
        app = web.Application(middlewares=[web.middleware(errors)], client_max_size=MOST_BYTES)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/models/{model:.+}", self.one_model)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.text)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def health(self, http: web.Request) -> web.Response:
        return web.Response()

    async def metrics(self, http: web.Request) -> web.Response:
        page = exposition(self.engine, self.replica.lag, self.finished, self.options.model)
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def models(self, http: web.Request) -> web.Response:
        return as_json({"object": "list", "data": [self._card()]})

    async def one_model(self, http: web.Request) -> web.Response:
        self._check_model(http.match_info["model"])
        return as_json(self._card())

    async def chat(self, http: web.Request) -> web.StreamResponse:
        ask: ChatAsk = parse(await http.read(), ChatAsk)
        received = time.monotonic()
        self._check_model(ask.model)
        tools, described = ask.offers()
        choice = ask.choice(tools)
        tokens = self._template.prompt([said.plain() for said in ask.messages], described)
        exchange = self._plan(
            "chatcmpl-", ask, tokens, self.options.habits, tools=tools, choice=choice, results=ask.results()
        )
        if ask.stream:
            return await self._stream(http, exchange, ask, received, chat=True)
        await self._run(http, exchange, received)
        choices = [{"index": 0, "message": message(exchange.script), "finish_reason": exchange.script.finish_reason}]
        return as_json(self._whole(exchange, "chat.completion", choices))

    async def text(self, http: web.Request) -> web.StreamResponse:
        ask: TextAsk = parse(await http.read(), TextAsk)
        received = time.monotonic()
        self._check_model(ask.model)
        given = ask.only()
        tokens = tokenize(given) if isinstance(given, str) else np.array(given, np.uint64)
        exchange = self._plan("cmpl-", ask, tokens, msgspec.structs.replace(self.options.habits, reasoning=0.0))
        if ask.stream:
            return await self._stream(http, exchange, ask, received, chat=False)
        await self._run(http, exchange, received)
        said = "".join(part.text for part in exchange.script.parts if isinstance(part, Words))
        choices = [{"index": 0, "text": said, "logprobs": None, "finish_reason": exchange.script.finish_reason}]
        return as_json(self._whole(exchange, "text_completion", choices))

    def _plan(self, prefix: str, ask: Ask, tokens: Tokens, habits: Habits, **question: Any) -> Exchange:
        """Decide the reply to a prompt; Refused where the context is too short for both."""
        prompt = len(tokens)
        if not prompt:
            raise Refused(400, "the prompt is empty", param="prompt")
        room = self.context - prompt
        if room < 1 or (ask.most or 0) > room:
            wanted = f" and {ask.most} of output" if ask.most is not None else ""
            limit = f"This model's maximum context length is {self.context} tokens"
            raise Refused(400, f"{limit}, but the request has {prompt} of input{wanted}.", param="input_tokens")
        chain = identities(tokens)
        script = answer(
            Question(
                digest(tokens, chain),
                most=ask.most or room,
                seed=self.options.seed if ask.seed is None else ask.seed,
                least=min(ask.min_tokens or 0, room),
                exact=bool(ask.ignore_eos),
                **question,
            ),
            habits,
        )
        ids = identities(np.concatenate((tokens[len(chain) * BLOCK :], script.tokens)), chain)
        exchange = Exchange(prefix + uuid.uuid4().hex, script, Request(prompt, len(script.tokens), ids))
        exchange.request.tag = exchange
        return exchange

    async def _stream(
        self, http: web.Request, exchange: Exchange, ask: Ask, received: float, *, chat: bool
    ) -> web.StreamResponse:
        if http.version < (1, 1):
            raise Refused(400, "streaming needs HTTP/1.1", param="stream")
        response = Stream(headers={"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"})
        await response.prepare(http)
        transport = http.transport
        if transport is not None:
            framer = Framer(exchange.id, int(time.time()), self.options.model, chat=chat)
            tokens = deltas(exchange.script) if chat else texts(exchange.script)
            exchange.stream(framer, tokens, transport, wants_usage=ask.wants_usage)
            await self._run(http, exchange, received)
        return response

    async def _run(self, http: web.Request, exchange: Exchange, received: float) -> None:
        """Let the engine answer. When the client hangs up the task is cancelled, and the engine forgets the request."""
        status = "abort"
        self.replica.submit(exchange.request, received)
        try:
            await exchange.done
            status = "ok"
        finally:
            if status == "abort":
                self.replica.cancel(exchange.request)
            reason = exchange.script.finish_reason if status == "ok" else "abort"
            self.finished["stop" if reason == "tool_calls" else reason] += 1
            if self._log is not None:
                self._log.write(self._line(http, exchange, received, status))

    def _line(self, http: web.Request, exchange: Exchange, received: float, status: str) -> bytes:
        request, writes = exchange.request, exchange.writes
        line = Answered(
            id=http.headers.get("x-request-id", ""),
            received=received,
            prompt_tokens=request.prompt,
            cached=max(0, request.cached),
            output_tokens=request.generated,
            status=status,
            first_write=exchange.first,
            last_write=writes[-1] if writes else None,
            writes=writes,
        )
        return msgspec.json.encode(line) + b"\n"

    def _whole(self, exchange: Exchange, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        created = int(time.time())
        common = {"id": exchange.id, "object": kind, "created": created, "model": self.options.model}
        return {**common, "choices": choices, "usage": exchange.usage()}

    def _check_model(self, name: str | None) -> None:
        if name not in (None, "", self.options.model):
            raise Refused(
                404,
                f"The model `{name}` does not exist; this box serves `{self.options.model}`.",
                "NotFoundError",
                "model",
            )

    def _card(self) -> dict[str, Any]:
        return {
            "id": self.options.model,
            "object": "model",
            "created": self._created,
            "owned_by": "agentload (simulated)",
            "max_model_len": self.context,
            "simulated": True,
            "preset": self.engine.preset.name,
            "serves": self.engine.preset.serves,
            "speed": self.options.speed,
        }


def serve(served: list[Request]) -> None:
    """Hand the tokens of a step to their connections."""
    for request in served:
        exchange: Any = request.tag
        exchange.token()


def as_json(page: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(page), status=status, content_type="application/json")


async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever is wrong with a request becomes an OpenAI-shaped error."""
    try:
        return await handler(request)
    except Refused as reason:
        refused = reason
    except web.HTTPException as error:
        kind = error.reason.replace(" ", "") + "Error"
        refused = Refused(error.status, f"{error.reason}: {request.method} {request.path}", kind)
    return web.Response(body=refused.body, status=refused.status, content_type="application/json")
