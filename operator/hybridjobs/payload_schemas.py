"""Payloads against a type's `payloadSchema`, by validators compiled once a generation."""

from typing import Any, NoReturn

import jsonschema_rs

from hybridjobs import codec
from hybridjobs.errors import BrokenPayloadSchema, FieldError, InvalidInput
from hybridjobs.model import JobType
from hybridjobs.payload import pointer

_MAX_ERRORS = 20
_MAX_MESSAGE = 300


class PayloadSchemas:
    """The validators; a type without a schema takes every JSON."""

    def __init__(self) -> None:
        self._validators: dict[str, tuple[str, int, jsonschema_rs.Validator]] = {}

    def check(self, job_type: JobType, payload: str) -> None:
        """InvalidInput (422) with a path below /payload for each fault, or BrokenPayloadSchema.

        InvalidInput (400) for what is not JSON.
        """
        schema = job_type.spec.payload_schema
        if schema is None:
            return
        validator = self._validator(job_type, schema)
        try:
            document = codec.loads(payload)
        except ValueError as error:
            raise InvalidInput(f"the payload is not JSON: {error}", status=400) from None
        errors = []
        for fault in validator.iter_errors(document):
            path = pointer("payload", *fault.instance_path)
            errors.append(FieldError(path, fault.message[:_MAX_MESSAGE]))
            if len(errors) == _MAX_ERRORS:
                break
        if errors:
            name = job_type.spec.type
            raise InvalidInput(f"the payload does not fit the schema of {name}", errors=errors)

    def compile(self, job_type: JobType) -> None:
        """BrokenPayloadSchema for one that no payload can be checked against."""
        if job_type.spec.payload_schema is not None:
            self._validator(job_type, job_type.spec.payload_schema)

    def _validator(self, job_type: JobType, schema: dict[str, Any]) -> jsonschema_rs.Validator:
        name = job_type.spec.type
        known = self._validators.get(name)
        if known is None or known[:2] != (job_type.uid, job_type.generation):
            try:
                validator = jsonschema_rs.validator_for(schema, retriever=_not_read)
            except (jsonschema_rs.ReferencingError, ValueError) as error:
                message = getattr(error, "message", str(error))[:_MAX_MESSAGE]
                raise BrokenPayloadSchema(name, message) from None
            known = self._validators[name] = (job_type.uid, job_type.generation, validator)
        return known[2]


def _not_read(uri: str) -> NoReturn:
    """A schema leads nowhere else: whoever submits would wait for another service, or a file."""
    raise ValueError(f"{uri} is outside of it")
