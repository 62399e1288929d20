"""A chat-completions server that thinks nothing: prebuilt bytes at set times, and a log of when they were written.

It answers every POST alike, so that what is left to measure is the client, and is a bare epoll loop, so that it costs
less than any client. Tokens are written one by one, each at its own deadline, or all at once (`--coalesced`); there
are as many as the request's `max_tokens`. Without `"stream":true` the whole answer is one JSON object after the TTFT.
`GET /log` gives, for each X-Request-Id, when the request was read and its first and last token were written, on the
clock that `time.perf_counter` reads, which processes of one machine share.

    with null_server("--ttft", "0.2", "--itl", "0.02") as url:
        ...  # http://127.0.0.1:PORT/v1

`python -m agentload.null` writes its port on stdout and ends when its stdin, where that is a pipe, closes.
"""

import argparse
import gc
import json
import os
import re
import resource
import select
import stat
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from socket import IPPROTO_TCP, TCP_NODELAY, create_server, socket

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
IDENTITY = re.compile(rb"\r\nx-request-id: *([^\r]*)", re.IGNORECASE)
STREAM = re.compile(rb'"stream": *true')
MAX_TOKENS = re.compile(rb'"max_(?:completion_)?tokens": *(\d+)')
BYTES_PER_TOKEN = 5
"""Of the request's body: what its `usage` says of the prompt."""
KEPT = 1024
"""Bytes of a long body's end in which options are looked for."""


