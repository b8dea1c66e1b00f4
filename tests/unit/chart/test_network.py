"""Who may reach what, where the network enforces it."""

from typing import Any

from tests.unit.chart.helm import Object, named, of_kind, render

ENABLED = {"networkPolicy": {"enabled": True}, "jobs": {"namespace": "work"}}


def _policy(release: list[Object], component: str) -> Any:
    return named(release, "NetworkPolicy", f"hybridjobs-{component}")["spec"]


def _ports(rules: list[Any]) -> set[object]:
    return {port["port"] for rule in rules for port in rule.get("ports", [])}


def test_there_are_none_unless_asked_for() -> None:
    assert of_kind(render(), "NetworkPolicy") == []


def test_each_component_s_pods_have_one() -> None:
    release = render(ENABLED)
    for kind, component in (
        ("Deployment", "ingress"),
        ("Deployment", "operator"),
        ("StatefulSet", "postgres"),
    ):
        workload = named(release, kind, f"hybridjobs-{component}")["spec"]
        policy = _policy(release, component)
        assert policy["podSelector"] == workload["selector"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
    worker = named(release, "NetworkPolicy", "hybridjobs-worker")
    assert worker["metadata"]["namespace"] == "work"
    assert worker["spec"]["podSelector"] == {
        "matchLabels": {"app.kubernetes.io/managed-by": "hybridjobs"}
    }


def test_the_workers_api_is_for_workers_alone() -> None:
    rules = _policy(render(ENABLED), "ingress")["ingress"]
    (rule,) = [rule for rule in rules if {"port": "worker"} in rule["ports"]]
    assert rule["ports"] == [{"port": "worker"}]
    (peer,) = rule["from"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "work"}}
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/managed-by": "hybridjobs"}


def test_nobody_calls_jobs_and_they_do_not_reach_the_node() -> None:
    policy = _policy(render(ENABLED), "worker")
    assert policy["ingress"] == []
    blocks = [
        peer["ipBlock"]
        for rule in policy["egress"]
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]
    assert {block["cidr"]: block["except"] for block in blocks} == {
        "0.0.0.0/0": ["169.254.0.0/16"],
        "::/0": ["fe80::/10"],
    }
    assert _ports(policy["egress"]) == {53, "worker", 5432}


def test_what_jobs_reach_can_be_told() -> None:
    own = [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]
    told = {**ENABLED, "networkPolicy": {"enabled": True, "workerEgress": own}}
    egress = _policy(render(told), "worker")["egress"]
    assert egress[0] == own[0]
    assert len(egress) == 3


def test_the_embedded_database_is_for_the_release_s_pods() -> None:
    policy = _policy(render(ENABLED), "postgres")
    (rule,) = policy["ingress"]
    assert [
        peer["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for peer in rule["from"]
    ] == [
        "ingress",
        "operator",
        None,
    ]
    assert policy["egress"] == []


def test_a_database_of_ones_own_has_its_port() -> None:
    values = {
        **ENABLED,
        "database": {"embedded": False, "existingSecret": "own"},
        "networkPolicy": {"enabled": True, "databasePort": 6432},
    }
    release = render(values)
    assert _ports(_policy(release, "operator")["egress"]) == {53, 443, 6443, 6432}
    embedded = render({**values, "database": {}})
    assert _ports(_policy(embedded, "operator")["egress"]) == {53, 443, 6443, 5432}
    assert "hybridjobs-postgres" not in {
        each["metadata"]["name"] for each in of_kind(release, "NetworkPolicy")
    }


def test_an_api_server_at_another_port_is_reached() -> None:
    values = {"networkPolicy": {"enabled": True, "apiServerPorts": [16443]}}
    assert _ports(_policy(render(values), "operator")["egress"]) == {53, 16443, 5432}


def test_a_name_server_of_the_node_is_reached_by_all() -> None:
    for component in ("ingress", "operator", "worker"):
        names = [
            rule
            for rule in _policy(render(ENABLED), component)["egress"]
            if 53 in [port["port"] for port in rule.get("ports", [])]
        ]
        assert [rule.get("to") for rule in names] == [None], component
