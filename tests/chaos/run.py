"""A run: install, send and break, mend, wait until all is over, look at everything, judge."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg

from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, PODS, ApiError, Kubernetes
from hybridjobs.kube.credentials import load_configuration
from tests.chaos import audit, handlers
from tests.chaos.audit import Evidence, Violation
from tests.chaos.faults import Faults
from tests.chaos.ledger import Ledger, open_ledger
from tests.chaos.load import Load, scheduled
from tests.chaos.plan import Fault, Plan
from tests.cluster import current
from tests.e2e.release import Access, Release

NAMESPACE = "hybridjobs-chaos"
_CENSUS_SECONDS = 1.0
_OVER_SECONDS = 900.0
_GONE_SECONDS = 120.0
# Independent of what the database's own columns say afterwards.
_OBSERVE = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.ends (job_id uuid, status text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION chaos.note_end() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos.ends VALUES (NEW.id, NEW.status);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_note_end AFTER INSERT OR UPDATE OF status ON hybridjobs.background_jobs
FOR EACH ROW WHEN (NEW.status IN ('completed', 'failed', 'cancelled'))
EXECUTE FUNCTION chaos.note_end();
"""
_JOBS = """
SELECT id::text, type, source, key, status, stage, attempt, retry_count, max_retries,
       outcome_reason, result FROM hybridjobs.background_jobs ORDER BY id
"""
_ATTEMPTS = """
SELECT job_id::text, attempt, runner, outcome, reason, exit_code, message, pod_name, job_uid,
       spent_retry, claimed_at, started_at, ended_at
FROM hybridjobs.job_attempts ORDER BY job_id, attempt
"""
_OPEN = """
SELECT count(*) AS open FROM hybridjobs.background_jobs WHERE status IN ('queued', 'processing')
"""
_LETTERS = """
SELECT original_job_id::text AS id FROM hybridjobs.dead_letter_queue WHERE resolved_at IS NULL
"""
_ENDS = "SELECT job_id::text, status FROM chaos.ends ORDER BY at"


@dataclass
class Verdict:
    """What a run showed."""

    plan: Plan
    evidence: Evidence
    violations: list[Violation]
    done: Counter[str]  # faults that were, by kind
    not_done: Counter[str]
    sent_again: Counter[str]
    recovered_seconds: float  # from the end of the faults until every job was over
    log: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """The run in figures."""
        evidence = self.evidence
        return {
            "accepted": len(evidence.accepted),
            "jobs_by_kind": dict(Counter(each.kind for each in evidence.accepted)),
            "jobs_by_status": dict(Counter(row["status"] for row in evidence.jobs)),
            "attempts_by_outcome": dict(Counter(row["outcome"] for row in evidence.attempts)),
            "attempts_by_reason": dict(Counter(row["reason"] for row in evidence.attempts)),
            "kubernetes_jobs_seen": len(evidence.kubernetes_jobs),
            "ledger_lines": len(evidence.ledger),
            "faults": dict(self.done),
            "faults_not_done": dict(self.not_done),
            "requests_sent_again": dict(self.sent_again),
            "seconds_until_all_were_over": round(self.recovered_seconds, 1),
        }


async def run(plan: Plan, *, say: Callable[[str], None]) -> Verdict:
    """Carry the plan out on the cluster that is there; the release is removed afterwards."""
    async with open_ledger(current().host_address) as ledger:
        release = Release(current(), NAMESPACE, values=handlers.values(ledger.url), say=say)
        await asyncio.to_thread(release.install_anew)
        try:
            async with release.access() as access:
                await access.sql(_OBSERVE)
                return await _Run(plan, release, access, ledger, say).verdict()
        finally:
            await asyncio.to_thread(release.uninstall)


