"""An API server in memory: names, uids, versions, preconditions, and what it tells its watchers.

Objects are replaced, never changed in place, so that a stale view is simply an old object.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from hybridjobs.kube.client import (
    EVENTS,
    HYBRIDJOB_TYPES,
    HYBRIDJOBS,
    JOBS,
    PODS,
    AlreadyExists,
    Conflict,
    Invalid,
    NotFound,
)
from hybridjobs.kube.times import time_text

Object = dict[str, Any]
Watcher = Callable[[str, str, Object], None]  # kind of object, of event, the object
Deed = tuple[str, Callable[[], object]]  # something that may happen: what it is called, and it

WATCHED = (HYBRIDJOBS.plural, JOBS.plural, PODS.plural, HYBRIDJOB_TYPES.plural)


class ApiServer:
    """What is in one namespace, by kind and name."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.version = 0
        self.objects: dict[str, dict[str, Object]] = {
            kind: {} for kind in (*WATCHED, EVENTS.plural)
        }
        self.uids: set[str] = set()
        self.watchers: list[Watcher] = []
        # Quotas, policies and webhooks, which a create has to pass; HybridJobsError.
        self.refuse: Callable[[str, Object], None] = lambda _kind, _body: None

    def create(self, kind: str, body: Object) -> Object:
        """POST."""
        name = body["metadata"]["name"]
        if name in self.objects[kind]:
            raise AlreadyExists(409, "AlreadyExists", f"{name} is there")
        version = self._next_version()
        metadata = {
            **body["metadata"],
            "uid": f"{kind}-{version}",
            "resourceVersion": version,
            "creationTimestamp": time_text(self._now()),
            "generation": 1,
        }
        self.uids.add(metadata["uid"])
        return self._put(kind, "ADDED", {**body, "metadata": metadata})

    def get(self, kind: str, name: str) -> Object:
        """GET."""
        if name not in self.objects[kind]:
            raise NotFound(404, "NotFound", f"there is no {name}")
        return self.objects[kind][name]

    def list(self, kind: str) -> list[Object]:
        """All of a kind."""
        return list(self.objects[kind].values())

    def replace(self, kind: str, body: Object) -> Object:
        """The object with these contents; the same contents are no write."""
        name = body["metadata"]["name"]
        before = self.objects[kind][name]
        if before == body:
            return before
        metadata = {**body["metadata"], "resourceVersion": self._next_version()}
        if body.get("spec") != before.get("spec"):
            metadata["generation"] = before["metadata"]["generation"] + 1
        return self._put(kind, "MODIFIED", {**body, "metadata": metadata})

    def apply(self, kind: str, body: Object) -> Object:
        """Server-side apply of one owner's fields, with the uid that the object must have."""
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        found = self.objects[kind].get(name)
        if found is None or found["metadata"]["uid"] != uid:
            raise Conflict(409, "Conflict", f"{name} is not {uid}")
        spec = {**found["spec"], **body["spec"]}
        if spec["attempt"] < found["spec"].get("attempt", 0):
            raise Invalid(422, "Invalid", "attempt never falls")
        return self.replace(kind, {**found, "spec": spec})

    def patch(self, kind: str, name: str, patch: Object, subresource: str) -> Object:
        """A merge patch, which names the uid where it must be that very object; a status has the
        uid of whatever is there.
        """
        found = self.get(kind, name)
        metadata = patch.get("metadata", {})
        for each in ("resourceVersion",) if subresource else ("uid", "resourceVersion"):
            if metadata.get(each, found["metadata"][each]) != found["metadata"][each]:
                raise Conflict(409, "Conflict", f"{name} is not what it was")
        parts = (subresource,) if subresource else ("metadata", "spec")
        patched = {part: merged(found.get(part) or {}, patch.get(part) or {}) for part in parts}
        return self.replace(kind, {**found, **patched})

    def delete(
        self, kind: str, name: str, *, uid: str | None = None, version: str | None = None
    ) -> None:
        """At once, but for a pod: it is asked to end."""
        found = self.get(kind, name)
        metadata = found["metadata"]
        if uid not in (None, metadata["uid"]) or version not in (None, metadata["resourceVersion"]):
            raise Conflict(409, "Conflict", f"{name} is not what it was")
        if kind == PODS.plural:
            self.mark_deleted(kind, name)
        else:
            self.remove(kind, name)

    def mark_deleted(self, kind: str, name: str) -> None:
        """It is being deleted, and is there until whoever holds it up lets go."""
        found = self.objects[kind][name]
        if "deletionTimestamp" not in found["metadata"]:
            metadata = {**found["metadata"], "deletionTimestamp": time_text(self._now())}
            self.replace(kind, {**found, "metadata": metadata})

    def remove(self, kind: str, name: str) -> None:
        """It is gone."""
        found = self.objects[kind].pop(name)
        self._next_version()
        self.uids.discard(found["metadata"]["uid"])
        self._tell(kind, "DELETED", found)

    def _next_version(self) -> str:
        self.version += 1
        return str(self.version)

    def _put(self, kind: str, event: str, body: Object) -> Object:
        self.objects[kind][body["metadata"]["name"]] = body
        self._tell(kind, event, body)
        return body

    def _tell(self, kind: str, event: str, body: Object) -> None:
        for watcher in self.watchers:
            watcher(kind, event, body)


def merged(target: Object, patch: Object) -> Object:
    """RFC 7396."""
    result = {**target}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, dict) else {}, value)
        else:
            result[key] = value
    return result


def owner_uid(body: Object) -> str | None:
    """The uid of what it belongs to."""
    references = body["metadata"].get("ownerReferences") or [{}]
    uid: str | None = references[0].get("uid")
    return uid
