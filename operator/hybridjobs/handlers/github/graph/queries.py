"""The documents that are sent to GitHub's GraphQL API.

The client adds `rateLimit` to each. https://docs.github.com/en/graphql/reference
"""

# Within a query for many pull requests each thread is a request that GitHub makes of its own, and
# is paid for: a hundred pull requests come to 25 points.
THREADS_AT_ONCE = 20
COMMENTS_OF_A_THREAD = 30
LIST_SIZE = 100

_PERSON = """
fragment person on Actor {
  __typename login avatarUrl url
  ... on User { databaseId } ... on Bot { databaseId } ... on Organization { databaseId }
}
"""

_REPOSITORY = """
fragment repository on Repository {
  databaseId nameWithOwner name owner { avatarUrl } description homepageUrl
  primaryLanguage { name } licenseInfo { spdxId } defaultBranchRef { name }
  repositoryTopics(first: 20) { nodes { topic { name } } }
  stargazerCount forkCount diskUsage isFork isArchived isDisabled isPrivate isTemplate
  hasIssuesEnabled hasProjectsEnabled hasWikiEnabled hasDiscussionsEnabled
  createdAt updatedAt pushedAt
}
"""

_PULL_REQUEST = """
fragment pullRequest on PullRequest {
  fullDatabaseId number title state isDraft merged createdAt updatedAt closedAt mergedAt
  baseRefName headRefName additions deletions changedFiles commits { totalCount } url
  author { ...person } mergedBy { ...person }
}
"""

_REVIEWS = """
fragment reviews on PullRequestReviewConnection {
  pageInfo { hasNextPage endCursor }
  nodes { fullDatabaseId author { ...person } state body submittedAt updatedAt commit { oid } }
}
"""

_COMMENTS = """
fragment comments on IssueCommentConnection {
  pageInfo { hasNextPage endCursor }
  nodes { fullDatabaseId author { ...person } body createdAt updatedAt }
}
"""

_THREAD = """
fragment thread on PullRequestReviewCommentConnection {
  pageInfo { hasNextPage endCursor }
  nodes {
    fullDatabaseId author { ...person } body createdAt updatedAt path diffHunk position
    originalPosition commit { oid } originalCommit { oid }
    replyTo { fullDatabaseId } pullRequestReview { fullDatabaseId }
  }
}
"""

_THREADS = f"""
fragment threads on PullRequestReviewThreadConnection {{
  pageInfo {{ hasNextPage endCursor }}
  edges {{ cursor node {{ comments(first: {COMMENTS_OF_A_THREAD}) {{ ...thread }} }} }}
}}
"""

_DISCUSSIONS = _REVIEWS + _COMMENTS + _THREADS + _THREAD + _PERSON

PULL_REQUESTS = (
    """query($owner: String!, $name: String!, $first: Int!, $after: String) {
  repository(owner: $owner, name: $name) {
    ...repository
    pullRequests(
      first: $first, after: $after, orderBy: {field: UPDATED_AT, direction: DESC}
    ) {
      totalCount pageInfo { hasNextPage endCursor } nodes { ...pullRequest }
    }
  }
}"""
    + _REPOSITORY
    + _PULL_REQUEST
    + _PERSON
)

# What follows the first pages of one pull request, of the lists that go on.
MORE = (
    """query(
  $owner: String!, $name: String!, $number: Int!, $first: Int!
  $reviews: String, $moreReviews: Boolean!, $comments: String, $moreComments: Boolean!
  $threads: String, $moreThreads: Boolean!
) {
  repository(owner: $owner, name: $name) {
    databaseId
    pullRequest(number: $number) {
      reviews(first: $first, after: $reviews) @include(if: $moreReviews) { ...reviews }
      comments(first: $first, after: $comments) @include(if: $moreComments) { ...comments }
      reviewThreads(first: $first, after: $threads) @include(if: $moreThreads) { ...threads }
    }
  }
}"""
    + _DISCUSSIONS
)

# What follows of one thread, which is the one after the cursor `thread`.
THREAD = (
    """query(
  $owner: String!, $name: String!, $number: Int!, $first: Int!, $thread: String, $after: String!
) {
  repository(owner: $owner, name: $name) {
    databaseId
    pullRequest(number: $number) {
      reviewThreads(first: 1, after: $thread) {
        nodes { comments(first: $first, after: $after) { ...thread } }
      }
    }
  }
}"""
    + _THREAD
    + _PERSON
)

_DETAILS = (
    f"""fragment details on PullRequest {{
  ...pullRequest
  body mergeable mergeStateStatus assignees(first: 1) {{ nodes {{ ...person }} }}
  reviews(first: {LIST_SIZE}) {{ ...reviews }}
  comments(first: {LIST_SIZE}) {{ ...comments }}
  reviewThreads(first: {THREADS_AT_ONCE}) {{ ...threads }}
}}
"""
    + _REPOSITORY
    + _PULL_REQUEST
    + _DISCUSSIONS
)


def details_points(count: int) -> int:
    """What `details` costs: a hundredth of the connections, those within each thread among them."""
    of_each = 5 + THREADS_AT_ONCE  # with the count of its commits
    return max(1, (1 + count * of_each + 50) // 100)


def details(count: int) -> str:
    """So many pull requests, `p0` and on, by the variables `n0` and on."""
    numbers = "".join(f", $n{place}: Int!" for place in range(count))
    asked = "\n".join(
        f"    p{place}: pullRequest(number: $n{place}) {{ ...details }}" for place in range(count)
    )
    return (
        f"query($owner: String!, $name: String!{numbers}) {{\n"
        f"  repository(owner: $owner, name: $name) {{\n    ...repository\n{asked}\n  }}\n}}\n"
        + _DETAILS
    )
