"""The sdk client: the stock `openai.AsyncOpenAI` end to end, for people who want exactly what their agents run.

Its retries are off, since retries are the agent's; its pool has no limit. What it does not tell shows in the record:
`chunks` counts events instead of network reads, and a kept-alive connection that died is a "reset", never sent again.
"""

import asyncio
import contextlib
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Any

import httpx2
import msgspec
import openai

from agents.answer import Answer
from agents.chain import Chat, Context, Reply
from agents.endpoint import Emit, Endpoint, Features, Place
from agents.http import DRAIN
from agents.limits import MAX_BODY, MAX_ERROR_BODY
from agents.request import Request, azure_version, key
from agents.responses import Event
from agents.text import Encoder
from agents.trouble import Trouble, error_text, retry_after, shorten, unconnected

current: ContextVar["Trace"] = ContextVar("current")
"""The call that the running task makes: the SDK has no other way to tell its transport."""


PACKED = "gzip, deflate"
"""Encodings that are asked for: those that can be unpacked up to a limit."""


class BodyTooLargeError(httpx2.DecodingError):
    """The body has more than `MAX_BODY` bytes."""


class Trace:
    """Takes from the transport the instants that the SDK keeps to itself."""

    def __init__(self, answer: Answer, now: Callable[[], float]) -> None:
        self.answer = answer
        self._now = now
        self._began = 0.0

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        step = event.partition(".")[2]
        if step in ("connect_tcp.started", "start_tls.started"):
            self._began = self._now()
        elif step.startswith(("connect_tcp.", "start_tls.")):
            self.answer.connect += self._now() - self._began
        elif step == "send_request_body.complete":
            self.answer.sent = self._now()
        elif step == "receive_response_headers.complete":
            self.answer.opened = self._now()


