"""The token of a run on several processes: who does not know it can neither join the run nor listen to it.

Locust's channel is ZeroMQ. The token gives the master a key pair for CurveZMQ (ZeroMQ RFC 26): a worker must know the
public half to be heard at all, and only a master with the secret half can answer. What is said is encrypted.
"""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

from agentload.errors import BadInput

TOKEN_ENV = "AGENTLOAD_TOKEN"  # noqa: S105  # its name
LEAST = 16
"""Characters of a token: who overhears a connection can try out short ones at leisure."""
MAX_MESSAGE = 64 * 2**20
"""Bytes of a message; libzmq hangs up on whoever announces more, before it makes room for it."""
HANDSHAKE = 5.0
"""Seconds in which a connection must prove what it knows."""


def made_up() -> str:
    return secrets.token_urlsafe(24)


def given(file: Path | None = None) -> str:
    """The token in that file, or in the environment; "" where there is none."""
    if file is None:
        where, token = f"${TOKEN_ENV}", os.environ.get(TOKEN_ENV, "")
    else:
        where = f"--token-file {str(file)!r}"
        try:
            token = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{where} cannot be read: {error}") from None
    if (token or file) and len(token) < LEAST:
        raise BadInput(f"{where} must hold a token of at least {LEAST} characters, got {len(token)}")
    return token


def key_of(token: str) -> tuple[bytes, bytes]:
    """The master's public and secret key, as ZeroMQ writes them (Z85)."""
    import zmq
    from zmq.utils import z85

    secret = z85.encode(hashlib.scrypt(token.encode(), salt=b"agentload fleet", n=2**14, r=8, p=1, dklen=32))
    return zmq.curve_public(secret), secret


def secure(token: str) -> None:
    """From now on, the sockets that Locust opens in this process ask for that token, and prove it.

    Locust opens them in the middle of its runners' constructors, and anew after an error; it has no other place to say
    how. Called again (a second run), another token takes over.
    """
    from locust.rpc import zmqrpc

    zmqrpc.Server, zmqrpc.Client = sockets(*key_of(token))  # type: ignore[misc]  # they are classes, as before


def sockets(public: bytes, secret: bytes) -> tuple[Any, Any]:
    """Locust's server and client sockets, with those keys set before they bind or connect."""
    import zmq
    from locust.exception import RPCError
    from locust.rpc.zmqrpc import BaseSocket

    def bounded(socket: Any) -> None:
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(1000 * HANDSHAKE))

    class Server(BaseSocket):
        def __init__(self, host: str, port: int) -> None:
            super().__init__(zmq.ROUTER, self.ipv4_only(host, port))  # type: ignore[no-untyped-call]
            bounded(self.socket)
            self.socket.curve_server = True
            self.socket.curve_secretkey = secret
            try:
                self.socket.bind(f"tcp://{host}:{port or '*'}")
            except zmq.ZMQError as error:
                raise RPCError(f"Socket bind failure: {error}") from None
            self.port = int(self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    class Client(BaseSocket):
        def __init__(self, host: str, port: int, identity: str) -> None:
            super().__init__(zmq.DEALER, self.ipv4_only(host, port))  # type: ignore[no-untyped-call]
            bounded(self.socket)
            self.socket.setsockopt(zmq.IDENTITY, identity.encode())
            self.socket.curve_serverkey = public
            self.socket.curve_publickey, self.socket.curve_secretkey = zmq.curve_keypair()
            self.socket.connect(f"tcp://{host}:{port}")

    return Server, Client
