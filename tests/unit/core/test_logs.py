"""What every process writes, as a process of its own writes it."""

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import asyncio, logging, threading, warnings
from uuid import UUID
import structlog
from hybridjobs.logs import about, configure_logging
from hybridjobs.settings import LogSettings

configure_logging(LogSettings())
log = structlog.get_logger("hybridjobs.test")

async def deeper(number):
    with about(UUID(int=number), number):
        await asyncio.sleep(0)
        log.info("ours", number=number)
        logging.getLogger("kopf.activities").warning("a library's, %s", number)
    log.info("afterwards", number=number)

async def main():
    await asyncio.gather(deeper(1), deeper(2))
    with about(UUID(int=3)):
        await asyncio.to_thread(warnings.warn, "a warning")
        try:
            raise ValueError("by test")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("broken")

asyncio.run(main())
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
raise RuntimeError("the end")
"""


def test_every_line_is_json_and_those_about_a_job_have_its_id() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(line.keys() >= {"event", "level", "timestamp", "logger"} for line in lines)
    ids = {number: f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3)}
    by_event: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_event.setdefault(line["event"].split(",")[0], []).append(line)
    for line in by_event["ours"]:
        assert (line["job_id"], line["attempt"]) == (ids[line["number"]], line["number"])
    assert {line["job_id"] for line in by_event["a library's"]} == {ids[1], ids[2]}
    assert not [line for line in by_event["afterwards"] if "job_id" in line or "attempt" in line]
    [broken] = by_event["broken"]
    assert broken["job_id"] == ids[3]
    assert "ValueError: by test" in broken["exception"]
    [warning] = [line for line in lines if line["logger"] == "py.warnings"]
    assert (warning["job_id"], "a warning" in warning["event"]) == (ids[3], True)
    [thread] = by_event["thread worker ended by an exception"]
    assert "ZeroDivisionError" in thread["exception"]
    assert "RuntimeError: the end" in lines[-1]["exception"]
