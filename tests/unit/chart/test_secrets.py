"""Passwords and tokens: made once, or brought by the user; each where it is read."""

from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from hybridjobs.callbacks.secrets import Secrets
from hybridjobs.settings import IngressSettings
from tests.unit.chart.helm import (
    HelmError,
    Object,
    containers,
    named,
    of_kind,
    pod_templates,
    render,
)


def _secrets(objects: list[Object]) -> dict[tuple[str, str], dict[str, str]]:
    return {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["stringData"]
        for each in of_kind(objects, "Secret")
    }


def _references(objects: list[Object]) -> set[tuple[str, str]]:
    """The (Secret, key) pairs without which a container does not start."""
    return {
        (reference["name"], reference["key"])
        for template in pod_templates(objects).values()
        for container in containers(template)
        for variable in container["env"]
        if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))
        and not reference.get("optional")
    }


def test_the_database_s_urls_name_three_users_of_the_embedded_server() -> None:
    release = render()
    data = _secrets(release)["hybridjobs", "hybridjobs-database"]
    users = {
        key: (parts["user"], parts["password"], parts["host"], parts["port"])
        for key in ("url", "migrateUrl", "handlersUrl")
        if (parts := conninfo_to_dict(data[key]))
    }
    host = ("hybridjobs-postgres.hybridjobs.svc", "5432")
    assert users == {
        "url": ("hybridjobs", data["servicePassword"], *host),
        "migrateUrl": ("postgres", data["password"], *host),
        "handlersUrl": ("hybridjobs_jobs", data["handlersPassword"], *host),
    }
    assert named(release, "Service", "hybridjobs-postgres")
    passwords = {data["password"], data["servicePassword"], data["handlersPassword"]}
    assert len(passwords) == 3
    assert all(len(password) >= 32 for password in passwords)


def test_generated_secrets_differ_between_installations() -> None:
    first, second = _secrets(render()), _secrets(render())
    assert set(first) == set(second)
    for name, data in first.items():
        for key, value in data.items():
            assert value != second[name][key]


def test_what_the_volume_and_others_know_outlives_the_release() -> None:
    release = render({"webhooks": {"cloudevents": {"enabled": True}}})
    for name in ("database", "api", "github-webhook", "cloudevents", "callbacks"):
        secret = named(release, "Secret", f"hybridjobs-{name}")
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", name


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"jobs": {"namespace": "work"}},
        {"github": {"token": "t"}},
        {"github": {"app": {"id": "1", "privateKey": "k"}}},
        {"webhooks": {"github": {"secret": "s"}}},
        {"webhooks": {"github": {"enabled": False}}},
        {"webhooks": {"inngest": {"enabled": True, "signingKey": "signkey-test-01"}}},
        {"webhooks": {"inngest": {"enabled": True, "dev": True}}},
        {"webhooks": {"standard": {"secrets": {"acme": "whsec_YQ=="}}}},
        {"webhooks": {"cloudevents": {"enabled": True}}},
    ],
)
def test_every_secret_that_a_pod_needs_is_in_the_release(values: dict[str, Any]) -> None:
    release = render(values)
    made = {
        (name, key)
        for (namespace, name), data in _secrets(release).items()
        if namespace == "hybridjobs"
        for key in data
    }
    assert _references(release) <= made


def test_existing_secrets_are_used_and_none_is_made() -> None:
    release = render(
        {
            "database": {"embeddedSecret": "mine-db"},
            "api": {"existingSecret": "mine-api"},
            "webhooks": {
                "github": {"existingSecret": "mine-hook"},
                "standard": {"existingSecret": "mine-standard"},
                "cloudevents": {"enabled": True, "existingSecret": "mine-events"},
                "inngest": {"enabled": True, "existingSecret": "mine-inngest"},
            },
            "callbacks": {"existingSecret": "mine-callbacks"},
            "github": {"existingSecret": "mine-github"},
        }
    )
    assert of_kind(release, "Secret") == []
    assert _references(release) == {
        ("mine-db", "url"),
        ("mine-db", "handlersUrl"),
        ("mine-db", "password"),
        ("mine-api", "token"),
        ("mine-hook", "secret"),
        ("mine-inngest", "signingKey"),
        ("mine-standard", "secrets"),
        ("mine-events", "token"),
    }


