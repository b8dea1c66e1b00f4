"""What the GitHub handlers take: a plain payload, or a webhook delivery's body as it came."""

from typing import Annotated

from pydantic import AfterValidator, AliasChoices, AliasPath, BaseModel, Field

MAX_DAYS = 3650


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


class PullRequestRef(RepositoryRef):
    """`{"owner", "repo", "number"}`, or a delivery about a pull request."""

    number: Annotated[
        int,
        Field(
            gt=0,
            validation_alias=AliasChoices(
                AliasPath("pull_request", "number"), AliasPath("issue", "number"), "number"
            ),
        ),
    ]


class RepositorySync(RepositoryRef):
    """`{"owner", "repo", "days"?}`, or a delivery with a `repository`.

    Pull requests changed within the last `days` days are brought in.
    """

    days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = 30
