"""Handlers by name: entry points of the group `hybridjobs.handlers`, of any installed package."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hybridjobs.sdk.handler import Handler

GROUP = "hybridjobs.handlers"


class HandlerNotFound(Exception):  # noqa: N818 - named for what happened
    """No such handler, or it cannot be imported; the message says what to do."""


def names() -> list[str]:
    """Every handler that is installed, in order."""
    return sorted(entry_points(group=GROUP).names)


def load(name: str) -> Handler[Any, Any]:
    """The handler of that name. Only its own module is imported."""
    found = entry_points(group=GROUP, name=name)
    if not found:
        known = ", ".join(names()) or "none"
        raise HandlerNotFound(
            f"there is no handler {name!r} in this image; installed handlers: {known}"
        )
    return _loaded(name, next(iter(found)))


def load_from(place: str) -> Handler[Any, Any]:
    """The handler at `module:attribute`, which need not be installed."""
    return _loaded(place, EntryPoint(place, place, GROUP))


def _loaded(name: str, entry: EntryPoint) -> Handler[Any, Any]:
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:
        raise HandlerNotFound(
            f"cannot import handler {name!r} ({entry.value}): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(loaded, Handler):
        raise HandlerNotFound(f"{entry.value} is not decorated with @handler")
    return loaded
