"""A webhook becomes a row, a HybridJob, a pod and an outcome, in a real cluster."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.e2e.release import Access, Release, delivery_of, eventually, unique_key

pytestmark = pytest.mark.timeout(180)

# Every Unicode plane, the kubelet's expansions, and numbers that JSON libraries like to round.
EXACT = (
    '{"dollars":"$(HOME) $$ ${HOME} $(HYBRIDJOB_ID)","big":12345678901234567890,"float":1.0,'
    '"small":0.10,"planes":"'
    + "".join(chr(plane * 0x10000 + 0x1F4A9 % 0xD800) for plane in range(17))
    + '","escaped":"\\" \\\\ \\n"}'
)


def _conditions(hybridjob: dict[str, object]) -> dict[str, str]:
    return {each["type"]: each["status"] for each in hybridjob["status"]["conditions"]}  # type: ignore[index]


async def _described(release: Release, job: dict[str, Any], words: str) -> None:
    """Wait until `kubectl describe` says so of the job's HybridJob."""

    async def look() -> bool | None:
        told = release.kubectl("describe", "hybridjob", job["resourceName"])
        return True if words in told else None

    await eventually(look, seconds=30, what=f"{words!r} to be described")


async def test_a_quick_job_is_answered_at_once(access: Access) -> None:
    await access.quiet()
    answer = await access.deliver(delivery_of("pull_request", "opened"))
    assert answer.status_code in (200, 202), answer.text
    [quick] = [job for job in answer.json()["jobs"] if job["type"] == "capture/pr.details"]
    job = await access.until(quick["id"])
    assert job["status"] == "completed", job
    assert answer.status_code == 200


async def test_a_webhook_runs_its_job_to_the_end(release: Release, access: Access) -> None:
    await access.fill("Octocoders/Hello-World", 250)
    answer = await access.deliver(delivery_of("repository", "renamed"))
    assert answer.status_code == 202, answer.text
    [accepted] = [job for job in answer.json()["jobs"] if job["type"] == "capture/repository.sync"]

    job = await access.until(accepted["id"])
    assert job["status"] == "completed", job
    assert job["result"]["inserted"] == 250
    assert job["attempts"][0]["outcome"] == "succeeded"

    name = job["resourceName"]
    release.kubectl("wait", f"hybridjob/{name}", "--for=condition=Finished", "--timeout=30s")
    hybridjob = release.object("hybridjob", name)
    assert _conditions(hybridjob) == {
        "Accepted": "True",
        "Started": "True",
        "Finished": "True",
        "Succeeded": "True",
        "OutcomeRecorded": "True",
    }
    assert hybridjob["status"]["state"] == "completed"
    captured = await access.sql("SELECT count(*) AS n FROM github.pull_requests")
    assert captured[0]["n"] >= 250


async def test_a_replay_gives_the_same_job(access: Access) -> None:
    delivery = delivery_of("repository", "renamed")
    first = await access.deliver(delivery)
    replays = await asyncio.gather(*(access.deliver(delivery) for _ in range(20)))
    assert {r.json()["jobs"][0]["id"] for r in (first, *replays)} == {first.json()["jobs"][0]["id"]}


async def test_concurrent_replays_give_one_job(access: Access) -> None:
    delivery = delivery_of("repository", "publicized")
    answers = await asyncio.gather(*(access.deliver(delivery) for _ in range(20)))
    [job_id] = {answer.json()["jobs"][0]["id"] for answer in answers}
    rows = await access.sql("SELECT id FROM hybridjobs.background_jobs WHERE key = %s", delivery.id)
    assert [str(row["id"]) for row in rows] == [job_id]