def chunk(delta: dict[str, str] | None, finish: str | None = None, **more: object) -> bytes:
    """One event as vLLM writes it, in one chunk of the chunked body."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
    data = {
        "id": "chatcmpl-b373a5e413144ae1",
        "object": "chat.completion.chunk",
        "created": 1795448493,
        "model": "null",
        "choices": [] if delta is None else [choice],
    } | more
    event = b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


ROLE = HEAD + chunk({"role": "assistant", "content": ""})
WORDS = [chunk({"content": f" word{i}"}) for i in range(64)]
FINISH = chunk({}, "length")
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
MODELS = json.dumps({"object": "list", "data": [{"id": "null", "owned_by": "agentload", "max_model_len": 10_000_000}]})


class Peer:
    """One connection, and where its answer has got to."""

    __slots__ = ("body", "head", "left", "line", "name", "pipe", "stream", "tail", "tokens", "written")

    def __init__(self, pipe: socket) -> None:
        self.pipe: socket | None = pipe  # None when it is gone
        self.head = b""  # of the request, with the piece of its body that came along
        self.tail = b""  # the end of its body: some clients send their options first, some last
        self.left = -1  # bytes of the body still to come; -1 before the head has ended
        self.body = 0  # its length
        self.tokens = 0  # of the answer
        self.written = 0  # of those
        self.stream = True
        self.name = ""
        self.line = [0.0, 0.0, 0.0]  # of the log


class Null:
    """The server. Every answer has the same delays, so two plain queues are always in order of their deadlines."""

    def __init__(self, tokens: int, ttft: float, itl: float, coalesced: bool) -> None:
        self.tokens, self.ttft, self.itl, self.coalesced = tokens, ttft, itl, coalesced
        self.log: dict[str, list[float]] = {}
        self._first: deque[tuple[float, Peer]] = deque()
        self._next: deque[tuple[float, Peer]] = deque()
        self._peers: dict[int, Peer] = {}
        self._epoll = select.epoll()
        self._buffer = memoryview(bytearray(1 << 18))

    def serve(self, listener: socket, parent: int | None) -> None:
        """Serve until the file descriptor `parent` has ended."""
        listener.setblocking(False)
        self._epoll.register(listener, select.EPOLLIN)
        if parent is not None:
            self._epoll.register(parent, select.EPOLLIN)
        while True:
            now = time.perf_counter()
            due = min((queue[0][0] for queue in (self._first, self._next) if queue), default=now + 60)
            # epoll itself rounds its time-out up to a millisecond, select does not
            select.select([self._epoll], [], [], max(0.0, due - now))
            for number, _ in self._epoll.poll(0):
                peer = self._peers.get(number)
                if peer is not None:
                    self._read(peer)
                elif number == listener.fileno():
                    self._accept(listener)
                elif not os.read(number, 64):
                    return
            self._write_due()

    def _accept(self, listener: socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            self._peers[connection.fileno()] = Peer(connection)
            self._epoll.register(connection, select.EPOLLIN)

    def _read(self, peer: Peer) -> None:
        assert peer.pipe is not None
        try:
            size = peer.pipe.recv_into(self._buffer)
        except BlockingIOError:
            return
        except ConnectionError:
            size = 0
        if not size:
            self._drop(peer)
        elif peer.left < 0:
            peer.head += self._buffer[:size]
            i = peer.head.find(b"\r\n\r\n")
            if i >= 0:
                length = LENGTH.search(peer.head, 0, i + 2)
                peer.body = int(length[1]) if length else 0
                peer.left = peer.body - (len(peer.head) - i - 4)
        else:
            peer.left -= size
            peer.tail = (peer.tail + self._buffer[max(0, size - KEPT) : size])[-KEPT:]
        if peer.left == 0:
            request = peer.head + peer.tail
            peer.head, peer.tail, peer.left = b"", b"", -1
            self._answer(peer, request)

    def _drop(self, peer: Peer) -> None:
        if peer.pipe is not None:
            del self._peers[peer.pipe.fileno()]
            peer.pipe.close()
            peer.pipe = None

    def _answer(self, peer: Peer, request: bytes) -> None:
        if request.startswith(b"GET "):
            path = request.split(b" ", 2)[1]
            pages = {b"models": MODELS, b"log": json.dumps(self.log)}
            page = pages.get(path.rpartition(b"/")[2])
            answer = plain(b"404 Not Found", b"{}") if page is None else plain(b"200 OK", page.encode())
            assert peer.pipe is not None
            peer.pipe.setblocking(True)  # the log may be long, and nobody is being measured
            peer.pipe.sendall(answer)
            peer.pipe.setblocking(False)
            return
        identity, tokens = IDENTITY.search(request), MAX_TOKENS.search(request)
        peer.tokens = max(1, int(tokens[1])) if tokens else self.tokens
        peer.written = 0
        peer.stream = STREAM.search(request) is not None
        peer.name = identity[1].decode() if identity else ""
        now = time.perf_counter()
        peer.line = [now, 0.0, 0.0]
        self._first.append((now + self.ttft, peer))

    def _write_due(self) -> None:
        """Write every piece whose deadline is past, in the order of the deadlines, and set the next of each."""
        first, later, itl, now = self._first, self._next, self.itl, time.perf_counter()
        while True:
            if first and first[0][0] <= now and not (later and later[0][0] < first[0][0]):
                due, peer = first.popleft()
                self._write(peer, peer.tokens if self.coalesced or not peer.stream else 1)
            elif later and later[0][0] <= now:
                due, peer = later.popleft()
                self._write(peer, 1)
            else:
                return
            if peer.written < peer.tokens:
                # Whoever is more than a gap late goes on from now: a server that fell behind does not write in bursts.
                later.append((max(due, now - itl) + itl, peer))

    def _write(self, peer: Peer, count: int) -> None:
        """Write the next tokens of an answer, with what goes before the first and after the last."""
        if peer.pipe is None:
            return
        first, peer.written = peer.written, peer.written + count
        if not peer.stream:
            data = completion(peer.body // BYTES_PER_TOKEN, peer.tokens)
        elif count == 1:
            data = WORDS[first % len(WORDS)]
        else:
            data = b"".join([WORDS[i % len(WORDS)] for i in range(first, peer.written)])
        last = peer.written == peer.tokens
        if first == 0 and peer.stream:
            data = ROLE + data
        if last and peer.stream:
            data += FINISH + chunk(None, usage=usage(peer.body // BYTES_PER_TOKEN, peer.tokens)) + DONE
        if first == 0 or last:
            t = time.perf_counter()
            if first == 0:
                peer.line[1] = t
                self.log[peer.name] = peer.line
            if last:
                peer.line[2] = t
        try:
            sent = peer.pipe.send(data)
        except (BlockingIOError, ConnectionError):
            sent = 0
        if sent < len(data):  # a client that reads nothing for so long is cut off, and will know
            self._drop(peer)


def usage(prompt: int, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def completion(prompt: int, tokens: int) -> bytes:
    """A whole answer that is not streamed."""
    message = {"role": "assistant", "content": " word" * tokens}
    choices = [{"index": 0, "message": message, "finish_reason": "length"}]
    body = {"id": "chatcmpl-0", "object": "chat.completion", "created": 1795448493, "model": "null", "choices": choices}
    return plain(b"200 OK", json.dumps(body | {"usage": usage(prompt, tokens)}).encode())


def plain(status: bytes, body: bytes) -> bytes:
    form = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    return form % (status, len(body), body)


@contextmanager
def null_server(*options: str) -> Iterator[str]:
    """The base URL of a null server that runs meanwhile, in a process of its own."""
    command = [sys.executable, "-m", "agentload.null", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.communicate()


def read_log(url: str) -> dict[str, list[float]]:
    """The log of the null server at that base URL: [read, first token, last token] for each X-Request-Id."""
    with urllib.request.urlopen(url + "/log") as answer:  # noqa: S310  # our own server
        log: dict[str, list[float]] = json.load(answer)
    return log


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--port", type=int, default=0, help="0 takes a free one, which is printed")
    options.add_argument("--tokens", type=int, default=64, help="where a request does not say")
    options.add_argument("--ttft", type=float, default=0.0, help="seconds")
    options.add_argument("--itl", type=float, default=0.0, help="seconds")
    options.add_argument("--coalesced", action="store_true", help="the whole answer in one write")
    given = options.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # nothing here is cyclic
    with create_server(("127.0.0.1", given.port), backlog=4096) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        parent = sys.stdin.fileno() if stat.S_ISFIFO(os.fstat(0).st_mode) else None
        Null(given.tokens, given.ttft, given.itl, given.coalesced).serve(listener, parent)


if __name__ == "__main__":
    main()
