"""GitHub's API, as far as the handlers ask it, with its errors in the handlers' words.

`rest` and `graphql` say what is asked and how answers read (`costs`: what a query will cost);
`transport` asks: it chooses among
`tokens` (and `installations` of a GitHub App) by what `limits` leave, which `ledger` shares between
pods, and asks conditionally what is `cached`. `errors` tells refusals apart. `opening` puts them
together for one job.

On githubkit, but without its models: they refuse an answer that lacks any member which the newest
description requires (of the recorded pull requests, four in five), cost a few hundred milliseconds
to import, and the answers become rows at once. Its caches, retries and rate limits are off: they
know one token and one process.
"""

from hybridjobs.handlers.github.client.errors import (
    EmptyRepositoryError,
    ForbiddenError,
    GoneError,
    LegalError,
    NamelessError,
    NotFoundError,
    RefusedError,
    TransientError,
)
from hybridjobs.handlers.github.client.graphql import GraphQLAnswer, PageSize, Problem, Sized, nodes
from hybridjobs.handlers.github.client.opening import github_client
from hybridjobs.handlers.github.client.rest import (
    GitHubClient,
    ListPage,
    Object,
    StillCounting,
)

__all__ = [
    "EmptyRepositoryError",
    "ForbiddenError",
    "GitHubClient",
    "GoneError",
    "GraphQLAnswer",
    "LegalError",
    "ListPage",
    "NamelessError",
    "NotFoundError",
    "Object",
    "PageSize",
    "Problem",
    "RefusedError",
    "Sized",
    "StillCounting",
    "TransientError",
    "github_client",
    "nodes",
]
