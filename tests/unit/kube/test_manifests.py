import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.ids import new_id
from hybridjobs.kube.manifests import MAX_ENV_PAYLOAD_BYTES, WorkerSettings, kubernetes_job
from hybridjobs.kube.names import MAX_NAME, hybridjob_name, job_name
from hybridjobs.model import JobTypeSpec
from tests.unit.controller.objects import JOB_ID, hybridjob

WORKER = WorkerSettings("image:1", "IfNotPresent", "worker", "http://api:8082", "hybridjobs", "db")


def job_of(text: str = "{}", /, **spec: Any) -> dict[str, Any]:
    return kubernetes_job(
        owner=hybridjob(),
        job_id=JOB_ID,
        attempt=2,
        spec=JobTypeSpec.model_validate({"type": "capture/pr.details", **spec}),
        deadline_seconds=900,
        payload=text,
        traceparent=None,
        worker=WORKER,
    )


def _environment(job: dict[str, Any]) -> dict[str, Any]:
    [container] = job["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_one_attempt_is_one_pod_with_its_deadlines() -> None:
    spec = job_of(deadlineSeconds=900, startDeadlineSeconds=300, gracePeriodSeconds=30)["spec"]
    assert (spec["backoffLimit"], spec["parallelism"], spec["completions"]) == (0, 1, 1)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["template"]["spec"]["activeDeadlineSeconds"] == 900
    assert spec["activeDeadlineSeconds"] == 1230
    actions = [rule["action"] for rule in spec["podFailurePolicy"]["rules"]]
    assert actions == ["FailJob", "FailJob"]
    assert "onPodConditions" in spec["podFailurePolicy"]["rules"][0]


def test_a_job_of_a_queue_is_held_until_kueue_lets_it_begin() -> None:
    held = job_of(queueName="team-a")
    assert held["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert held["spec"]["suspend"] is True
    free = job_of()
    assert "kueue.x-k8s.io/queue-name" not in free["metadata"]["labels"]
    assert "suspend" not in free["spec"]


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_a_payload_survives_the_kubelets_expansion(value: dict[str, Any]) -> None:
    payload = json.dumps(value, ensure_ascii=False)
    environment = _environment(job_of(payload))
    assert "$" not in environment["HYBRIDJOB_PAYLOAD"]
    assert json.loads(environment["HYBRIDJOB_PAYLOAD"]) == value


@pytest.mark.parametrize(
    ("payload", "spec"),
    [
        ('"' + "x" * MAX_ENV_PAYLOAD_BYTES + '"', {}),
        ('"' + "$" * 8000 + '"', {}),
        ("{}", {"payload": "fetch"}),
    ],
)
def test_a_large_payload_is_fetched(payload: str, spec: dict[str, Any]) -> None:
    environment = _environment(job_of(payload, **spec))
    assert "HYBRIDJOB_PAYLOAD" not in environment
    assert environment["HYBRIDJOB_PAYLOAD_URL"] == (
        f"http://api:8082/worker/v1/attempts/{JOB_ID}/2/payload"
    )


def test_a_type_cannot_override_what_the_worker_is_told() -> None:
    environment = _environment(
        job_of(env=[{"name": "HYBRIDJOB_ID", "value": "forged"}, {"name": "MORE", "value": "1"}])
    )
    assert environment["HYBRIDJOB_ID"] == str(JOB_ID)
    assert environment["MORE"] == "1"


def test_only_a_type_that_asks_gets_the_database() -> None:
    assert "DATABASE_URL" not in _environment(job_of())
    secret = {"secretKeyRef": {"name": "db", "key": "handlersUrl"}}
    assert _environment(job_of(database=True))["DATABASE_URL"] == secret


@given(st.from_regex(r"\A[a-z0-9]([a-z0-9._/-]{0,60}[a-z0-9])?\Z"))
def test_names_are_valid(type_: str) -> None:
    job_id = new_id()
    name = hybridjob_name(type_, job_id)
    assert len(name) <= MAX_NAME
    assert name.strip("-") == name
    assert len(job_name(job_id, 9999)) <= MAX_NAME
