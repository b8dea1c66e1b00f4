"""A job with all that descends from it: the jobs that it submitted, those that they submitted, …"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import Status
from hybridjobs.store.jobs import LINE_COLUMNS, JobLine

# What is counted of a tree, at most.
MAX_JOBS = 10_000
MAX_DEPTH = 32

# Level by level, each job's children by the index of parent_id. The bounds end the recursion: a
# level is taken from it as rows are asked for, and no job gives more of them than are counted.
# `above` are a job's ancestors, within the tree.
_TREE = f"""
WITH RECURSIVE tree AS (
    SELECT id AS node_id, parent_id AS node_parent, status AS node_status, 0 AS depth,
           ARRAY[]::uuid[] AS above, true AS is_shown
    FROM hybridjobs.background_jobs WHERE id = %(job_id)s
    UNION ALL
    SELECT child.id, child.parent_id, child.status, tree.depth + 1, tree.above || tree.node_id,
           tree.is_shown AND tree.depth < %(depth)s AND child.place <= %(width)s
    FROM tree CROSS JOIN LATERAL (
        SELECT found.id, found.parent_id, found.status,
               row_number() OVER (ORDER BY found.id) AS place
        FROM (SELECT id, parent_id, status FROM hybridjobs.background_jobs
              WHERE parent_id = tree.node_id LIMIT {MAX_JOBS} + 1) AS found
    ) AS child
    WHERE tree.depth < {MAX_DEPTH}
), seen AS MATERIALIZED (
    SELECT * FROM tree LIMIT {MAX_JOBS} + 2
), counted AS (
    SELECT ancestor, node_status, count(*) AS jobs
    FROM seen CROSS JOIN unnest(above) AS ancestor GROUP BY ancestor, node_status
), counts AS MATERIALIZED (
    SELECT ancestor, jsonb_object_agg(node_status, jobs) AS counts FROM counted GROUP BY ancestor
), children AS (
    SELECT node_parent, count(*) AS children FROM seen WHERE depth > 0 GROUP BY node_parent
), page AS MATERIALIZED (
    SELECT node_id, depth FROM seen
    WHERE is_shown AND (%(after)s::uuid IS NULL OR (depth, node_id) > (
        SELECT known.depth, known.node_id FROM seen known WHERE known.node_id = %(after)s))
    ORDER BY depth, node_id LIMIT %(limit)s
), whole AS (
    SELECT count(*) - 1 AS tree_total, max(depth) AS tree_depth,
           (SELECT counts FROM counts WHERE ancestor = %(job_id)s) AS tree_counts
    FROM seen
)
SELECT tree_total, tree_depth, tree_counts, depth, line.*, coalesce(counts, '{{}}') AS counts,
       coalesce(children, 0) AS children
FROM whole LEFT JOIN page ON true
LEFT JOIN LATERAL (
    SELECT {LINE_COLUMNS}, parent_id,
           coalesce((SELECT beat.progress FROM hybridjobs.job_heartbeats beat
                     WHERE beat.job_id = job.id AND job.status = 'processing'
                       AND beat.attempt = job.attempt), job.progress) AS progress
    FROM hybridjobs.background_jobs job WHERE job.id = page.node_id LIMIT 1
) AS line ON true
LEFT JOIN counts ON counts.ancestor = page.node_id
LEFT JOIN children ON children.node_parent = page.node_id
ORDER BY depth, id
"""  # noqa: S608 - of constants


@dataclass(frozen=True, slots=True)
class TreeJob(JobLine):
    """A job within a tree.

    `depth` is 0 of the one that was asked for. `children` are those that it submitted, `counts`
    all that descends from it, by status.
    """

    parent_id: UUID | None
    progress: dict[str, Any] | None
    depth: int
    children: int
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Tree:
    """A page of a job and its descendants, level by level and each level by id.

    `total` and `counts` are of all descendants. Not `complete`: these are the first ones alone, as
    there are more than MAX_JOBS, or they go MAX_DEPTH levels deep.
    """

    total: int
    counts: Mapping[str, int]
    complete: bool
    jobs: list[TreeJob]


async def get_tree(
    connection: AsyncConnection[DictRow],
    job_id: UUID,
    *,
    depth: int = MAX_DEPTH,
    width: int = MAX_JOBS,
    after: UUID | None = None,
    limit: int = 1000,
) -> Tree | None:
    """The page after the job `after`; None where there is no such job.

    Shown are `depth` levels below the job, and of each job's children the first `width`; counted
    are all.
    """
    parameters = {
        "job_id": job_id, "depth": depth, "width": width, "after": after, "limit": limit
    }  # fmt: skip
    rows = await (await connection.execute(_TREE.encode(), parameters)).fetchall()
    whole = {name: rows[0][name] for name in ("tree_total", "tree_depth", "tree_counts")}
    if whole["tree_depth"] is None:
        return None
    jobs = []
    for row in rows:
        line = {name: value for name, value in row.items() if name not in whole}
        if line["id"] is not None:
            jobs.append(TreeJob(**{**line, "status": Status(line["status"])}))
    return Tree(
        total=whole["tree_total"],
        counts=whole["tree_counts"] or {},
        complete=whole["tree_total"] <= MAX_JOBS and whole["tree_depth"] < MAX_DEPTH,
        jobs=jobs,
    )
