"""Our objects as values: the HybridJob of a claim, and the Kubernetes Job of an attempt.

Job semantics and their traps: reference/kubernetes.md section 4 (verified on 1.35).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hybridjobs.kube import names
from hybridjobs.model import GROUP, VERSION, Claim, JobTypeSpec, type_slug
from hybridjobs.tracing import attempt_context

API_VERSION = f"{GROUP}/{VERSION}"
MAX_ENV_PAYLOAD_BYTES = 32 * 1024
TOKEN_FOLDER = "/var/run/secrets/hybridjobs.dev"  # noqa: S105 - a path
_TOKEN_SECONDS = 3600

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What this release tells every pod."""

    image: str
    image_pull_policy: str
    service_account: str
    api_url: str
    audience: str
    database_secret: str | None
    traces: Mapping[str, str] = field(default_factory=dict)  # where pods send theirs, as variables


def hybridjob(claim: Claim, *, name: str, namespace: str) -> Object:
    """The HybridJob that says a claim: created, or applied with the uid it has."""
    body: Object = {
        "apiVersion": API_VERSION,
        "kind": "HybridJob",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                **names.MANAGED,
                names.JOB_ID: str(claim.job_id),
                names.TYPE: type_slug(claim.type),
            },
        },
        "spec": {
            "type": claim.type,
            "jobId": str(claim.job_id),
            "attempt": claim.attempt,
            "payloadDigest": claim.payload_digest,
            "deadlineSeconds": claim.deadline_seconds,
            "priority": claim.priority,
        },
    }
    context = attempt_context(claim.traceparent, claim.job_id, claim.attempt)
    if context is not None:
        body["metadata"]["annotations"] = {names.TRACEPARENT: context}
    if claim.resource_uid is not None:
        body["metadata"]["uid"] = claim.resource_uid
    return body


def owner_reference(hybridjob: Object) -> Object:
    """What makes an object the HybridJob's own: it goes with it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "HybridJob",
        "name": hybridjob["metadata"]["name"],
        "uid": hybridjob["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def kubernetes_job(
    *,
    owner: Object,
    job_id: UUID,
    attempt: int,
    spec: JobTypeSpec,
    deadline_seconds: int,
    payload: str,
    traceparent: str | None,
    worker: WorkerSettings,
) -> Object:
    """The one Job of an attempt: one pod, never a second (backoffLimit 0, restartPolicy Never).

    `owner` is the HybridJob; `payload` JSON text. The deadline that users see is the pod's own, so
    that the pod stays with its log; the Job's is a larger backstop, which deletes the pod.
    """
    name = names.job_name(job_id, attempt)
    metadata = owner["metadata"]
    labels = {
        **names.MANAGED,
        names.JOB_ID: str(job_id),
        names.ATTEMPT: str(attempt),
        names.HYBRIDJOB: metadata["name"],
        names.TYPE: type_slug(spec.type),
    }
    queue = {names.QUEUE: spec.queue_name} if spec.queue_name else {}
    rules: list[Object] = [
        # First: the exit code of a disrupted pod is no verdict. Not Ignore, which starts a second
        # pod in the same Job.
        {
            "action": "FailJob",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }
    ]
    if spec.retry.permanent_exit_codes:
        rules.append(
            {
                "action": "FailJob",
                "onExitCodes": {
                    "containerName": names.CONTAINER,
                    "operator": "In",
                    "values": sorted(spec.retry.permanent_exit_codes),
                },
            }
        )
    backstop = spec.start_deadline_seconds + deadline_seconds + spec.grace_period_seconds
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {**labels, **queue},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            # Kueue's webhook says so too, but a Job that it has not seen must not run uncounted.
            **({"suspend": True} if queue else {}),
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": backstop,
            "podFailurePolicy": {"rules": rules},
            "template": {
                "metadata": {
                    "labels": {**spec.pod_template.labels, **labels},
                    "annotations": dict(spec.pod_template.annotations),
                },
                "spec": _pod(spec, job_id, attempt, deadline_seconds, payload, traceparent, worker),
            },
        },
    }


def contract_variables(
    spec: JobTypeSpec,
    job_id: UUID,
    attempt: int,
    *,
    deadline_seconds: int,
    payload: str,
    traceparent: str | None,
    api_url: str,
    token_file: str,
) -> dict[str, str]:
    """What the worker contract tells a job's main process by its environment."""
    variables = {
        "HYBRIDJOB_ID": str(job_id),
        "HYBRIDJOB_TYPE": spec.type,
        "HYBRIDJOB_HANDLER": spec.handler or spec.type,
        "HYBRIDJOB_ATTEMPT": str(attempt),
        "HYBRIDJOB_DEADLINE_SECONDS": str(deadline_seconds),
        "HYBRIDJOB_API": api_url,
        "HYBRIDJOB_TOKEN_FILE": token_file,
    }
    # The kubelet expands $(NAME) and turns $$ into $; in JSON a dollar sign stands only inside
    # strings, where this escape means the same.
    escaped = payload.replace("$", "\\u0024")
    if spec.payload == "env" and len(escaped.encode()) <= MAX_ENV_PAYLOAD_BYTES:
        variables["HYBRIDJOB_PAYLOAD"] = escaped
    else:
        url = f"{api_url}/worker/v1/attempts/{job_id}/{attempt}/payload"
        variables["HYBRIDJOB_PAYLOAD_URL"] = url
    if traceparent:
        variables["TRACEPARENT"] = traceparent
    return variables


def _pod(
    spec: JobTypeSpec,
    job_id: UUID,
    attempt: int,
    deadline_seconds: int,
    payload: str,
    traceparent: str | None,
    worker: WorkerSettings,
) -> Object:
    template = spec.pod_template
    variables = contract_variables(
        spec,
        job_id,
        attempt,
        deadline_seconds=deadline_seconds,
        payload=payload,
        traceparent=attempt_context(traceparent, job_id, attempt),
        api_url=worker.api_url,
        token_file=f"{TOKEN_FOLDER}/token",
    )
    environment: list[Object] = [
        {"name": name, "value": value} for name, value in variables.items()
    ]
    if spec.database and worker.database_secret:
        source = {"secretKeyRef": {"name": worker.database_secret, "key": "handlersUrl"}}
        environment.append({"name": "DATABASE_URL", "valueFrom": source})
    ours = {variable["name"] for variable in environment}
    environment += [dict(variable) for variable in spec.env if variable["name"] not in ours]
    said = {variable["name"] for variable in environment}
    environment += [
        {"name": name, "value": value} for name, value in worker.traces.items() if name not in said
    ]
    container: Object = {
        "name": names.CONTAINER,
        "image": spec.image or worker.image,
        "imagePullPolicy": worker.image_pull_policy,
        "env": environment,
        "resources": spec.resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        ],
    }
    if spec.command:
        container["command"] = list(spec.command)
    if spec.args or spec.command:
        container["args"] = list(spec.args)
    else:
        container["args"] = ["worker"]
    token = {
        "serviceAccountToken": {
            "audience": worker.audience,
            "expirationSeconds": _TOKEN_SECONDS,
            "path": "token",
        }
    }
    pod: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": deadline_seconds,
        "terminationGracePeriodSeconds": spec.grace_period_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": template.service_account_name or worker.service_account,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "token", "projected": {"sources": [token]}},
        ],
    }
    optional: Object = {
        "nodeSelector": template.node_selector,
        "tolerations": [dict(toleration) for toleration in template.tolerations],
        "affinity": template.affinity,
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "imagePullSecrets": [dict(secret) for secret in template.image_pull_secrets],
    }
    return pod | {name: value for name, value in optional.items() if value}
