"""JSON Schemas of what views write, from the same dataclasses."""

from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from pydantic.alias_generators import to_camel

from hybridjobs.ingress.members import Schema, nullable
from hybridjobs.ingress.views import HIDDEN, SOMETIMES, TEXTS

_PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    UUID: {"type": "string", "format": "uuid"},
    datetime: {"type": "string", "format": "date-time"},
    NoneType: {"type": "null"},
    Any: {},
}


def schema_of(annotation: Any, components: dict[str, Schema]) -> Schema:  # noqa: ANN401
    """The schema of a type; those of dataclasses go to `components`, and are referred to."""
    if isinstance(annotation, Listing):
        return annotation.schema(components)
    if isinstance(annotation, dict):
        return {name: _resolved(value, components) for name, value in annotation.items()}
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        rest = [each for each in arguments if each is not NoneType]
        schemas = [schema_of(each, components) for each in rest]
        found = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        return nullable(found) if NoneType in arguments else found
    if origin is Literal:
        return {"enum": list(arguments)}
    if annotation is dict or origin is dict:
        values = schema_of(arguments[1], components) if arguments else {}
        return {"type": "object", "additionalProperties": values}
    if origin in (list, tuple):
        return {"type": "array", "items": schema_of(arguments[0], components)}
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return {"type": "string", "enum": [each.value for each in annotation]}
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _component(annotation, components)
    raise TypeError(f"no schema for {annotation!r}")


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of lines of one kind, as `views.listing` writes it."""

    member: str
    line: type

    def schema(self, components: dict[str, Schema]) -> Schema:
        """Its JSON Schema."""
        lines = {"type": "array", "items": schema_of(self.line, components)}
        return exactly({self.member: lines, "next": nullable(_PLAIN[UUID])})


def exactly(members: dict[str, Any], *, optional: dict[str, Any] | None = None) -> Schema:
    """An object of these members and no others."""
    return {
        "type": "object",
        "properties": {**members, **(optional or {})},
        "required": list(members),
        "additionalProperties": False,
    }


def _resolved(value: Any, components: dict[str, Schema]) -> Any:  # noqa: ANN401 - of a schema
    """A part of a JSON Schema, in which types may stand for their schemas."""
    if isinstance(value, dict | Listing) or (isinstance(value, type) or get_origin(value)):
        return schema_of(value, components)
    return [_resolved(each, components) for each in value] if isinstance(value, list) else value


def _component(annotation: type, components: dict[str, Schema]) -> Schema:
    name = annotation.__name__
    if name not in components:
        components[name] = {}  # it may refer to itself
        hints = get_type_hints(annotation)
        always: dict[str, Schema] = {}
        sometimes: dict[str, Schema] = {}
        for field in fields(annotation):
            if field.name in HIDDEN:
                continue
            schema = {} if field.name in TEXTS else schema_of(hints[field.name], components)
            (sometimes if field.name in SOMETIMES else always)[to_camel(field.name)] = schema
        components[name] = exactly(always, optional=sometimes)
    return {"$ref": f"#/components/schemas/{name}"}
