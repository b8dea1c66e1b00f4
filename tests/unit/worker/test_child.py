"""The inline child as its parent sees it: a real process, by its real descriptors."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CAPTURED = 64 * 1024


class Parent:
    """Speaks to one child."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._to, self._from, self.errors = process.stdin, process.stdout, process.stderr

    async def receive(self) -> Any:
        size = int.from_bytes(await self._from.readexactly(4))
        return json.loads(await self._from.readexactly(size))

    def send(self, text: str) -> None:
        content = text.encode()
        self._to.write(len(content).to_bytes(4) + content)

    def request(self, type_: str, payload: str = "{}", **more: object) -> str:
        """Ask for a run; its job id."""
        job_id = str(uuid4())
        members = {
            "jobId": job_id,
            "type": f"probe/{type_}",
            "handler": f"probe/{type_}",
            "attempt": 1,
            "deadlineSeconds": 900,
            "checkpoint": None,
            "traceparent": None,
            **more,
        }
        self.send(f'{json.dumps(members)[:-1]},"payload":{payload}}}')
        return job_id

    async def end(self) -> tuple[list[Any], Any]:
        """The frames until the run's end, and the one that ends it."""
        frames: list[Any] = []
        while True:
            frame = await self.receive()
            if "log" in frame:
                return frames, frame
            frames.append(frame)

    async def hang_up(self) -> int:
        self._to.close()
        return await self.process.wait()


@pytest.fixture
def start(environment: dict[str, str]) -> Any:
    async def start(*handlers: str) -> Parent:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hybridjobs.worker.child", *handlers,
            stdin=pipe, stdout=pipe, stderr=pipe, env=environment,
        )  # fmt: skip
        return Parent(process)

    return start


