"""The audit finds what is wrong: each kind of fault, put into the evidence of a clean run."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.audit import Accepted, Evidence, violations
from tests.chaos.handlers import JOB
from tests.chaos.ledger import Line

COMPLETED, FAILED, CANCELLED, DEPENDENT = "completed-job", "failed-job", "deleted-job", "dependent"


def _job(id_: str, status: str, attempt: int, **more: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "type": JOB,
        "source": "api",
        "key": f"key of {id_}",
        "status": status,
        "stage": None,
        "attempt": attempt,
        "retry_count": 0,
        "max_retries": 2,
        "outcome_reason": None,
        "result": None,
        **more,
    }


def _attempt(id_: str, number: int, outcome: str, **more: Any) -> dict[str, Any]:
    return {
        "job_id": id_,
        "attempt": number,
        "outcome": outcome,
        "reason": None,
        "pod_name": f"pod of {id_} {number}",
        "job_uid": f"uid of {id_} {number}",
        "spent_retry": False,
        **more,
    }


def _accepted(id_: str, kind: str, *ends: str, depends_on: tuple[str, ...] = ()) -> Accepted:
    return Accepted(id_, f"key of {id_}", JOB, kind, frozenset(ends), {"number": 1}, depends_on)


def _lines(id_: str, number: int, exit_code: int | None) -> list[Line]:
    pod, run = f"pod of {id_} {number}", f"run of {id_} {number}"
    began = Line(id_, number, pod, run, "began")
    ended = Line(id_, number, pod, run, "ended", exit_code)
    return [began] if exit_code is None else [began, ended]


def _clean() -> Evidence:
    """A job that was disrupted and completed, one that failed, one cancelled by its deletion."""
    attempts = [
        _attempt(COMPLETED, 1, "disrupted"),
        _attempt(COMPLETED, 2, "succeeded"),
        _attempt(FAILED, 1, "failed", spent_retry=True),
        _attempt(FAILED, 2, "permanent"),
        _attempt(CANCELLED, 1, "cancelled", reason="HybridJobDeleted"),
    ]
    return Evidence(
        accepted=[
            _accepted(COMPLETED, "short", "completed"),
            _accepted(FAILED, "failing", "failed"),
            _accepted(CANCELLED, "long", "completed"),
            _accepted(DEPENDENT, "dependent", "completed", depends_on=(CANCELLED,)),
        ],
        refusals=[],
        jobs=[
            _job(COMPLETED, "completed", 2, result={"number": 1, "attempt": 2}),
            _job(FAILED, "failed", 2, retry_count=1),
            _job(CANCELLED, "cancelled", 1, outcome_reason="HybridJobDeleted"),
            _job(DEPENDENT, "cancelled", 0, outcome_reason="DependencyFailed"),
        ],
        attempts=attempts,
        ends=[
            {"job_id": COMPLETED, "status": "completed"},
            {"job_id": FAILED, "status": "failed"},
            {"job_id": CANCELLED, "status": "cancelled"},
            {"job_id": DEPENDENT, "status": "cancelled"},
        ],
        dead_letters=[FAILED],
        ledger=[
            *_lines(COMPLETED, 1, None),
            *_lines(COMPLETED, 2, 0),
            *_lines(FAILED, 1, 3),
            *_lines(FAILED, 2, 65),
            *_lines(CANCELLED, 1, None),
        ],
        kubernetes_jobs={row["job_uid"]: (row["job_id"], row["attempt"]) for row in attempts},
        cancelled=frozenset({CANCELLED}),
        left=[],
    )


def _replaced(evidence: Evidence, rows: str, by: list[Any]) -> Evidence:
    changes: dict[str, Any] = {rows: by}
    return replace(evidence, **changes)


def _changed(rows: str, place: int, **values: Any) -> Callable[[Evidence], Evidence]:
    def change(evidence: Evidence) -> Evidence:
        changed = deepcopy(list(getattr(evidence, rows)))
        changed[place] |= values
        return _replaced(evidence, rows, changed)

    return change


def _without(rows: str, place: int) -> Callable[[Evidence], Evidence]:
    def change(evidence: Evidence) -> Evidence:
        kept = list(getattr(evidence, rows))
        del kept[place]
        return _replaced(evidence, rows, kept)

    return change


def _with(rows: str, *more: Any) -> Callable[[Evidence], Evidence]:
    return lambda evidence: _replaced(evidence, rows, [*getattr(evidence, rows), *more])


def _with_job_seen(uid: str, job: str, attempt: int) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(
        evidence, kubernetes_jobs={**evidence.kubernetes_jobs, uid: (job, attempt)}
    )


DOCTORED: dict[str, tuple[Callable[[Evidence], Evidence], str]] = {
    "a refusal": (_with("refusals", "api: 500"), "refused without a reason"),
    "a lost row": (_with("accepted", _accepted("gone", "short")), "accepted and lost"),
    "another id for the same key": (
        _with("accepted", replace(_accepted("other", "short"), key=f"key of {COMPLETED}")),
        "accepted twice",
    ),
    "two rows of one key": (
        _with("jobs", _job("other", "cancelled", 0, key=f"key of {COMPLETED}")),
        "accepted twice",
    ),
    "a job that is open": (_changed("jobs", 0, status="processing"), "hangs"),
    "an attempt that is open": (_changed("attempts", 0, outcome=None), "hangs"),
    "a second end": (_with("ends", {"job_id": COMPLETED, "status": "completed"}), "not one end"),
    "an end of another kind": (_changed("ends", 0, status="failed"), "not one end"),
    "no end at all": (_without("ends", 0), "not one end"),
    "a failure of one that succeeds": (
        _changed("jobs", 0, status="failed"),
        "another end than its kind has",
    ),
    "a cancel that nobody asked for": (
        lambda evidence: replace(evidence, cancelled=frozenset()),
        "another end than its kind has",
    ),
    "a cancel of another origin": (
        _changed("jobs", 2, outcome_reason="Cancelled"),
        "another end than its kind has",
    ),
    "a scheduled job that failed": (
        _with("jobs", _job("tick", "failed", 0, source="schedule")),
        "another end than its kind has",
    ),
    "an attempt left out": (_without("attempts", 0), "attempts not counted on"),
    "an attempt too many": (
        _with("attempts", _attempt(COMPLETED, 3, "disrupted")),
        "attempts not counted on",
    ),
    "two successes": (
        _changed("attempts", 0, outcome="succeeded"),
        "not completed by its last attempt",
    ),
    "completed without a success": (
        _changed("attempts", 1, outcome="failed"),
        "not completed by its last attempt",
    ),
    "a retry not counted": (_changed("attempts", 2, spent_retry=False), "retries miscounted"),
    "more retries than allowed": (_changed("jobs", 1, max_retries=0), "retries miscounted"),
    "no dead letter": (_without("dead_letters", 0), "dead letters astray"),
    "two dead letters": (_with("dead_letters", FAILED), "dead letters astray"),
    "a dead letter of one that completed": (
        _with("dead_letters", COMPLETED),
        "dead letters astray",
    ),
    "a run without an attempt": (
        _with("ledger", *_lines(COMPLETED, 3, 0)),
        "ran without an attempt",
    ),
    "a Job without an attempt": (
        _with_job_seen("stray", COMPLETED, 3),
        "ran without an attempt",
    ),
    "a second run of an attempt": (
        _with("ledger", Line(COMPLETED, 2, f"pod of {COMPLETED} 2", "another", "began")),
        "ran twice",
    ),
    "a second Job of an attempt": (_with_job_seen("second", COMPLETED, 2), "ran twice"),
    "another pod than the recorded one": (
        _changed("attempts", 1, pod_name="stranger"),
        "recorded of another job or pod",
    ),
    "another Job than the recorded one": (
        _changed("attempts", 1, job_uid="stranger"),
        "recorded of another job or pod",
    ),
    "a success that never ran": (
        lambda evidence: replace(
            evidence, ledger=[each for each in evidence.ledger if each.exit != 0]
        ),
        "recorded and never run",
    ),
    "a verdict of the job's that it never gave": (_without("ledger", 6), "recorded and never run"),
    "a success recorded as failure": (
        _changed("attempts", 1, outcome="failed"),
        "run and recorded otherwise",
    ),
    "a run recorded as never started": (
        _changed("attempts", 0, outcome="never_started"),
        "run and recorded otherwise",
    ),
    "the result of another attempt": (
        _changed("jobs", 0, result={"number": 1, "attempt": 1}),
        "another job s result",
    ),
    "something left in the cluster": (_with("left", "jobs/hj-1"), "left behind"),
}


def test_a_clean_run_has_no_violations() -> None:
    assert violations(_clean()) == []


@pytest.mark.parametrize("name", DOCTORED)
def test_the_audit_finds(name: str) -> None:
    doctor, rule = DOCTORED[name]
    found = {violation.rule for violation in violations(doctor(_clean()))}
    assert rule in found


def test_every_rule_of_the_audit_is_shown_to_fail() -> None:
    from tests.chaos import audit

    rules = {rule.__name__.strip("_").replace("_", " ") for rule in audit._RULES}
    assert rules == {rule for _, rule in DOCTORED.values()}
