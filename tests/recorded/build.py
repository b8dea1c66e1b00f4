"""Builds the data file of the recorded API from the recorded deliveries.

A repository, a user or a pull request was recorded many times, more or less complete. The fullest
recording of each is kept. What GitHub's description of its API requires and that recording lacks is
taken, in this order, from: another recording of the same thing, the fullest recording of another
thing of the kind with the names put right, the description's own example.
"""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from tests.recorded.paths import DATA, DESCRIPTION, EXAMPLES, SCHEMAS, require

Object = dict[str, Any]

PATHS = {
    "repository": "/repos/{owner}/{repo}",
    "pull_requests": "/repos/{owner}/{repo}/pulls",
    "pull_request": "/repos/{owner}/{repo}/pulls/{pull_number}",
}
_TIMES = ("created_at", "updated_at", "pushed_at")


def build() -> None:
    """Write the data file, and the schemas that its answers fulfil."""
    description = json.loads(require(DESCRIPTION).read_bytes())
    recorded = list(_objects(json.loads(require(EXAMPLES).read_bytes())))
    schemas = {name: _schema(description, path) for name, path in PATHS.items()}
    repository = _resolve(description, schemas["repository"])
    pull_request = _resolve(description, schemas["pull_request"])
    user = _resolve(description, repository["properties"]["owner"])

    users = _fullest(filter(_is_user, recorded), lambda each: each["id"])
    _complete(users, user["required"], "login", {})
    repositories = _fullest(
        map(_as_the_api_has_it, filter(_is_repository, recorded)), lambda each: each["id"]
    )
    example = _example(description, PATHS["repository"])
    _complete(repositories, repository["required"], "full_name", example)
    pull_requests = _fullest(
        filter(_is_pull_request, recorded),
        lambda each: (each["id"], each["state"], each.get("draft", False)),
    )
    _complete(pull_requests, pull_request["required"], "html_url", {})

    for each in repositories.values():
        _put_users(each, users)
    for each in pull_requests.values():
        for side in ("base", "head"):
            each[side]["repo"] = repositories[each[side]["repo"]["id"]]
        _put_users(each, users)
    logins = {each["login"]: each for each in users.values()}
    for each in repositories.values():
        if isinstance(each.get("organization"), str):  # as push events have it
            each["organization"] = logins[each["organization"]]
    names = Counter((each["full_name"], each["id"]) for each in filter(_is_repository, recorded))
    with_pull_requests = {each["base"]["repo"]["id"] for each in pull_requests.values()}
    # Several repositories were recorded by one name: it belongs to the one with pull requests, and
    # among such to the one seen most.
    owners = sorted(names, key=lambda name: (name[1] in with_pull_requests, names[name]))
    data = {
        "names": dict(owners),
        "repositories": [repositories[id_] for id_ in sorted(repositories)],
        "users": [users[id_] for id_ in sorted(users)],
        "pull_requests": list(pull_requests.values()),
        "detail_only": sorted(
            set(pull_request["properties"])
            - set(_resolve(description, schemas["pull_requests"]["items"])["properties"])
        ),
    }
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_bytes(gzip.compress(_dump(data), mtime=0))
    document = {"responses": schemas, "components": _components(description, schemas)}
    SCHEMAS.write_bytes(_dump(_as_json_schema(document)))


def _objects(value: object) -> Iterator[Object]:
    """Every object within, the outer before the inner."""
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from _objects(member)
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _is_user(value: Object) -> bool:
    return "login" in value and "node_id" in value and "type" in value


def _is_repository(value: Object) -> bool:
    return "full_name" in value and "owner" in value and "node_id" in value


def _is_pull_request(value: Object) -> bool:
    return "merged_at" in value and "base" in value


def _as_the_api_has_it(value: Object) -> Object:
    # Push events have seconds where the API has text; the description knows no empty address.
    times = {
        name: datetime.fromtimestamp(value[name], UTC).isoformat().replace("+00:00", "Z")
        for name in _TIMES
        if isinstance(value.get(name), int)
    }
    return value | times | {"homepage": value.get("homepage") or None}


def _fullest(objects: Iterable[Object], identity: Callable[[Object], object]) -> dict[Any, Object]:
    """By identity, the recording with the most members, and what only others of it have."""
    found: dict[Any, list[Object]] = {}
    for each in objects:
        found.setdefault(identity(each), []).append(each)
    fullest: dict[Any, Object] = {}
    for key, recordings in found.items():
        whole: Object = {}
        for recording in sorted(recordings, key=lambda each: (len(each), str(each))):
            whole |= recording
        fullest[key] = whole
    return fullest


def _complete(objects: dict[Any, Object], required: list[str], name: str, example: Object) -> None:
    """Give each what it lacks, from the fullest of the kind or else from the example.

    The member `name` stands in the template's addresses, and is replaced there.
    """
    template = max(objects.values(), key=len)
    for each in objects.values():
        for member in required:
            if member not in each:
                text = json.dumps(template.get(member, example.get(member)))
                each[member] = json.loads(text.replace(template[name], each[name]))


def _put_users(value: Object, users: dict[Any, Object]) -> None:
    """Replace the users within by their whole recordings; ghosts stay null."""
    for member in list(_objects(value)):
        for name, inner in member.items():
            if isinstance(inner, dict) and "login" in inner and inner.get("id") in users:
                member[name] = users[inner["id"]]
        for name in ("assignees", "requested_reviewers"):
            if isinstance(member.get(name), list):
                member[name] = [users.get(each.get("id"), each) for each in member[name]]


def _schema(description: Object, path: str) -> Object:
    answer = description["paths"][path]["get"]["responses"]["200"]
    schema: Object = answer["content"]["application/json"]["schema"]
    return schema


def _example(description: Object, path: str) -> Object:
    answer = description["paths"][path]["get"]["responses"]["200"]
    reference = answer["content"]["application/json"]["examples"]["default-response"]
    example: Object = _resolve(description, reference)["value"]
    return example


def _resolve(description: Object, schema: Object) -> Object:
    while "$ref" in schema:
        kind, name = schema["$ref"].removeprefix("#/components/").split("/")
        schema = description["components"][kind][name]
    return schema


def _components(description: Object, schemas: Object) -> Object:
    """The components that the schemas need, and those that these need."""
    needed: dict[str, Object] = {}
    pending: list[object] = [schemas]
    while pending:
        for each in _objects(pending.pop()):
            name = str(each.get("$ref", "")).removeprefix("#/components/schemas/")
            if name and name not in needed:
                needed[name] = description["components"]["schemas"][name]
                pending.append(needed[name])
    return {"schemas": needed}


def _as_json_schema(value: object) -> object:
    """OpenAPI 3.0 says `nullable` where JSON Schema has the type null."""
    if isinstance(value, list):
        return [_as_json_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    converted = {
        name: _as_json_schema(member)
        for name, member in value.items()
        if name not in ("nullable", "example", "examples")
    }
    return {"anyOf": [converted, {"type": "null"}]} if value.get("nullable") is True else converted


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode()
