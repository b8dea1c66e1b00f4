"""Handlers: async functions that know which type they are for and what payload they take."""

import inspect
import re
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

from hybridjobs.sdk.context import Context
from hybridjobs.sdk.errors import PermanentError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Payload = TypeVar("Payload")
Result = TypeVar("Result")

MAX_TYPE_LENGTH = 63
_TYPE = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*")
_FAULTS_SHOWN = 10


class Handler(Generic[Payload, Result]):
    """A handler function with its type; called, it is the function itself.

    The annotation of the function's first parameter says what the payload must be: a pydantic
    model, or anything else that pydantic validates. Without one, it is the JSON value.
    """

    def __init__(
        self, type_: str, function: Callable[[Payload, Context], Awaitable[Result]]
    ) -> None:
        if len(type_) > MAX_TYPE_LENGTH or not _TYPE.fullmatch(type_):
            raise ValueError(
                f"{type_!r} is no job type: lower-case words of a-z 0-9 . _ - "
                f"with / between them, {MAX_TYPE_LENGTH} characters at most"
            )
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"the handler of {type_} must be an async function")
        if len(inspect.signature(function).parameters) != 2:
            raise TypeError(f"the handler of {type_} must take a payload and a context")
        self.type = type_
        self.function = function
        self.__doc__ = function.__doc__

    def __repr__(self) -> str:
        return f"<Handler {self.type} {self.function.__module__}.{self.function.__qualname__}>"

    def __call__(self, payload: Payload, context: Context) -> Awaitable[Result]:
        """Call the function."""
        return self.function(payload, context)

    def parse(self, value: object) -> Payload:
        """The payload of a JSON value; PermanentError names the paths that are wrong."""
        from pydantic import ValidationError

        try:
            payload: Payload = self._payload.validate_python(value)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            shown = [
                f"{_pointer(fault['loc'])}: {fault['msg']}" for fault in faults[:_FAULTS_SHOWN]
            ]
            if len(faults) > len(shown):
                shown.append(f"and {len(faults) - len(shown)} more")
            raise PermanentError(f"invalid payload: {'; '.join(shown)}") from None
        return payload

    def warm(self) -> None:
        """Prepare what the first payload needs."""
        self._payload  # noqa: B018 - made now, kept

    @cached_property
    def _payload(self) -> "TypeAdapter[Payload]":
        # Not at import: the annotation may name what its module defines later.
        from pydantic import TypeAdapter

        parameter = next(iter(inspect.signature(self.function).parameters))
        annotation: Any = get_type_hints(self.function).get(parameter, Any)
        return TypeAdapter(annotation)


def handler(
    type: str,  # noqa: A002 - the word for it everywhere
) -> Callable[[Callable[[Payload, Context], Awaitable[Result]]], Handler[Payload, Result]]:
    """Make an async function `(payload, context)` the handler of a job type.

    What it returns is the job's result: a JSON value, a pydantic model, a dataclass, or None.
    """

    def decorate(
        function: Callable[[Payload, Context], Awaitable[Result]],
    ) -> Handler[Payload, Result]:
        return Handler(type, function)

    return decorate


def _pointer(location: tuple[int | str, ...]) -> str:
    """A JSON pointer (RFC 6901); the whole payload is `/`."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    return "/" + "/".join(parts)
