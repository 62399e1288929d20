"""Whom the clients trust: the system's authorities, or those of `ca_file`; never everybody."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from agents.endpoint import Endpoint, Features
from agents.request import Request
from agents.text import Encoder
from collectors.records import Call
from tests.cases import HELLO_SCRIPT
from tests.client_made import CLIENTS, call
from tests.torture import Torture

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")
both = pytest.mark.parametrize("client", CLIENTS)

EXTENSIONS = """\
subjectAltName={}
basicConstraints=critical,CA:TRUE
keyUsage=critical,digitalSignature,keyCertSign
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def certificate(folder: Path, name: str, host: str = "IP:127.0.0.1", days: int = 1) -> Path:
    """A self-signed certificate for that host, with its key in the same file."""
    made, request, key, extra = (folder / f"{name}.{kind}" for kind in ("pem", "csr", "key", "ext"))
    extra.write_text(EXTENSIONS.format(host))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    openssl("req", "-new", *curve, "-nodes", "-subj", "/CN=test", "-keyout", str(key), "-out", str(request))
    sign = ["-signkey", str(key), "-days", str(days), "-extfile", str(extra)]
    openssl("x509", "-req", "-in", str(request), *sign, "-out", str(made))
    made.write_text(made.read_text() + key.read_text())
    return made


def openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this openssl does not make the certificate: {done.stderr[-200:]}")


def serving(file: Path) -> Torture:
    """The torture server with that certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return Torture({"hello": HELLO_SCRIPT}, context)


def run(client: str, server: Torture, ca_file: Path | str = "", times: int = 1) -> list[Call]:
    endpoint = Endpoint(url=server.url("hello"), model="m", ca_file=str(ca_file))
    return uvloop.run(call(client, endpoint, times))[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def good(folder: Path) -> Path:
    return certificate(folder, "good")


@pytest.fixture(scope="module")
def server(good: Path) -> Iterator[Torture]:
    with serving(good) as torture:
        yield torture


@both
def test_a_server_whose_authority_is_named_is_trusted(client: str, server: Torture, good: Path) -> None:
    before = server.connections

    records = run(client, server, good, times=3)

    assert [r.status for r in records] == ["ok"] * 3
    assert [r.output_tokens for r in records] == [4] * 3
    assert [r.connect > 0 for r in records] == [True, False, False]
    assert server.connections - before == 1


@both
def test_a_server_whose_authority_nobody_named_is_not_trusted(client: str, server: Torture) -> None:
    (record,) = run(client, server)

    assert record.status == "connect_failed"
    assert "self-signed certificate" in record.error
    assert record.error.endswith("; name the authority's PEM file in ca_file")


@pytest.mark.parametrize(
    ("name", "host", "days", "error"),
    [("expired", "IP:127.0.0.1", -1, "expired"), ("other", "DNS:elsewhere.example", 1, "mismatch")],
)
@both
def test_a_certificate_that_is_old_or_another_hosts_is_not_trusted(
    client: str, name: str, host: str, days: int, error: str, folder: Path
) -> None:
    made = certificate(folder, f"{name}-{client}", host, days)
    with serving(made) as torture:
        (record,) = run(client, torture, made)

    assert record.status == "connect_failed"
    assert error in record.error
    assert not torture.log


@pytest.mark.parametrize("content", [None, "not PEM"])
def test_a_ca_file_that_cannot_be_read_is_refused_with_its_name(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ValueError, match=r"ca_file '.*ca\.pem' cannot be read"):
        Request(Endpoint(url="https://h/v1", ca_file=str(file)), Features(), Encoder(), "run")
