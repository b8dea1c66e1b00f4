"""A minute of `make chaos`, with a seed that stays: see docs/operations/chaos.md."""

import pytest

from tests.chaos.faults import possible
from tests.chaos.plan import FAULTS, KINDS, Plan, planned
from tests.chaos.run import Verdict, run
from tests.cluster import current

SEED, JOBS, SECONDS = 20, 30, 80


@pytest.fixture(scope="module")
async def plan() -> Plan:
    kinds = possible(current(), cheap=True)
    left_out = sorted(kind for kind, of in FAULTS.items() if of.cheap and kind not in kinds)
    if left_out:
        print(f"this cluster cannot show: {', '.join(left_out)}")
    return planned(SEED, jobs=JOBS, seconds=SECONDS, faults=len(kinds), fault_kinds=kinds)


@pytest.fixture(scope="module")
async def verdict(plan: Plan) -> Verdict:
    return await run(plan, say=print)


@pytest.mark.timeout(1500)
async def test_whatever_is_killed_every_job_has_one_end_and_nothing_is_left(
    verdict: Verdict,
) -> None:
    assert [str(each) for each in verdict.violations] == []


@pytest.mark.timeout(1500)
async def test_the_run_had_jobs_and_faults_of_every_kind(plan: Plan, verdict: Verdict) -> None:
    accepted = {each.key for each in verdict.evidence.accepted}
    assert accepted == {job.key for job in plan.jobs}
    assert {each.kind for each in verdict.evidence.accepted} == set(KINDS)
    assert verdict.done.total() + verdict.not_done.total() == len(plan.faults)
    # One with nothing to hurt at its moment is left out; most must have been.
    assert verdict.done.total() > len(plan.faults) * 2 / 3
    assert {row["source"] for row in verdict.evidence.jobs} >= {"api", "github", "kubernetes"}
