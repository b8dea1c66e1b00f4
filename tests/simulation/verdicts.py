"""What an attempt may end as: no more than what befell its Job and its pods in truth."""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from hybridjobs.controller.observe import condition, time
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOB_TYPES, HYBRIDJOBS, JOBS, PODS
from hybridjobs.kube.identity import job_id
from tests.simulation.cluster import ApiServer, Object
from tests.simulation.nodes import Container, Nodes, phase_of
from tests.simulation.refusals import Refusals
from tests.simulation.rows import Row

Key = tuple[UUID, int]

# Of startDeadlineSeconds, in times that Kubernetes cuts to seconds.
LEAST_PATIENCE = timedelta(seconds=19)
_WITHOUT_TYPE = timedelta(seconds=300)
_SLACK = timedelta(seconds=60)
_SECOND = timedelta(seconds=1)
# Ends that are the pod's own doing.
_OWN = {"failed", "permanent", "oom", "deadline", "retry_later", "never_started"}
_KILLED = {137, 143}
_NO_FAILURE = {0, 65, 75}  # done, permanent, interrupted


class Verdicts:
    """Keeps what happens to Jobs and pods, and judges by it how attempts end."""

    def __init__(
        self,
        server: ApiServer,
        nodes: Nodes,
        refusals: Refusals,
        now: Callable[[], datetime],
    ) -> None:
        self._now = now
        self._nodes = nodes
        self._refusals = refusals
        self._made: set[Key] = set()  # whose Job was there
        self._admitted: dict[Key, datetime] = {}  # when its clock began for the first time
        self._gone: set[Key] = set()  # whose Job was removed
        self._podless: set[Key] = set()  # of whose Job a pod was removed
        self._without_hybridjob: set[UUID] = set()  # jobs of which a HybridJob was removed
        self._restored = False
        self._types_gone: set[str] = set()
        self._disrupted: set[str] = set()  # pods, by uid
        self._deleted: set[str] = set()  # pods, by uid
        self._succeeded: set[str] = set()  # pods, by uid
        self._rules: dict[str, Callable[[Key, Row], str | None]] = {
            "never_started": self._never_started,
            "deadline": self._deadline,
            "oom": self._oom,
            "failed": self._failed,
            "permanent": self._permanent,
            "retry_later": self._retry_later,
            "disrupted": self._was_disrupted,
            "lost": self._lost,
            "node_lost": self._node_lost,
        }
        server.watchers.append(self._on_event)

    def on_restore(self) -> None:
        """The rows know nothing of what is in the cluster: it may be taken for lost."""
        self._restored = True
        self._gone |= self._made
        self._without_hybridjob |= {job for job, _ in self._made}

    def wrong(self, key: Key, attempt: Row, type_: str) -> str | None:
        """Why it may not end like that; None: it may."""
        if attempt["outcome"] == "node_lost" and type_ == "sim/alone" not in self._types_gone:
            return "its type forbids that another one begins beside it"
        if attempt["pod_uid"] in self._nodes.taken and attempt["outcome"] in _OWN:
            first = self._nodes.containers[attempt["pod_uid"]]
            # Who sees no pod at all cannot know of the suspension.
            unseen = attempt["outcome"] == "deadline" and attempt["exit_code"] is None
            unseen |= attempt["reason"] == "InvalidResult"  # its process had exited with 0
            if not unseen and (first.is_killed or first.ended_at is None):
                return "its Job was suspended while its pod ran"
        rule = self._rules.get(attempt["outcome"])
        return None if rule is None else rule(key, attempt)

    # What happens

    def _on_event(self, kind: str, event: str, body: Object) -> None:
        if kind == HYBRIDJOB_TYPES.plural and event == "DELETED":
            self._types_gone.add(body["spec"]["type"])
        elif kind == HYBRIDJOBS.plural:
            if event == "DELETED":
                self._without_hybridjob.add(job_id(body))
        elif kind in (JOBS.plural, PODS.plural):
            labels = body["metadata"]["labels"]
            key = UUID(labels[names.JOB_ID]), int(labels[names.ATTEMPT])
            if event == "DELETED":
                (self._gone if kind == JOBS.plural else self._podless).add(key)
            if kind == JOBS.plural:
                self._on_job(key, body)
            else:
                self._on_pod(body, event)

    def _on_job(self, key: Key, body: Object) -> None:
        self._made.add(key)
        began = time((body.get("status") or {}).get("startTime"))
        if began is not None:
            self._admitted.setdefault(key, began)

    def _on_pod(self, body: Object, event: str) -> None:
        uid = body["metadata"]["uid"]
        if condition(body, "DisruptionTarget") is not None:
            self._disrupted.add(uid)
        if phase_of(body) == "Succeeded":
            self._succeeded.add(uid)
        if event == "DELETED" or "deletionTimestamp" in body["metadata"]:
            self._deleted.add(uid)

    # What it may have been

    def _containers(self, key: Key) -> list[tuple[str, Container]]:
        return [
            (uid, each)
            for uid, each in self._nodes.containers.items()
            if (each.job_id, each.attempt) == key
        ]

    def _own_ends(self, key: Key) -> list[Container]:
        """Those that ended by themselves."""
        return [
            each
            for uid, each in self._containers(key)
            if each.ended_at is not None
            and uid not in self._disrupted
            and not (each.is_killed and each.ended_with in _KILLED)
        ]

    def _never_started(self, key: Key, attempt: Row) -> str | None:
        if key[0] in self._refusals.for_good or attempt["reason"] == "BeingDeleted":
            return None
        if attempt["started_at"] is not None:
            return "it had started"
        since = attempt["claimed_at"]
        patience = min(LEAST_PATIENCE, timedelta(seconds=attempt["deadline_seconds"]) - _SECOND)
        refused_at = self._refusals.refused_at.get(names.job_name(*key))
        if refused_at is not None and min(refused_at, attempt["ended_at"] - patience) >= since:
            return None  # though a create that nobody answered may have made it
        if attempt["reason"] == "UnknownType":
            patience = _WITHOUT_TYPE
        elif key in self._admitted:
            since = self._admitted[key]
        else:
            return "its Job was never admitted, and nobody refused it for good"
        if attempt["ended_at"] - since < patience:
            return f"it has had no more than {attempt['ended_at'] - since} to begin"
        return None

    def _deadline(self, key: Key, attempt: Row) -> str | None:
        pods = {each.pod for uid, each in self._containers(key) if uid in self._succeeded}
        if attempt["exit_code"] == 0 and attempt["pod_name"] in pods:
            return "its pod had succeeded"
        began = self._admitted.get(key)
        if began is None or all(each.started_at is None for _, each in self._containers(key)):
            return "nothing began"
        if self._restored:
            return (
                None  # its pod may have been shortened for a cancel that the backup does not know
            )
        lasted = self._now() - began  # it may have ended before, unseen by its kubelet
        if lasted < timedelta(seconds=attempt["deadline_seconds"]) - _SECOND:
            return f"it has had no more than {lasted}"
        return None

    def _oom(self, key: Key, _attempt: Row) -> str | None:
        killed = any(each.reason == "OOMKilled" for each in self._own_ends(key))
        return None if killed else "nothing took too much memory"

    def _failed(self, key: Key, attempt: Row) -> str | None:
        if attempt["reason"] == "NameConflict":
            return None
        failed = any(each.ended_with not in _NO_FAILURE for each in self._own_ends(key))
        return None if failed else "nothing failed by itself, and not for good"

    def _permanent(self, key: Key, attempt: Row) -> str | None:
        if attempt["reason"] == "InvalidJob":
            return None
        if attempt["reason"] == "InvalidResult":
            done = any(each.ended_with == 0 for _, each in self._containers(key))
            return None if done else "nothing had a result"
        for each in self._own_ends(key):
            if "permanent" in (each.message or "") or each.ended_with == 65:
                return None
        return "nothing said so"

    def _retry_later(self, key: Key, _attempt: Row) -> str | None:
        asked = any("retryAfter" in (each.message or "") for each in self._own_ends(key))
        return None if asked else "nothing asked for it"

    def _was_disrupted(self, key: Key, attempt: Row) -> str | None:
        pods = self._containers(key)
        done = attempt["exit_code"] == 0 and attempt["reason"] != "PodReplaced"
        if done and not any(uid in self._disrupted for uid, _ in pods):
            return "its process had exited with 0"
        disturbed = self._disrupted | self._deleted | self._nodes.taken
        if any(uid in disturbed or each.ended_with == 75 for uid, each in pods):
            return None
        return "nobody disrupted it"

    def _lost(self, key: Key, attempt: Row) -> str | None:
        if attempt["reason"] == "PodLost":
            return None if key in self._podless else "no pod was removed"
        if attempt["reason"] == "Restored":
            return None if self._restored else "no database was restored"
        known = key in self._gone or key[0] in self._without_hybridjob
        return None if known else "all of it was there"

    def _node_lost(self, key: Key, attempt: Row) -> str | None:
        began = self._admitted.get(key)
        if began is None:
            return "its Job was never admitted"
        least = timedelta(seconds=attempt["deadline_seconds"]) + LEAST_PATIENCE + _SLACK
        if attempt["ended_at"] - began < least:
            return f"it has had no more than {attempt['ended_at'] - began}"
        return None
