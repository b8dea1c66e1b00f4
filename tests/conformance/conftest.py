"""One node process a session, asked by lines of JSON; and an ingress with every source open."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.ingress.sources.conftest import sources

__all__ = ["sources"]

FOLDER = Path(__file__).parent


class Sender:
    """The npm packages' makers of signatures and messages."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __call__(self, make: str, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"make": make, **request}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the sender has ended: see its standard error"
        return json.loads(answer)


@pytest.fixture(scope="session")
def sender() -> Iterator[Sender]:
    if not (FOLDER / "node_modules").exists():
        raise FileNotFoundError("run `python -m tests.conformance` first")
    with subprocess.Popen(
        ["node", FOLDER / "sender.mjs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Sender(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=10)
