"""`capture/pr.reviews`, `capture/pr.comments`, `capture/issue.comments`: what people said."""

from hybridjobs.handlers.github.client import GitHubClient
from hybridjobs.handlers.github.over_numbers import Listed, capture_lists
from hybridjobs.handlers.github.payloads import Numbers
from hybridjobs.handlers.github.rows import page
from hybridjobs.sdk import Context, handler

REVIEWS = Listed(GitHubClient.reviews, lambda id_, found: page(id_, reviews=found))
AT_LINES = Listed(GitHubClient.review_comments, lambda id_, found: page(id_, review_comments=found))
CONVERSATION = Listed(
    GitHubClient.issue_comments, lambda id_, found: page(id_, issue_comments=found)
)


@handler("capture/pr.reviews")
async def pull_request_reviews(payload: Numbers, context: Context) -> dict[str, object]:
    """Store the reviews of up to 100 pull requests; returns counts and notes."""
    return await capture_lists(payload, context, "pull_request", "reviews", [REVIEWS])


@handler("capture/pr.comments")
async def pull_request_comments(payload: Numbers, context: Context) -> dict[str, object]:
    """Store the comments of up to 100 pull requests, at lines and in the conversation."""
    lists = [AT_LINES, CONVERSATION]
    return await capture_lists(payload, context, "pull_request", "comments", lists)


@handler("capture/issue.comments")
async def issue_comments(payload: Numbers, context: Context) -> dict[str, object]:
    """Store the comments of up to 100 issues; returns counts and notes."""
    return await capture_lists(payload, context, "issue", "comments", [CONVERSATION])
