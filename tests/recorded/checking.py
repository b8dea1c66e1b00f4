"""Whether answers are as GitHub describes them."""

import json
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from tests.recorded.paths import SCHEMAS, require


@cache
def _validator(answer: str) -> jsonschema_rs.Validator:
    document = json.loads(require(SCHEMAS).read_bytes())
    schema = document["responses"][answer] | {"components": document["components"]}
    return jsonschema_rs.validator_for(schema, validate_formats=True)


def faults(answer: str, value: Any) -> list[str]:
    """What is wrong with an answer, by the name that it has in `build.PATHS`."""
    return [
        f"{'/'.join(map(str, error.instance_path))}: {error.message[:200]}"
        for error in _validator(answer).iter_errors(value)
    ]


async def pages(github: httpx.AsyncClient, url: str) -> list[Any]:
    """All items, by following Link headers."""
    items: list[Any] = []
    following: str | None = url
    while following:
        answer = await github.get(following)
        items += answer.raise_for_status().json()
        following = answer.links.get("next", {}).get("url")
    return items
