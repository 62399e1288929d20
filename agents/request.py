"""What goes to the endpoint besides the conversation itself: the URL, the headers, the fields of the body.

Both clients take them from here, so that they ask for the same thing. What the stock `openai` client would send to the
same base URL with the same environment is what is sent; a test holds the two together.
"""

import math
import os
import re
import ssl
import urllib.parse
import urllib.request
from typing import Any

import msgspec

from agents.api import APIS
from agents.chain import Chat, ToolSchema
from agents.endpoint import Endpoint, Features, Place
from agents.text import CHARACTERS_PER_TOKEN, Encoder
from agents.tracecontext import call_span, is_sampled, trace_id, traceparent

OWN_FIELDS = ("messages", "input", "prompt", "tools", "stream")
"""Fields that only a client can fill in."""

AZURE_DEPLOYED = ("chat/completions", "completions")
"""What Azure serves below a deployment."""

KEY_PLACEHOLDER = "EMPTY"
"""Sent where no key is set, as local servers' manuals do: the openai client refuses to run without one."""

MAX_CACHED_TOOLS = 1024


class Url(msgspec.Struct, frozen=True):
    """Where a request goes, taken apart."""

    host: str
    port: int
    tls: bool
    path: str  # with the query

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """The Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Request:
    """What every call to one endpoint has in common. Raises ValueError for an endpoint that cannot be asked."""

    def __init__(self, endpoint: Endpoint, features: Features, encoder: Encoder, run_id: str) -> None:
        refuse(endpoint)
        self.endpoint = endpoint
        self.features = features
        self.api = APIS[endpoint.api]
        self.url = join(endpoint.url, self.api.path, endpoint.model)
        self.tls = trusted(endpoint) if self.url.tls else None
        self.headers = headers(endpoint)
        self._encoder = encoder
        self._run_id = run_id
        self._tools: dict[int, tuple[tuple[ToolSchema, ...], bytes]] = {}
        self._heads: dict[tuple[int, bool, bool, bool, int | None], bytes] = {}

    def fields(self, chat: Chat) -> dict[str, Any]:
        """The body without the conversation and `tools`."""
        endpoint, features, api = self.endpoint, self.features, self.api
        body: dict[str, Any] = {"model": endpoint.model, "stream": endpoint.stream}
        if endpoint.stream and features.stream_usage and api.stream_options:
            body["stream_options"] = {"include_usage": True}
        body[api.max_tokens or features.max_tokens_field] = chat.max_tokens
        if chat.exact and features.force_length:
            body |= {"ignore_eos": True, "min_tokens": chat.max_tokens} if api.min_tokens else {"ignore_eos": True}
        if chat.exact and chat.reasoning is not None and features.simulated:
            body["reasoning_tokens"] = chat.reasoning
        if chat.context.tools:
            refuse(endpoint, tools=True)
            if not chat.call_tools:
                body["tool_choice"] = "none"
        return body | endpoint.sampling | endpoint.extra_body

    def head(self, chat: Chat) -> bytes:
        """The JSON body up to the first message; `api.after` ends it after the last."""
        key = (chat.max_tokens, chat.exact, chat.call_tools, bool(chat.context.tools), chat.reasoning)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= MAX_CACHED_TOOLS:
                self._heads.clear()
            head = self._heads[key] = msgspec.json.encode(self.fields(chat))[:-1]
        if chat.context.tools:
            return b'%b,"tools":%b%b' % (head, self.tools(chat.context.tools), self.api.before)
        return head + self.api.before

    def tools(self, schemas: tuple[ToolSchema, ...]) -> bytes:
        """The JSON of the tool schemas, made once for each tuple of them."""
        known = self._tools.get(id(schemas))
        if known is None:
            if len(self._tools) >= MAX_CACHED_TOOLS:
                self._tools.clear()
            known = self._tools[id(schemas)] = (schemas, self._encoder.tools(schemas, self.api.describe))
        return known[1]

    def names(self, place: Place) -> dict[str, str]:
        """The headers that say which call this is: to the server's log, and to its router if it wants to know."""
        header = self.endpoint.session_header
        found = {"X-Request-Id": self.identity(place)}
        if header:
            found[header] = f"{self._run_id}-{place.session}"
        if self.endpoint.traceparent:
            trace = trace_id(self._run_id, place.session)
            if is_sampled(trace, self.endpoint.traceparent):
                span = call_span(self._run_id, place.session, place.agent, place.step, place.attempt)
                found["traceparent"] = traceparent(trace, span)
        return found

    def identity(self, place: Place) -> str:
        """The X-Request-Id header, by which a server's log can be joined to our records."""
        agent = f".{place.agent}" if place.agent else ""
        return f"{self._run_id}-{place.session}{agent}-{place.step}-{place.attempt}"

    def prompt_tokens(self, chat: Chat) -> int:
        """What the prompt should count, for servers that do not say."""
        if chat.wanted_input is not None:
            return chat.wanted_input
        context = chat.context
        tools = len(self.tools(context.tools)) if context.tools else 0
        texts = sum(m.tokens or math.ceil(len(m.text or "") / CHARACTERS_PER_TOKEN) for m in context.messages)
        return texts + math.ceil(tools / CHARACTERS_PER_TOKEN)

    def conceal(self, text: str) -> str:
        """The text without the key: servers like to quote it back."""
        return conceal(text, self.endpoint, self.headers)


