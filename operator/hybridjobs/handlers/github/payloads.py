"""What the GitHub handlers take: a plain payload, or a webhook delivery's body as it came."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    Field,
    model_validator,
)

MAX_DAYS = 3650
MAX_NUMBERS = 100
_MAX_NUMBER = 2**31 - 1


def _no_path(name: str) -> str:
    if name in (".", ".."):
        raise ValueError("not a name on GitHub")
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$"), AfterValidator(_no_path)]


class RepositoryRef(BaseModel):
    """`{"owner", "repo"}`, or any delivery with a `repository`."""

    owner: Annotated[
        Name,
        Field(validation_alias=AliasChoices("owner", AliasPath("repository", "owner", "login"))),
    ]
    repo: Annotated[
        Name, Field(validation_alias=AliasChoices("repo", AliasPath("repository", "name")))
    ]


class RepositoryChoice(BaseModel):
    """`{"owner", "repo"}`, `{"repositoryId"}` of one that is stored, or a delivery."""

    owner: Annotated[
        Name | None,
        Field(validation_alias=AliasChoices("owner", AliasPath("repository", "owner", "login"))),
    ] = None
    repo: Annotated[
        Name | None, Field(validation_alias=AliasChoices("repo", AliasPath("repository", "name")))
    ] = None
    repository_id: Annotated[UUID | None, Field(validation_alias="repositoryId")] = None

    @model_validator(mode="after")
    def _names_one(self) -> "RepositoryChoice":
        if self.repository_id is None and (self.owner is None or self.repo is None):
            raise ValueError("owner and repo, or repositoryId, must say which repository")
        return self


def repository_named(repository_id: UUID, full_name: str) -> dict[str, object]:
    """A stored repository, as the payload of a job about it names it: by the id that the job goes
    by, and by the names that limits count by, as a delivery's.
    """
    owner, _, repo = full_name.partition("/")
    return {"repositoryId": str(repository_id), "owner": owner, "repo": repo}


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _each_once(numbers: list[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


class Numbers(RepositoryChoice):
    """A repository with a `number` (`prNumber`, `issueNumber`), or up to 100 `numbers`.

    Or a delivery about a pull request or an issue.
    """

    numbers: Annotated[
        list[Annotated[int, Field(gt=0, le=_MAX_NUMBER)]],
        Field(
            min_length=1,
            max_length=MAX_NUMBERS,
            validation_alias=AliasChoices(
                "numbers",
                "prNumbers",
                AliasPath("pull_request", "number"),
                AliasPath("issue", "number"),
                "number",
                "prNumber",
                "issueNumber",
            ),
        ),
        BeforeValidator(_listed),
        AfterValidator(_each_once),
    ]


class RepositoryIssues(RepositoryChoice):
    """A repository, and optionally `days` (`timeRange`).

    Issues changed within the last `days` days are brought in.
    """

    days: Annotated[
        int, Field(ge=1, le=MAX_DAYS, validation_alias=AliasChoices("days", "timeRange"))
    ] = 30


class RepositorySync(RepositoryChoice):
    """A repository, and optionally `days` and `reason`, or a delivery with a `repository`.

    Pull requests changed within the last `days` days are brought in; `reason` says how soon after
    the last sync (`cooldowns`).
    """

    days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = 30
    reason: Annotated[str, Field(max_length=100)] | None = None


class GraphSync(RepositorySync):
    """As RepositorySync; `priority` is that of the jobs which follow."""

    priority: Literal["critical", "high", "medium", "low"] = "medium"