async def test_a_payload_arrives_unchanged(access: Access) -> None:
    body = f'{{"type": "test/echo", "payload": {EXACT}}}'
    answer = await access.request(
        "POST", "/api/jobs", content=body.encode(), headers={"Content-Type": "application/json"}
    )
    job = await access.until(answer.json()["id"])
    assert job["status"] == "completed", job
    [row] = await access.sql(
        "SELECT payload::jsonb = result AS same, payload->>'big' AS big, "
        "payload->>'float' AS float, payload::text = %s AS exact "
        "FROM hybridjobs.background_jobs WHERE id = %s",
        EXACT,
        job["id"],
    )
    assert row == {"same": True, "exact": True, "big": "12345678901234567890", "float": "1.0"}


async def test_a_permanent_failure_is_final(release: Release, access: Access) -> None:
    message = json.dumps({"error": "no such repository", "permanent": True})
    job_id = await access.submit("test/script", {"exit": 65, "message": message})
    job = await access.until(job_id)
    assert (job["status"], job["error"], job["retryCount"]) == ("failed", "no such repository", 0)
    [attempt] = job["attempts"]
    assert (attempt["outcome"], attempt["exitCode"]) == ("permanent", 65)
    release.kubectl(
        "wait", f"hybridjob/{job['resourceName']}", "--for=condition=Finished", "--timeout=30s"
    )
    assert _conditions(release.object("hybridjob", job["resourceName"]))["Succeeded"] == "False"


async def test_a_result_that_is_too_large_for_the_termination_message_is_none(
    access: Access,
) -> None:
    rows = json.dumps(["row"] * 1000)
    job = await access.until(await access.submit("test/script", {"message": rows}))
    assert (job["status"], job["outcomeReason"], job["result"]) == (
        "failed",
        "ResultTooLarge",
        None,
    )
    [attempt] = job["attempts"]
    assert (attempt["outcome"], attempt["exitCode"]) == ("permanent", 0)
    assert "cut" in job["error"]


async def test_a_transient_failure_is_retried_until_its_limit(access: Access) -> None:
    job = await access.until(await access.submit("test/script", {"exit": 3}))
    assert job["status"] == "failed"
    assert job["retryCount"] == 2
    assert [(a["attempt"], a["outcome"], a["exitCode"]) for a in job["attempts"]] == [
        (1, "failed", 3),
        (2, "failed", 3),
        (3, "failed", 3),
    ]
    assert all("begun attempt" in a["logTail"] for a in job["attempts"])


async def test_a_deadline_holds_and_the_log_survives_it(release: Release, access: Access) -> None:
    job_id = await access.submit("test/script", {"sleep": 300}, deadlineSeconds=15)
    job = await access.until(job_id)
    assert (job["status"], job["outcomeReason"]) == ("failed", "DeadlineExceeded")
    [attempt] = job["attempts"]
    assert attempt["outcome"] == "deadline"
    assert "begun attempt 1" in attempt["logTail"]
    assert "begun attempt 1" in release.kubectl("logs", f"job/hj-{job_id}-1")


async def test_what_keeps_a_container_from_starting_is_named(
    release: Release, access: Access
) -> None:
    await asyncio.gather(
        *(
            _is_named(release, access, type_, reasons, message)
            for type_, reasons, message in (
                ("test/missing-image", {"ErrImagePull", "ImagePullBackOff"}, "hybridjobs:none"),
                ("test/missing-node", {"Unschedulable"}, "didn't match Pod's node affinity"),
                ("test/missing-secret", {"CreateContainerConfigError"}, "no-such-secret"),
            )
        )
    )


async def _is_named(
    release: Release, access: Access, type_: str, reasons: set[str], message: str
) -> None:
    job_id = await access.submit(type_)

    async def ended() -> dict[str, Any] | None:
        found = [each for each in (await access.job(job_id))["attempts"] if each["outcome"]]
        return found[0] if found else None

    attempt = await eventually(ended, seconds=120, what="the first attempt to end")
    assert attempt["outcome"] == "never_started", attempt
    assert attempt["reason"] in reasons, attempt
    assert message in attempt["message"], attempt
    await _described(release, await access.job(job_id), message)
    await access.request("POST", f"/api/jobs/{job_id}/cancel")
    assert (await access.until(job_id))["status"] == "cancelled"