def key(endpoint: Endpoint) -> str:
    """What the endpoint is opened with."""
    return os.environ.get(endpoint.api_key_env) or KEY_PLACEHOLDER


def conceal(text: str, endpoint: Endpoint, sent: dict[str, str]) -> str:
    """The text without the key and the values of the endpoint's own headers, which were `sent` to it."""
    for name, value in sent.items():
        secret = value.removeprefix("Bearer ")
        if len(secret) >= 8 and (name in ("Authorization", "api-key") or name in endpoint.headers):
            text = text.replace(secret, "[secret]")
            for length in range(len(secret) - 1, 3, -1):  # the start of one, where the text was cut off
                text = text.removesuffix(secret[:length] + "…")
    return text


def headers(endpoint: Endpoint) -> dict[str, str]:
    """The headers every request carries, as the openai client would set them; the endpoint's own win. ValueError where
    one of those is in an environment variable that is not set."""
    found = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "agentload"}
    if azure_version(endpoint.url):
        found["api-key"] = key(endpoint)
    else:
        found["Authorization"] = f"Bearer {key(endpoint)}"
    for header, name in (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")):
        if name in os.environ:
            found[header] = os.environ[name]
    own = {name.lower() for name in endpoint.headers}
    found = {name: value for name, value in found.items() if name.lower() not in own}
    found |= {name: from_environment(name, value) for name, value in endpoint.headers.items()}
    for name, value in found.items():
        if not name.isascii() or not name.isprintable() or " " in name or any(c in value for c in "\r\n\0"):
            raise ValueError(f"header {name!r} cannot be sent: names are ASCII words, values have no line breaks")
    return found


VARIABLE = re.compile(r"((?:Bearer |Basic )?)\$([A-Za-z_][A-Za-z0-9_]*)")
"""A header's value that is in the environment: `$NAME`, or `Bearer $NAME`."""

SECRET = re.compile(r"(^|[-_])(authorization|cookie|api-?key|key|token|secret|password|passwd)$", re.IGNORECASE)
"""Names of headers that hold secrets: Authorization, Cookie, api-key, X-Auth-Token, Ocp-Apim-Subscription-Key, …"""

HARMLESS = {"idempotency-key"}


def from_environment(name: str, value: str) -> str:
    """The value, taken from the environment where it says so."""
    found = VARIABLE.fullmatch(value)
    if found is None:
        return value
    secret = os.environ.get(found[2])
    if secret is None:
        raise ValueError(f"header {name!r} is to come from ${found[2]}, which is not set in the environment")
    return found[1] + secret


def keep_secrets_out(endpoint: Endpoint) -> None:
    """Raise ValueError where a secret is written into the settings themselves, which go into records and reports."""
    parts = urllib.parse.urlsplit(endpoint.url)
    if parts.username or parts.password:
        raise ValueError(
            "url must not carry a user name or password, since it is written into every report; "
            'send them as headers = { Authorization = "Basic $NAME" }, with $NAME in the environment'
        )
    for name, value in endpoint.headers.items():
        if SECRET.search(name) and name.lower() not in HARMLESS and not VARIABLE.fullmatch(value):
            raise ValueError(
                f"header {name!r} must not be written down, since specs go into every report; put it into an "
                f'environment variable and name that, as in {name} = "$NAME" (or "Bearer $NAME")'
            )
    for name in (*endpoint.sampling, *endpoint.extra_body):
        if name.lower() in ("api_key", "authorization", "password", "secret"):
            raise ValueError(f"`{name}` must not be written down; give the key by api_key_env")


def azure_version(url: str) -> str:
    """The `api-version` in a base URL, which is how Azure is told from others; "" where there is none."""
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)).get("api-version", "")


