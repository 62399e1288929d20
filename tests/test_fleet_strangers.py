"""Who does not know the run's token: gets nothing from a master or a worker, is not heard, and does no harm."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import msgpack
import pytest
import zmq
from zmq.utils import z85

from agentload.box.options import BoxOptions
from agentload.box.serve import BoxProcess
from agentload.errors import BadInput
from agentload.fleet import channel
from agentload.fleet.token import MAX_MESSAGE, given, key_of, made_up, sockets
from agentload.fleet.worker import unpatched_locust
from tests.fleet_made import ended, master, recorded, started
from tests.test_fleet_run import listening

unpatched_locust()  # before anything else imports it
TOKEN, OTHER = made_up(), made_up()
HELLO = msgpack.dumps(("client_ready", "2.47.0", "mallory"))
JOIN = msgpack.dumps((channel.HELLO, {"host": "mallory", "pid": 1}, "mallory"))
RECORDS = msgpack.dumps((channel.BATCH, {"number": 0, "batch": b"x"}, "worker_0"))
FRAMES = [HELLO, JOIN, RECORDS, b"", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x91" * 100_000, os.urandom(1_000)]
"""What a stranger says: Locust's greeting, ours, records in a worker's name; and nothing, a map announced with four
billion entries, one nested 100,000 deep, noise."""


def stranger(port: int, keys: tuple[bytes, bytes] | None = None, server: bytes = b"") -> "zmq.Socket[bytes]":
    """A DEALER as Locust's worker is one: without encryption, or with keys of its own choice."""
    knocking = zmq.Context.instance().socket(zmq.DEALER)
    knocking.linger = 0
    knocking.setsockopt(zmq.IDENTITY, b"worker_0")
    if keys is not None:
        knocking.curve_serverkey = server
        knocking.curve_publickey, knocking.curve_secretkey = keys
    knocking.connect(f"tcp://127.0.0.1:{port}")
    return knocking


def strangers(port: int) -> list["zmq.Socket[bytes]"]:
    """In the clear, with another token, and with keys of nobody."""
    return [
        stranger(port),
        stranger(port, zmq.curve_keypair(), key_of(OTHER)[0]),
        stranger(port, zmq.curve_keypair(), z85.encode(bytes(32))),
    ]


def harass(port: int) -> "list[zmq.Socket[bytes]]":
    """Everything that a stranger can do to a port; the sockets stay open."""
    knocking = strangers(port)
    for each in knocking:
        for frame in FRAMES:
            with contextlib.suppress(zmq.Again):  # it has been shut out already
                each.send(frame, zmq.NOBLOCK)
    greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
    huge = b"\x02" + struct.pack(">Q", 1 << 40)  # a frame of a terabyte is announced
    for words in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(64), greeting, greeting + huge, greeting + b"\x04\x01" * 1_000):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            raw.sendall(words)
    return knocking


@pytest.fixture
def server() -> Iterator[Any]:
    made = sockets(*key_of(TOKEN))[0]("127.0.0.1", 0)
    yield made
    shut(made)


def shut(made: Any) -> None:
    made.close(linger=0)
    made.socket.context.destroy(linger=0)


def heard(server: Any, longer: float = 0.5) -> list[Any]:
    """Messages that reach Locust: the first, however long that takes, and what comes within that much longer."""
    with gevent.Timeout(20):
        found = [server.recv_from_client()]
    with gevent.Timeout(longer, False):
        while True:
            found.append(server.recv_from_client())
    return found


def test_a_stranger_is_not_heard_and_hears_nothing(server: Any) -> None:
    knocking = harass(server.port)
    honest = sockets(*key_of(TOKEN))[1]("127.0.0.1", server.port, "worker_1")
    locust = unpatched_locust()

    honest.send(locust.rpc.Message("client_ready", "2.47.0", "worker_1"))
    (only,) = heard(server)
    server.send_to_client(locust.rpc.Message("agentload-job", {"spec": "secret"}, "worker_0"))  # the stranger's name
    server.send_to_client(locust.rpc.Message("ack", {}, "worker_1"))

    assert (only[0], only[1].type) == ("worker_1", "client_ready")
    with gevent.Timeout(5):
        assert honest.recv().type == "ack"
    assert not any(each.poll(50) for each in knocking)
    shut(honest)
    for each in knocking:
        each.close()


