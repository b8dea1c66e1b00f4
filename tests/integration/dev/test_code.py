"""Modules of handlers as people write them: what they print and leave behind is no harm."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hybridjobs.dev.code import Code
from hybridjobs.errors import ConfigurationError

HANDLER = """
from hybridjobs.sdk import handler

@handler("demo/one")
async def one(payload, context):
    return 1
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Code]:
    """The code of a module with this text."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Code:
        (tmp_path / "written.py").write_text(text)
        return Code(("written",), tmp_path / "handlers")

    return write


@pytest.mark.parametrize(
    "more",
    [
        "import sys\nsys.stdout.buffer.write(b'\\xff\\n')",
        "import atexit\natexit.register(print, 'bye')",
        "import threading, time\nthreading.Thread(target=time.sleep, args=[3600]).start()",
    ],
)
async def test_a_module_is_read_whatever_else_it_does(
    written: Callable[[str], Code], more: str
) -> None:
    code = written(HANDLER + more)
    await code.discover()
    assert code.handlers == {"demo/one": "written:one"}


async def test_why_one_cannot_be_read_is_said_whatever_it_prints(
    written: Callable[[str], Code],
) -> None:
    code = written("import sys\nsys.stderr.buffer.write(b'\\xff')\nraise OSError('no disk')")
    with pytest.raises(ConfigurationError, match="OSError: no disk"):
        await code.discover()
