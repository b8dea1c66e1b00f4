"""The senders: each job once, asked for again under the same key until the answer is there."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from hybridjobs.kube.identity import job_id
from tests.chaos import handlers
from tests.chaos.audit import Accepted
from tests.chaos.plan import ENDED, KINDS, PlannedJob
from tests.e2e.release import Access, CommandFailedError, Release, delivery_of

_AGAIN_SECONDS = 1.0
_PATIENCE_SECONDS = 180.0
_DELIVERIES = {
    "hook": ("issues", "opened"),
    "quick": ("pull_request", "opened"),
    "sync": ("repository", "renamed"),
}


class NeverAnsweredError(Exception):
    """Somebody was not answered for minutes, or refused."""


@dataclass
class Load:
    """Sends jobs, and keeps what was accepted: by id, with the answers that were no acceptance."""

    release: Release
    access: Access
    accepted: list[Accepted] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    sent_again: Counter[str] = field(default_factory=Counter)
    _known: dict[int, asyncio.Future[str]] = field(default_factory=dict)

    async def send(self, job: PlannedJob, began: float) -> None:
        """Wait until it is its turn, have it accepted, and cancel it if that is planned."""
        known = self._known.setdefault(job.number, asyncio.get_running_loop().create_future())
        await _at(began, job.at)
        try:
            match KINDS[job.kind].channel:
                case "api":
                    known.set_result(await self._by_api(job))
                case "github":
                    known.set_result(await self._by_github(job))
                case "kubectl":
                    known.set_result(await self._by_kubectl(job))
            if job.cancel_at is not None:
                await _at(began, job.cancel_at)
                await self._cancel(known.result())
        except NeverAnsweredError as error:
            self.refusals.append(f"{job.kind} {job.key}: {error}")
            known.cancel()
        except asyncio.CancelledError:
            known.cancel()
            raise

    async def _by_api(self, job: PlannedJob) -> str:
        body: dict[str, Any] = {"type": handlers.JOB, "key": job.key, "payload": job.payload}
        depends_on: tuple[str, ...] = ()
        if job.deadline_seconds is not None:
            body["deadlineSeconds"] = job.deadline_seconds
        if job.depends_on:
            loop = asyncio.get_running_loop()
            waited = [
                self._known.setdefault(number, loop.create_future()) for number in job.depends_on
            ]
            depends_on = tuple(await asyncio.gather(*waited))
            body["dependsOn"] = list(depends_on)

        async def ask() -> httpx.Response:
            return await self.access.request("POST", "/api/jobs", json=body)

        answer = await self._answered("api", ask)
        accepted: str = answer.json()["id"]
        self._accept(accepted, job, handlers.JOB, depends_on)
        return accepted

    async def _by_github(self, job: PlannedJob) -> str:
        delivery = delivery_of(*_DELIVERIES[job.kind])

        async def ask() -> httpx.Response:
            return await self.access.deliver(delivery, delivery_id=job.key)

        jobs = (await self._answered("github", ask)).json()["jobs"]
        for each in jobs:
            self._accept(each["id"], job, each["type"])
        if not jobs:
            raise NeverAnsweredError("a webhook without a job")
        first: str = jobs[0]["id"]
        return first

    async def _by_kubectl(self, job: PlannedJob) -> str:
        body = json.dumps(handlers.hybridjob(job.key, job.payload))
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                command = ("apply", "-f", "-", "-o", "json", "--request-timeout=10s")
                text = await asyncio.to_thread(self.release.kubectl, *command, stdin=body)
                break
            except CommandFailedError as error:
                self.sent_again["kubectl"] += 1
                if time.monotonic() > give_up:
                    raise NeverAnsweredError(str(error)) from None
                await asyncio.sleep(_AGAIN_SECONDS)
        accepted = str(job_id(json.loads(text)))
        self._accept(accepted, job, handlers.JOB)
        return accepted

    async def _cancel(self, accepted: str) -> None:
        async def ask() -> httpx.Response:
            return await self.access.request("POST", f"/api/jobs/{accepted}/cancel")

        await self._answered("cancel", ask, also=(409,))  # it is over already

    async def _answered(
        self, what: str, ask: Callable[[], Awaitable[httpx.Response]], *, also: tuple[int, ...] = ()
    ) -> httpx.Response:
        """The acceptance, 2xx or `also`; sent again while the service is away."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                answer = await ask()
            except httpx.TransportError as error:
                trouble = type(error).__name__
            else:
                if answer.is_success or answer.status_code in also:
                    return answer
                trouble = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code not in (429, 503):
                    # Nothing that is broken here is a reason for it.
                    self.refusals.append(f"{what}: {trouble}")
            self.sent_again[what] += 1
            if time.monotonic() > give_up:
                raise NeverAnsweredError(trouble)
            await asyncio.sleep(_AGAIN_SECONDS)

    def _accept(
        self, accepted: str, job: PlannedJob, type_: str, depends_on: tuple[str, ...] = ()
    ) -> None:
        # One webhook may have jobs of several types.
        ends = job.ends if type_ in handlers.LEDGER_TYPES else ENDED
        self.accepted.append(
            Accepted(accepted, job.key, type_, job.kind, ends, job.payload, depends_on)
        )


@asynccontextmanager
async def scheduled(release: Release) -> AsyncIterator[None]:
    """A schedule's jobs, one a minute, meanwhile."""
    release.apply(handlers.schedule())
    try:
        yield
    finally:
        release.kubectl("delete", "hybridjobschedule", handlers.SCHEDULE, "--ignore-not-found")


async def _at(began: float, seconds: float) -> None:
    await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
