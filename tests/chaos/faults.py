"""What breaks, and mends. Every fault ends mended, also when the run is cancelled meanwhile."""

import asyncio
import json
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from hybridjobs.kube import names
from tests.chaos import network
from tests.chaos.plan import FAULTS, Fault
from tests.cluster import Cluster, ClusterError
from tests.e2e.processes import pids_of
from tests.e2e.release import CommandFailedError, Release

_ATTEMPTS = 5
_OF_JOBS = names.SELECTOR
_HURRIED = ("--wait=false", "--request-timeout=10s")
_PROGRAMS = {"ingress": "ingress", "operator": "operator", "postgres": "postgres"}


def possible(cluster: Cluster, *, cheap: bool) -> list[str]:
    """The kinds of fault that this cluster can show; with `cheap`, those of a short run."""
    return [
        kind
        for kind, of in FAULTS.items()
        if (of.cheap or not cheap) and (cluster.kind == "native" or not of.native)
    ]


class Faults:
    """Breaks a release and the cluster below it; `cancelled`: jobs whose HybridJob it deleted."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._cluster = release.cluster
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.cancelled: set[str] = set()

    async def inject(self, fault: Fault) -> str:
        """Break it, wait as long as it lasts, mend it; what was done, in words."""
        # A target may be out of reach just now, by another fault.
        for _ in range(_ATTEMPTS):
            try:
                async with self._broken(fault) as what:
                    await asyncio.sleep(fault.seconds)
                return what
            except (CommandFailedError, ClusterError, OSError) as error:
                refusal = str(error).splitlines()[-1][-120:]
            await asyncio.sleep(2)
        return f"not done: {refusal}"

    async def mend(self) -> None:
        """Whatever is still broken: programs that are dead, pods that wait to be started again."""
        await asyncio.to_thread(self._cluster.mend)
        await asyncio.to_thread(self.revive)

    @asynccontextmanager
    async def _broken(self, fault: Fault) -> AsyncIterator[str]:
        target, _, how = fault.kind.rpartition("-")
        async with self._locks[target]:
            undo, what = await asyncio.to_thread(self._break, target, how, fault.pick)
            try:
                yield what
            finally:
                await asyncio.shield(asyncio.to_thread(undo))

    def _break(self, target: str, how: str, pick: float) -> tuple[Callable[[], None], str]:
        match target, how:
            case (("ingress" | "operator" | "postgres"), "killed"):
                return self.revive, self._signal(target, signal.SIGKILL, pick)
            case (("operator" | "postgres"), "frozen"):
                return self._freeze(target)
            case (("ingress" | "operator" | "postgres"), "deleted"):
                name = self._picked(self._pods(target), pick)["metadata"]["name"]
                return _nothing, self._deleted("pod", name)
            case "pod", "deleted":
                return _nothing, self._deleted("pod", self._any("pods", pick))
            case "pod", "evicted":
                return _nothing, self._evicted(self._any("pods", pick))
            case "job", "deleted":
                return _nothing, self._deleted("job", self._any("jobs", pick))
            case "hybridjob", "deleted":
                return _nothing, self._cancel(pick)
            case (("database" | "api"), _):
                return self._cut(target, how)
            case _:
                self._cluster.stop_component(target, pause=how == "frozen")
                return lambda: self._cluster.start_component(target), f"{target} {how}"

    # Pods and objects -----------------------------------------------------------------------

    def _pods(self, component: str) -> list[dict[str, Any]]:
        pods = self._release.objects("pods", f"app.kubernetes.io/component={component}")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def _picked(self, candidates: Iterable[dict[str, Any]], pick: float) -> dict[str, Any]:
        ordered = sorted(candidates, key=lambda each: str(each["metadata"]["name"]))
        if not ordered:
            raise CommandFailedError("there is none at the moment")
        return ordered[int(pick * len(ordered))]

    def _any(self, kind: str, pick: float) -> str:
        """The name of a pod or Job of ours that has not ended."""
        live = [
            each
            for each in self._release.objects(kind, _OF_JOBS)
            if "deletionTimestamp" not in each["metadata"] and not _is_over(each)
        ]
        name: str = self._picked(live, pick)["metadata"]["name"]
        return name

    def _deleted(self, kind: str, name: str) -> str:
        self._release.kubectl("delete", kind, name, *_HURRIED)
        return f"{kind} {name} deleted"

    def _evicted(self, name: str) -> str:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": self._release.namespace},
        }
        path = f"/api/v1/namespaces/{self._release.namespace}/pods/{name}/eviction"
        self._release.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
        return f"pod {name} evicted"

    def _cancel(self, pick: float) -> str:
        live = [
            each
            for each in self._release.objects("hybridjobs")
            if "jobId" in each["spec"] and not _is_terminal(each)
        ]
        chosen = self._picked(live, pick)
        # Before it is done, as nobody can tell afterwards whether it was.
        self.cancelled.add(chosen["spec"]["jobId"])
        return self._deleted("hybridjob", chosen["metadata"]["name"])

    # Processes ------------------------------------------------------------------------------

    def _signal(self, component: str, number: int, pick: float) -> str:
        pod = self._acting(component) or self._picked(self._pods(component), pick)
        name = pod["metadata"]["name"]
        pids = pids_of(pod, _PROGRAMS[component])
        if not pids:
            self._release.kubectl("delete", "pod", name, "--grace-period=0", "--force", *_HURRIED)
            return f"{component} {name} killed, by its deletion without grace"
        _signalled(pids, number)
        return f"{component} {name} {signal.Signals(number).name}, {len(pids)} processes"

    def _acting(self, component: str) -> dict[str, Any] | None:
        """The operator that leads, where there is one."""
        if component != "operator":
            return None
        lease = self._release.object("lease", f"{self._release.name}-operator")
        holder = str(lease["spec"].get("holderIdentity") or "").rpartition("_")[0]
        pods = {pod["metadata"]["name"]: pod for pod in self._pods(component)}
        return pods.get(holder)

    def _freeze(self, component: str) -> tuple[Callable[[], None], str]:
        pod = self._acting(component) or self._picked(self._pods(component), 0)
        pids = pids_of(pod, _PROGRAMS[component])
        if not pids:
            raise CommandFailedError("its processes are not on this machine")
        _signalled(pids, signal.SIGSTOP)
        what = f"{component} {pod['metadata']['name']} frozen, {len(pids)} processes"
        return lambda: _signalled(pids, signal.SIGCONT), what

    def revive(self) -> None:
        """Make pods anew that the kubelet would start again only minutes later."""
        for component in _PROGRAMS:
            with suppress(CommandFailedError):
                for pod in self._pods(component):
                    if _waits_to_restart(pod):
                        self._deleted("pod", pod["metadata"]["name"])

    # Connections ----------------------------------------------------------------------------

    def _cut(self, target: str, how: str) -> tuple[Callable[[], None], str]:
        ours = [*_addresses(self._pods("ingress")), *_addresses(self._pods("operator"))]
        databases = _addresses(self._pods("postgres"))
        if not ours or not databases:
            raise CommandFailedError("there is no pod to cut off")
        what = f"connections to {target} {how}"
        if how == "slow":
            links = [network.slow(each) for each in (databases if target == "database" else ours)]
            return lambda: _each(network.hasten, links), what
        if target == "database":
            network.cut_database(ours, databases[0], reset=how == "reset")
        else:
            network.cut_api(ours, reset=how == "reset")
        return lambda: network.heal(target), what


def _nothing() -> None:
    """What is done to single objects, their controllers mend."""


def _each(do: Callable[[str], None], links: Collection[str]) -> None:
    for link in links:
        do(link)


def _signalled(pids: Collection[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _addresses(pods: Iterable[dict[str, Any]]) -> list[str]:
    return [pod["status"]["podIP"] for pod in pods if pod["status"].get("podIP")]


def _is_over(item: dict[str, Any]) -> bool:
    status = item.get("status") or {}
    ended = {each["type"] for each in status.get("conditions") or [] if each["status"] == "True"}
    return status.get("phase") in ("Succeeded", "Failed") or bool(ended & {"Complete", "Failed"})


def _is_terminal(hybridjob: dict[str, Any]) -> bool:
    state = (hybridjob.get("status") or {}).get("state")
    return state in ("completed", "failed", "cancelled")


def _waits_to_restart(pod: dict[str, Any]) -> bool:
    status = pod["status"]
    return any(
        (each.get("state") or {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
        for each in [
            *(status.get("containerStatuses") or []),
            *(status.get("initContainerStatuses") or []),
        ]
    )
