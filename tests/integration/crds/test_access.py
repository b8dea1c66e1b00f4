"""The accounts' rights, the admission policy and Pod Security, judged by the API server."""

import json

import pytest
import yaml

from tests.integration.crds.api import Answer, Api, hybridjob
from tests.unit.chart.helm import Object, containers, named, pod_templates
from tests.unit.chart.test_rights import INGRESS, OPERATOR
from tests.unit.kube.test_manifests import job_of
from tests.waiting import until

JOB_ID = "01936f3a-7c11-7abc-8def-0123456789ab"
DIGEST = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

# (account, verb, group, resource, name or None): "ours" is the release's group.
ALLOWED = [
    ("ingress", "create", "ours", "hybridjobs", None),
    ("ingress", "patch", "ours", "hybridjobs", None),
    ("ingress", "get", "ours", "hybridjobs", None),
    ("ingress", "delete", "ours", "hybridjobs", None),
    ("operator", "watch", "ours", "hybridjobs", None),
    ("operator", "delete", "ours", "hybridjobs", None),
    ("operator", "patch", "ours", "hybridjobs/status", None),
    ("operator", "update", "ours", "hybridjobs/finalizers", None),
    ("operator", "patch", "ours", "hybridjobtypes", None),
    ("operator", "patch", "ours", "hybridjobtypes/status", None),
    ("operator", "watch", "ours", "hybridjobschedules", None),
    ("operator", "patch", "ours", "hybridjobschedules", None),
    ("operator", "patch", "ours", "hybridjobschedules/status", None),
    ("operator", "create", "batch", "jobs", None),
    ("operator", "delete", "batch", "jobs", None),
    ("operator", "patch", "", "pods", None),
    ("operator", "get", "", "pods/log", None),
    ("operator", "create", "", "events", None),
    ("operator", "create", "coordination.k8s.io", "leases", None),
    ("operator", "patch", "coordination.k8s.io", "leases", "hybridjobs-operator"),
]
REFUSED = [
    ("ingress", "patch", "ours", "hybridjobs/status", None),
    ("ingress", "get", "ours", "hybridjobtypes", None),
    ("ingress", "create", "batch", "jobs", None),
    ("ingress", "get", "", "pods", None),
    ("ingress", "get", "", "secrets", None),
    ("ingress", "get", "ours", "hybridjobschedules", None),
    ("operator", "create", "ours", "hybridjobs", None),
    ("operator", "update", "ours", "hybridjobschedules", None),
    ("operator", "patch", "ours", "hybridjobs", None),
    ("operator", "create", "", "pods", None),
    ("operator", "delete", "", "pods", None),
    ("operator", "create", "", "pods/exec", None),
    ("operator", "get", "", "secrets", None),
    ("operator", "create", "rbac.authorization.k8s.io", "rolebindings", None),
    ("operator", "patch", "coordination.k8s.io", "leases", "another-s"),
    ("worker", "get", "ours", "hybridjobs", None),
    ("worker", "get", "", "secrets", None),
    ("worker", "get", "", "pods", None),
]


def _may(api: Api, account: str, attributes: Object) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": api.account(account),
            # What the API server adds to every service account.
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{api.namespace}",
                "system:authenticated",
            ],
            **attributes,
        },
    }
    text = api.must("create", "-f", "-", "-o", "json", stdin=json.dumps(review))
    allowed: bool = json.loads(text)["status"]["allowed"]
    return allowed


def _resource(
    api: Api, verb: str, group: str, resource: str, name: str | None, namespace: str | None
) -> Object:
    plain, _, subresource = resource.partition("/")
    return {
        "resourceAttributes": {
            "verb": verb,
            "group": api.group if group == "ours" else group,
            "resource": plain,
            "subresource": subresource,
            **({"name": name} if name else {}),
            **({"namespace": namespace} if namespace else {}),
        }
    }


@pytest.mark.parametrize(("account", "verb", "group", "resource", "name"), ALLOWED)
def test_an_account_may(
    api: Api, account: str, verb: str, group: str, resource: str, name: str | None
) -> None:
    attributes = _resource(api, verb, group, resource, name, api.namespace)
    assert _may(api, account, attributes)
    # Nothing of it holds anywhere else.
    assert not _may(api, account, _resource(api, verb, group, resource, name, api.other_namespace))


@pytest.mark.parametrize(("account", "verb", "group", "resource", "name"), REFUSED)
def test_an_account_may_not(
    api: Api, account: str, verb: str, group: str, resource: str, name: str | None
) -> None:
    assert not _may(api, account, _resource(api, verb, group, resource, name, api.namespace))


# What each account may do, in its namespace and elsewhere: (group, resource, verb, name or "").
EVERYWHERE = {
    "ingress": {
        ("authentication.k8s.io", "tokenreviews", "create", ""),
        ("authorization.k8s.io", "subjectaccessreviews", "create", ""),
    },
    "operator": {
        ("apiextensions.k8s.io", "customresourcedefinitions", "get", f"{plural}.ours")
        for plural in ("hybridjobs", "hybridjobtypes", "hybridjobschedules")
    },
    "worker": set(),
}
NAMED = {
    ("coordination.k8s.io", "leases", "get"): "hybridjobs-operator",
    ("coordination.k8s.io", "leases", "patch"): "hybridjobs-operator",
}


