"""What the tests of the probe share: an endpoint that takes only what it is told to take."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Answer = tuple[int, Any]  # status and a body: JSON, or text that is sent as HTML
Behave = Callable[[str, Body], Answer]
"""From the path and the body of a request to the answer; the answer "stream" is a good stream."""

MODELS = {"data": [{"id": "m", "owned_by": "tests", "max_model_len": 4096}]}


def words_in(body: Body) -> int:
    return sum(len(str(message["content"]).split()) for message in body["messages"])


def streamed(body: Body, usage: bool) -> bytes:
    """Two words, and usage where it is sent: a word costs 2 tokens, a message 5, a request 3."""
    events: list[Body] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("Hel", "lo")]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        prompt = 2 * words_in(body) + 5 * len(body["messages"]) + 3
        counts = {"prompt_tokens": prompt, "completion_tokens": 2, "total_tokens": prompt + 2}
        events.append({"choices": [], "usage": counts})
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    behave: Behave
    seen: list[tuple[str, Body]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, body: Body) -> None:
        self.server.seen.append((self.path, body))
        code, said = self.server.behave(self.path, body)
        kind = "application/json"
        if isinstance(said, bytes):
            kind = "text/event-stream"
        elif isinstance(said, str):
            kind, said = "text/html", said.encode()
        else:
            said = json.dumps(said).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(said)))
        self.send_header("x-ratelimit-remaining-requests", "99")
        self.end_headers()
        self.wfile.write(said)


@contextmanager
def endpoint(behave: Behave) -> Iterator[tuple[str, list[tuple[str, Body]]]]:
    """The base URL of such an endpoint, and what it was asked."""
    server = Server(("127.0.0.1", 0), Handler)
    server.behave, server.seen = behave, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", server.seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def picky(refuses: tuple[str, ...] = (), code: int = 400, usage: bool = True) -> Behave:
    """Takes every request without those fields; sends usage only where it was asked to, if at all."""

    def behave(path: str, body: Body) -> Answer:
        if path.endswith("/models"):
            return 200, MODELS
        if not path.endswith("/chat/completions"):
            return 404, {"error": {"message": "no such page"}}
        for field in refuses:
            if field in body:
                return code, {"error": {"message": f"Unexpected field: {field}"}}
        return 200, streamed(body, usage and "stream_options" in body)

    return behave


def failing(code: int, said: Any, models: Answer = (200, MODELS)) -> Behave:
    """Has models, and answers every call like that."""
    return lambda path, body: models if path.endswith("/models") else (code, said)
