import json
from pathlib import Path

import pytest

from hybridjobs.worker.alone import run_alone

pytestmark = pytest.mark.usefixtures("installed")


async def alone(type_: str, payload: object, deadline_seconds: float = 30) -> int:
    return await run_alone(f"probe/{type_}", json.dumps(payload), deadline_seconds=deadline_seconds)


async def test_the_result_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    payload = {"n": 12345678901234567890, "f": 1.0, "text": "𝛑 $(HOME) $$"}
    assert await alone("echo", payload) == 0
    output = capsys.readouterr().out
    assert json.loads(output) == payload
    assert "1.0" in output
    assert "𝛑" in output


async def test_progress_checkpoints_and_jobs_are_shown_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await alone("steps", {"steps": 2}) == 0
    job = {"type": "probe/child", "payload": {"a": 1}, "key": "k", "priority": 5}
    assert await alone("submit", {"jobs": [job]}) == 0
    output, told = capsys.readouterr()
    assert told.splitlines() == [
        "progress 1/2",
        "checkpoint 1",
        "progress 2/2",
        "checkpoint 2",
        "would submit probe/child key='k' priority=5 {\"a\":1}",
    ]
    assert json.loads(output.split("\n", 1)[1])


@pytest.mark.parametrize(
    ("payload", "code", "told"),
    [
        ({"how": "transient"}, 1, "failed: OSError: the network is away"),
        ({"how": "permanent"}, 65, "failed for good: there is no such thing"),
        ({"how": "later"}, 1, "failed: rate limit (try again in 90 seconds)"),
    ],
)
async def test_a_failure_has_the_code_of_a_pod(
    payload: object, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await alone("fail", payload) == code
    output, errors = capsys.readouterr()
    assert told in errors.splitlines()
    assert output == ""


async def test_the_deadline_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert await alone("last-words", None, deadline_seconds=0.05) == 1
    assert "the handler took longer than 0.05 seconds" in capsys.readouterr().err


async def test_wrong_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert await alone("unknown", None) == 2
    for text in ("{", "[" * 100_000):
        assert await run_alone("probe/echo", text, deadline_seconds=30) == 2
    errors = capsys.readouterr().err
    assert "there is no handler 'probe/unknown'" in errors
    assert "the payload is not JSON" in errors
    assert "hybridjobs run MODULE:FUNCTION" in errors


async def test_one_that_is_not_installed_is_run_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine_alone.py").write_text(
        "from hybridjobs.sdk import handler\n\n@handler('mine/own')\n"
        "async def own(payload, context):\n    return context.type\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert await run_alone("mine_alone:own", "{}", deadline_seconds=30) == 0
    assert json.loads(capsys.readouterr().out) == "mine/own"
    assert await run_alone("mine_alone:none", "{}", deadline_seconds=30) == 2
    assert "cannot import handler 'mine_alone:none'" in capsys.readouterr().err
