"""What must hold when everything has been mended and all jobs are over: pure, of the evidence."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.handlers import LEDGER_TYPES
from tests.chaos.ledger import Line

Row = Mapping[str, Any]

_TERMINAL = ("completed", "failed", "cancelled")
_SAID_BY_THE_JOB = ("succeeded", "permanent", "retry_later")
_DELETED = "HybridJobDeleted"


@dataclass(frozen=True)
class Accepted:
    """A job that a sender was told of, and the statuses in which it may end."""

    job_id: str
    key: str
    type: str
    kind: str
    ends: frozenset[str]
    payload: Mapping[str, Any] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()  # ids


@dataclass(frozen=True)
class Evidence:
    """All that is known after a run; rows as the database has them, ids as text."""

    accepted: Sequence[Accepted]
    refusals: Sequence[str]  # answers that nothing that was broken explains
    jobs: Sequence[Row]
    attempts: Sequence[Row]
    ends: Sequence[Row]  # every step of a job into a terminal status: job_id, status
    dead_letters: Sequence[str]  # job ids of the unresolved ones
    ledger: Sequence[Line]
    kubernetes_jobs: Mapping[str, tuple[str, int]]  # every uid that was seen: job id, attempt
    cancelled: frozenset[str]  # jobs whose HybridJob was deleted
    left: Sequence[str]  # objects past their time, by kind and name


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept, and where."""

    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


