"""The life of `hybridjobs dev`: changes taken over, ended by a signal, killed, started again."""

import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hybridjobs.store.embedded import EmbeddedPostgres
from tests.integration.dev.conftest import Dev, saved, write_objects, write_types
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)

ANOTHER = """
import demo
from hybridjobs.sdk import handler

@handler("demo/long")
async def other(payload, context): ...
"""


@pytest.fixture
async def own(project: Path) -> AsyncIterator[Dev]:
    """One of the test's own, with the module's handlers and an empty folder of data."""
    running = Dev(project)
    yield running
    if running.process is not None:
        await running.end(signal.SIGKILL)
    await running.client.aclose()
    EmbeddedPostgres(running.data / "postgres", password="").end_previous()
    shutil.rmtree(running.data, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _gone(pid: int) -> None:
    await eventually(lambda: not _is_alive(pid))


async def test_changed_code_and_types_are_taken(own: Dev) -> None:
    await own.start("--types-dir", "types")
    first = await own.submit("demo/quick")
    (own.folder / "helper.py").write_text("ANSWER = 2\n")
    await own.says("changes taken")
    again = await own.submit("demo/quick")
    assert (first["result"]["answer"], again["result"]["answer"]) == (1, 2)
    job = await own.ended((await own.submit("demo/long"))["id"])
    assert job["result"]["answer"] == 2
    (own.folder / "helper.py").write_text("ANSWER = \n")
    await own.says("the change is not taken: cannot import demo")
    await own.says("SyntaxError")
    (own.folder / "helper.py").write_text("ANSWER = 1\n")
    write_types(own.folder / "types", new="{type: demo/new, handler: demo/long}")
    await own.says("demo/new")
    job = await own.ended((await own.submit("demo/new"))["id"])
    assert job["result"]["answer"] == 1
    (own.folder / "types" / "new.yaml").unlink()


async def test_killed_and_started_again_the_job_goes_on(own: Dev) -> None:
    await own.start()
    accepted = await own.submit("demo/waits")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    queued = await own.submit("demo/long", runAt=tomorrow)
    await saved(own.owner_url, accepted["id"])
    await own.end(signal.SIGKILL)
    await own.start()
    job = await own.ended(accepted["id"])
    assert (job["status"], job["retryCount"]) == ("completed", 0)
    assert [each["outcome"] for each in job["attempts"]] == ["disrupted", "succeeded"]
    assert job["attempts"][0]["reason"] == "DevEnded"
    # The first attempt's process ended with its parent.
    await _gone(job["result"]["checkpoint"]["pid"])
    assert (await own.job(queued["id"]))["status"] == "queued"


async def test_a_signal_ends_everything_and_the_job_goes_on(own: Dev) -> None:
    await own.start()
    accepted = await own.submit("demo/waits")
    await saved(own.owner_url, accepted["id"])
    server = int((own.data / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    assert await own.end(signal.SIGINT) == 0
    assert own.output.read_text().rstrip().endswith("ended")
    assert "Traceback" not in own.output.read_text()
    await _gone(server)
    await own.start()
    job = await own.ended(accepted["id"])
    assert job["status"] == "completed"
    assert [each["reason"] for each in job["attempts"]] == ["Interrupted", "Completed"]
    await _gone(job["result"]["checkpoint"]["pid"])


async def test_reset_begins_anew(own: Dev) -> None:
    await own.start()
    accepted = await own.submit("demo/long")
    await own.ended(accepted["id"])
    await own.end()
    await own.start("--reset")
    listed = await own.client.get(f"{own.api}/api/jobs")
    assert listed.json()["jobs"] == []


async def test_a_second_one_on_the_same_data_is_refused(own: Dev) -> None:
    await own.start()
    other = Dev(own.folder)
    other.output = own.folder / "other"
    process = await other.launch()
    assert await process.wait() == 2
    await other.client.aclose()
    assert f"another `hybridjobs dev` has {own.data}" in other.output.read_text()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("x = 1", "wrong holds no handler"),
        (ANOTHER, "two handlers are for demo/long"),
    ],
)
async def test_what_is_wrong_with_a_module_is_said(own: Dev, text: str, named: str) -> None:
    (own.folder / "wrong.py").write_text(text)
    process = await own.launch(module="wrong" if "demo" not in text else "demo,wrong")
    assert await process.wait() == 2
    assert named in own.output.read_text()
    (own.folder / "wrong.py").unlink()


@pytest.mark.parametrize("place", [0, 3, 4])
async def test_a_port_that_is_taken_is_named(own: Dev, place: int) -> None:
    with socket.create_server(("127.0.0.1", own.port + place)):
        process = await own.launch()
        assert await process.wait() == 2
    assert f"port {own.port + place}, for " in own.output.read_text()
    assert not (own.data / "postgres").exists()


async def test_schedules_fire_once_a_tick(own: Dev) -> None:
    schedule = '{schedule: "* * * * *", type: demo/long, payload: {day: 2026-11-24}}'
    write_objects(own.folder / "timed", "HybridJobSchedule", long=schedule)
    await own.start("--types-dir", "timed")
    await own.says("demo-long: * * * * * UTC demo/long, next at ")
    try:
        # By then it has fired, whatever the second of the minute.
        await own.says("demo-long: * * * * * UTC demo/long, next at ", times=2, seconds=90)
        listed = (await own.client.get(f"{own.api}/api/jobs?schedule=demo-long")).json()["jobs"]
        [job] = [await own.ended(each["id"]) for each in listed]
        assert job["result"]["payload"] == {"day": "2026-11-24"}
        # Begun again within the same minute, the tick is decided already.
        await own.end(signal.SIGKILL)
        await own.start("--types-dir", "timed")
        await own.says("demo-long: * * * * * UTC demo/long, next at ")
        listed = (await own.client.get(f"{own.api}/api/jobs?schedule=demo-long")).json()["jobs"]
        assert [each["id"] for each in listed if each["key"] == job["key"]] == [job["id"]]
        write_objects(own.folder / "timed", "HybridJobSchedule", long=schedule.replace("demo/", ""))
        await own.says("HybridJobSchedule demo-long is not followed: spec.type: there is no")
    finally:
        shutil.rmtree(own.folder / "timed")


async def test_what_is_wrong_with_a_type_is_said(own: Dev) -> None:
    write_types(own.folder / "wrong-types", long="{type: demo/long, retry: {limit: many}}")
    process = await own.launch("--types-dir", "wrong-types")
    assert await process.wait() == 2
    assert "HybridJobType demo-long" in own.output.read_text()
    assert "retry.limit" in own.output.read_text()
