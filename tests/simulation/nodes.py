"""Kubernetes' own part on nodes: what the kubelets do, a small step at a time.

What is real (`Container`) and what its kubelet has told the API server are two things: a container
may have started, or ended, while the pod does not yet say so, and on a lost node it never will.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from hybridjobs.controller.observe import condition, time
from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube import names
from hybridjobs.kube.client import JOBS, PODS, NotFound
from hybridjobs.kube.times import time_text
from tests.simulation.cluster import ApiServer, Deed, Object, owner_uid
from tests.simulation.processes import Logs

_TOLERATION = timedelta(seconds=30)

_MESSAGES: dict[int, list[str | None]] = {
    0: [None, None, None, '{"rows": 1}', '{"rows": "\\u0000"}', "done"],
    1: [
        *(None, None, "boom", '{"error": "no", "permanent": true}'),
        *('{"error": "later", "retryAfter": 5}', '{"error": "later", "retryAfter": 90}'),
    ],
    65: [None],
    75: [None],
    137: [None],
}


@dataclass(slots=True)
class Container:
    """A pod's main container as it really is, and what it is going to do."""

    pod: str
    job_id: UUID
    attempt: int
    begins: str  # well | ImagePullBackOff | Unschedulable
    seconds: float
    exit_code: int
    message: str | None
    on_sigterm: int  # the exit code
    lost_at: datetime | None = None  # since when its node says nothing any more
    started_at: datetime | None = None
    ended_at: datetime | None = None
    ended_with: int | None = None
    is_killed: bool = False  # as its pod was deleted
    reason: str = "Completed"

    @property
    def is_lost(self) -> bool:
        """Whether its node is silent."""
        return self.lost_at is not None

    @property
    def runs(self) -> bool:
        """Whether its process does something now."""
        return self.started_at is not None and self.ended_at is None

    def ended(self, at: datetime, exit_code: int) -> None:
        """The process is over."""
        self.ended_at, self.ended_with = at, exit_code
        if exit_code != self.exit_code:
            self.message = None
        self.reason = "Completed" if exit_code == 0 else "Error"