def _rights(api: Api, account: str, namespace: str) -> set[tuple[str, str, str, str]]:
    """All that the API server lets the account do in the namespace."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    groups = [
        f"--as-group={group}"
        for group in (
            "system:serviceaccounts",
            f"system:serviceaccounts:{api.namespace}",
            "system:authenticated",
        )
    ]
    answer = api.must(
        # Validation would ask for definitions, which the account may not see.
        *("create", "--validate=false", "-f", "-", "-o", "json", f"--as={account}", *groups),
        stdin=json.dumps(review),
    )
    status = json.loads(answer)["status"]
    assert not status["incomplete"]
    return {
        (group.replace(api.group, "hybridjobs.dev"), resource, verb, name)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


@pytest.mark.parametrize(
    ("account", "listed"), [("ingress", INGRESS), ("operator", OPERATOR), ("worker", {})]
)
def test_an_account_may_do_what_is_listed_and_nothing_else(
    api: Api, account: str, listed: dict[tuple[str, str], set[str]]
) -> None:
    everywhere = {
        (group, resource, verb, name.replace("ours", api.group))
        for group, resource, verb, name in EVERYWHERE[account]
    }
    names = {**NAMED, ("", "namespaces", "get"): api.namespace}
    here = {
        (group, resource, verb, names.get((group, resource, verb), ""))
        for (group, resource), verbs in listed.items()
        for verb in verbs
    }
    for namespace, expected in (
        (api.namespace, here | everywhere),
        (api.other_namespace, everywhere),
    ):
        anybody = _rights(api, f"system:serviceaccount:{api.namespace}:default", namespace)
        assert _rights(api, api.account(account), namespace) - anybody == expected


def test_the_operator_sees_its_namespace_and_its_definitions_only(api: Api) -> None:
    def may_get(group: str, resource: str, name: str, namespace: str | None) -> bool:
        return _may(api, "operator", _resource(api, "get", group, resource, name, namespace))

    # The API server asks for a namespace's own rights with the namespace in both places.
    assert may_get("", "namespaces", api.namespace, api.namespace)
    assert not may_get("", "namespaces", api.other_namespace, api.other_namespace)
    crds = ("apiextensions.k8s.io", "customresourcedefinitions")
    assert may_get(*crds, f"hybridjobs.{api.group}", None)
    assert not may_get(*crds, "others.example.org", None)


def test_the_operator_reads_its_namespace_and_definition_for_real(api: Api) -> None:
    as_operator = f"--as={api.account('operator')}"
    api.must("get", "namespace", api.namespace, as_operator)
    api.must("get", "crd", f"hybridjobs.{api.group}", as_operator)
    assert not api.kubectl("get", "namespaces", as_operator).accepted


def test_the_ingress_may_read_the_keys_of_worker_tokens(api: Api) -> None:
    """By the cluster's own default binding, so the chart brings none."""
    path = {"nonResourceAttributes": {"verb": "get", "path": "/openid/v1/jwks"}}
    assert _may(api, "ingress", path)


# The admission policy -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dispatched(api: Api) -> str:
    """A HybridJob of the dispatcher; made when the policy works, which takes a moment."""
    probe = hybridjob("probe", jobId=JOB_ID)
    until(lambda: not api.send("create", probe, "--dry-run=server").accepted)
    body = hybridjob("dispatched", jobId=JOB_ID, attempt=1, payloadDigest=DIGEST)
    made = api.send("create", body, f"--as={api.account('ingress')}")
    assert made.accepted, made.error
    return "dispatched"


def _refused_by_policy(answer: Answer, field: str) -> bool:
    return not answer.accepted and f"may set or change spec.{field}" in answer.error


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("jobId", {"jobId": JOB_ID}),
        ("attempt", {"jobId": JOB_ID, "attempt": 1}),
        ("payloadDigest", {"jobId": JOB_ID, "payloadDigest": DIGEST}),
    ],
)
@pytest.mark.usefixtures("dispatched")
def test_not_even_an_administrator_makes_a_dispatched_one(
    api: Api, field: str, spec: Object
) -> None:
    answer = api.send("create", hybridjob("forged", **spec), "--dry-run=server")
    assert not answer.accepted
    # All fields are judged; the first refusal is told.
    assert "only the dispatcher" in answer.error
    plain = api.send("create", hybridjob("by-hand", payload={"a": 1}), "--dry-run=server")
    assert plain.accepted, plain.error


def test_an_administrator_may_patch_but_not_what_is_the_dispatcher_s(
    api: Api, dispatched: str
) -> None:
    for field, value in {"attempt": 2, "payloadDigest": "sha256:" + "0" * 64}.items():
        answer = api.patch(dispatched, {"spec": {field: value}}, "--dry-run=server")
        assert _refused_by_policy(answer, field), answer
    assert api.patch(dispatched, {"spec": {"cancel": True}}, "--dry-run=server").accepted


