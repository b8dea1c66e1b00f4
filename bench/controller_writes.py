"""Writes of ours for a job, and from its Job's condition to its row, on an installed release."""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from bench.controller_scale import say
from tests.cluster.native.components import AUDIT_LOG
from tests.e2e.release import IMAGE, Access, Release, eventually, installed

NAMESPACE = "hybridjobs-bench"
_IN_FLIGHT = 2
_LOOK_SECONDS = 0.005
# One that ends before its start is told, and one whose start is written to its HybridJob.
_SLEEPS = {"bench/short": 0.2, "bench/long": 4}
_OVER = (
    "SELECT id::text FROM hybridjobs.background_jobs WHERE id = ANY(%s) AND status = 'completed'"
)


def _values() -> dict[str, Any]:
    return {
        "types": {
            "extra": {
                type_: {
                    "image": IMAGE,
                    "command": ["/app/bin/python", "-S", "-c", f"import time; time.sleep({sleep})"],
                    "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
                    "retry": {"limit": 0},
                }
                for type_, sleep in _SLEEPS.items()
            }
        },
        "operator": {
            # So that the deletions are seen too.
            "extraEnv": [
                {"name": "HYBRIDJOBS_KEEP_SUCCEEDED_SECONDS", "value": "0"},
                {"name": "HYBRIDJOBS_SWEEP_SECONDS", "value": "5"},
            ]
        },
    }


@dataclass
class _Ends:
    """When each row was first seen to be over, by the job's id; Unix seconds."""

    access: Access
    open: set[str] = field(default_factory=set)
    seen: dict[str, float] = field(default_factory=dict)

    async def look(self) -> None:
        """Until cancelled."""
        async with await psycopg.AsyncConnection.connect(
            self.access.database_url, autocommit=True
        ) as connection:
            while True:
                if self.open:
                    cursor = await connection.execute(_OVER, [list(self.open)])
                    for (job_id,) in await cursor.fetchall():
                        self.seen[job_id] = time.time()
                        self.open.discard(job_id)
                await asyncio.sleep(_LOOK_SECONDS)


async def measure(jobs: int) -> tuple[dict[str, float], dict[str, Any]]:
    """The figures, and what they come from."""
    release = await asyncio.to_thread(installed, NAMESPACE, values=_values(), say=say)
    try:
        begin = AUDIT_LOG.stat().st_size
        types, ends = await _run(release, jobs)
        events = list(_events(begin))
    finally:
        await asyncio.to_thread(release.uninstall)
    written = [each for each in events if _is_ours(each)]
    conditions = _conditions(events)
    lags = [(ends[job_id] - conditions[f"hj-{job_id}-1"]) * 1000 for job_id in types]
    counts = {type_: _writes_of(written, types, type_) for type_ in _SLEEPS}
    figures = {
        "api_writes_per_job": len(written) / len(types),
        "row_after_job_condition_ms_median": statistics.median(lags),
    }
    details = {
        "jobs": len(types),
        "writes_by_type": counts,
        "writes": dict(Counter(_described(each) for each in written).most_common()),
        "row_after_job_condition_ms": sorted(round(each) for each in lags),
    }
    return figures, details


async def _run(release: Release, jobs: int) -> tuple[dict[str, str], dict[str, float]]:
    """Run so many, half of each type: their types, and when their rows were over, by id."""
    types: dict[str, str] = {}
    free = asyncio.Semaphore(_IN_FLIGHT)
    async with release.access() as access:
        ends = _Ends(access)
        looking = asyncio.create_task(ends.look())

        async def one(type_: str) -> None:
            async with free:
                job_id = await access.submit(type_)
                types[job_id] = type_
                ends.open.add(job_id)
                await access.until(job_id, "completed")

        async with asyncio.TaskGroup() as group:
            for number in range(jobs):
                group.create_task(one(list(_SLEEPS)[number % len(_SLEEPS)]))
        looking.cancel()

        async def gone() -> bool | None:
            found = await asyncio.to_thread(release.objects, "hybridjobs")
            return True if not found else None

        await eventually(gone, seconds=120, what="the finished HybridJobs to be deleted")
    return types, ends.seen


def _events(begin: int) -> Iterator[dict[str, Any]]:
    """What the API server has answered since, if it was a write and it did something."""
    with AUDIT_LOG.open("rb") as log:
        log.seek(begin)
        for line in log:
            event = json.loads(line)
            if event["responseStatus"].get("code", 500) < 300:
                yield event


def _is_ours(event: dict[str, Any]) -> bool:
    return bool(
        event["user"]["username"].startswith(f"system:serviceaccount:{NAMESPACE}:hybridjobs-")
    )


def _described(event: dict[str, Any]) -> str:
    account = event["user"]["username"].rpartition(":")[2]
    what = event["objectRef"]
    return f"{account}: {event['verb']} " + "/".join(
        part for part in (what["resource"], what.get("subresource")) if part
    )


def _writes_of(written: list[dict[str, Any]], types: dict[str, str], type_: str) -> float:
    """The mean of those whose object's name has the id of a job of that type."""
    ends = {job_id[-12:] for job_id in types if types[job_id] == type_}
    names = [each["objectRef"].get("name", "") for each in written]
    return sum(any(end in name for end in ends) for name in names) / len(ends)


def _conditions(events: list[dict[str, Any]]) -> dict[str, float]:
    """When the Job controller last wrote each Job's status, which is its Complete."""
    written: dict[str, float] = {}
    for event in events:
        what = event["objectRef"]
        if (what["resource"], what.get("subresource")) == ("jobs", "status"):
            written[what["name"]] = datetime.fromisoformat(event["stageTimestamp"]).timestamp()
    return written
