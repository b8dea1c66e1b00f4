"""What is kept of the objects that watches tell: with ten thousand jobs it is what memory goes to.

Left out is what nothing here reads: who manages which field, a Job's template, a pod's containers
and volumes. The rest is kept as compressed JSON, a tenth of what it is as objects, and read when it
is needed.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from hybridjobs import codec

Object = dict[str, Any]


class Objects(Mapping[str, Object]):
    """Objects by name. What is read is the reader's own: to change it changes nothing here."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, bytes]] = {}  # uid, compressed JSON

    def __getitem__(self, name: str) -> Object:
        body: Object = codec.loads(zlib.decompress(self._kept[name][1]))
        return body

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, name: str, body: Object) -> None:
        """The object of that name is this one now, unless it is the one before: of two that had the
        same name the events may come in any order."""
        uid = body["metadata"]["uid"]
        kept = self._kept.get(name)
        if kept is not None and kept[0] != uid and _version(self[name]) > _version(body):
            return
        self._kept[name] = uid, zlib.compress(codec.dumps(body).encode(), level=1)

    def remove(self, name: str, uid: str) -> bool:
        """That very object is gone; whether it was here."""
        # By uid: the deletion of an object may be told after the creation of its successor.
        if name not in self._kept or self._kept[name][0] != uid:
            return False
        del self._kept[name]
        return True

    def drop(self, name: str) -> None:
        """Keep none of that name."""
        self._kept.pop(name, None)

    def uids(self) -> dict[str, str]:
        """The uids of those that are here now, by name."""
        return {name: uid for name, (uid, _) in self._kept.items()}


def _version(body: Object) -> int:
    """Of one kind they may be compared (KEP-5504)."""
    return int(body["metadata"]["resourceVersion"])


def excerpt(body: Object) -> Object:
    """All but the managed fields: of a HybridJob, whose spec and status are ours."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return {**body, "metadata": metadata}


def excerpt_of_work(body: Object) -> Object:
    """Of a Job or a pod also without what its spec is made of, and the details of containers."""
    cut = {**excerpt(body), "spec": _plain(body.get("spec"))}
    if (status := body.get("status")) is not None:
        cut["status"] = _plain(status) | {"conditions": status.get("conditions")}
        if containers := status.get("containerStatuses"):
            cut["status"]["containerStatuses"] = [
                {"name": each["name"], "state": each.get("state")} for each in containers
            ]
    return cut


def _plain(part: Object | None) -> Object:
    """The values that are neither lists nor maps."""
    return {
        name: value for name, value in (part or {}).items() if not isinstance(value, dict | list)
    }