class _Facts:
    """The evidence, by job and by attempt."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.jobs = {row["id"]: row for row in evidence.jobs}
        self.attempts = {(row["job_id"], row["attempt"]): row for row in evidence.attempts}
        self.of_job: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(evidence.attempts, key=lambda row: row["attempt"]):
            self.of_job[row["job_id"]].append(row)
        self.runs: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        self.exits: dict[tuple[str, int], set[int | None]] = defaultdict(set)
        for line in evidence.ledger:
            self.runs[line.job, line.attempt][line.run] = line.pod
            if line.event == "ended":
                self.exits[line.job, line.attempt].add(line.exit)


def violations(evidence: Evidence) -> list[Violation]:
    """Everything that is wrong; nothing, after a run as it should be."""
    facts = _Facts(evidence)
    return [
        Violation(rule.__name__.strip("_").replace("_", " "), detail)
        for rule in _RULES
        for detail in rule(facts)
    ]


def _refused_without_a_reason(facts: _Facts) -> Iterator[str]:
    yield from facts.evidence.refusals


def _accepted_and_lost(facts: _Facts) -> Iterator[str]:
    for each in facts.evidence.accepted:
        if each.job_id not in facts.jobs:
            yield f"{each.kind} {each.job_id} was accepted and has no row"


def _accepted_twice(facts: _Facts) -> Iterator[str]:
    ids = defaultdict(set)
    for each in facts.evidence.accepted:
        ids[each.key, each.type].add(each.job_id)
    for (key, type_), found in ids.items():
        if len(found) > 1:
            yield f"{type_} of {key} is {', '.join(sorted(found))}"
    rows = Counter((row["source"], row["key"], row["type"]) for row in facts.jobs.values())
    for (source, key, type_), count in rows.items():
        if key is not None and count > 1:
            yield f"{count} rows of {source} {key} {type_}"


def _hangs(facts: _Facts) -> Iterator[str]:
    for row in facts.jobs.values():
        if row["status"] not in _TERMINAL:
            yield f"{row['id']} {row['type']} is {row['status']} ({row['stage']})"
    for row in facts.evidence.attempts:
        if row["outcome"] is None:
            yield f"attempt {row['attempt']} of {row['job_id']} is open"


def _not_one_end(facts: _Facts) -> Iterator[str]:
    ends = defaultdict(list)
    for row in facts.evidence.ends:
        ends[row["job_id"]].append(row["status"])
    for job_id, row in facts.jobs.items():
        if row["status"] in _TERMINAL and ends[job_id] != [row["status"]]:
            yield f"{job_id} is {row['status']} after {ends[job_id]}"


def _another_end_than_its_kind_has(facts: _Facts) -> Iterator[str]:
    for each in facts.evidence.accepted:
        row = facts.jobs.get(each.job_id)
        if row is None or row["status"] not in _TERMINAL or row["status"] in each.ends:
            continue
        if _may_be_cancelled(facts, each.job_id, row) or any(
            facts.jobs[other]["status"] == "cancelled"
            for other in each.depends_on
            if other in facts.jobs
        ):
            continue
        outcomes = [f"{a['outcome']} {a['reason']}" for a in facts.of_job[each.job_id]]
        yield f"{each.kind} {each.job_id} is {row['status']}, {row['outcome_reason']}: {outcomes}"
    for job_id, row in facts.jobs.items():
        ended_ill = row["source"] == "schedule" and row["status"] in ("failed", "cancelled")
        if ended_ill and not _may_be_cancelled(facts, job_id, row):
            yield f"scheduled {job_id} is {row['status']}, {row['outcome_reason']}"


def _attempts_not_counted_on(facts: _Facts) -> Iterator[str]:
    for job_id, row in facts.jobs.items():
        numbers = [each["attempt"] for each in facts.of_job[job_id]]
        if numbers != list(range(1, row["attempt"] + 1)):
            yield f"{job_id} is at attempt {row['attempt']} and has {numbers}"


def _not_completed_by_its_last_attempt(facts: _Facts) -> Iterator[str]:
    for job_id, row in facts.jobs.items():
        succeeded = [a["attempt"] for a in facts.of_job[job_id] if a["outcome"] == "succeeded"]
        expected = [row["attempt"]] if row["status"] == "completed" else []
        if succeeded != expected:
            yield f"{job_id} is {row['status']}; attempts {succeeded} succeeded"


def _retries_miscounted(facts: _Facts) -> Iterator[str]:
    for job_id, row in facts.jobs.items():
        spent = sum(bool(each["spent_retry"]) for each in facts.of_job[job_id])
        if not spent == row["retry_count"] <= row["max_retries"]:
            yield f"{job_id} spent {spent} retries, says {row['retry_count']}"


def _dead_letters_astray(facts: _Facts) -> Iterator[str]:
    letters = Counter(facts.evidence.dead_letters)
    for job_id, row in facts.jobs.items():
        if letters[job_id] != (row["status"] == "failed"):
            yield f"{job_id} is {row['status']} and has {letters[job_id]} dead letters"


def _ran_without_an_attempt(facts: _Facts) -> Iterator[str]:
    for job_id, attempt in facts.runs:
        if (job_id, attempt) not in facts.attempts:
            yield f"the ledger has attempt {attempt} of {job_id}, the database has none"
    for uid, (job_id, attempt) in facts.evidence.kubernetes_jobs.items():
        if (job_id, attempt) not in facts.attempts:
            yield f"Job {uid} ran attempt {attempt} of {job_id}, the database has none"


def _ran_twice(facts: _Facts) -> Iterator[str]:
    for (job_id, attempt), runs in facts.runs.items():
        if len(runs) > 1:
            pods = sorted(runs.values())
            yield f"attempt {attempt} of {job_id} began {len(runs)} times, in {pods}"
    jobs = defaultdict(list)
    for uid, key in facts.evidence.kubernetes_jobs.items():
        jobs[key].append(uid)
    for (job_id, attempt), uids in jobs.items():
        if len(uids) > 1:
            yield f"attempt {attempt} of {job_id} had {len(uids)} Jobs"


def _recorded_of_another_job_or_pod(facts: _Facts) -> Iterator[str]:
    for key, runs in facts.runs.items():
        row = facts.attempts.get(key)
        if row is not None and row["pod_name"] and row["pod_name"] not in runs.values():
            yield f"attempt {key[1]} of {key[0]}: {row['pod_name']}, ran in {sorted(runs.values())}"
    for uid, key in facts.evidence.kubernetes_jobs.items():
        row = facts.attempts.get(key)
        if row is not None and row["job_uid"] not in (None, uid):
            yield f"attempt {key[1]} of {key[0]}: Job {row['job_uid']}, ran as {uid}"


def _recorded_and_never_run(facts: _Facts) -> Iterator[str]:
    for key, row in facts.attempts.items():
        if not _tells_the_ledger(facts, row) or row["outcome"] not in _SAID_BY_THE_JOB:
            continue
        expected = row["outcome"] == "succeeded"
        if not any((code == 0) == expected for code in facts.exits[key]):
            yield f"attempt {key[1]} of {key[0]} is {row['outcome']}; exits {facts.exits[key]}"


def _run_and_recorded_otherwise(facts: _Facts) -> Iterator[str]:
    for key, row in facts.attempts.items():
        if row["outcome"] in ("failed", "permanent", "oom", "never_started", "retry_later"):
            if 0 in facts.exits[key]:
                yield f"attempt {key[1]} of {key[0]} succeeded, recorded as {row['outcome']}"
            if row["outcome"] == "never_started" and facts.runs[key]:
                yield f"attempt {key[1]} of {key[0]} ran, recorded as never started"


def _another_job_s_result(facts: _Facts) -> Iterator[str]:
    for each in facts.evidence.accepted:
        row = facts.jobs.get(each.job_id)
        if row is None or each.type not in LEDGER_TYPES or row["status"] != "completed":
            continue
        expected = {"number": each.payload.get("number"), "attempt": row["attempt"]}
        if each.kind == "hook":
            expected["number"] = None
        if row["result"] != expected:
            yield f"{each.job_id} has {row['result']}, not {expected}"


def _left_behind(facts: _Facts) -> Iterator[str]:
    yield from facts.evidence.left


def _may_be_cancelled(facts: _Facts, job_id: str, row: Row) -> bool:
    return row["outcome_reason"] == _DELETED and job_id in facts.evidence.cancelled


def _tells_the_ledger(facts: _Facts, attempt: Row) -> bool:
    return facts.jobs[attempt["job_id"]]["type"] in LEDGER_TYPES


_RULES: tuple[Callable[[_Facts], Iterator[str]], ...] = (
    _refused_without_a_reason,
    _accepted_and_lost,
    _accepted_twice,
    _hangs,
    _not_one_end,
    _another_end_than_its_kind_has,
    _attempts_not_counted_on,
    _not_completed_by_its_last_attempt,
    _retries_miscounted,
    _dead_letters_astray,
    _ran_without_an_attempt,
    _ran_twice,
    _recorded_of_another_job_or_pod,
    _recorded_and_never_run,
    _run_and_recorded_otherwise,
    _another_job_s_result,
    _left_behind,
)