def _callbacks_folder(objects: list[Object]) -> tuple[str, str]:
    """Where the ingress reads what signs callbacks, and the Secret that is mounted there."""
    pod = pod_templates(objects)["Deployment/hybridjobs-ingress"]["spec"]
    [container] = pod["containers"]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "callbacks"]
    [volume] = [each for each in pod["volumes"] if each["name"] == "callbacks"]
    [folder] = [
        each["value"]
        for each in container["env"]
        if each["name"] == "HYBRIDJOBS_CALLBACK_SECRETS_DIR"
    ]
    assert mount["mountPath"] == folder
    return folder, volume["secret"]["secretName"]


def test_the_ingress_signs_callbacks_by_a_secret_made_for_the_release(tmp_path: Path) -> None:
    release = render()
    _, name = _callbacks_folder(release)
    data = _secrets(release)["hybridjobs", name]
    for key, value in data.items():
        (tmp_path / key).write_text(value)
    [signing] = Secrets(str(tmp_path)).keys("default")
    assert len(signing) == 32
    assert _callbacks_folder(render({"callbacks": {"existingSecret": "mine"}}))[1] == "mine"


def test_a_given_callback_secret_and_networks_are_taken() -> None:
    networks = {"allow": ["*.a.b", "10.0.0.0/8"], "private": ["2600:1f18::/32", "8.0.0.0/8"]}
    release = render({"callbacks": {"secret": "whsec_a,whsec_b", **networks}})
    assert _secrets(release)["hybridjobs", "hybridjobs-callbacks"] == {"default": "whsec_a,whsec_b"}
    pod = pod_templates(release)["Deployment/hybridjobs-ingress"]["spec"]
    variables = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert variables["HYBRIDJOBS_CALLBACK_ALLOW"] == "*.a.b,10.0.0.0/8"
    assert variables["HYBRIDJOBS_CALLBACK_PRIVATE"] == "2600:1f18::/32,8.0.0.0/8"


def test_a_given_webhook_secret_and_token_are_taken() -> None:
    secrets = _secrets(
        render({"webhooks": {"github": {"secret": "new,old"}}, "github": {"token": "ghp"}})
    )
    assert secrets["hybridjobs", "hybridjobs-github-webhook"] == {"secret": "new,old"}
    assert secrets["hybridjobs", "hybridjobs-github"] == {"token": "ghp"}


def test_an_app_of_github_is_taken_with_or_without_a_token() -> None:
    key = '-----BEGIN RSA PRIVATE KEY-----\nMII: "x"\n-----END RSA PRIVATE KEY-----\n'
    app = {"id": "1234", "privateKey": key}
    made = {"appId": "1234", "privateKey": key}
    alone = _secrets(render({"github": {"app": app}, "jobs": {"namespace": "work"}}))
    assert alone["hybridjobs", "hybridjobs-github"] == made
    assert alone["work", "hybridjobs-github"] == made
    both = _secrets(render({"github": {"app": app, "token": "ghp"}}))
    assert both["hybridjobs", "hybridjobs-github"] == {"token": "ghp", **made}


@pytest.mark.parametrize(
    ("github", "words"),
    [
        ({"app": {"id": "1"}}, "go together"),
        ({"app": {"privateKey": "k"}}, "go together"),
        ({"existingSecret": "mine", "token": "t"}, "takes the place"),
        ({"existingSecret": "mine", "app": {"id": "1", "privateKey": "k"}}, "takes the place"),
    ],
)
def test_half_of_what_github_wants_or_two_of_it_are_refused(
    github: dict[str, Any], words: str
) -> None:
    with pytest.raises(HelmError, match=words):
        render({"github": github})


@pytest.mark.parametrize(
    ("where", "given"),
    [
        ("callbacks", {"secret": "whsec_a"}),
        ("webhooks.github", {"secret": "s"}),
        ("webhooks.standard", {"secrets": {"acme": "s"}}),
        ("webhooks.cloudevents", {"token": "t"}),
        ("webhooks.inngest", {"eventKey": "e"}),
    ],
)
def test_a_secret_beside_one_that_takes_its_place_is_refused(
    where: str, given: dict[str, Any]
) -> None:
    def values(inner: dict[str, Any]) -> dict[str, Any]:
        for part in reversed(where.split(".")):
            inner = {part: inner}
        return inner

    render(values(given))
    with pytest.raises(HelmError, match=f"of {where.rpartition('.')[2]} exclude each other"):
        render(values({**given, "existingSecret": "mine"}))


