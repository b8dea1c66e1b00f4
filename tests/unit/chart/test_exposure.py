"""What may be reached from outside: port 8080, by TLS, when asked for."""

import pytest

from tests.unit.chart.helm import HelmError, named, of_kind, render


def test_nothing_is_exposed_by_default() -> None:
    release = render()
    assert of_kind(release, "Ingress") == of_kind(release, "HTTPRoute") == []
    assert {each["spec"].get("type", "ClusterIP") for each in of_kind(release, "Service")} == {
        "ClusterIP"
    }


def test_an_ingress_offers_the_webhooks_by_tls() -> None:
    values = {"enabled": True, "host": "hooks.example.org", "className": "nginx"}
    ingress = named(render({"webhooks": {"ingress": values}}), "Ingress", "hybridjobs-webhooks")
    spec = ingress["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [
        {"hosts": ["hooks.example.org"], "secretName": "hybridjobs-webhooks-tls"}
    ]
    (rule,) = spec["rules"]
    assert {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {
        "/webhooks": "hybridjobs-webhooks",
        "/api/inngest": "hybridjobs-webhooks",
    }


def test_a_route_attaches_to_the_gateway_s_https_listener() -> None:
    parent = {"name": "public", "namespace": "gateways", "sectionName": "https"}
    values = {"enabled": True, "parentRefs": [parent], "hostnames": ["hooks.example.org"]}
    route = named(render({"webhooks": {"httpRoute": values}}), "HTTPRoute", "hybridjobs-webhooks")
    assert route["spec"]["parentRefs"] == [parent]
    assert route["spec"]["hostnames"] == ["hooks.example.org"]
    (rule,) = route["spec"]["rules"]
    assert {match["path"]["value"] for match in rule["matches"]} == {"/webhooks", "/api/inngest"}
    assert rule["backendRefs"] == [{"name": "hybridjobs-webhooks", "port": 8080}]


@pytest.mark.parametrize(
    ("kind", "message"), [("ingress", "ingress.host"), ("httpRoute", "httpRoute.parentRefs")]
)
def test_one_without_its_address_is_refused(kind: str, message: str) -> None:
    with pytest.raises(HelmError, match=message):
        render({"webhooks": {kind: {"enabled": True}}})


def test_the_api_s_service_may_have_another_type() -> None:
    release = render({"api": {"service": {"type": "LoadBalancer", "annotations": {"a": "b"}}}})
    service = named(release, "Service", "hybridjobs-api")
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["metadata"]["annotations"] == {"a": "b"}
