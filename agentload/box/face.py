"""The box's HTTP server: an OpenAI-compatible face on the simulated cluster.

Tokens do not pass through aiohttp's response writer: what a connection gets in a step, framing included, is joined and
written to its transport once. What is a fault of the request is an OpenAI-shaped error, never a traceback.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import IO, Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agentload.box.cluster import Cluster
from agentload.box.door import Door
from agentload.box.exchange import Answered, Exchange, Pieces
from agentload.box.metrics import PARSES, Observations, exposition
from agentload.box.model import Words
from agentload.box.options import BoxOptions
from agentload.box.protocol import Ask, ChatAsk, Framer, Refused, TextAsk, chunked, deltas, message, parse, texts
from agentload.box.replica import Driver
from agentload.box.reply import reply_to
from agentload.box.request import Request, Step
from agentload.box.responses import Reply, ResponsesAsk
from agentload.box.words import Template
from agentload.doors import misled

MOST_BYTES = 256 * 2**20
"""Of a request's body; a megabyte, aiohttp's own limit, is a short history for an agent."""


class Stream(web.StreamResponse):
    """A response whose body, chunk framing and its end included, is written to the transport by an `Exchange`."""

    _length_check = False  # so that aiohttp neither frames the body nor ends it (as it does for websockets)


class Face:
    """Handlers of the server, on one cluster."""

    def __init__(self, cluster: Cluster, options: BoxOptions, log: IO[bytes] | None = None) -> None:
        self.cluster = cluster
        self.options = options
        self.context = min(options.context or cluster.preset.context, cluster.capacity)
        self.door = Door(options.quota, options.queued, options.faults, options.seed)
        self.driver = Driver(cluster, self.serve, options.speed)
        self._seen: dict[int, Observations] = {}
        self._parsed = dict.fromkeys(PARSES, 0)  # replies to requests with tools
        cluster.watch = self.watch
        self._log = log
        self._template = Template()
        self._created = int(time.time())

    def application(self) -> web.Application:
        app = web.Application(
            middlewares=[web.middleware(errors), at_home(self.options.host)], client_max_size=MOST_BYTES
        )
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/models/{model:.+}", self.one_model)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.text)
        app.router.add_post("/v1/responses", self.responses)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        return app

    # What the cluster says

    def seen(self, replica: int) -> Observations:
        found = self._seen.get(replica)
        if found is None:
            found = self._seen[replica] = Observations(self.context)
        return found

    def watch(self, replica: int, step: Step) -> None:
        self.seen(replica).step(step)

    def serve(self, at: float, served: list[Request]) -> None:
        """Hand the tokens of a step to their connections."""
        for request in served:
            exchange: Exchange = request.tag  # type: ignore[assignment]  # the face's own requests carry one
            seen = self.seen(request.replica)
            if request.generated == 1:
                exchange.first_at = at
                seen.first_token.add(at - exchange.came)
            elif request.generated:
                seen.gap.add(at - exchange.at)
            exchange.token(at)

    # Pages

    async def health(self, http: web.Request) -> web.Response:
        return web.Response()

    async def metrics(self, http: web.Request) -> web.Response:
        seen = {replica.index: self.seen(replica.index) for replica in self.cluster.replicas}
        page = exposition(self.cluster, seen, self.driver.lag, self.door, self._parsed, self.options.model)
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def models(self, http: web.Request) -> web.Response:
        return as_json({"object": "list", "data": [self._card()]})

    async def one_model(self, http: web.Request) -> web.Response:
        self._check_model(http.match_info["model"])
        return as_json(self._card())

    # The three APIs

    async def chat(self, http: web.Request) -> web.StreamResponse:
        ask: ChatAsk = parse(await http.read(), ChatAsk)
        exchange = self._plan("chatcmpl-", ask)

        def whole() -> dict[str, Any]:
            script = exchange.script
            choices = [{"index": 0, "message": message(script), "finish_reason": script.finish_reason}]
            return self._whole(exchange, "chat.completion", choices)

        def streamed() -> tuple[Pieces, Callable[[], bytes], Callable[[], bytes]]:
            return framed(exchange, self.options.model, chat=True, wants_usage=ask.wants_usage)

        return await self._answer(http, exchange, ask, whole, streamed)

    async def text(self, http: web.Request) -> web.StreamResponse:
        ask: TextAsk = parse(await http.read(), TextAsk)
        exchange = self._plan("cmpl-", ask)

        def whole() -> dict[str, Any]:
            script = exchange.script
            said = "".join(part.text for part in script.parts if isinstance(part, Words))
            choices = [{"index": 0, "text": said, "logprobs": None, "finish_reason": script.finish_reason}]
            return self._whole(exchange, "text_completion", choices)

        def streamed() -> tuple[Pieces, Callable[[], bytes], Callable[[], bytes]]:
            return framed(exchange, self.options.model, chat=False, wants_usage=ask.wants_usage)

        return await self._answer(http, exchange, ask, whole, streamed)

    async def responses(self, http: web.Request) -> web.StreamResponse:
        asked: ResponsesAsk = parse(await http.read(), ResponsesAsk)
        ask = asked.chat()
        exchange = self._plan("resp_", ask)
        reply, request = Reply(exchange.id, int(time.time()), self.options.model, exchange.script), exchange.request

        def whole() -> dict[str, Any]:
            return reply.whole(request.prompt, request.cached, request.generated)

        def streamed() -> tuple[Pieces, Callable[[], bytes], Callable[[], bytes]]:
            return reply.pieces(), lambda: reply.end(request.prompt, request.cached, request.generated), reply.broken

        return await self._answer(http, exchange, ask, whole, streamed)

    def _plan(self, prefix: str, ask: Ask) -> Exchange:
        """Decide the reply to a prompt."""
        received = time.monotonic()
        self._check_model(ask.model)
        script, request = reply_to(ask, self._template, self.options, self.context)
        request.tag = exchange = Exchange(prefix + uuid.uuid4().hex, script, request, received)
        exchange.most = ask.most or len(script.tokens)
        return exchange

    async def _answer(
        self,
        http: web.Request,
        exchange: Exchange,
        ask: Ask,
        whole: Callable[[], dict[str, Any]],
        streamed: Callable[[], tuple[Pieces, Callable[[], bytes], Callable[[], bytes]]],
    ) -> web.StreamResponse:
        """Let it in, let the cluster answer, and send that, at once or token by token."""
        key = http.headers.get("Authorization", "").removeprefix("Bearer ")
        waiting = self.cluster.waiting if self.options.queued is not None else 0
        size = exchange.request.prompt + exchange.most
        let_in = self.door.enter(key, size, waiting, self.driver.now())
        faults, speed = self.options.faults, self.options.speed
        if let_in.fault == "slow":
            await asyncio.sleep(faults.slow_seconds / speed)
            exchange.received += faults.slow_seconds / speed
        exchange.meet(let_in.fault, faults.stall_seconds / speed)
        if isinstance(ask, ChatAsk) and ask.tools:
            mode, called = "streaming" if ask.stream else "non_streaming", exchange.script.finish_reason == "tool_calls"
            api = "responses" if http.path.endswith("/responses") else "chat_completions"
            exchange.parse = (mode, "tool_call" if called else "no_tool_call", api)
        if not ask.stream:
            if not await self._run(http, exchange):
                if exchange.fault == "broken":
                    raise Refused(500, "a fault made on purpose", "InternalServerError")
                hang_up(http)
            return as_json(whole(), headers=let_in.headers)
        if http.version < (1, 1):
            raise Refused(400, "streaming needs HTTP/1.1", param="stream")
        kind = {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}
        response = Stream(headers=kind | let_in.headers)
        await response.prepare(http)
        if http.transport is not None:
            exchange.stream(*streamed(), http.transport)
            if not await self._run(http, exchange) and exchange.fault != "broke":
                hang_up(http)
        return response

    async def _run(self, http: web.Request, exchange: Exchange) -> bool:
        """Let the cluster answer; whether it did in full.

        When the client hangs up the task is cancelled, and the cluster forgets the request.
        """
        status, request = "abort", exchange.request
        exchange.came = self.driver.at(exchange.received)
        if not self.driver.submit(request, exchange.received):
            raise Refused(503, "no replica is up", "ServiceUnavailableError")
        try:
            status = "ok" if await exchange.done else "error"
        finally:
            if status != "ok":
                self.driver.cancel(request)
            if status == "ok" and exchange.parse:
                self._parsed[exchange.parse] += 1
            seen = self.seen(request.replica)
            reason = exchange.script.finish_reason if status == "ok" else status
            seen.finished["stop" if reason == "tool_calls" else reason] += 1
            if status == "ok":
                seen.ended(request, exchange.came, exchange.first_at, exchange.at, exchange.most)
            if self._log is not None:
                self._log.write(self._line(http, exchange, status))
        return status == "ok"

    def _line(self, http: web.Request, exchange: Exchange, status: str) -> bytes:
        request, writes = exchange.request, exchange.writes
        line = Answered(
            id=http.headers.get("x-request-id", ""),
            received=exchange.received,
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
            serves = f"this box serves `{self.options.model}`"
            raise Refused(404, f"The model `{name}` does not exist; {serves}.", "NotFoundError", "model")

    def _card(self) -> dict[str, Any]:
        preset = self.cluster.preset
        return {
            "id": self.options.model,
            "object": "model",
            "created": self._created,
            "owned_by": "agentload (simulated)",
            "max_model_len": self.context,
            "simulated": True,
            "preset": preset.name,
            "serves": preset.serves,
            "validity": preset.validity,
            "timing": self.options.timing,
            "speed": self.options.speed,
            "replicas": len(self.cluster.replicas),
            "behind": self.driver.lag.too_much,
        }


def framed(
    exchange: Exchange, model: str, *, chat: bool, wants_usage: bool
) -> tuple[Pieces, Callable[[], bytes], Callable[[], bytes]]:
    """The tokens of a chat or of a plain completion, their end, and what breaks them off."""
    framer = Framer(exchange.id, int(time.time()), model, chat=chat)

    def pieces() -> Pieces:
        before, token = framer.opening, framer.token
        for delta in deltas(exchange.script) if chat else texts(exchange.script):
            yield (before + token(delta), True) if delta else (before, False)
            before = b""

    def end() -> bytes:
        return framer.end(exchange.script.finish_reason, exchange.usage() if wants_usage else None)

    def broken() -> bytes:
        return chunked(Refused(500, "a fault made on purpose", "InternalServerError").body) + framer.done

    return pieces(), end, broken


def hang_up(http: web.Request) -> None:
    """Break the connection: what a client sees of a server that died."""
    if http.transport is not None:
        http.transport.abort()


def as_json(page: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(page), status=status, content_type="application/json", headers=headers)


def at_home(bound: str) -> Middleware:
    """Refuses what was meant for another host."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if misled(request.headers.get("Host", ""), bound):
            raise Refused(421, "the Host of the request is not this server", "MisdirectedRequestError")
        return await handler(request)

    return check


async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever is wrong with a request becomes an OpenAI-shaped error."""
    try:
        return await handler(request)
    except Refused as reason:
        refused = reason
    except web.HTTPException as error:
        kind = error.reason.replace(" ", "") + "Error"
        refused = Refused(error.status, f"{error.reason}: {request.method} {request.path}", kind)
    return web.Response(
        body=refused.body, status=refused.status, content_type="application/json", headers=refused.headers
    )