def test_the_secrets_of_sources_are_what_the_ingress_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = render(
        {
            "webhooks": {
                "standard": {"secrets": {"acme": "whsec_YQ==,old", "b-2": '"quoted"'}},
                "cloudevents": {"enabled": True, "token": "t", "allowedOrigins": ["a.b", "c.d"]},
            }
        }
    )
    [container] = containers(pod_templates(release)["Deployment/hybridjobs-ingress"])[-1:]
    data = {name: secret for (_, name), secret in _secrets(release).items()}
    for variable in container["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        value = data.get(reference["name"], {}).get(reference["key"]) if reference else None
        if (value := value or variable.get("value")) is not None:
            monkeypatch.setenv(variable["name"], value)
    read = IngressSettings.load()
    secrets = {
        name: each.get_secret_value() for name, each in read.standard_webhook_secrets.items()
    }
    assert secrets == {"acme": "whsec_YQ==,old", "b-2": '"quoted"'}
    assert read.cloudevents_token is not None
    assert read.cloudevents_token.get_secret_value() == "t"
    assert read.cloudevents_allowed_origins == "a.b,c.d"


@pytest.mark.parametrize("source", ["github", "Acme", "a b", "-a", ""])
def test_a_name_that_no_source_may_have_is_refused(source: str) -> None:
    with pytest.raises(HelmError, match="propertyName"):
        render({"webhooks": {"standard": {"secrets": {source: "s"}}}})


def _annotations(values: dict[str, Any]) -> dict[str, str]:
    pods = pod_templates(render(values))
    found: dict[str, str] = pods["Deployment/hybridjobs-ingress"]["metadata"]["annotations"]
    return found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"github": {"secret": "a"}}, {"github": {"secret": "b"}}),
        ({"standard": {"secrets": {"x": "a"}}}, {"standard": {"secrets": {"x": "b"}}}),
        ({"cloudevents": {"token": "a"}}, {"cloudevents": {"token": "b"}}),
        *(
            ({"inngest": {key: "0a"}}, {"inngest": {key: "0b"}})
            for key in ("signingKey", "signingKeyFallback", "eventKey")
        ),
    ],
)
def test_a_new_given_secret_restarts_the_ingress(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert _annotations({"webhooks": before}) != _annotations({"webhooks": after})
    assert _annotations({"webhooks": before}) == _annotations({"webhooks": before})


def test_a_new_key_of_the_app_restarts_the_ingress() -> None:
    first, second = ({"github": {"app": {"id": "1", "privateKey": key}}} for key in "ab")
    assert _annotations(first) != _annotations(second)


def test_inngest_s_keys_and_addresses_reach_the_ingress() -> None:
    values = {
        "enabled": True,
        "signingKey": "signkey-test-01",
        "eventKey": "e",
        "serveOrigin": "https://hooks.example.com",
        "apiUrl": "http://inngest:8288",
    }
    release = render({"webhooks": {"inngest": values}})
    assert _secrets(release)["hybridjobs", "hybridjobs-inngest"] == {
        "signingKey": "signkey-test-01",
        "eventKey": "e",
    }
    pod = pod_templates(release)["Deployment/hybridjobs-ingress"]
    variables = {
        each["name"].removeprefix("HYBRIDJOBS_INNGEST_"): each.get("value")
        for each in containers(pod)[-1]["env"]
        if each["name"].startswith("HYBRIDJOBS_INNGEST_")
    }
    assert variables == {
        "SIGNING_KEY": None,
        "SIGNING_KEY_FALLBACK": None,
        "EVENT_KEY": None,
        "APP_ID": "hybridjobs",
        "SERVE_ORIGIN": "https://hooks.example.com",
        "API_URL": "http://inngest:8288",
    }


def test_inngest_without_a_key_is_refused() -> None:
    with pytest.raises(HelmError, match=r"webhooks\.inngest\.signingKey"):
        render({"webhooks": {"inngest": {"enabled": True}}})


def test_another_jobs_namespace_gets_what_its_pods_read_and_no_more() -> None:
    secrets = _secrets(render({"jobs": {"namespace": "work"}, "github": {"token": "t"}}))
    there = {name: data for (namespace, name), data in secrets.items() if namespace == "work"}
    ours = secrets["hybridjobs", "hybridjobs-database"]
    assert there == {
        "hybridjobs-database": {"handlersUrl": ours["handlersUrl"]},
        "hybridjobs-github": {"token": "t"},
    }
