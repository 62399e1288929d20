"""Who can reach a door that we open, and whose door we are about to knock at."""

import ipaddress
import socket
import urllib.parse

from agentload.terminal import warn

LOCAL = {"127.0.0.1", "::1", "localhost"}


def addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """What a host name stands for; [] where nobody knows."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in found]


def loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    found = addresses(host)
    return bool(found) and all(address.is_loopback for address in found)


def private(host: str) -> bool:
    """Whether that host is this machine or on a network that is not the internet's (RFC 1918 and its like)."""
    found = addresses(host)
    return bool(found) and all(address.is_private and not address.is_unspecified for address in found)


def misled(host: str, bound: str) -> bool:
    """Whether a request that came to a door on loopback names some other host (its Host header): a page in a browser
    on this machine has been led here by a name of its own (DNS rebinding)."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    return name not in LOCAL and name != bound.strip("[]") and loopback(bound)


def open_door(what: str, host: str, cure: str) -> None:
    """Say on stderr what others can reach now, where others can."""
    if not loopback(host):
        warn(f"{what} can be reached from other machines at {host}; {cure}")