class _Run:
    def __init__(
        self,
        plan: Plan,
        release: Release,
        access: Access,
        ledger: Ledger,
        say: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._release = release
        self._access = access
        self._ledger = ledger
        self._say = say
        self._faults = Faults(release)
        self._load = Load(release, access)
        self._seen: dict[str, tuple[str, int]] = {}
        self._done: Counter[str] = Counter()
        self._not_done: Counter[str] = Counter()
        self._log: list[str] = []
        self._began = time.monotonic()

    async def verdict(self) -> Verdict:
        os.environ["KUBECONFIG"] = str(self._release.cluster.kubeconfig)
        async with Kubernetes(await load_configuration(), field_manager="chaos") as kubernetes:
            census = asyncio.create_task(self._census(kubernetes))
            async with scheduled(self._release):
                await self._break_and_send()
            ended = time.monotonic()
            self._tell("everything is mended; waiting until all jobs are over")
            still_open = await self._over()
            recovered = time.monotonic() - ended
            self._tell(f"{still_open} jobs are open {recovered:.1f} s after the last fault")
            left = await self._left(kubernetes)
            census.cancel()
            with suppress(asyncio.CancelledError):
                await census  # what is amiss with it makes the evidence worthless
        evidence = await self._evidence(left)
        return Verdict(
            plan=self._plan,
            evidence=evidence,
            violations=audit.violations(evidence),
            done=self._done,
            not_done=self._not_done,
            sent_again=self._load.sent_again,
            recovered_seconds=recovered,
            log=self._log,
        )

    def _tell(self, text: str) -> None:
        line = f"{time.monotonic() - self._began:7.1f}  {text}"
        self._log.append(line)
        self._say(line)

    async def _break_and_send(self) -> None:
        self._began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                progress = group.create_task(self._progress())
                sent = [
                    group.create_task(self._load.send(job, self._began)) for job in self._plan.jobs
                ]
                broken = [group.create_task(self._fault(fault)) for fault in self._plan.faults]
                await asyncio.wait([*sent, *broken])
                progress.cancel()
        finally:
            await self._faults.mend()

    async def _fault(self, fault: Fault) -> None:
        await asyncio.sleep(max(0.0, self._began + fault.at - time.monotonic()))
        lasting = f" for {fault.seconds:g} s" if fault.seconds else ""
        self._tell(f"breaks: {fault.kind}{lasting}")
        what = await self._faults.inject(fault)
        (self._not_done if what.startswith("not done") else self._done)[fault.kind] += 1
        self._tell(f"mended: {fault.kind}: {what}")

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(20)
            await asyncio.to_thread(self._faults.revive)
            self._tell(
                f"{len(self._load.accepted)} jobs accepted, {len(self._ledger.lines)} lines in the"
                f" ledger, {len(self._seen)} Jobs seen"
            )

    async def _census(self, kubernetes: Kubernetes) -> None:
        """Every Kubernetes Job there is, as far as one can look."""
        while True:
            try:
                found = await kubernetes.list(
                    JOBS, self._release.namespace, labels=names.SELECTOR, metadata_only=True
                )
            except (ClusterUnavailable, ApiError):
                found = []
            for body in found:
                labels = body["metadata"]["labels"]
                key = (labels[names.JOB_ID], int(labels[names.ATTEMPT]))
                self._seen[body["metadata"]["uid"]] = key
            await asyncio.sleep(_CENSUS_SECONDS)

    async def _over(self) -> int:
        """Wait until no job is open, as long as anything here may take; how many still are."""
        give_up = time.monotonic() + _OVER_SECONDS
        told = time.monotonic()
        while True:
            [row] = await self._sql(_OPEN)
            count: int = row["open"]
            if not count or time.monotonic() > give_up:
                return count
            if time.monotonic() - told > 20:
                told = time.monotonic()
                self._tell(f"{count} jobs are open")
                await asyncio.to_thread(self._faults.revive)
            await asyncio.sleep(0.5)

    async def _left(self, kubernetes: Kubernetes) -> list[str]:
        """What is still there when everything should be gone."""
        give_up = time.monotonic() + _GONE_SECONDS
        while True:
            found = [
                f"{resource.plural}/{body['metadata']['name']}"
                for resource, labels in ((HYBRIDJOBS, ""), (JOBS, ""), (PODS, names.SELECTOR))
                for body in await kubernetes.list(
                    resource, self._release.namespace, labels=labels, metadata_only=True
                )
            ]
            if not found or time.monotonic() > give_up:
                self._tell(f"{len(found)} objects are left in the cluster")
                return found
            await asyncio.sleep(1)

    async def _evidence(self, left: list[str]) -> Evidence:
        return Evidence(
            accepted=self._load.accepted,
            refusals=self._load.refusals,
            jobs=await self._sql(_JOBS),
            attempts=await self._sql(_ATTEMPTS),
            ends=await self._sql(_ENDS),
            dead_letters=[row["id"] for row in await self._sql(_LETTERS)],
            ledger=list(self._ledger.lines),
            kubernetes_jobs=self._seen,
            cancelled=frozenset(self._faults.cancelled),
            left=left,
        )

    async def _sql(self, query: str) -> list[dict[str, Any]]:
        """Rows, as soon as the database is there."""
        give_up = time.monotonic() + _GONE_SECONDS
        while True:
            try:
                async with asyncio.timeout(20):
                    return await self._access.sql(query)
            except (psycopg.OperationalError, TimeoutError):
                if time.monotonic() > give_up:
                    raise
            await asyncio.to_thread(self._faults.revive)
            await asyncio.sleep(1)