@pytest.fixture(scope="module")
async def parent(probes: Path) -> AsyncIterator[Parent]:
    """A warm child that several tests use one after another, as jobs do."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hybridjobs.worker.child", "probe/echo", "probe/sum",
        stdin=pipe, stdout=pipe, stderr=pipe, env={"PYTHONPATH": str(probes), "LANG": "C.UTF-8"},
    )  # fmt: skip
    parent = Parent(process)
    assert await parent.receive() == {"ready": True}
    yield parent
    assert await parent.hang_up() == 0


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab$", max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values)
async def test_json_crosses_unchanged(parent: Parent, value: Any) -> None:
    text = json.dumps(value)
    parent.request("echo", text)
    _, end = await parent.end()
    assert repr(end["result"]) == repr(json.loads(text))


async def test_a_run_ends_with_its_result(parent: Parent) -> None:
    parent.request("sum", '{"numbers": [1, 20000000000000000000]}')
    assert await parent.end() == ([], {"result": 20000000000000000001, "log": ""})


@pytest.mark.parametrize(
    ("how", "error", "permanent", "retry_after"),
    [
        ("permanent", "there is no such thing", True, None),
        ("later", "rate limit", False, 90.0),
        ("exit", "the handler called exit(0)", False, None),
        ("cancel", "the handler cancelled itself", False, None),
    ],
)
async def test_a_failure_is_told_and_the_child_lives_on(
    parent: Parent, how: str, error: str, permanent: bool, retry_after: float | None
) -> None:
    parent.request("fail", json.dumps({"how": how}))
    end = {"error": error, "permanent": permanent, "retryAfter": retry_after, "log": ""}
    assert await parent.end() == ([], end)


async def test_the_traceback_of_a_surprise_is_in_the_log_with_the_job_s_id(parent: Parent) -> None:
    job_id = parent.request("fail", '{"how": "transient"}')
    _, end = await parent.end()
    assert end["error"] == "OSError: the network is away"
    line = json.loads(end["log"])
    assert (line["job_id"], line["attempt"]) == (job_id, 1)
    assert "Traceback (most recent call last)" in line["exception"]
    assert "probes.py" in line["exception"]


async def test_an_invalid_payload_and_an_unknown_handler_are_permanent(parent: Parent) -> None:
    parent.request("sum", '{"numbers": "none"}')
    _, invalid = await parent.end()
    assert (invalid["permanent"], "/numbers" in invalid["error"]) == (True, True)
    parent.request("unknown")
    _, unknown = await parent.end()
    assert (unknown["permanent"], "there is no handler" in unknown["error"]) == (True, True)


async def test_the_handler_knows_its_job(parent: Parent) -> None:
    job_id = parent.request("facts", attempt=3, checkpoint={"page": 2}, traceparent="00-a-b-01")
    _, end = await parent.end()
    assert end["result"] == {
        "jobId": job_id,
        "type": "probe/facts",
        "attempt": 3,
        "checkpoint": {"page": 2},
        "traceparent": "00-a-b-01",
    }


async def test_progress_and_checkpoints_arrive_in_order_and_the_last_always(parent: Parent) -> None:
    parent.request("steps", '{"steps": 40}', checkpoint=2)
    frames, end = await parent.end()
    assert end["result"] == 2
    assert [frame["checkpoint"] for frame in frames if "checkpoint" in frame] == list(range(3, 41))
    progress = [frame["progress"] for frame in frames if "progress" in frame]
    assert progress[-1] == {"done": 40, "total": 40, "message": None}
    assert [each["done"] for each in progress] == sorted(each["done"] for each in progress)


async def test_a_child_job_is_asked_for_and_answered(parent: Parent) -> None:
    jobs = [{"type": "probe/a", "payload": {"n": 10**20}, "key": "k", "priority": 5}]
    parent.request("submit", json.dumps({"jobs": jobs}))
    asked = (await parent.receive())["submit"]
    assert asked == {**jobs[0], "id": asked["id"]}
    job_id = uuid4()
    parent.send(json.dumps({"submitted": {"id": asked["id"], "jobId": str(job_id)}}))
    _, end = await parent.end()
    assert [UUID(each) for each in end["result"]] == [job_id]


async def test_a_refused_child_job_is_a_permanent_error(parent: Parent) -> None:
    parent.request("submit", '{"jobs": [{"type": "nope", "payload": {}}]}')
    asked = (await parent.receive())["submit"]
    parent.send(json.dumps({"submitted": {"id": asked["id"], "error": "no such type"}}))
    _, end = await parent.end()
    assert (end["error"], end["permanent"]) == ("no such type", True)


async def test_what_a_handler_writes_is_its_log_and_never_a_frame(parent: Parent) -> None:
    parent.request("noise")
    frames, end = await parent.end()
    assert (frames, end["result"]) == ([], "quiet")
    for words in (
        "printed\n",
        "printed, not flushed",
        "to standard error",
        "\ufffd\ufffd\ufffd\x05hello",
        "by descriptor",
        "by C",
        "by another program",
        "by logging",
        '"event": "by the context\'s log"',
    ):
        assert words in end["log"]
    assert "\x00" not in end["log"]


async def test_a_flood_leaves_its_tail(parent: Parent) -> None:
    parent.request("noise", '{"flood": 100000}')
    _, end = await parent.end()
    assert len(end["log"]) == CAPTURED
    assert end["log"].count("flood") > CAPTURED / 7


async def test_the_log_of_a_run_is_its_own(parent: Parent) -> None:
    parent.request("noise")
    await parent.end()
    parent.request("echo", "1")
    assert (await parent.end())[1] == {"result": 1, "log": ""}


async def test_a_handler_reads_nothing_of_the_frames(parent: Parent) -> None:
    parent.request("noise", '{"read": true}')
    parent.request("echo", "2")
    assert (await parent.end())[1]["result"] == ""
    assert (await parent.end())[1]["result"] == 2


async def test_a_task_left_behind_is_silent_in_the_next_run(parent: Parent) -> None:
    parent.request("litter")
    await parent.end()
    parent.request("steps", '{"steps": 1}')
    frames, end = await parent.end()
    assert [frame for frame in frames if frame.get("progress", {}).get("done") == 666] == []
    assert end["result"] == 0


async def test_a_child_whose_handler_cannot_be_tidied_up_goes(start: Any) -> None:
    parent = await start("probe/litter")
    assert await parent.receive() == {"ready": True}
    parent.request("litter", '{"stubborn": true}')
    assert (await parent.end())[1]["result"] == "left"
    assert await parent.process.wait() == 1
    await parent.hang_up()


async def test_a_handler_that_cannot_be_imported_leaves_the_others_served(start: Any) -> None:
    parent = await start("probe/broken", "probe/echo")
    assert await parent.receive() == {"ready": True}
    parent.request("broken")
    _, end = await parent.end()
    assert end["permanent"]
    assert "cannot import handler 'probe/broken'" in end["error"]
    parent.request("echo", "3")
    assert (await parent.end())[1]["result"] == 3
    assert await parent.hang_up() == 0


async def test_output_between_runs_goes_to_the_childs_standard_error(start: Any) -> None:
    parent = await start("probe/broken")
    await parent.receive()
    assert b"cannot warm up probe/broken" in await parent.errors.readline()
    await parent.hang_up()


async def test_a_dying_handler_is_seen_as_the_end_of_the_child(start: Any) -> None:
    parent = await start("probe/die")
    await parent.receive()
    parent.request("die", '{"code": 7}')
    with pytest.raises(asyncio.IncompleteReadError):
        await parent.end()
    assert await parent.process.wait() == 7
    await parent.hang_up()


async def test_the_end_of_the_parent_ends_a_handler_that_holds_the_loop(
    start: Any, tmp_path: Path
) -> None:
    parent = await start("probe/hold")
    await parent.receive()
    parent.request("hold", json.dumps({"until": str(tmp_path / "never")}))
    assert "progress" in await parent.receive()
    assert await parent.hang_up() == 0


async def test_an_interrupt_from_a_terminal_is_left_to_the_parent(start: Any) -> None:
    parent = await start("probe/echo")
    await parent.receive()
    parent.process.send_signal(signal.SIGINT)
    parent.request("echo", "4")
    assert (await parent.end())[1]["result"] == 4
    assert await parent.hang_up() == 0
