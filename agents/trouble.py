"""What an endpoint says when it does not answer: error bodies of every make, and how long to wait."""

import email.utils
import html
import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from agents.limits import MAX_ERROR, MAX_ERROR_BODY, MAX_RETRY_AFTER

TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
"""White space, control characters, and what turns the direction of text around."""


class Trouble(NamedTuple):
    """A fault and its status, as in `collectors.records.STATUSES`."""

    status: str
    error: str = ""


def shorten(text: str, most: int = MAX_ERROR) -> str:
    """One line of at most so many characters, without control characters."""
    text = BLANKS.sub(" ", text[: 16 * most]).strip()
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


def unconnected(error: BaseException) -> str:
    """Why there is no connection. A certificate of an authority that nobody named gets the cure with it."""
    text = str(error) or type(error).__name__
    if "self-signed certificate" in text or "unable to get local issuer certificate" in text:
        return f"{text}; name the authority's PEM file in ca_file"
    return text


def complaint(error: Any) -> str:
    """The message inside an error as APIs spell it: OpenAI's, FastAPI's `detail`, or plain."""
    for _ in range(4):
        if isinstance(error, list) and error:
            error = error[0]
        elif isinstance(error, dict):
            inner = next((error[k] for k in ("error", "message", "detail", "msg") if error.get(k)), None)
            if inner is None:
                break
            error = inner
        else:
            break
    return shorten(error if isinstance(error, str) else json.dumps(error, default=str))


def error_text(body: bytes) -> str:
    """What the body of an error says, shortened: JSON, HTML or text."""
    text = body[:MAX_ERROR_BODY].decode("utf-8", "replace")
    try:
        return complaint(json.loads(text))
    except (ValueError, RecursionError):
        pass
    if "<" in text and re.search(r"<(!doctype|html|head|body|title|h1)\b", text, re.IGNORECASE):
        text = html.unescape(TAGS.sub(" ", text))
    return shorten(text)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds the server asked us to wait: `retry-after-ms`, else `retry-after` as seconds or as an HTTP date.

    A date counts from the answer's own `date` header, so that a wrong clock on either side does no harm. `headers` has
    lower-case names.
    """
    milliseconds = seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return bounded(milliseconds / 1000)
    value = headers.get("retry-after")
    plain = seconds(value)
    if plain is not None:
        return bounded(plain)
    when = instant(value)
    if when is None:
        return None
    sent = instant(headers.get("date"))
    return bounded(when - (sent if sent is not None else time.time() if now is None else now))


def bounded(wait: float) -> float:
    return min(max(wait, 0.0), MAX_RETRY_AFTER)


def seconds(value: str | None) -> float | None:
    """The number in that header, or None."""
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def instant(value: str | None) -> float | None:
    """The Unix time of that HTTP date, or None."""
    try:
        return email.utils.parsedate_to_datetime(value or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
