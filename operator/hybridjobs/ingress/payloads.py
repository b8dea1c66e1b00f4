"""Payloads against a type's `payloadSchema`, by validators compiled once a generation."""

from typing import Any

import jsonschema_rs

from hybridjobs import codec
from hybridjobs.errors import FieldError, InvalidInput
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import JobType
from hybridjobs.payload import pointer

_MAX_ERRORS = 20
_MAX_MESSAGE = 300


class PayloadSchemas:
    """The validators; a type without a schema takes every JSON."""

    def __init__(self) -> None:
        self._validators: dict[str, tuple[str, int, jsonschema_rs.Validator]] = {}

    def check(self, job_type: JobType, payload: str) -> None:
        """InvalidInput (422) with a path below /payload for each fault."""
        schema = job_type.spec.payload_schema
        if schema is None:
            return
        validator = self._validator(job_type, schema)
        errors = []
        for fault in validator.iter_errors(codec.loads(payload)):
            path = pointer("payload", *fault.instance_path)
            errors.append(FieldError(path, fault.message[:_MAX_MESSAGE]))
            if len(errors) == _MAX_ERRORS:
                break
        if errors:
            name = job_type.spec.type
            raise InvalidInput(f"the payload does not fit the schema of {name}", errors=errors)

    def _validator(self, job_type: JobType, schema: dict[str, Any]) -> jsonschema_rs.Validator:
        name = job_type.spec.type
        known = self._validators.get(name)
        if known is None or known[:2] != (job_type.uid, job_type.generation):
            try:
                validator = jsonschema_rs.validator_for(schema)
            except (jsonschema_rs.ValidationError, ValueError):
                raise Refused(
                    500, "Broken job type", f"the payloadSchema of {name} is no JSON Schema"
                ) from None
            known = self._validators[name] = (job_type.uid, job_type.generation, validator)
        return known[2]
