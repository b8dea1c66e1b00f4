"""Every answer of the API that a test gets is held against the OpenAPI document."""

import json
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from hybridjobs.ingress.api import openapi

_DOCUMENT = openapi()


async def conforms(response: httpx.Response) -> None:
    """AssertionError for an answer that the document does not know; for a response hook."""
    request = response.request
    operation = _operation(request.method.lower(), request.url.path)
    if operation is None:
        return
    described = operation["responses"].get(str(response.status_code))
    where = f"{request.method} {request.url.path}: {response.status_code}"
    assert described is not None, f"{where} is not documented"
    content = described.get("content", {})
    media_type = response.headers.get("content-type", "").partition(";")[0]
    assert media_type in content or (not content and not media_type), f"{where}: {media_type}"
    if media_type.endswith("json"):
        await response.aread()
        _validator(_key(content[media_type]["schema"])).validate(response.json())


def event_schema(path: str) -> jsonschema_rs.Validator:
    """What the data of a stream's events must be."""
    operation = _operation("get", path)
    assert operation is not None
    content = operation["responses"]["200"]["content"]["text/event-stream"]
    return _validator(_key(content["x-event-schema"]))


def _operation(method: str, path: str) -> dict[str, Any] | None:
    # Fixed paths before those with parameters.
    for template in sorted(_DOCUMENT["paths"], key=lambda each: "{" in each):
        if re.fullmatch(re.sub(r"{type}", ".+", re.sub(r"{id}", "[^/]+", template)), path):
            found: dict[str, Any] | None = _DOCUMENT["paths"][template].get(method)
            return found
    return None


def _key(schema: dict[str, Any]) -> str:
    return json.dumps(schema)


@cache
def _validator(schema: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator(
        {**json.loads(schema), "components": _DOCUMENT["components"]}, validate_formats=True
    )
