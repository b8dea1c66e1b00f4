"""Jobs under `hybridjobs dev` behave as in a cluster, as far as one machine goes."""

import asyncio
import re
import subprocess

import httpx
import pytest

from tests.integration.dev.conftest import Dev

pytestmark = pytest.mark.timeout(150)


async def test_the_curl_line_that_it_prints_works(dev: Dev) -> None:
    text = dev.output.read_text()
    assert "demo/long  long, demo:long" in text
    assert "demo/quick  quick, demo:quick" in text
    line = next(line for line in text.splitlines() if line.strip().startswith("curl"))
    line = re.sub(r'"type": "[^"]+"', '"type": "demo/long"', line)
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", f"{line} --silent"], capture_output=True, text=True, check=True
    )
    accepted = httpx.Response(200, text=done.stdout).json()
    assert (accepted["type"], accepted["status"]) == ("demo/long", "queued")
    assert (await dev.ended(accepted["id"]))["status"] == "completed"


async def test_a_quick_job_is_answered_at_once(dev: Dev) -> None:
    job = await dev.submit("demo/quick")
    assert (job["status"], job["result"]["answer"]) == ("completed", 1)


async def test_a_long_job_runs_as_a_process_with_its_log_and_progress(dev: Dev) -> None:
    accepted = await dev.submit("demo/long", {"cost": "$(HOME) 12345678901234567890"})
    job = await dev.ended(accepted["id"])
    assert job["result"] == {
        "answer": 1,
        "payload": {"cost": "$(HOME) 12345678901234567890"},
        "database": True,
    }
    assert job["progress"]["message"] == "half"
    # Its worker has reported the end; its process ends a moment later.
    job = await dev.until(accepted["id"], lambda job: job["attempts"][0]["exitCode"] is not None)
    [attempt] = job["attempts"]
    assert (attempt["outcome"], attempt["runner"], attempt["exitCode"]) == ("succeeded", "pod", 0)
    assert "a line of the log" in attempt["logTail"]
    assert "and one of stderr" in attempt["logTail"]
    await dev.says("a line of the log")


async def test_payloads_and_results_too_large_for_an_environment(dev: Dev) -> None:
    accepted = await dev.submit("demo/large", {"text": "y" * 100_000})
    assert (await dev.ended(accepted["id"]))["result"] == "x" * 100_000


async def test_a_failing_job_is_retried_with_its_history(dev: Dev) -> None:
    accepted = await dev.submit("demo/fails", {"times": 2})
    job = await dev.ended(accepted["id"])
    assert (job["status"], job["result"]) == ("completed", {"attempt": 3})
    assert [each["outcome"] for each in job["attempts"]] == ["failed", "failed", "succeeded"]
    assert job["attempts"][0]["message"] == "RuntimeError: attempt 1 fails"


async def test_a_permanent_failure_is_the_last(dev: Dev) -> None:
    accepted = await dev.submit("demo/fails", {"times": 0, "permanent": True})
    job = await dev.ended(accepted["id"])
    assert (job["status"], job["error"]) == ("failed", "never possible")
    assert [each["outcome"] for each in job["attempts"]] == ["permanent"]


async def test_the_deadline_ends_a_handler_that_holds_on(dev: Dev) -> None:
    accepted = await dev.submit("demo/spins")
    job = await dev.ended(accepted["id"])
    [attempt] = job["attempts"]
    assert (job["status"], attempt["outcome"]) == ("failed", "deadline")
    assert attempt["reason"] == "DeadlineExceeded"
    assert "spinning" in attempt["logTail"]


async def test_a_cancel_ends_what_runs(dev: Dev) -> None:
    accepted = await dev.submit("demo/waits")
    await dev.until(accepted["id"], lambda job: bool(job["status"] == "processing"))
    answer = await dev.client.post(f"{dev.api}/api/jobs/{accepted['id']}/cancel")
    assert answer.is_success, answer.text
    job = await dev.ended(accepted["id"])
    assert job["status"] == "cancelled"


async def test_a_handler_submits_another_job(dev: Dev) -> None:
    accepted = await dev.submit("demo/parent")
    child = (await dev.ended(accepted["id"]))["result"]["child"]
    assert (await dev.ended(child))["result"]["payload"] == {"from": "parent"}


async def test_a_command_in_any_language(dev: Dev) -> None:
    accepted = await dev.submit("demo/shell")
    job = await dev.ended(accepted["id"])
    assert (job["status"], job["result"]) == ("completed", "hello\n")
    assert job["attempts"][0]["logTail"] == "said\n"


async def test_an_image_is_refused_in_words(dev: Dev) -> None:
    accepted = await dev.submit("demo/image")
    job = await dev.ended(accepted["id"])
    assert (job["status"], job["outcomeReason"]) == ("failed", "ImageNotRun")
    assert "hybridjobs dev runs no images" in job["error"]
