"""The local process of a job: what it writes, shown and kept."""

import os
import sys
from pathlib import Path

from hybridjobs.dev.process import JobProcess
from hybridjobs.model import MAX_LOG_TAIL_BYTES

ENDLESS = "import sys\nfor _ in range(300): sys.stdout.write('€' * 10_000)"


async def test_a_line_without_an_end_is_shown_in_parts_and_kept_in_part(tmp_path: Path) -> None:
    shown: list[str] = []
    process = await JobProcess.start(
        [sys.executable, "-c", ENDLESS], os.environ, tmp_path / "message", shown.append
    )
    assert await process.exit_code() == 0
    assert "".join(shown) == "€" * 3_000_000
    assert max(map(len, shown)) < 200_000
    assert 0 < len(process.log_tail.encode()) <= MAX_LOG_TAIL_BYTES


async def test_of_a_long_message_the_end_is_kept_as_the_kubelet_does(tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.write_text("é" * 5000 + "no such customer")
    process = await JobProcess.start(["false"], os.environ, message, print)
    kept = process.message(await process.exit_code())
    assert kept is not None
    assert kept.endswith("éno such customer")
    assert len(kept) < 4096