def test_a_worker_says_nothing_to_a_master_that_does_not_know_the_token() -> None:
    ear = zmq.Context.instance().socket(zmq.ROUTER)
    ear.curve_server, ear.curve_secretkey = True, key_of(OTHER)[1]
    port = ear.bind_to_random_port("tcp://127.0.0.1")
    worker = sockets(*key_of(TOKEN))[1]("127.0.0.1", port, "worker_1")

    worker.send(unpatched_locust().rpc.Message("client_ready", "2.47.0", "worker_1"))

    assert not ear.poll(300)
    shut(worker)
    ear.close(linger=0)


def test_the_wire_shows_nothing_of_what_is_said() -> None:
    """Between the two stands somebody who copies every byte."""
    server = sockets(*key_of(TOKEN))[0]("127.0.0.1", 0)
    ear = socket.create_server(("127.0.0.1", 0))
    worker = sockets(*key_of(TOKEN))[1]("127.0.0.1", ear.getsockname()[1], "worker_1")
    worker.send(unpatched_locust().rpc.Message("client_ready", "the-secret-spec", "worker_1"))
    there, back, said = ear.accept()[0], socket.create_connection(("127.0.0.1", server.port)), bytearray()
    for pipe in (there, back):
        pipe.setblocking(False)

    def copy() -> None:
        while True:
            for one, other in ((there, back), (back, there)):
                try:
                    piece = one.recv(65_536)
                except BlockingIOError:
                    continue
                said.extend(piece)
                other.sendall(piece)
            gevent.sleep(0.001)

    copying = gevent.spawn(copy)
    (only,) = heard(server)
    copying.kill()

    assert only[1].data == "the-secret-spec" and len(said) > 300
    assert b"the-secret" not in said and b"client_ready" not in said
    for each in (there, back, ear):
        each.close()
    for made in (worker, server):
        shut(made)


def test_a_run_under_attack_loses_and_takes_in_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOAD_TOKEN", TOKEN)
    log = tmp_path / "log"
    flags, fleet = {"sessions": 6, "agents": 3}, {"expect_workers": 1, "bind_port": 0}
    with (
        BoxProcess(BoxOptions(speed=5.0, sigma=0.0, log=str(log))) as url,
        master(flags | {"url": url}, tmp_path / "runs", **fleet) as process,
    ):
        port = listening(process)
        knocking = harass(port)
        command = [sys.executable, "-m", "agentload.fleet.worker"]
        options = json.dumps({"master_port": port, "out": str(tmp_path / "kept")})
        monkeypatch.setenv("AGENTLOAD_TOKEN", OTHER)
        wrong = json.dumps({"master_port": port, "wait": 1.0})
        refused = subprocess.run([*command, wrong], capture_output=True, text=True, timeout=60, check=False)
        monkeypatch.setenv("AGENTLOAD_TOKEN", TOKEN)
        with started(*command, options) as joined:
            knocking += harass(port)
            result = ended(process)
            assert joined.wait(timeout=10) == 0
    got = [each.poll(0) for each in knocking]
    for each in knocking:
        each.close()

    assert refused.returncode == 2 and "no master answers" in refused.stderr and "its token" in refused.stderr
    assert not any(got)
    assert len(result.header["health"]["workers"]) == 1
    assert set(recorded(result).values()) == {1} and len(result.sessions) >= 6
    assert TOKEN.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_token_comes_from_a_file_or_the_environment_and_is_not_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    monkeypatch.delenv("AGENTLOAD_TOKEN", raising=False)
    assert given() == ""
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("AGENTLOAD_TOKEN", OTHER)
    assert (given(file), given()) == (TOKEN, OTHER)
    for text in ("", "short"):
        file.write_text(text)
        with pytest.raises(BadInput, match="at least 16 characters"):
            given(file)
    with pytest.raises(BadInput, match="cannot be read"):
        given(tmp_path / "missing")


def test_a_batch_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_BATCH", 1 << 20)

    with pytest.raises(ValueError, match="more than 1048576 bytes"):
        channel.unpack(zlib.compress(bytes(2 << 20)))
    assert MAX_MESSAGE == 64 << 20
