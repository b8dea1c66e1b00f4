"""Proof that the watches are alive: what a list shows, the watch must have told before long.

A quiet watch proves nothing either way: an idle cluster has no events, and a stream may be open,
even have its bookmarks, and yet tell nothing more. Nor does a reconnect: kopf can lose the task
that watches one resource and go on without it. So the objects' versions are listed now and then,
and compared with those that the watch has told.

Nothing is repaired here. A process whose watch is stale, or whose credentials and addresses have
not been good for long, ends: its successor lists everything, and reads them afresh.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import structlog

from hybridjobs.controller import metrics
from hybridjobs.controller.cache import Object
from hybridjobs.errors import ClusterUnavailable, HybridJobsError
from hybridjobs.kube.client import ApiError, Kubernetes, Resource, Unauthorized

log = structlog.get_logger(__name__)

_RESTS = 10  # times as long as a check takes


class WatchStale(HybridJobsError):  # noqa: N818 - the field's word
    """A watch does not tell any more what the API server has."""


class CutOff(HybridJobsError):  # noqa: N818 - what it is
    """For long the API server has refused the credentials, or not answered."""


class Told:
    """The version of each object as its watch told it last."""

    def __init__(self) -> None:
        self._versions: dict[Resource, dict[str, int]] = {}
        self._newest: dict[Resource, int] = {}

    def event(self, resource: Resource, kind: str | None, body: Object) -> None:
        """A watch event."""
        metadata = body["metadata"]
        version = int(metadata["resourceVersion"])
        known = self._versions.setdefault(resource, {})
        if kind == "DELETED":
            known.pop(metadata["uid"], None)
        else:
            known[metadata["uid"]] = version
        self._newest[resource] = max(version, self.newest(resource))

    def newest(self, resource: Resource) -> int:
        """The highest version; 0 when nothing was told."""
        return self._newest.get(resource, 0)

    def version(self, resource: Resource, uid: str) -> int:
        """That of the object; 0 where it is not known, or deleted."""
        return self._versions.get(resource, {}).get(uid, 0)

    def forget_others(self, resource: Resource, uids: Collection[str], than: int) -> None:
        """Drop what is not listed, and older than the list: its deletion was never told."""
        known = self._versions.get(resource, {})
        for uid in [uid for uid, version in known.items() if uid not in uids and version < than]:
            del known[uid]


class Contact:
    """For how long the API server has refused us, or not answered.

    An outage ends by itself, and a new process makes it no shorter; but of a certificate, an
    address or a token that was changed meanwhile, only a new one may know.
    """

    def __init__(self, *, refused_seconds: float = 60.0, silent_seconds: float = 600.0) -> None:
        self._refused_seconds = refused_seconds
        self._silent_seconds = silent_seconds
        self._since: dict[type[Exception], float] = {}

    def made(self) -> None:
        """It answered, and knew us."""
        self._since.clear()

    def failed(self, error: ApiError | ClusterUnavailable) -> None:
        """It did not; CutOff when that has been so for too long."""
        now = asyncio.get_running_loop().time()
        if isinstance(error, Unauthorized):
            seconds = now - self._since.setdefault(Unauthorized, now)
            limit = self._refused_seconds
        elif isinstance(error, ClusterUnavailable):
            seconds = now - self._since.setdefault(ClusterUnavailable, now)
            limit = self._silent_seconds
        else:
            self.made()
            return
        if seconds >= limit:
            raise CutOff(f"for {seconds:.0f} s: {error}") from error


@dataclass(frozen=True, slots=True)
class _Behind:
    """An object that the watch has not told as it is: in which version, and since when."""

    version: int
    since: float


class Watchdog:
    """Compares lists with what was told, every `check_seconds`.

    `selectors` has the labels by which a resource is watched, where there are some. An object that
    the watch has not told for `stale_seconds`, as seen by checks that could look, is the end; but
    with ten thousand to tell at its start, a watch that gets on with them has its time.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        told: Told,
        resources: Collection[Resource],
        selectors: Mapping[Resource, str],
        *,
        namespace: str,
        check_seconds: float,
        stale_seconds: float,
        hang_seconds: float = 300.0,
    ) -> None:
        self._kubernetes = kubernetes
        self._told = told
        self._resources = resources
        self._selectors = selectors
        self._namespace = namespace
        self._check_seconds = check_seconds
        self._stale_seconds = stale_seconds
        self._hang_seconds = hang_seconds
        self._contact = Contact()
        self._behind: dict[tuple[Resource, str], _Behind] = {}
        self._complete: set[Resource] = set()  # whose watch has told all that was there before
        self._rest_seconds = check_seconds
        self._checked: float | None = None
        self.sees = True  # whether the last check has found every watch up to date

    @property
    def hangs(self) -> bool:
        """Whether a check has been under way for `hang_seconds`, longer than any request lasts."""
        if self._checked is None:
            return False
        silent = asyncio.get_running_loop().time() - self._checked
        return silent > self._rest_seconds + self._hang_seconds

    async def run(self) -> None:
        """Check until cancelled; WatchStale or CutOff when there is no more use in going on."""
        loop = asyncio.get_running_loop()
        while True:
            self._checked = loop.time()
            await asyncio.sleep(self._rest_seconds)
            began = loop.time()
            try:
                for resource in self._resources:
                    await self._check(resource)
                self._contact.made()
            except (ApiError, ClusterUnavailable) as error:
                # Who cannot look has not seen that nothing was told; the watch may be as blind.
                self._behind.clear()
                self.sees = False
                log.warning("the watches are not checked", error=str(error))
                self._contact.failed(error)
            else:
                # What is behind at its first sight may be on its way.
                self.sees = all(
                    self._seconds(each) < self._check_seconds for each in self._behind.values()
                )
            # A list of many, on a machine with much to do, takes from the work that it watches.
            self._rest_seconds = max(self._check_seconds, _RESTS * (loop.time() - began))

    async def _check(self, resource: Resource) -> None:
        told_before = self._told.newest(resource)
        version, listed = await self._kubernetes.versions(
            resource, self._namespace, labels=self._selectors.get(resource, "")
        )
        if version < told_before:
            raise WatchStale(
                f"{resource.plural}: the watch has told version {told_before}, and the API server"
                f" is at {version}: it has been restored from a backup"
            )
        now = asyncio.get_running_loop().time()
        behind = {}
        for uid, newest in listed.items():
            told = self._told.version(resource, uid)
            if told >= newest:
                continue
            before = self._behind.get((resource, uid))
            still = before is not None and told < before.version
            behind[resource, uid] = before if before and still else _Behind(newest, now)
        if not behind:
            self._complete.add(resource)
        elif resource not in self._complete and len(behind) < sum(
            key[0] == resource for key in self._behind
        ):
            behind = {key: _Behind(each.version, now) for key, each in behind.items()}
        self._told.forget_others(resource, listed.keys(), version)
        self._behind = {
            key: each for key, each in self._behind.items() if key[0] != resource
        } | behind
        seconds = max(map(self._seconds, behind.values()), default=0.0)
        metrics.watch_behind(resource.plural, seconds)
        if seconds >= self._stale_seconds:
            raise WatchStale(
                f"{resource.plural}: the watch has not told for {seconds:.0f} s what a list shows"
                f" ({len(behind)} objects)"
            )

    def _seconds(self, behind: _Behind) -> float:
        return asyncio.get_running_loop().time() - behind.since