class Bounded(httpx2.AsyncByteStream):
    """A body with a limit: an answer beyond it is an error, an error's text is cut there. It unpacks, too, since what
    counts is what comes out."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int, cut: bool, packed: bool) -> None:
        self._stream = stream
        self._limit = limit
        self._cut = cut
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        try:
            async for piece in self._stream:
                if self._inflate is not None:
                    piece = self._inflate.decompress(piece, left + 1)
                left -= len(piece)
                if left < 0 and not self._cut:
                    raise BodyTooLargeError(f"the body has more than {self._limit} bytes")
                yield piece
                if left <= 0 and self._cut:
                    return
        except zlib.error as error:
            raise httpx2.DecodingError(f"broken content-encoding: {error}") from None
        except httpx2.TransportError:
            if not self._cut:  # what has come of an error is enough
                raise

    async def aclose(self) -> None:
        await self._stream.aclose()


async def trace_request(request: httpx2.Request) -> None:
    request.extensions = {**request.extensions, "trace": current.get()}


async def bound_response(response: httpx2.Response) -> None:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    encoding = response.headers.pop("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise httpx2.DecodingError(f"content-encoding {encoding!r}, though {PACKED} was asked for")
    cut = not response.is_success
    limit = MAX_ERROR_BODY if cut else MAX_BODY
    response.stream = Bounded(response.stream, limit, cut, packed=encoding != "identity")


class Sdk:
    """A client (`agents.endpoint.Client`) for one endpoint. `now` is the run clock; `itl` keeps every gap."""

    def __init__(
        self,
        endpoint: Endpoint,
        features: Features,
        encoder: Encoder,
        now: Callable[[], float],
        run_id: str,
        *,
        itl: bool = False,
    ) -> None:
        self._request = Request(endpoint, features, encoder, run_id)
        self._limits = endpoint.timeouts
        self._stream = endpoint.stream
        self._encoder = encoder
        self._now = now
        self._itl = itl
        self._client = client(self._request)
        creates: dict[str, Callable[..., Awaitable[Any]]] = {
            "chat": self._client.chat.completions.create,
            "responses": self._client.responses.create,
            "completions": self._client.completions.create,
        }
        self._create = creates[endpoint.api]

    async def send(self, chat: Chat, place: Place, emit: Emit) -> Reply:
        """One attempt at one call; see `agents.endpoint.Client`."""
        answer = self._request.api.answer()
        answer.hang_up = chat.hang_up
        current.set(Trace(answer, self._now))
        try:
            end = await self._ask(chat, place, answer)
        except asyncio.CancelledError:
            answer.fail("cancelled")
            self._emit(answer, place, chat, self._now(), emit)
            raise
        return self._emit(answer, place, chat, end, emit)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    def _emit(self, answer: Answer, place: Place, chat: Chat, end: float, emit: Emit) -> Reply:
        if answer.error:
            answer.error = self._request.conceal(shorten(answer.error))
        answer.conceal(self._request.conceal)
        call, reply = answer.finish(place, chat, end, lambda: self._request.prompt_tokens(chat), self._itl)
        emit(call)
        return reply

    async def _ask(self, chat: Chat, place: Place, answer: Answer) -> float:
        """Make the call and say when it ended; whatever goes wrong ends in the answer."""
        try:
            async with asyncio.timeout(None) as limit:
                watch = Watch(answer, self, limit)
                try:
                    return await self._call(chat, place, answer)
                finally:
                    watch.stop()
        except TimeoutError:
            answer.fail(watch.status)
        except openai.APIStatusError as error:
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            answer.retry_after = retry_after(headers)
            answer.fail(f"http_{error.status_code}", error_text(error.response.content))
        except openai.APIConnectionError as error:
            answer.broke(trouble(error.__cause__, answer))
        except openai.APIError as error:
            answer.fail("error_event", error.message)
        except httpx2.RequestError as error:  # from a body that the SDK reads where it does not expect trouble
            answer.broke(trouble(error, answer))
        except (ValueError, RecursionError) as error:
            answer.fail("bad_reply", f"an answer does not fit the API: {error}")
        return self._now()

    async def _call(self, chat: Chat, place: Place, answer: Answer) -> float:
        fields = self._request.fields(chat)
        if chat.context.tools:
            fields["tools"] = msgspec.json.decode(self._request.tools(chat.context.tools))
        answering = await self._create(
            **{self._request.api.conversation: self._conversation(chat.context)},
            model=fields.pop("model"),
            stream=fields.pop("stream"),
            extra_body=fields,
            extra_headers=self._request.names(place),
        )
        if not isinstance(answering, openai.AsyncStream):
            t = self._now()
            answer.take(plain(answering, answer), t)
            answer.over = True
            return t
        async with AsyncExitStack() as closing:
            closing.push_async_callback(answering.close)
            kind = answering.response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in ("text/event-stream", ""):
                said = error_text(await answering.response.aread())
                answer.fail("bad_reply", f"wanted text/event-stream, got {kind}: {said}")
                return self._now()
            async for event in answering:
                t = self._now()
                answer.take(plain(event, answer), t)
                if answer.over:
                    if not answer.status:
                        await drain(answering)
                    return t
        return self._now()

    def _conversation(self, context: Context) -> Any:
        """The conversation as the API wants it; its past is shaped once."""
        for message in context.messages[len(context.encoded) :]:
            context.encoded.append(self._request.api.shape(self._encoder.plain(message)))
        return self._request.api.gather(context.encoded)


class Watch:
    """The time limits of one call, in one timer that is set again only when it fires."""

    def __init__(self, answer: Answer, client: Sdk, limit: asyncio.Timeout) -> None:
        self.status = ""
        self._answer = answer
        self._client = client
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._look()

    def _look(self) -> None:
        client = self._client
        status, wait = self._answer.overdue(client._now(), client._limits, client._stream)
        if status:
            self.status = status
            self._limit.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(wait, self._look)

    def stop(self) -> None:
        self._timer.cancel()


def client(request: Request) -> openai.AsyncOpenAI:
    """The SDK's client, set up as people set it up for that endpoint."""
    endpoint, version = request.endpoint, azure_version(request.endpoint.url)
    own = {
        name: value
        for name, value in request.headers.items()
        if name in endpoint.headers or name not in ("Authorization", "api-key")
    }
    options: dict[str, Any] = {
        "base_url": endpoint.url,
        "api_key": key(endpoint),
        "max_retries": 0,
        "default_headers": {"Accept-Encoding": PACKED} | own,
        "http_client": openai.DefaultAsyncHttpx2Client(
            # For plain http: trusts nobody, since loading the system's authorities takes 60 ms for nothing.
            verify=request.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            timeout=httpx2.Timeout(None, connect=endpoint.timeouts.connect),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            follow_redirects=False,
            event_hooks={"request": [trace_request], "response": [bound_response]},
        ),
    }
    if version:
        return openai.AsyncAzureOpenAI(**options | {"base_url": endpoint.url.partition("?")[0]}, api_version=version)
    return openai.AsyncOpenAI(**options)


async def drain(answering: openai.AsyncStream[Any]) -> None:
    """Wait shortly for the end of the body after the last event, so that the connection can be used again."""
    with contextlib.suppress(TimeoutError, openai.APIError, httpx2.HTTPError, ValueError):
        async with asyncio.timeout(DRAIN):
            async for _ in answering:
                pass


def plain(event: object, answer: Answer) -> Any:
    """What the SDK made of an event or a body, as that answer takes it. Raises ValueError where fields have other
    types."""
    found = msgspec.convert(event, answer.decoder.type, from_attributes=True)
    whole = found.response if isinstance(found, Event) and found.response is not None else found
    for name in ("usage", "error"):
        value = getattr(whole, name)
        if isinstance(value, openai.BaseModel):
            setattr(whole, name, value.model_dump(warnings=False))
    return found


def trouble(error: BaseException | None, answer: Answer) -> Trouble:
    """The status of the transport's exception (the SDK's own keeps it as its cause)."""
    text = str(error or "connection error")
    match error:
        case httpx2.ConnectTimeout():
            return Trouble("timeout_connect", "no connection within the limit")
        case httpx2.ConnectError() | httpx2.UnsupportedProtocol() | httpx2.ProxyError():
            return Trouble("connect_failed", unconnected(error))
        case httpx2.DecodingError():
            return Trouble("bad_reply", text)
        case httpx2.RemoteProtocolError() if "peer closed" in text:
            return Trouble("truncated", "the connection was closed in the middle of the answer")
        case httpx2.RemoteProtocolError() if "disconnected" not in text:
            return Trouble("bad_reply", f"not HTTP: {text}")
    return Trouble("reset" if answer.sent is not None else "connect_failed", text)
