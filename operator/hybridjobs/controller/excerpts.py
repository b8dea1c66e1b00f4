"""What is kept of the objects that watches tell: with ten thousand jobs it is what memory goes to.

Left out is what nothing here reads: who manages which field, a Job's template, a pod's containers
and volumes. What objects have in common (keys, labels, reasons, times) is held once.
"""

import sys
from typing import Any

Object = dict[str, Any]

_MAX_SHARED = 64  # characters


def excerpt(body: Object) -> Object:
    """All but the managed fields: of a HybridJob, whose spec and status are ours."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    kept: Object = _shared({**body, "metadata": metadata})
    return kept


def excerpt_of_work(body: Object) -> Object:
    """Of a Job or a pod also without what its spec is made of, and the details of containers."""
    cut = {**body, "spec": _plain(body.get("spec"))}
    if (status := body.get("status")) is not None:
        cut["status"] = _plain(status) | {"conditions": status.get("conditions")}
        if containers := status.get("containerStatuses"):
            cut["status"]["containerStatuses"] = [
                {"name": each["name"], "state": each.get("state")} for each in containers
            ]
    return excerpt(cut)


def _plain(part: Object | None) -> Object:
    """The values that are neither lists nor maps."""
    return {
        name: value for name, value in (part or {}).items() if not isinstance(value, dict | list)
    }


def _shared(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {sys.intern(name): _shared(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shared(each) for each in value]
    if isinstance(value, str) and len(value) <= _MAX_SHARED:
        return sys.intern(value)
    return value
