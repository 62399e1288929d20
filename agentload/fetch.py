"""One small HTTP request, for what is asked of an endpoint outside a run: its models, its metrics, what it can do."""

import contextlib
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any, NamedTuple

from agents.endpoint import Endpoint
from agents.request import conceal, headers, trusted
from agents.sse import Events

MAX_PAGE = 8_000_000
"""Bytes of an answer that are read."""


class Page(NamedTuple):
    """An answer. `code` is 0 where there was none, and `headers` have lower-case names."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    @property
    def plain(self) -> dict[str, Any]:
        """The JSON object in the body; {} where there is none."""
        return as_object(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON objects of an event stream."""
        found = [as_object(data) for data in Events().feed(self.body + b"\n\n")]
        return [event for event in found if event]


def as_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


class SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to where the key may go."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = (urllib.parse.urlsplit(url)[:2] for url in (req.full_url, newurl))
        return super().redirect_request(req, fp, code, msg, headers, newurl) if old == new else None


def fetch(endpoint: Endpoint, url: str, body: dict[str, Any] | None = None, limit: float = 30.0) -> Page:
    """GET that URL, or POST the body to it, as that endpoint's requests are sent; blocks for `limit` seconds or so.

    Any answer is a Page, an error's too. Raises OSError (TimeoutError among them) where there is none, ValueError for a
    URL of another scheme.
    """
    data = None if body is None else json.dumps(body).encode()
    end = time.monotonic() + limit
    tls = trusted(endpoint) if url.startswith("https://") else None
    sent = headers(endpoint)
    with answered(url, sent, tls, limit, data) as answer:
        found = bytearray()
        while piece := answer.read1(1 << 16):
            found += piece
            if len(found) > MAX_PAGE or time.monotonic() > end:
                break
        names = {name.lower(): value for name, value in answer.headers.items()}
        said = conceal(found.decode("utf-8", "surrogateescape"), endpoint, sent).encode("utf-8", "surrogateescape")
        return Page(answer.status, {name: conceal(value, endpoint, sent) for name, value in names.items()}, said)


@contextlib.contextmanager
def answered(
    url: str, headers: dict[str, str], tls: ssl.SSLContext | None, limit: float, data: bytes | None = None
) -> Iterator[Any]:
    """An answer to GET, or to POST where there are data, as it begins: whatever its status, its body not yet read.

    No silence lasts longer than `limit` seconds. Raises OSError (TimeoutError among them) where there is no answer, or
    where it breaks while it is read, ValueError for a URL of another scheme.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url must begin with http:// or https://, got {url!r}")
    handlers: list[urllib.request.BaseHandler] = [SameOrigin()]
    if tls is not None:
        handlers.append(urllib.request.HTTPSHandler(context=tls))
    try:
        try:
            request = urllib.request.Request(url, data, headers)  # noqa: S310  # the scheme is checked above
            answer = urllib.request.build_opener(*handlers).open(request, timeout=limit)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            yield answer
    except HTTPException as error:
        raise OSError(f"not an HTTP answer: {error!r}") from None
