"""What a spec says of metrics and traces."""

import urllib.parse
from typing import Annotated

from msgspec import Meta, Struct

Share = Annotated[float, Meta(ge=0, le=1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class Telemetry(Struct, frozen=True, forbid_unknown_fields=True):
    """Metrics of the servers and of the run, and traces of its sessions. Of runs in real time."""

    scrape: bool = True  # read the endpoint's own metrics, where it has any
    metrics_urls: list[str] = []  # other pages to read once a second: replicas behind a gateway, GPUs
    metrics_port: Port | None = None  # serve the run's own metrics there; 0 takes a free port
    metrics_host: str = "127.0.0.1"
    otlp_endpoint: str = ""  # where traces and metrics go (OTLP over HTTP); "" takes OTEL_EXPORTER_OTLP_ENDPOINT
    sample: Share = 1.0  # of sessions that become traces

    def __post_init__(self) -> None:
        for name, urls in (("metrics_urls", self.metrics_urls), ("otlp_endpoint", [self.otlp_endpoint])):
            for url in filter(None, urls):
                check(name, url)
        if self.metrics_host != "127.0.0.1" and self.metrics_port is None:
            raise ValueError(f"metrics_host {self.metrics_host!r} serves nothing without metrics_port; give that, too")


def check(name: str, url: str) -> None:
    """Raise ValueError for what cannot be asked, or should not be written down."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name} must be http:// or https:// with a host, got {url!r}")
    if parts.username or parts.password:
        raise ValueError(
            f"{name}: a URL with a password would be written into run.json; leave out what is before the @"
        )
