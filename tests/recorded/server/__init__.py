"""GitHub for tests: its REST and GraphQL APIs, over recorded objects and simulated repositories.

    python server.pyz --data github.json.gz [--host HOST] [--port PORT]

Needs starlette, uvicorn, PyJWT, graphql-core and the data file alone. `GITHUB_API_URL` is its
address; any token is good. Below, /repositories/{id} stands also for /repos/{owner}/{repo}:

    GET  /repos/{owner}/{repo}
    GET  …/pulls                             state, sort, direction, per_page, page; Link
    GET  …/pulls/{number}, …/reviews, …/comments
    GET  …/issues                            also since; pull requests among them
    GET  …/issues/{number}, …/comments
    GET  …/contributors                      anon
    GET  …/stats/commit_activity, …/stats/contributors      202 at first
    GET  …/installation, /app/installations                 with the App's JWT
    POST /app/installations/{id}/access_tokens              with the App's JWT
    GET  /search/issues                      q: repo: first, then is:, type:, created:, updated:
    GET  /users/{login}, /rate_limit
    POST /graphql                            against GitHub's published schema

with ETags (a 304 is free), rate limits by token, and errors in GitHub's form. GraphQL refuses what
GitHub refuses, with its node limit and its costs; a field of the schema that is not answered here
is refused with type NOT_ANSWERED. What tests may ask for:

    POST /_test/faults      {"status"?, "times"? (1), "path"? (regular expression), "headers"?,
                             "body"?, "delaySeconds"?, "after"? (requests to let pass)}
    POST /_test/rate-limit  {"remaining", "resetSeconds", "token"?}: of a token, or of all
    POST /_test/limits      {"core"?, "graphql"?, "search"?, "windowSeconds"?, "concurrent"?,
                             "pointsPerMinute"?, "minuteSeconds"?, "retryAfterSeconds"?,
                             "timeoutNodes"?: GraphQL queries of more nodes get 502}
    POST /_test/trouble     {"seed"?, "badGateway"?, "slow"?, "slowSeconds"?, "malformed"?,
                             "secondary"?}: chances from 0 to 1 of each coming to a request
    POST /_test/simulate    {"fullName", "pullRequests"?, "issues"?, "reviewsPerPullRequest"?,
                             "commentsPerPullRequest"?, "commentsPerIssue"?, "contributors"?,
                             "seed"?, "spanDays"?, "heavyEvery"?, "heavy"?, "updates"?,
                             "everyRequests"?, "renames"?}: see plan.Plan
    POST /_test/large       {"fullName", "pullRequests", "stepSeconds"? (600)}: a repository of so
                             many, made of the recorded ones; the newest changed now
    POST /_test/rename      {"fullName", "to"}: the old name redirects, as on GitHub
    POST /_test/change      {"fullName", "number"?, "changes": {…}}: members to replace
    POST /_test/condition   {"fullName", "condition": private, archived, empty, disabled, deleted,
                             dmca, issues-disabled or null, "tokens"? (who may read it)}
    POST /_test/gone        {"fullName", "number"}: an issue that was deleted (410)
    POST /_test/statistics  {"waits"}: how many answers of 202 come first (1)
    POST /_test/tokens      {"revoked": [token]}: 401 for these
    POST /_test/app         {"appId", "publicKey" (PEM), "tokenSeconds"?, "installations": [{"id",
                             "account", "repositories"?, "suspended"?}]}
    POST /_test/reset       forgets all of these
    GET  /_test/requests    [{"method", "path", "query", "status"}]
    GET  /_test/usage       counts by endpoint, token, status; quotaExceeded; secondary; troubles,
                             the answers among them that nobody waited for any more (abandoned)
    GET  /_test/minimum     ?fullName: requests that a full capture takes, by REST and by GraphQL
    GET  /_test/truth       ?fullName, since?, table?, counts?: a line of JSON for each row
                             that must end up in a table, which is its member "table"
    GET  /_test/health
"""

from .app import application, load, serve
from .errors import Fault, GitHubError
from .github import GitHub
from .rest import Endpoint

__all__ = ["Endpoint", "Fault", "GitHub", "GitHubError", "application", "load", "serve"]
