"""The proxy: what comes in goes to one upstream and back, untouched; what it was is looked at when it is over.

Nothing of a request is kept but its body while the call lasts: no key, no cookie, no header but the one that names a
session. It is no open proxy: a request names a path, and only the upstream is asked for it.
"""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from agentload.record.heard import path_of

HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""Headers that are between two neighbours (RFC 9110, §7.6.1)."""
SESSIONS = ("x-session-id", "session-id", "session_id", "x-claude-code-session-id", "x-session-affinity")
"""Headers in which clients name their session."""
FIELD = 65_536
"""Bytes that a line or a header of a request may have."""


class Exchange(NamedTuple):
    """One call that was answered. Seconds of `time.perf_counter`."""

    api: str
    begin: float
    end: float
    request: bytes
    streamed: bool
    reply: bytes
    session: str


class Refusal(Exception):  # noqa: N818  # it is one
    """A request that goes nowhere, with its status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Proxy:
    """Answers requests. `heard` is called with each answered call, in a thread of its own, one at a time; `failed` on
    the loop with the status of each that was not; `broke` has the exception where `heard` raised one."""

    def __init__(
        self,
        upstream: str,
        heard: Callable[[Exchange], None],
        failed: Callable[[int], None],
        largest: int,  # bytes of a body
        sessions: Iterable[str] = SESSIONS,
        ssl: Any = True,
    ) -> None:
        self.upstream = URL(upstream.rstrip("/"))
        self.heard, self.failed, self.largest, self.sessions = heard, failed, largest, tuple(sessions)
        self.hosts = {"localhost", "127.0.0.1", "::1"}  # names and addresses under which it may be asked
        self.everywhere = False  # or under any address of this machine
        self.own = ThreadPoolExecutor(1, thread_name_prefix="heard")
        self.broke: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connector = aiohttp.TCPConnector(limit=0, ssl=ssl)
        self.client = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=FIELD,
            max_field_size=FIELD,
        )

    async def close(self) -> None:
        await self.client.close()
        self.own.shutdown()  # what is over is written

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request."""
        begin = time.perf_counter()
        try:
            target = self.target(request)
            body = await self.body(request)
        except Refusal as refusal:
            return refused(refusal.status, str(refusal))
        headers = passed(request.headers)
        headers["Accept-Encoding"] = "identity"  # what comes back is read here, too
        try:
            reply = await self.client.request(
                request.method, target, headers=headers, data=body or None, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.failed(502)
            return refused(502, f"the upstream {self.upstream.origin()} cannot be reached: {type(error).__name__}")
        try:
            return await self.pass_on(request, reply, body, begin)
        finally:
            reply.close()  # the upstream sees it where its answer was not at its end

    def target(self, request: web.BaseRequest) -> URL:
        """Where a request goes. Refusal for what is not asked of us, or asks us for something else."""
        path = request.raw_path
        if request.method == "CONNECT" or not path.startswith("/"):
            raise Refusal(400, "a request names a path here: this is no proxy for other hosts")
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        if host not in self.hosts and not (self.everywhere and is_address(host)):
            raise Refusal(421, "the Host of the request is not this proxy")
        path, _, query = path.partition("?")
        if any(part in ("..", "%2e%2e", ".%2e", "%2e.") for part in path.lower().split("/")):
            raise Refusal(400, "a path with .. in it")
        base = self.upstream.raw_path.rstrip("/")
        if base and path.startswith("/v1/"):
            path = base + path[3:]
        queries = "&".join(part for part in (self.upstream.raw_query_string, query) if part)
        return URL(f"{self.upstream.origin()}{path}{'?' if queries else ''}{queries}", encoded=True)

    async def body(self, request: web.BaseRequest) -> bytes:
        """All of a request's body. Refusal where it is too large."""
        if (request.content_length or 0) > self.largest:
            raise Refusal(413, f"the body is larger than {self.largest:,} bytes")
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces, size = [], 0
        async for piece in request.content.iter_any():
            size += len(piece)
            if size > self.largest:
                raise Refusal(413, f"the body is larger than {self.largest:,} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def pass_on(
        self, request: web.BaseRequest, reply: aiohttp.ClientResponse, body: bytes, begin: float
    ) -> web.StreamResponse:
        """Give an answer to the client as it comes."""
        answer = web.StreamResponse(status=reply.status, reason=reply.reason, headers=passed(reply.headers))
        if "Content-Length" in reply.headers:
            answer.content_length = int(reply.headers["Content-Length"])
        api = path_of(request.raw_path) if request.method == "POST" else ""
        pieces: list[bytes] = []
        await answer.prepare(request)
        try:
            async for piece in reply.content.iter_any():
                await answer.write(piece)
                if api:
                    pieces.append(piece)
        except (aiohttp.ClientError, TimeoutError):  # the upstream broke off: so do we
            self.failed(0)
            if request.transport is not None:
                request.transport.abort()
            return answer
        await answer.write_eof()
        if api and reply.status == 200:
            loop = asyncio.get_running_loop()
            streamed = reply.content_type == "text/event-stream"
            exchange = Exchange(
                api, begin, time.perf_counter(), body, streamed, b"".join(pieces), self.session(request)
            )
            loop.run_in_executor(self.own, self.heard, exchange).add_done_callback(self.look)
        elif api:
            self.failed(reply.status)
        return answer

    def look(self, done: asyncio.Future[None]) -> None:
        """A bug in what listens must not go unnoticed."""
        error = done.exception()
        if error is not None and not self.broke.done():
            self.broke.set_exception(error)

    def session(self, request: web.BaseRequest) -> str:
        """What the client calls its session; "" where it says nothing."""
        return next((request.headers[name] for name in self.sessions if name in request.headers), "")


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def passed(headers: Any) -> CIMultiDict[str]:
    """The headers that go on to the next one."""
    named = {name.strip().lower() for name in ",".join(headers.getall("Connection", [])).split(",")}
    dropped = HOP | named | {"host", "content-length", "accept-encoding"}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def refused(status: int, why: str) -> web.Response:
    """An error in the words of the APIs."""
    return web.json_response({"error": {"message": f"agentload record: {why}", "type": "proxy_error"}}, status=status)


@contextlib.asynccontextmanager
async def served(proxy: Proxy, host: str, port: int) -> Any:
    """The proxy, listening; entering gives its base URL. OSError where it cannot listen there."""
    server = web.Server(
        proxy.answer,
        handler_cancellation=True,  # a client that hangs up cancels its call, and so the upstream's
        access_log=None,
        auto_decompress=False,
        lingering_time=0.5,  # for the rest of a body that was refused
        max_line_size=FIELD,
        max_field_size=FIELD,
    )
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1_024).start()
        where, port = runner.addresses[0][:2]
        yield f"http://{f'[{where}]' if ':' in where else where}:{port}/v1"
    finally:
        await runner.cleanup()
        await proxy.close()
