"""A real vLLM, for the tests that want one."""

import contextlib
import fcntl
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

URL = "http://127.0.0.1:8841"


@contextlib.contextmanager
def vllm() -> Iterator[str]:
    """Its address, for one test at a time, since its counters count for all. Skips the test where none answers."""
    try:
        urllib.request.urlopen(f"{URL}/health", timeout=1).close()
    except OSError:
        pytest.skip(f"no vLLM answers at {URL} (model `tiny`, context 8,192)")
    with (Path(tempfile.gettempdir()) / "agentload-tests-vllm").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield URL
