"""Every pod of a release: safe by construction, and told what its program reads."""

import json
import re
from typing import Any

import pytest

from hybridjobs.settings import DatabaseSettings, IngressSettings, LogSettings, OperatorSettings
from tests.unit.chart.helm import (
    HelmError,
    Object,
    containers,
    environment,
    named,
    of_kind,
    pod_templates,
    render,
)

EXTERNAL = {"database": {"embedded": False, "existingSecret": "my-database"}}
INGRESS, OPERATOR = "Deployment/hybridjobs-ingress", "Deployment/hybridjobs-operator"
POSTGRES = "StatefulSet/hybridjobs-postgres"


@pytest.fixture(scope="module")
def release() -> list[Object]:
    return render()


@pytest.fixture(scope="module")
def pods(release: list[Object]) -> dict[str, Object]:
    return pod_templates(release)


def test_the_workloads_are_ingress_operator_and_postgres(pods: dict[str, Object]) -> None:
    assert set(pods) == {INGRESS, OPERATOR, POSTGRES}


def test_every_pod_runs_without_privileges(pods: dict[str, Object]) -> None:
    for name, template in pods.items():
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == security["runAsGroup"] == 65532, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (name, container["name"])


def test_every_container_has_requests_a_memory_limit_and_a_writable_tmp(
    pods: dict[str, Object],
) -> None:
    for template in pods.values():
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        for container in containers(template):
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"])
            # A limit on CPU would throttle bursts and save nothing.
            assert set(resources["limits"]) == {"memory"}
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert "emptyDir" in volumes[mounts["/tmp"]]


