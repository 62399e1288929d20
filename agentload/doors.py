"""Who can reach a door that we open, and whose door we are about to knock at."""

import ipaddress
import socket

from agentload.terminal import warn


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


def open_door(what: str, host: str, cure: str) -> None:
    """Say on stderr what others can reach now, where others can."""
    if not loopback(host):
        warn(f"{what} can be reached from other machines at {host}; {cure}")
