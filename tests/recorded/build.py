"""Builds the data file of the recorded API from the recorded deliveries.

A repository, a user or a pull request was recorded many times, more or less complete. The fullest
recording of each is kept. What GitHub's description of its API requires and that recording lacks is
taken, in this order, from: another recording of the same thing, the fullest recording of another
thing of the kind with the names put right, the description's own example.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from graphql import (
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    print_schema,
    strip_ignored_characters,
)

from tests.recorded.paths import (
    DATA,
    DESCRIPTION,
    EXAMPLES,
    FIXTURES,
    GRAPHQL_SCHEMA,
    SCHEMAS,
    require,
)

Object = dict[str, Any]

_REPOSITORY = "/repos/{owner}/{repo}"
PATHS = {
    "repository": _REPOSITORY,
    "pull_requests": f"{_REPOSITORY}/pulls",
    "pull_request": f"{_REPOSITORY}/pulls/{{pull_number}}",
    "reviews": f"{_REPOSITORY}/pulls/{{pull_number}}/reviews",
    "review_comments": f"{_REPOSITORY}/pulls/{{pull_number}}/comments",
    "issues": f"{_REPOSITORY}/issues",
    "issue": f"{_REPOSITORY}/issues/{{issue_number}}",
    "issue_comments": f"{_REPOSITORY}/issues/{{issue_number}}/comments",
    "contributors": f"{_REPOSITORY}/contributors",
    "commit_activity": f"{_REPOSITORY}/stats/commit_activity",
    "contributor_activity": f"{_REPOSITORY}/stats/contributors",
    "installation": f"{_REPOSITORY}/installation",
    "installation_token": "/app/installations/{installation_id}/access_tokens",
    "public_user": "/users/{username}",
    "rate_limit": "/rate_limit",
    "search": "/search/issues",
}
# Kinds that are lists: the delivery's member, the member that gives the number at its end, and
# members that they need beyond those required.
_KINDS = {
    "issues": ("issue", "url", ("reactions", "state_reason")),
    "reviews": ("review", "pull_request_url", ("submitted_at",)),
    "review_comments": (
        "comment",
        "pull_request_url",
        ("position", "original_position", "reactions", "pull_request_review_id"),
    ),
    "issue_comments": ("comment", "issue_url", ("reactions", "body", "author_association")),
}
_EVENTS = {
    "issues": "issue",
    "reviews": "pull_request_review",
    "review_comments": "pull_request_review_comment",
    "issue_comments": "issue_comment",
}
_EXAMPLES = ("commit_activity", "contributor_activity", "installation", "public_user")
_SCENARIO = re.compile(r"tmp-scenario-([a-z-]+)-\d+-\w+")
_TIMES = ("created_at", "updated_at", "pushed_at")


def build() -> None:
    """Write the data file, and the schemas that its answers fulfil."""
    description = json.loads(require(DESCRIPTION).read_bytes())
    deliveries = json.loads(require(EXAMPLES).read_bytes())
    fixtures = _fixtures()
    recorded = [*_objects(deliveries), *_objects(fixtures)]
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
    things = {
        kind: _things(kind, description, schemas[kind], deliveries, fixtures) for kind in _KINDS
    }
    for each in (each for kind in things.values() for each in kind):
        _put_users(each, users)
    data = {
        "names": dict(owners),
        **things,
        "examples": {kind: _first(_example(description, PATHS[kind])) for kind in _EXAMPLES},
        "schema": _graphql_schema(require(GRAPHQL_SCHEMA).read_text()),
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


def _fixtures() -> list[Object]:
    """Answers of the API itself, with the repositories' names as they stand in the scenarios."""
    answers: list[Object] = []
    for scenario in ("get-repository", "paginate-issues", "search-issues"):
        text = require(FIXTURES / scenario / "raw-fixture.json").read_text()
        exchanges = json.loads(_SCENARIO.sub(r"\1", text))
        answers += [each for each in exchanges if isinstance(each["response"], dict)]
    return answers


def _things(
    kind: str, description: Object, schema: Object, deliveries: list[Object], fixtures: list[Object]
) -> list[Object]:
    """A kind's recorded objects, with their repository and number; those of fixtures come first."""
    member, address, more = _KINDS[kind]
    item = _resolve(description, schema["items"])
    found: list[tuple[Object, Object]] = []
    repositories = {each["full_name"]: each for each in _objects(fixtures) if _is_repository(each)}
    if kind == "issues":
        for each in _objects(fixtures):
            name = str(each.get("repository_url")).partition("/repos/")[2]
            if "number" in each and name in repositories:
                found.append((repositories[name], each))
    for event in deliveries:
        for example in event["examples"]:
            value = example.get(member)
            if event["name"].startswith(_EVENTS[kind]) and value and address in value:
                found.append((example["repository"], value))
    places = {value["id"]: repository for repository, value in found}
    values = _fullest((value for _, value in found), lambda each: each["id"])
    _complete(
        values,
        [*item["required"], *more],
        "url" if "url" in item["required"] else "html_url",
        _first(_example(description, PATHS[kind])),
    )
    for value in values.values():
        if kind == "reviews":
            value |= {"state": value["state"].upper(), "body": value["body"] or ""}
        if kind == "issues":
            value["closed_by"] = value.get("closed_by")
    return [
        {
            "repository": places[id_]["id"],
            "full_name": places[id_]["full_name"],
            "number": int(value[address].rpartition("/")[2]),
            "value": value,
        }
        for id_, value in values.items()
    ]


def _graphql_schema(text: str) -> str:
    """What can be asked by it, without descriptions: no mutations."""
    whole = build_schema(text, assume_valid=True, no_location=True)
    for type_ in whole.type_map.values():
        type_.description = None
        for member in {**getattr(type_, "fields", {}), **getattr(type_, "values", {})}.values():
            member.description = None
            for argument in getattr(member, "args", {}).values():
                argument.description = None
    types = [
        each
        for each in whole.type_map.values()
        if isinstance(each, GraphQLObjectType) and each.interfaces
    ]
    asked = GraphQLSchema(query=whole.query_type, types=types, assume_valid=True)
    return strip_ignored_characters(print_schema(asked))


def _schema(description: Object, path: str) -> Object:
    answer = _answer(description, path)
    schema: Object = answer["content"]["application/json"]["schema"]
    return schema


def _example(description: Object, path: str) -> Object:
    examples = _answer(description, path)["content"]["application/json"]["examples"]
    example: Object = _resolve(description, next(iter(examples.values())))["value"]
    return example


def _answer(description: Object, path: str) -> Object:
    methods = description["paths"][path]
    responses = methods["post" if path.endswith("access_tokens") else "get"]["responses"]
    answer: Object = responses.get("200") or responses["201"]
    return answer


def _first(value: Any) -> Object:
    found: Object = value[0] if isinstance(value, list) else value
    return found


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