def test_ingress_and_operator_are_probed_on_the_health_port(pods: dict[str, Object]) -> None:
    for name in (INGRESS, OPERATOR):
        (container,) = pods[name]["spec"]["containers"]
        paths = {
            probe: container[probe]["httpGet"]["path"]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        assert paths == {
            "startupProbe": "/healthz",
            "livenessProbe": "/healthz",
            "readinessProbe": "/readyz",
        }
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["health"] == 9090


def test_only_the_containers_that_call_the_cluster_get_its_credentials(
    pods: dict[str, Object],
) -> None:
    with_credentials = {
        (name, container["name"])
        for name, template in pods.items()
        for container in containers(template)
        for mount in container["volumeMounts"]
        if mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    }
    assert with_credentials == {(INGRESS, "ingress"), (OPERATOR, "operator")}
    assert all(
        template["spec"]["automountServiceAccountToken"] is False for template in pods.values()
    )


def test_the_migration_runs_first_and_alone_knows_the_owner_of_the_database(
    pods: dict[str, Object],
) -> None:
    for name in (INGRESS, OPERATOR):
        (first,) = pods[name]["spec"]["initContainers"]
        assert first["args"] == ["migrate", "--wait", "120"]
        assert environment(pods[name], "migrate")["HYBRIDJOBS_MIGRATE_URL"] == {
            "secretKeyRef": {"name": "hybridjobs-database", "key": "migrateUrl", "optional": True}
        }
        assert "HYBRIDJOBS_MIGRATE_URL" not in environment(pods[name], name.split("-")[-1])


@pytest.mark.parametrize(
    ("workload", "container", "settings"),
    [
        (INGRESS, "ingress", IngressSettings),
        (OPERATOR, "operator", OperatorSettings),
        (INGRESS, "migrate", DatabaseSettings),
    ],
)
def test_the_program_reads_every_variable_that_it_is_given(
    pods: dict[str, Object],
    workload: str,
    container: str,
    settings: type[DatabaseSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = environment(pods[workload], container)
    for name, value in given.items():
        monkeypatch.setenv(name, value if isinstance(value, str) else "from-a-secret")
    settings.load()
    known = {*settings.model_fields, *LogSettings.model_fields}
    unknown = {
        name
        for name in given
        if name != "MALLOC_ARENA_MAX"  # which glibc reads
        and not name.startswith("HYBRIDJOBS_CHILD_ENV_")
        and name.removeprefix("HYBRIDJOBS_").lower() not in known
    }
    assert unknown == set()


def test_the_ingress_knows_its_secrets_and_the_children_their_own(
    pods: dict[str, Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(pods[INGRESS], "ingress").items():
        monkeypatch.setenv(name, value if isinstance(value, str) else value["secretKeyRef"]["name"])
    settings = IngressSettings.load()
    assert settings.api_token is not None
    assert settings.api_token.get_secret_value() == "hybridjobs-api"
    assert settings.github_webhook_secret is not None
    assert settings.github_webhook_secret.get_secret_value() == "hybridjobs-github-webhook"
    assert settings.child_environment == {
        "DATABASE_URL": "hybridjobs-database",
        "GITHUB_API_URL": "https://api.github.com",
        "GITHUB_TOKEN": "hybridjobs-github",
        "GITHUB_APP_ID": "hybridjobs-github",
        "GITHUB_APP_PRIVATE_KEY": "hybridjobs-github",
    }


def test_the_operator_tells_pods_the_release_s_image_account_and_worker_service(
    release: list[Object], pods: dict[str, Object]
) -> None:
    given = environment(pods[OPERATOR], "operator")
    assert given["HYBRIDJOBS_WORKER_IMAGE"] == pods[OPERATOR]["spec"]["containers"][0]["image"]
    assert given["HYBRIDJOBS_WORKER_API_URL"] == "http://hybridjobs-worker.hybridjobs.svc:8082"
    worker = named(release, "Service", "hybridjobs-worker")
    assert [port["port"] for port in worker["spec"]["ports"]] == [8082]
    account = named(release, "ServiceAccount", given["HYBRIDJOBS_WORKER_SERVICE_ACCOUNT"])
    assert account["automountServiceAccountToken"] is False
    assert given["HYBRIDJOBS_NAMESPACE"] == "hybridjobs"


def test_each_service_leads_to_a_port_that_its_pods_have(
    release: list[Object], pods: dict[str, Object]
) -> None:
    found: dict[str, int] = {}
    for service in of_kind(release, "Service"):
        (port,) = service["spec"]["ports"]
        (template,) = [
            each
            for each in pods.values()
            if service["spec"]["selector"].items() <= each["metadata"]["labels"].items()
        ]
        targets = {
            each["name"]: each["containerPort"]
            for each in template["spec"]["containers"][0]["ports"]
        }
        assert targets[port["targetPort"]] == port["port"]
        found[service["metadata"]["name"]] = port["port"]
    assert found == {
        "hybridjobs-webhooks": 8080,
        "hybridjobs-api": 8081,
        "hybridjobs-worker": 8082,
        "hybridjobs-postgres": 5432,
    }


def test_an_operator_and_an_ingress_always(release: list[Object]) -> None:
    operator = named(release, "Deployment", "hybridjobs-operator")["spec"]
    ingress = named(release, "Deployment", "hybridjobs-ingress")["spec"]
    assert operator["replicas"] == 2
    for deployment in (operator, ingress):
        assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = ingress["template"]["spec"]
    drain = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > drain + 8


def test_the_embedded_server_keeps_its_data_within_the_volume(release: list[Object]) -> None:
    spec = named(release, "StatefulSet", "hybridjobs-postgres")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    (container,) = spec["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    data = container["args"][container["args"].index("--data") + 1]
    # A folder below the mount: Postgres wants to own it, and the mount belongs to root.
    assert data.startswith(mounts[claim["metadata"]["name"]] + "/")


def test_the_embedded_server_is_told_to_end_the_sessions_of_its_clients(
    pods: dict[str, Object],
) -> None:
    (container,) = pods[POSTGRES]["spec"]["containers"]
    # A server that gets SIGTERM first waits for its clients, all of the grace period.
    assert "SIGINT" in container["lifecycle"]["preStop"]["exec"]["command"][-1]


def test_a_database_of_one_s_own_replaces_the_embedded_one() -> None:
    release = render(EXTERNAL)
    assert of_kind(release, "StatefulSet") == []
    assert "hybridjobs-database" not in json.dumps(release)
    assert environment(pod_templates(release)[OPERATOR], "operator")[
        "HYBRIDJOBS_HANDLERS_DATABASE_SECRET"
    ] == ("my-database")


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ({"embedded": False}, "choose a database"),
        ({"existingSecret": "x"}, "set database.embedded=false"),
    ],
)
def test_an_unclear_choice_of_database_is_refused(database: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmError, match=message):
        render({"database": database})


def test_what_a_user_adds_reaches_the_pods() -> None:
    component = {
        "podLabels": {"team": "x", "app.kubernetes.io/part-of": "shop"},
        "podAnnotations": {"note": "y"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "high",
        "affinity": {"nodeAffinity": {}},
    }
    release = render(dict.fromkeys(("ingress", "operator", "database"), component))
    for name, template in pod_templates(release).items():
        labels = template["metadata"]["labels"]
        assert labels["team"] == "x"
        assert labels["app.kubernetes.io/component"] == name.rsplit("-", 1)[1]
        assert template["metadata"]["annotations"]["note"] == "y"
        assert template["spec"]["nodeSelector"] == {"disk": "ssd"}
        assert template["spec"]["tolerations"] == [{"operator": "Exists"}]
        assert template["spec"]["priorityClassName"] == "high"
        assert template["spec"]["affinity"] == {"nodeAffinity": {}}


@pytest.mark.parametrize(
    "values",
    [
        {"commonLabels": {"helm.sh/chart": "other"}},
        {"ingress": {"podLabels": {"app.kubernetes.io/component": "stolen"}}},
        {"operator": {"podLabels": {"team": "two words"}}},
        {"monitoring": {"labels": {"app.kubernetes.io/instance": "stolen"}}},
    ],
)
def test_labels_that_are_ours_or_that_no_object_may_have_are_refused(
    values: dict[str, Any],
) -> None:
    with pytest.raises(HelmError, match=r"/\w*[lL]abels"):
        render(values)


def test_common_labels_are_those_of_every_object() -> None:
    values = {
        "commonLabels": {"team": "x"},
        "monitoring": {"enabled": True, "dashboard": {"enabled": True}},
        "networkPolicy": {"enabled": True},
        "jobs": {"namespace": "work", "limits": {"cpu": "2"}},
        "webhooks": {
            "ingress": {"enabled": True, "host": "hooks.example.org"},
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        },
    }
    for each in render(values):
        assert each["metadata"]["labels"]["team"] == "x", (each["kind"], each["metadata"]["name"])


def test_a_user_s_volumes_are_there_for_the_migration_too() -> None:
    volume = {"name": "authorities", "configMap": {"name": "authorities"}}
    mount = {"name": "authorities", "mountPath": "/etc/authorities", "readOnly": True}
    component = {"extraVolumes": [volume], "extraVolumeMounts": [mount]}
    pods = pod_templates(render({"ingress": component, "operator": component}))
    for name in (INGRESS, OPERATOR):
        assert volume in pods[name]["spec"]["volumes"]
        for container in containers(pods[name]):
            assert mount in container["volumeMounts"], (name, container["name"])


@pytest.mark.parametrize(
    ("component", "values"),
    [
        ("ingress", {"extraEnv": [{"name": "HYBRIDJOBS_WINDOW", "value": "7"}]}),
        ("ingress", {"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
        ("ingress", {"childEnv": [{"name": "GITHUB_TOKEN", "value": "t"}]}),
        ("operator", {"extraEnv": [{"name": "HYBRIDJOBS_LOG_LEVEL", "value": "debug"}]}),
    ],
)
def test_a_variable_that_is_set_already_is_refused(component: str, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match=rf"is set twice: {component}\.extraEnv"):
        render({component: values})


def test_an_image_may_be_named_by_its_digest_and_pulled_with_a_secret() -> None:
    digest = "sha256:" + "a" * 64
    release = render(
        {"image": {"repository": "r/h", "digest": digest, "pullSecrets": [{"name": "pull"}]}}
    )
    for template in pod_templates(release).values():
        assert {each["image"] for each in containers(template)} == {f"r/h@{digest}"}
        assert template["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    # The jobs' pods get the secret from their service account.
    worker = named(release, "ServiceAccount", "hybridjobs-worker")
    assert worker["imagePullSecrets"] == [{"name": "pull"}]


@pytest.mark.parametrize(
    ("release", "prefix"),
    [
        ("hybridjobs", "hybridjobs"),
        ("my-hybridjobs", "my-hybridjobs"),
        ("ci", "ci-hybridjobs"),
        ("r" * 53, "r" * 43),
        ("r" * 42 + "-" + "r" * 10, "r" * 42),
    ],
)
def test_objects_are_named_after_the_release(release: str, prefix: str) -> None:
    workloads = pod_templates(render(release=release))
    assert {name.split("/")[1] for name in workloads} == {
        f"{prefix}-ingress",
        f"{prefix}-operator",
        f"{prefix}-postgres",
    }


def test_github_is_asked_again_for_what_the_values_name() -> None:
    without = environment(pod_templates(render())[INGRESS], "ingress")
    assert "HYBRIDJOBS_GITHUB_APP_ID" not in without
    assert "HYBRIDJOBS_GITHUB_HOOKS" not in without
    redelivery = {
        "appId": "123456",
        "hooks": ["octo-org/shop/11", "octo-org/22"],
        "existingSecret": "my-github",
    }
    values = {"github": {"apiUrl": "https://ghe.example/api/v3", "redelivery": redelivery}}
    told = environment(pod_templates(render(values))[INGRESS], "ingress")
    assert told["HYBRIDJOBS_GITHUB_API_URL"] == "https://ghe.example/api/v3"
    assert told["HYBRIDJOBS_GITHUB_APP_ID"] == "123456"
    assert told["HYBRIDJOBS_GITHUB_HOOKS"] == "octo-org/shop/11,octo-org/22"
    for name, key in (("APP_PRIVATE_KEY", "privateKey"), ("HOOKS_TOKEN", "token")):
        source = told[f"HYBRIDJOBS_GITHUB_{name}"]
        assert source == {"secretKeyRef": {"name": "my-github", "key": key}}


def test_asking_github_again_needs_a_secret() -> None:
    with pytest.raises(HelmError, match=r"github\.redelivery\.existingSecret is needed"):
        render({"github": {"redelivery": {"hooks": ["octo-org/22"]}}})


def test_of_each_component_one_pod_at_a_time_may_be_drained(release: list[Object]) -> None:
    for component in ("ingress", "operator"):
        budget = named(release, "PodDisruptionBudget", f"hybridjobs-{component}")["spec"]
        deployment = named(release, "Deployment", f"hybridjobs-{component}")["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert budget["selector"] == deployment["selector"]


def test_pods_spread_over_machines_unless_told_otherwise(release: list[Object]) -> None:
    for component in ("ingress", "operator"):
        deployment = named(release, "Deployment", f"hybridjobs-{component}")["spec"]
        (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
        assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
        assert spread["labelSelector"] == deployment["selector"]
    own = [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
    ]
    told = render({"operator": {"topologySpreadConstraints": own}})
    operator = named(told, "Deployment", "hybridjobs-operator")["spec"]["template"]["spec"]
    assert operator["topologySpreadConstraints"] == own


def test_an_autoscaler_decides_how_many_ingresses_there_are() -> None:
    told = render({"ingress": {"autoscaling": {"enabled": True, "maxReplicas": 5}}})
    assert "replicas" not in named(told, "Deployment", "hybridjobs-ingress")["spec"]
    autoscaler = named(told, "HorizontalPodAutoscaler", "hybridjobs-ingress")["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == "hybridjobs-ingress"
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (2, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"autoscaling": {"enabled": True, "minReplicas": 11}}, "minReplicas is over"),
        (
            {"autoscaling": {"enabled": True}, "resources": {"requests": None}},
            "cpu, which is missing",
        ),
    ],
)
def test_an_autoscaler_that_could_not_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmError, match=message):
        render({"ingress": values})


@pytest.mark.parametrize("release", ["7-eleven", "shop.web"])
def test_a_release_whose_name_no_service_can_have_is_refused_and_may_be_named_otherwise(
    release: str,
) -> None:
    with pytest.raises(HelmError, match="set fullnameOverride"):
        render(release=release)
    assert pod_templates(render({"fullnameOverride": "shop"}, release=release)).keys() == {
        "Deployment/shop-ingress",
        "Deployment/shop-operator",
        "StatefulSet/shop-postgres",
    }


def test_names_that_read_as_numbers_stay_text() -> None:
    values = {
        "fullnameOverride": "shop",
        "networkPolicy": {"enabled": True},
        "jobs": {"namespace": "007", "limits": {"cpu": "2"}},
    }
    release = render(values, release="1234", namespace="5678")
    for each in release:
        metadata = each["metadata"]
        assert metadata.get("namespace", "5678") in ("5678", "007"), each
        assert metadata["labels"]["app.kubernetes.io/instance"] == "1234", each
    given = environment(pod_templates(release)["Deployment/shop-operator"], "operator")
    assert given["HYBRIDJOBS_NAMESPACE"] == "007"


def test_names_fit_where_kubernetes_puts_them() -> None:
    long = render(
        {
            "networkPolicy": {"enabled": True},
            "jobs": {"namespace": "j" * 63, "limits": {"cpu": "2"}},
            "webhooks": {
                "standard": {"secrets": {"acme": "whsec_YQ=="}},
                "cloudevents": {"enabled": True},
                "ingress": {"enabled": True, "host": "hooks.example.org"},
                "inngest": {"enabled": True, "signingKey": "signkey-test-01"},
            },
        },
        release="r" * 53,
        namespace="n" * 63,
    )
    dns_label = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
    subdomain = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
    for each in long:
        name = each["metadata"]["name"]
        assert subdomain.fullmatch(name), name
        if each["kind"] == "Service":
            assert dns_label.fullmatch(name), name
        if each["kind"] == "StatefulSet":
            # A label of its pods: controller-revision-hash, with a hash of ten digits.
            assert len(name) <= 52
        for value in each["metadata"].get("labels", {}).values():
            assert len(value) <= 63, value
    names = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in long
    ]
    assert len(set(names)) == len(names)
