"""What the service accounts may do: these tables are the whole of it."""

import pytest

from tests.unit.chart.helm import Object, named, of_kind, render

INGRESS = {
    ("hybridjobs.dev", "hybridjobs"): {"create", "get", "patch", "delete"},
    ("", "pods/log"): {"get"},
}
OPERATOR = {
    ("hybridjobs.dev", "hybridjobs"): {"list", "watch", "delete"},
    ("hybridjobs.dev", "hybridjobs/status"): {"patch"},
    ("hybridjobs.dev", "hybridjobs/finalizers"): {"update"},
    ("hybridjobs.dev", "hybridjobtypes"): {"list", "watch", "create", "patch", "delete"},
    ("hybridjobs.dev", "hybridjobtypes/status"): {"patch"},
    ("hybridjobs.dev", "hybridjobschedules"): {"list", "watch", "create", "patch", "delete"},
    ("hybridjobs.dev", "hybridjobschedules/status"): {"patch"},
    ("batch", "jobs"): {"create", "get", "list", "watch", "patch", "delete"},
    ("", "pods"): {"list", "watch", "patch"},
    ("", "pods/log"): {"get"},
    ("", "events"): {"create", "patch"},
    ("events.k8s.io", "events"): {"create", "patch", "list"},
    ("coordination.k8s.io", "leases"): {"create", "get", "patch"},
    ("", "namespaces"): {"get"},
}


def _verbs(role: Object) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


@pytest.fixture(scope="module")
def release() -> list[Object]:
    return render({"jobs": {"namespace": "work"}})


def test_the_ingress_handles_hybridjobs_and_reads_logs_and_nothing_else(
    release: list[Object],
) -> None:
    assert _verbs(named(release, "Role", "hybridjobs-ingress")) == INGRESS


def test_what_kueue_says_may_be_read_where_there_is_kueue() -> None:
    role = named(render({"jobs": {"kueue": True}}), "Role", "hybridjobs-operator")
    assert _verbs(role) == {**OPERATOR, ("kueue.x-k8s.io", "workloads"): {"list"}}


def test_the_operator_handles_jobs_and_their_pods(release: list[Object]) -> None:
    role = named(release, "Role", "hybridjobs-operator")
    assert _verbs(role) == OPERATOR
    (rule,) = [rule for rule in role["rules"] if rule["resources"] == ["namespaces"]]
    assert rule["resourceNames"] == ["work"]
    leases = [rule for rule in role["rules"] if rule["resources"] == ["leases"]]
    assert {(*rule["verbs"], *rule.get("resourceNames", [])) for rule in leases} == {
        ("create",),
        ("get", "patch", "hybridjobs-operator"),
    }


def test_all_of_it_holds_in_the_jobs_namespace_alone(release: list[Object]) -> None:
    for kind in ("Role", "RoleBinding"):
        assert {each["metadata"]["namespace"] for each in of_kind(release, kind)} == {"work"}


def test_the_operator_may_see_our_crds_in_the_whole_cluster(
    release: list[Object],
) -> None:
    role = named(release, "ClusterRole", "hybridjobs.hybridjobs")
    assert role["rules"] == [
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "resourceNames": [
                "hybridjobs.hybridjobs.dev",
                "hybridjobtypes.hybridjobs.dev",
                "hybridjobschedules.hybridjobs.dev",
            ],
            "verbs": ["get"],
        }
    ]


def test_the_ingress_may_ask_in_the_whole_cluster_who_calls_unless_told_not_to(
    release: list[Object],
) -> None:
    role = named(release, "ClusterRole", "hybridjobs.hybridjobs.api")
    assert _verbs(role) == {
        ("authentication.k8s.io", "tokenreviews"): {"create"},
        ("authorization.k8s.io", "subjectaccessreviews"): {"create"},
    }
    without = render({"api": {"clusterTokens": {"enabled": False}}})
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        assert len(of_kind(release, kind)) == 2
        assert len(of_kind(without, kind)) == 1


def test_each_role_goes_to_one_account_and_the_worker_gets_none(release: list[Object]) -> None:
    bindings = of_kind(release, "RoleBinding") + of_kind(release, "ClusterRoleBinding")
    granted = {
        (each["roleRef"]["kind"], each["roleRef"]["name"]): [
            (subject["kind"], subject["namespace"], subject["name"]) for subject in each["subjects"]
        ]
        for each in bindings
    }
    assert granted == {
        ("Role", "hybridjobs-ingress"): [("ServiceAccount", "hybridjobs", "hybridjobs-ingress")],
        ("Role", "hybridjobs-operator"): [("ServiceAccount", "hybridjobs", "hybridjobs-operator")],
        ("ClusterRole", "hybridjobs.hybridjobs"): [
            ("ServiceAccount", "hybridjobs", "hybridjobs-operator")
        ],
        ("ClusterRole", "hybridjobs.hybridjobs.api"): [
            ("ServiceAccount", "hybridjobs", "hybridjobs-ingress")
        ],
    }
    accounts = {
        each["metadata"]["name"]: each["metadata"]["namespace"]
        for each in of_kind(release, "ServiceAccount")
    }
    assert accounts == {
        "hybridjobs-ingress": "hybridjobs",
        "hybridjobs-operator": "hybridjobs",
        "hybridjobs-worker": "work",
    }


def test_the_admission_policy_guards_the_jobs_namespace_and_is_named_per_release(
    release: list[Object],
) -> None:
    (policy,) = of_kind(release, "ValidatingAdmissionPolicy")
    (binding,) = of_kind(release, "ValidatingAdmissionPolicyBinding")
    assert policy["metadata"]["name"] == binding["spec"]["policyName"] == "hybridjobs.hybridjobs"
    assert binding["spec"]["validationActions"] == ["Deny"]
    constraints = policy["spec"]["matchConstraints"]
    assert constraints["namespaceSelector"] == {
        "matchLabels": {"kubernetes.io/metadata.name": "work"}
    }
    (condition,) = policy["spec"]["matchConditions"]
    assert "'system:serviceaccount:hybridjobs:hybridjobs-ingress'" in condition["expression"]
