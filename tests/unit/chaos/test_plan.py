"""What a seed makes: the same every time, all kinds, and nothing before its time."""

from collections import Counter

import pytest

from tests.chaos.plan import FAULTS, KINDS, Plan, planned


def _plan(seed: int = 7, *, jobs: int = 300, faults: int = 75) -> Plan:
    return planned(seed, jobs=jobs, seconds=600, faults=faults, fault_kinds=list(FAULTS))


def test_a_seed_gives_the_same_plan_again() -> None:
    assert _plan() == _plan()


def test_another_seed_gives_another_plan() -> None:
    assert _plan(7).faults != _plan(8).faults
    assert [job.at for job in _plan(7).jobs] != [job.at for job in _plan(8).jobs]


def test_the_smallest_run_has_a_job_of_every_kind() -> None:
    assert {job.kind for job in _plan(jobs=len(KINDS)).jobs} == set(KINDS)


def test_faults_of_all_kinds_come_equally_often() -> None:
    counts = Counter(fault.kind for fault in _plan(faults=3 * len(FAULTS)).faults)
    assert counts == dict.fromkeys(FAULTS, 3)


def test_faults_last_as_long_as_their_kind_may() -> None:
    for fault in _plan().faults:
        shortest, longest = FAULTS[fault.kind].seconds
        assert shortest <= fault.seconds <= longest
        assert 0 < fault.at <= 600


def test_jobs_wait_for_earlier_ones_that_will_be_completed() -> None:
    plan = _plan()
    dependent = [job for job in plan.jobs if job.depends_on]
    assert dependent
    for job in dependent:
        for number in job.depends_on:
            assert number < job.number
            assert plan.jobs[number].ends == {"completed"}


def test_keys_are_never_used_twice() -> None:
    keys = [job.key for job in _plan().jobs]
    assert len(set(keys)) == len(keys)


def test_jobs_are_cancelled_after_they_were_sent() -> None:
    cancelled = [job for job in _plan().jobs if job.cancel_at is not None]
    assert cancelled
    assert all(job.cancel_at >= job.at for job in cancelled if job.cancel_at is not None)


@pytest.mark.parametrize("kinds", [[], ["pod-deleted"]])
def test_only_faults_that_were_asked_for_are_planned(kinds: list[str]) -> None:
    plan = planned(1, jobs=20, seconds=60, faults=5, fault_kinds=kinds)
    assert {fault.kind for fault in plan.faults} == set(kinds)