class Nodes(Logs):
    """Whatever may happen next to a pod is a step; `steps` lists them."""

    def __init__(self, server: ApiServer, now: Callable[[], datetime], random: Random) -> None:
        self._server = server
        self._now = now
        self._random = random
        self.containers: dict[str, Container] = {}  # by pod uid
        self.taken: set[str] = set()  # uids of pods whose Job was suspended
        self.begun: Callable[[Container], None] = lambda _container: None

    def log(self, pod: str) -> str:
        body = self._server.get(PODS.plural, pod)
        container = self.containers[body["metadata"]["uid"]]
        if container.is_lost:
            raise ClusterUnavailable("the kubelet does not answer")
        if container.started_at is None:
            raise NotFound(404, "NotFound", "no log")
        return f"log of {pod}"

    def container(self, pod: Object) -> Container:
        """The truth about a pod."""
        return self.containers[pod["metadata"]["uid"]]

    def add(self, pod: Object) -> None:
        """A pod that was made, whose fate is decided here."""
        labels, random = pod["metadata"]["labels"], self._random
        exit_code = random.choice([0, 0, 0, 1, 1, 65, 75, 137])
        self.containers[pod["metadata"]["uid"]] = Container(
            pod=pod["metadata"]["name"],
            job_id=UUID(labels[names.JOB_ID]),
            attempt=int(labels[names.ATTEMPT]),
            begins=random.choice(["well"] * 10 + ["ImagePullBackOff", "Unschedulable"]),
            seconds=random.choice([0, 0, 1, 5, 20, 1000]),
            exit_code=exit_code,
            message=random.choice(_MESSAGES[exit_code]),
            on_sigterm=random.choice([143, 137, 0, 75]),
        )

    # Kubelets

    def steps(self, pod: Object) -> list[Deed]:
        """What may happen to that pod now."""
        container = self.container(pod)
        steps: list[Deed] = []
        self._live(container, steps)
        deleting = "deletionTimestamp" in pod["metadata"]
        if not deleting and owner_uid(pod) not in self._server.uids:
            steps.append(("collect", lambda: self._mark(pod)))
        if container.lost_at is not None:
            fits = phase_of(pod) in ("Pending", "Running")
            if (
                fits
                and condition(pod, "DisruptionTarget") is None
                and self._now() >= container.lost_at + _TOLERATION
            ):
                steps.append(("tainted", lambda: self.disrupt(pod)))
            return steps
        phase, status = phase_of(pod), pod["status"]
        bound = "startTime" in status
        deadline = pod["spec"]["activeDeadlineSeconds"]
        late = bound and has_passed(status["startTime"], deadline, self._now())
        shown = _state(pod)
        if container.ended_at is not None and "terminated" not in shown:
            steps.append(("end shown", lambda: self._show_end(pod, container, late=late)))
        elif container.runs and "running" not in shown:
            steps.append(("start shown", lambda: self._show_start(pod, container)))
        if container.runs and (late or deleting):
            steps.append(("killed", lambda: self._kill(container, deleted=deleting and not late)))
        if phase == "Pending" and container.started_at is None:
            if late:
                steps.append(("pod out of time", lambda: self._fail(pod)))
            elif not deleting:
                steps += self._begin(pod, container, bound=bound)
        if deleting and not container.runs:
            unseen = container.ended_at is not None and "terminated" not in shown
            if phase not in ("Succeeded", "Failed") and not unseen:
                steps.append(("pod ended", lambda: self._fail(pod, reason=None)))
            elif not unseen and self._is_counted(pod):
                name = pod["metadata"]["name"]
                steps.append(("pod gone", lambda: self._server.remove(PODS.plural, name)))
        return steps

    def _live(self, container: Container, steps: list[Deed]) -> None:
        started, lasts = container.started_at, timedelta(seconds=container.seconds)
        if started is not None and container.runs and self._now() >= started + lasts:
            steps.append(
                ("process ends", lambda: container.ended(self._now(), container.exit_code))
            )

    def _kill(self, container: Container, *, deleted: bool) -> None:
        container.is_killed = deleted
        container.ended(self._now(), container.on_sigterm)

    def _begin(self, pod: Object, container: Container, *, bound: bool) -> list[Deed]:
        if container.begins == "Unschedulable":
            if condition_of(pod, "PodScheduled") is None:
                waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
                return [("unschedulable", lambda: self._show(pod, conditions=[waits]))]
            return []
        if not bound:
            return [("bound", lambda: self._show(pod, startTime=self._text()))]
        if container.begins == "ImagePullBackOff":
            if "waiting" in _state(pod):
                return []
            waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no image"}}
            return [("no image", lambda: self._show_state(pod, waiting))]
        return [("process starts", lambda: self._start(container))]

    def _start(self, container: Container) -> None:
        container.started_at = self._now()
        self.begun(container)

    def _show(self, pod: Object, **status: object) -> None:
        self._server.replace(PODS.plural, {**pod, "status": {**pod["status"], **status}})

    def _show_state(self, pod: Object, state: Object, **status: object) -> None:
        shown = [{"name": names.CONTAINER, "state": state}]
        self._show(pod, containerStatuses=shown, **status)

    def _show_start(self, pod: Object, container: Container) -> None:
        assert container.started_at is not None
        running = {"running": {"startedAt": time_text(container.started_at)}}
        self._show_state(pod, running, phase="Running")

    def _show_end(self, pod: Object, container: Container, *, late: bool) -> None:
        assert container.started_at is not None
        assert container.ended_at is not None
        ended = {
            "exitCode": container.ended_with,
            "reason": container.reason,
            "startedAt": time_text(container.started_at),
            "finishedAt": time_text(container.ended_at),
        }
        if container.message is not None:
            ended["message"] = container.message
        succeeded = container.ended_with == 0 and not late
        phase = {"phase": "Succeeded" if succeeded else "Failed"}
        if late:
            phase |= {"reason": "DeadlineExceeded", "message": "was active longer than allowed"}
        self._show_state(pod, {"terminated": ended}, **phase)

    def _fail(self, pod: Object, reason: str | None = "DeadlineExceeded") -> None:
        self._show(pod, phase="Failed", **({} if reason is None else {"reason": reason}))

    def _mark(self, pod: Object) -> None:
        self._server.mark_deleted(PODS.plural, pod["metadata"]["name"])

    def _is_counted(self, pod: Object) -> bool:
        """Whether its Job has taken account of its end, or wants none, or is gone."""
        if pod["metadata"]["uid"] in self.taken:
            return True
        job = next(
            (
                each
                for each in self._server.list(JOBS.plural)
                if each["metadata"]["uid"] == owner_uid(pod)
            ),
            None,
        )
        verdicts = ("FailureTarget", "SuccessCriteriaMet", "Complete", "Failed")
        return job is None or any(condition(job, each) is not None for each in verdicts)

    # Trouble

    def disrupt(self, pod: Object) -> None:
        """Drained, preempted, or its node is gone silent for too long."""
        conditions = [
            *(pod["status"].get("conditions") or []),
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
        ]
        if condition(pod, "DisruptionTarget") is None and phase_of(pod) in ("Pending", "Running"):
            self._show(pod, conditions=conditions)
            self._mark(pod)

    def force(self, pod: Object) -> None:
        """Deleted without a word from its kubelet, which kills what it has where it can."""
        container = self.container(pod)
        if container.runs and not container.is_lost:
            container.is_killed = True
            container.ended(self._now(), 137)
        self._server.remove(PODS.plural, pod["metadata"]["name"])

    def kill_by_memory(self, pod: Object) -> None:
        """The container takes too much memory."""
        container = self.container(pod)
        if container.runs:
            container.ended(self._now(), 137)
            container.reason = "OOMKilled"

    def lose(self, pod: Object) -> None:
        """Its node falls silent; the process goes on."""
        container = self.container(pod)
        container.lost_at = container.lost_at or self._now()

    def find(self) -> None:
        """Every node is back, and ends what was forgotten meanwhile."""
        for uid, container in self.containers.items():
            container.lost_at = None
            if container.runs and uid not in self._server.uids:
                container.ended(self._now(), 137)

    def _text(self) -> str:
        return time_text(self._now())


def has_passed(since: str, seconds: float, now: datetime) -> bool:
    """Whether so much time is over."""
    began = time(since)
    assert began is not None
    return now >= began + timedelta(seconds=seconds)


def condition_of(body: Object, type_: str) -> Object | None:
    """The condition of that type, whatever it says."""
    conditions = body["status"].get("conditions") or []
    return next((each for each in conditions if each["type"] == type_), None)


def phase_of(pod: Object) -> str:
    """Pending, Running, Succeeded or Failed."""
    return str(pod["status"]["phase"])


def _state(pod: Object) -> Object:
    shown = pod["status"].get("containerStatuses") or [{}]
    state: Object = shown[0].get("state") or {}
    return state