def join(base: str, path: str, model: str = "") -> Url:
    """The base URL with the path below it. On Azure, a deployment is named by the model where the URL names none."""
    parts = urllib.parse.urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url must be http://host/v1 or https://host/v1, got {base!r}")
    version = azure_version(base)
    if (parts.query and not version) or "&" in parts.query or parts.fragment:
        raise ValueError(f"url can have no query but Azure's ?api-version=…, got {base!r}")
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    tls = parts.scheme == "https"
    below = urllib.parse.quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~-._")
    if version and path in AZURE_DEPLOYED and "/deployments" not in parts.path:
        below += "/deployments/" + urllib.parse.quote(model, safe="")
    query = "?" + urllib.parse.urlencode({"api-version": version}) if version else ""
    return Url(host, parts.port or (443 if tls else 80), tls, f"{below}/{path}{query}")


def trusted(endpoint: Endpoint) -> ssl.SSLContext:
    """Whom to trust: the authorities in `ca_file`, else the system's. There is no way to trust everybody."""
    try:
        return ssl.create_default_context(cafile=endpoint.ca_file or None)
    except OSError as error:
        raise ValueError(f"ca_file {endpoint.ca_file!r} cannot be read as PEM: {error.strerror or error}") from None


def refuse(endpoint: Endpoint, *, tools: bool = False) -> None:
    """Raise ValueError for settings that no client here can honour; `tools` says that chains will offer tools."""
    keep_secrets_out(endpoint)
    asked = endpoint.sampling | endpoint.extra_body
    for field in OWN_FIELDS:
        if field in asked:
            raise ValueError(f"`{field}` is filled in by the client and cannot be set in sampling or extra_body")
    for field in ("n", "best_of"):
        if asked.get(field) not in (None, 1):
            raise ValueError(
                f"{field} must be 1, got {asked[field]!r}: one call is one answer, run more agents instead"
            )
    header = endpoint.session_header
    if header and not header.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"session_header must be a header's name, as in X-Session-ID, got {header!r}")
    if tools and endpoint.api == "completions":
        raise ValueError('api "completions" has no tools; use api "chat" or "responses", or sized chains')


def needs_sdk(endpoint: Endpoint) -> str | None:
    """Why the wire client cannot reach this endpoint and the sdk client must; None where it can."""
    parts = urllib.parse.urlsplit(endpoint.url)
    proxies = urllib.request.getproxies()
    host = parts.hostname or ""
    for scheme in (parts.scheme, "all"):
        if proxies.get(scheme) and not urllib.request.proxy_bypass(host):
            return f"the environment names a proxy for {host} ({scheme.upper()}_PROXY)"
    return None