def test_the_policy_leaves_the_status_alone(api: Api, dispatched: str) -> None:
    state = {"status": {"state": "processing"}}
    answer = api.patch(dispatched, state, "--subresource=status", "--dry-run=server")
    assert answer.accepted, answer.error


def test_nobody_else_removes_them_either(api: Api, dispatched: str) -> None:
    answer = api.patch(dispatched, {"spec": {"payloadDigest": None}}, "--dry-run=server")
    assert _refused_by_policy(answer, "payloadDigest"), answer


def test_the_dispatcher_starts_the_next_attempt(api: Api, dispatched: str) -> None:
    answer = api.patch(
        dispatched,
        {"spec": {"attempt": 2, "deadlineSeconds": 60}},
        *(f"--as={api.account('ingress')}", "--dry-run=server"),
    )
    assert answer.accepted, answer.error


@pytest.mark.usefixtures("dispatched")
def test_another_namespace_is_not_the_release_s_business(api: Api) -> None:
    body = hybridjob("elsewhere", jobId=JOB_ID, attempt=1)
    answer = api.send("create", body, "--dry-run=server", f"--namespace={api.other_namespace}")
    assert answer.accepted, answer.error


# Everything else of a release -----------------------------------------------------------------


def _pod(name: str, template: Object) -> Object:
    metadata = {**template["metadata"], "name": name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _settled(template)}


def _settled(template: Object) -> Object:
    """The pod's spec with the volumes that a StatefulSet's controller would add."""
    spec = template["spec"]
    there = {volume["name"] for volume in spec["volumes"]}
    mounted = {
        mount["name"] for container in containers(template) for mount in container["volumeMounts"]
    }
    claims = [
        {"name": name, "persistentVolumeClaim": {"claimName": name}}
        for name in sorted(mounted - there)
    ]
    return {**spec, "volumes": [*spec["volumes"], *claims]}


@pytest.mark.parametrize("workload", ["ingress", "operator", "postgres"])
def test_pods_pass_restricted_pod_security(api: Api, workload: str) -> None:
    templates = {name.split("-")[-1]: each for name, each in pod_templates(api.release()).items()}
    pod = _pod(workload, templates[workload])
    answer = api.send("create", pod, "--dry-run=server")
    assert answer.accepted, answer.error
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]
    refused = api.send("create", pod, "--dry-run=server")
    assert not refused.accepted
    assert "restricted" in refused.error


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"handler": "capture/pr.details", "payload": "fetch"},
        {
            "image": "registry.example/report:1",
            "command": ["/bin/report"],
            "podTemplate": {
                "nodeSelector": {"disk": "ssd"},
                "imagePullSecrets": [{"name": "pull"}],
                "tolerations": [{"key": "batch", "operator": "Exists"}],
            },
        },
    ],
)
def test_the_pods_of_jobs_pass_restricted_pod_security(api: Api, spec: Object) -> None:
    template = job_of(**spec)["spec"]["template"]
    template["spec"]["serviceAccountName"] = "hybridjobs-worker"
    pod = _pod("job", template)
    answer = api.send("create", pod, "--dry-run=server")
    assert answer.accepted, answer.error
    assert answer.error == ""
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]
    refused = api.send("create", pod, "--dry-run=server")
    assert not refused.accepted
    assert "restricted" in refused.error


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"database": {"embedded": False, "existingSecret": "db"}, "github": {"token": "t"}},
        {
            "webhooks": {"ingress": {"enabled": True, "host": "hooks.example.org"}},
            "ingress": {"replicas": 3, "childEnv": [{"name": "A", "value": "b"}]},
        },
    ],
)
def test_the_server_accepts_every_object_without_a_warning(api: Api, values: Object) -> None:
    objects = api.release(values)
    answer = api.kubectl("apply", "-f", "-", "--dry-run=server", stdin=api.ours(objects))
    assert answer.accepted, answer.error
    assert answer.error == ""
    assert len(answer.out.splitlines()) == len(objects)


def test_the_server_accepts_the_types_that_the_operator_applies(api: Api) -> None:
    extra = {
        "test/image": {
            "image": "registry.example/report:1.4",
            "command": ["/bin/report"],
            "resources": {"requests": {"cpu": "250m", "memory": 268435456}, "limits": {"cpu": 2}},
            "throttle": {"limit": 10, "periodSeconds": 60, "key": "tenant"},
            "payloadSchema": {"type": "object", "required": ["tenant"]},
            "podTemplate": {
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
                "affinity": {"podAntiAffinity": {}},
                "imagePullSecrets": [{"name": "pull"}],
            },
        }
    }
    data = named(api.release({"types": {"extra": extra}}), "ConfigMap", "hybridjobs-types")["data"]
    bodies = [yaml.safe_load(text) for text in data.values()]
    assert {body["kind"] for body in bodies} == {"HybridJobType", "HybridJobSchedule"}
    assert len(bodies) == len(data) == 13
    answer = api.kubectl(
        *("apply", "--server-side", "--field-manager=hybridjobs-chart", "--dry-run=server"),
        *(f"--as={api.account('operator')}", "-f", "-"),
        stdin=api.ours(bodies),
    )
    assert answer.accepted, answer.error
