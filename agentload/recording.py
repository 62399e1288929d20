"""What `agentload record` does: the proxy in front of an endpoint, its log, and at the end a trace of sessions."""

import asyncio
import ipaddress
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import msgspec
import uvloop
from msgspec import Struct

from agentload.doors import open_door
from agentload.errors import BadInput
from agentload.record.heard import Heard, prompt_of, reply_of
from agentload.record.log import Log, Times
from agentload.record.proxy import SESSIONS, Exchange, Proxy, is_address, served
from agentload.terminal import warn
from agentload.traces import calls, own
from agentload.traces.source import Complaints, Source


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """How to record."""

    upstream: str
    out: str = "trace.jsonl"
    host: str = "127.0.0.1"
    port: int = 8788
    text: bool = False
    session_header: tuple[str, ...] = ()
    ca_file: str = ""
    largest: int = 64 * 2**20  # bytes of a request


class Recorder:
    """Takes what the proxy heard, and writes it down."""

    def __init__(self, log: Log, text: IO[bytes] | None, zero: float) -> None:
        self.log, self.text, self.zero = log, text, zero

    def heard(self, exchange: Exchange) -> None:
        """One answered call. What is no call of a known API is passed on and not recorded."""
        try:
            prompt = prompt_of(exchange.api, exchange.request)
        except (ValueError, RecursionError):
            self.failed(200)
            return
        found = reply_of(exchange.api, exchange.streamed, exchange.reply, len(exchange.request))
        if not found.reply.ok:
            self.failed(200)
            return
        times = Times(exchange.begin - self.zero, exchange.end - self.zero)
        self.log.answered(times, prompt, found, exchange.session)
        if self.text is not None:
            self.text.write(said(self.log.calls, exchange, found) + b"\n")
            self.text.flush()

    def failed(self, status: int) -> None:
        self.log.failed += 1


def said(number: int, exchange: Exchange, found: Heard) -> bytes:
    """The text of one call as a line of JSON."""
    reply = found.reply
    tools = [{"name": call.name, "arguments": call.arguments} for call in reply.tool_calls]
    line = {"call": number, "api": exchange.api, "request": msgspec.Raw(exchange.request),
            "reply": {"text": reply.text, "reasoning": reply.reasoning, "tool_calls": tools}}  # fmt: skip
    return msgspec.json.encode(line)


def record(options: Options, ready: Callable[[str], None]) -> str:
    """Record until Ctrl-C or SIGTERM; what was done. `ready` is called with the base URL for clients. BadInput for
    what cannot be recorded."""
    check(options)
    open_door("the recorder", options.host, "it asks its upstream for whoever reaches it, with the keys that they send")
    out = Path(options.out)
    log_path, text_path = beside(out, ".calls"), beside(out, ".text.jsonl")
    try:
        with private(log_path) as file, private(text_path if options.text else Path(os.devnull)) as text:
            log = uvloop.run(serve(options, ready, file, text if options.text else None))
    except OSError as error:
        raise BadInput(
            f"cannot record at {options.host}:{options.port} to {str(log_path)!r}: {error.strerror}"
        ) from None
    try:
        sessions = own.save(calls.read(Source(log_path, Complaints())), out, own.Header(own.VERSION, "", "recording"))
    except OSError as error:
        raise BadInput(
            f"{str(out)!r} cannot be written: {error.strerror}; all calls are in {str(log_path)!r}"
        ) from None
    out.chmod(0o600)
    log_path.unlink()
    estimated = f", {log.estimated:,} of them with estimated sizes" if log.estimated else ""
    failed = f"; {log.failed:,} were not answered, or not in full, and are left out" if log.failed else ""
    return f"{out}: {sessions:,} sessions, {log.calls:,} calls{estimated}{failed}"


def check(options: Options) -> None:
    """BadInput for what cannot be."""
    parts = urlsplit(options.upstream)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"--upstream must be a URL like http://127.0.0.1:8000/v1, got {options.upstream!r}")
    if parts.username or parts.password:
        raise BadInput("--upstream must not hold a password; clients send their own keys")
    for path in (Path(options.out), beside(Path(options.out), ".calls")):
        if path.exists():
            raise BadInput(f"{str(path)!r} exists; name another file with -o, or move it away")
    if options.largest < 1:
        raise BadInput(f"--max-body must be >= 1 byte, got {options.largest}")


def beside(out: Path, ending: str) -> Path:
    return out.with_name(out.name.removesuffix(".jsonl") + ending)


def private(path: Path) -> IO[bytes]:
    """A file that only its owner may read, opened for writing."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


async def serve(options: Options, ready: Callable[[str], None], file: IO[bytes], text: IO[bytes] | None) -> Log:
    """The proxy until a signal ends it; the log that it wrote."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    recorder = Recorder(Log(file), text, time.perf_counter())
    proxy = Proxy(
        options.upstream,
        recorder.heard,
        recorder.failed,
        options.largest,
        (*options.session_header, *SESSIONS),
        ssl.create_default_context(cafile=options.ca_file) if options.ca_file else True,
    )
    proxy.hosts |= {options.host.lower()}
    if is_address(options.host) and ipaddress.ip_address(options.host).is_unspecified:
        proxy.hosts |= {socket.gethostname().lower()}
        proxy.everywhere = True
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with served(proxy, options.host, options.port) as url:
        ready(url)
        proxy.broke.add_done_callback(lambda _: stop.set())
        await stop.wait()
    if proxy.broke.done():
        proxy.broke.result()
    return recorder.log


def announce(url: str) -> None:
    warn(f"recording; use {url} as the base URL; Ctrl-C ends it")
