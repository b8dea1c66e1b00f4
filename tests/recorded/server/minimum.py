"""The fewest requests that a full capture takes, with its classification: pages of 100."""

from collections import Counter

from .contents import Contents

_PAGE = 100


def minimum(contents: Contents, waits: int) -> dict[str, dict[str, int]]:
    """By REST and by GraphQL, by what is asked for, with a total.

    Details, reviews and comments by GraphQL are asked for a hundred pull requests at a time; those
    with more than a page of something take a request of their own for each page that follows.
    Comments are not asked for where the counts say that there are none. `again` is the page of the
    list that shows that nothing moved while it was read; what was changed by updates is asked for
    once more (`changed`). The five figures of the classification take four requests, of which
    statistics come after so many `waits`.
    """
    rest, graphql = Counter[str](), Counter[str]()
    pulls = issues = 0
    for number in contents.numbers("pull"):
        pulls += 1
        reviews, on_diff, comments = contents.counts(number)
        rest["pull"] += 1
        rest["reviews"] += max(_pages(reviews), 1)
        rest["pullRequestComments"] += _pages(comments) + _pages(on_diff)
        graphql["more"] += max(_pages(max(comments, on_diff, reviews)) - 1, 0)
    for number in contents.numbers("issue"):
        issues += 1
        _, _, comments = contents.counts(number)
        rest["issueComments"] += _pages(comments)
        graphql["more"] += max(_pages(comments) - 1, 0)
    rest["pulls"] = max(_pages(pulls), 1)
    rest["issues"] = max(_pages(pulls + issues), 1)
    graphql["pulls"] = max(_pages(pulls), 1)
    graphql["details"] = _pages(pulls)
    graphql["issues"] = max(_pages(issues), 1)
    changed = contents.changed()
    rest["changed"], graphql["changed"] = 3 * changed, _pages(changed)
    of_both = {
        "again": 1,
        "repository": 1,
        "created": 1,
        "commitActivity": 1 + waits,
        "contributorActivity": 1 + waits,
    }
    return {
        way: {**counts, **of_both, "total": counts.total() + sum(of_both.values())}
        for way, counts in (("rest", rest), ("graphql", graphql))
    }


def _pages(items: int) -> int:
    return -(-items // _PAGE)
