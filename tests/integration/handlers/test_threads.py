"""Replies, in whatever order they come, and several writers at once."""

import asyncio
from typing import Any

import pytest

from hybridjobs.handlers.github.rows import Page, page
from hybridjobs.handlers.github.tables import GitHubTables, github_tables
from tests import github_objects as objects
from tests.integration.handlers.conftest import Query

REPOSITORY = objects.repository()


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("reply_first", [True, False])
async def test_a_reply_finds_what_it_replies_to(
    tables: GitHubTables, query: Query, together: bool, reply_first: bool
) -> None:
    thread = [objects.review_comment(1), objects.review_comment(2, in_reply_to_id=1)]
    # An issue comment of the same id is another comment.
    await tables.write(
        page(REPOSITORY, [objects.pull_request()], issue_comments={1: [objects.issue_comment(1)]})
    )
    if reply_first:
        thread.reverse()
    for found in [thread] if together else [[each] for each in thread]:
        for _ in range(2):
            await tables.write(page(objects.REPOSITORY_ID, review_comments={1: found}))
    rows = await query(
        "SELECT reply.github_id, original.github_id AS replies_to, original.comment_type"
        " FROM github.comments reply JOIN github.comments original"
        " ON original.id = reply.in_reply_to_id"
    )
    assert rows == [{"github_id": 2, "replies_to": 1, "comment_type": "review_comment"}]


async def test_a_reply_finds_what_another_job_is_about_to_commit(
    tables: GitHubTables, query: Query
) -> None:
    await tables.write(page(REPOSITORY, [objects.pull_request()]))

    def of(*comments: Any) -> Page:
        return page(objects.REPOSITORY_ID, review_comments={1: comments})

    # By ghosts: not even people's rows hold the second one up.
    async with github_tables() as other:
        async with tables.writing(of(objects.review_comment(2, in_reply_to_id=1, user=None))):
            second = asyncio.create_task(other.write(of(objects.review_comment(1, user=None))))
            await asyncio.sleep(0.3)
            assert not second.done()
        await second
    rows = await query("SELECT github_id FROM github.comments WHERE in_reply_to_id IS NOT NULL")
    assert rows == [{"github_id": 2}]


@pytest.mark.usefixtures("tables")
async def test_writers_of_the_same_people_do_not_deadlock(query: Query) -> None:
    people = [objects.user(id_, f"user{id_}") for id_ in range(1, 60)]

    async def writes(writer: int) -> None:
        # Two writers a repository; everyone with another name each time, in another order.
        repository = objects.repository(9000 + writer // 2, f"octo-org/{writer // 2}")
        async with github_tables() as mine:
            for turn in range(5):
                order = people[writer * 7 :] + people[: writer * 7]
                found = [each | {"login": f"{each['login']}-{writer}-{turn}"} for each in order]
                pulls = [
                    objects.pull_request(number, id=writer // 2 * 1000 + number, user=each)
                    for number, each in enumerate(found, 1)
                ]
                thread = [
                    objects.review_comment(
                        writer // 2 * 1000 + 1 + n, user=each, in_reply_to_id=writer // 2 * 1000 + 1
                    )
                    for n, each in enumerate(reversed(found))
                ]
                half = thread[writer % 2 :: 2]
                await mine.write(page(repository, pulls, review_comments={1: half}))

    await asyncio.gather(*map(writes, range(8)))
    (counts,) = await query(
        "SELECT (SELECT count(*) FROM github.contributors) AS people,"
        " (SELECT count(*) FROM github.pull_requests) AS pulls,"
        " (SELECT count(*) FROM github.comments) AS comments,"
        " (SELECT count(*) FROM github.comments WHERE in_reply_to_id IS NULL) AS unresolved"
    )
    assert counts == {"people": 59, "pulls": 4 * 59, "comments": 4 * 59, "unresolved": 0}