async def test_too_much_memory_is_told_from_other_failures(
    release: Release, access: Access
) -> None:
    job = await access.until(await access.submit("test/hungry"), seconds=150)
    assert (job["status"], job["outcomeReason"]) == ("failed", "OOMKilled")
    [attempt] = job["attempts"]
    assert (attempt["outcome"], attempt["exitCode"]) == ("oom", 137)
    told = "attempt 1 ended as oom: the container exceeded its memory limit"
    await _described(release, job, told)


async def test_a_handler_that_names_the_time_is_run_again_then(access: Access) -> None:
    message = json.dumps({"error": "rate limited", "retryAfter": 3600})
    job_id = await access.submit("test/script", {"exit": 1, "message": message})

    async def put_off() -> dict[str, Any] | None:
        job = await access.job(job_id)
        return job if job["attempts"] and job["attempts"][0]["outcome"] else None

    job = await eventually(put_off, seconds=60, what="the first attempt to end")
    [attempt] = job["attempts"]
    assert (attempt["outcome"], attempt["message"]) == ("retry_later", "rate limited")
    assert (job["status"], job["retryCount"]) == ("queued", 0)
    waits = datetime.fromisoformat(job["runAt"]) - datetime.fromisoformat(attempt["endedAt"])
    assert waits > timedelta(minutes=59)
    await access.request("POST", f"/api/jobs/{job_id}/cancel")
    assert (await access.until(job_id))["status"] == "cancelled"


async def test_a_hybridjob_made_by_kubectl_runs_and_has_a_row(
    release: Release, access: Access
) -> None:
    name = unique_key()
    release.apply(
        {
            "apiVersion": "hybridjobs.dev/v1alpha1",
            "kind": "HybridJob",
            "metadata": {"name": name},
            "spec": {"type": "test/echo", "payload": {"hello": "world"}},
        }
    )
    release.kubectl("wait", f"hybridjob/{name}", "--for=condition=Finished", "--timeout=90s")
    job_id = release.object("hybridjob", name)["spec"]["jobId"]
    job = await access.job(job_id)
    assert (job["status"], job["source"]) == ("completed", "kubernetes")
    assert job["result"] == {"hello": "world"}


async def test_a_hybridjob_of_an_unknown_type_says_so(release: Release, access: Access) -> None:
    name = unique_key()
    release.apply(
        {
            "apiVersion": "hybridjobs.dev/v1alpha1",
            "kind": "HybridJob",
            "metadata": {"name": name},
            "spec": {"type": "no/such.type"},
        }
    )
    release.kubectl("wait", f"hybridjob/{name}", "--for=condition=Accepted=false", "--timeout=30s")
    assert "known types" in release.object("hybridjob", name)["status"]["message"]
    release.kubectl("delete", "hybridjob", name)


async def test_a_schedule_runs_its_jobs(release: Release, access: Access) -> None:
    name = unique_key()
    release.apply(
        {
            "apiVersion": "hybridjobs.dev/v1alpha1",
            "kind": "HybridJobSchedule",
            "metadata": {"name": name},
            "spec": {"schedule": "* * * * *", "type": "test/echo", "payload": {"tick": True}},
        }
    )

    async def ticked() -> dict[str, Any] | None:
        status = release.object("hybridjobschedule", name).get("status") or {}
        started = [each for each in status.get("history") or [] if "jobId" in each]
        return started[-1] if started else None

    tick = await eventually(ticked, seconds=90, what="the next minute's tick")
    release.kubectl("delete", "hybridjobschedule", name)
    job = await access.until(tick["jobId"])
    assert (job["status"], job["source"], job["schedule"]) == ("completed", "schedule", name)
    assert job["result"] == {"tick": True}
    rows = await access.sql("SELECT key FROM hybridjobs.background_jobs WHERE id = %s", job["id"])
    assert [row["key"].rpartition("/")[2] for row in rows] == [tick["tickAt"]]
