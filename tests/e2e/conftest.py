"""One release for all end-to-end tests, on the cluster that `make cluster` made."""

import base64
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.cluster import current
from tests.e2e import kueue
from tests.e2e.gate import GATED, WAIT, Gate
from tests.e2e.kueue import QUEUE, URGENT
from tests.e2e.release import IMAGE, Access, Release
from tests.integration.ingress.inngest.server import InngestServer, inngest_server

FOLDER = Path(__file__).parent
NAMESPACE = "hybridjobs-e2e"
STANDARD_SECRET = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
INNGEST_SIGNING_KEY = f"signkey-test-{secrets.token_hex(16)}"
INNGEST_EVENT_KEY = secrets.token_hex(16)
APP_ID = "7"
APP_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
# Whose repositories the App may read: those of the recorded deliveries, and the tests' own.
ACCOUNTS = ("Codertocat", "Octocoders", "e2e-org")
PYTHON = "/app/bin/python"

# Does as its payload says, by the worker contract alone: any language could.
SCRIPT = f"""{WAIT}
import json, os, sys
told = json.loads(os.environ["HYBRIDJOB_PAYLOAD"])
print("begun attempt", os.environ["HYBRIDJOB_ATTEMPT"], flush=True)
for number in range(told.get("lines", 0)):
    print("line", number, flush=True)
    time.sleep(0.1)
if "gate" in told:
    wait(told["gate"])
    print("let through", flush=True)
attempt = int(os.environ["HYBRIDJOB_ATTEMPT"])
time.sleep(told.get("sleep", 0) if attempt <= told.get("sleepUntilAttempt", 99) else 0)
with open("/dev/termination-log", "w") as out:
    out.write(told.get("message", ""))
sys.exit(told.get("exit", 0))
"""
ECHO = """
import os
with open("/dev/termination-log", "w", encoding="utf-8") as out:
    out.write(os.environ["HYBRIDJOB_PAYLOAD"])
"""
# Reports a result after the test has closed its attempt, and logs what it is answered.
LATE = f"""{WAIT}
import json, os, signal, urllib.error, urllib.request
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun", flush=True)
wait(json.loads(os.environ["HYBRIDJOB_PAYLOAD"])["gate"])
url = "{{HYBRIDJOB_API}}/worker/v1/attempts/{{HYBRIDJOB_ID}}/{{HYBRIDJOB_ATTEMPT}}/outcome"
request = urllib.request.Request(
    url.format(**os.environ), data=b'{{"result": "late"}}', method="PUT",
    headers={{"Authorization": "Bearer " + open(os.environ["HYBRIDJOB_TOKEN_FILE"]).read(),
              "Content-Type": "application/json"}})
try:
    print("answered", urllib.request.urlopen(request).status, flush=True)
except urllib.error.HTTPError as error:
    print("answered", error.code, flush=True)
"""
# Long after the kubelet's first word on why a pod does not start, which was seen to come after 9 s
# where the API server was slow to answer.
START_DEADLINE = 30


def _type(script: str, **spec: Any) -> dict[str, Any]:
    return {
        "image": IMAGE,
        "command": [PYTHON, "-c", script],
        "deadlineSeconds": 60,
        "gracePeriodSeconds": 2,
        "retry": {"limit": 2, "baseSeconds": 1, "maxSeconds": 2},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        **spec,
    }


TYPES = {
    "test/script": _type(SCRIPT),
    "test/echo": _type(ECHO, events=["shop/order.paid"]),
    "test/event": _type(
        ECHO,
        events=["github/issues.opened", "acme/order.paid", "com.example.order.paid"],
        mapping={"issue": "issue.number", "order": "data.order"},
    ),
    "test/late": _type(LATE, gracePeriodSeconds=30),
    "test/queued": _type(SCRIPT, queueName=QUEUE, startDeadlineSeconds=15),
    "test/urgent": _type(SCRIPT, queueName=QUEUE, podTemplate={"priorityClassName": URGENT}),
    "test/gated": _type(
        "",
        command=["/bin/bash", "-c", GATED],
        deadlineSeconds=600,
        concurrency={"limit": 25},
        resources={"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "64Mi"}},
    ),
    "test/missing-image": _type(
        SCRIPT, image="localhost:1/hybridjobs:none", startDeadlineSeconds=START_DEADLINE
    ),
    "test/missing-node": _type(
        SCRIPT,
        podTemplate={"nodeSelector": {"example.com/none": "here"}},
        startDeadlineSeconds=START_DEADLINE,
    ),
    "test/missing-secret": _type(
        SCRIPT,
        env=[
            {"name": "X", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "x"}}},
        ],
        startDeadlineSeconds=START_DEADLINE,
    ),
    "test/hungry": _type("held = 'x' * 256 * 1024 * 1024", deadlineSeconds=300),
}


def _values(inngest: InngestServer) -> dict[str, Any]:
    private_key = APP_KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return {
        "log": {"level": "debug"},
        # What vanished unseen is noticed at the second sweep.
        "operator": {"extraEnv": [{"name": "HYBRIDJOBS_SWEEP_SECONDS", "value": "5"}]},
        "types": {"extra": TYPES},
        "jobs": {"kueue": True},
        "github": {"app": {"id": APP_ID, "privateKey": private_key.decode()}},
        "webhooks": {
            "standard": {"secrets": {"acme": STANDARD_SECRET}},
            "cloudevents": {"enabled": True},
            "inngest": {
                "enabled": True,
                "signingKey": INNGEST_SIGNING_KEY,
                "eventKey": INNGEST_EVENT_KEY,
                "serveOrigin": f"http://hybridjobs-webhooks.{NAMESPACE}.svc:8080",
                "apiUrl": inngest.origin,
                "eventUrl": inngest.origin,
            },
        },
        # Whether the API server takes them: the native cluster's network enforces none.
        "networkPolicy": {"enabled": True},
        "callbacks": {"allow": [f"{current().host_address}/32"]},
    }


@pytest.fixture(scope="session")
async def inngest() -> AsyncIterator[InngestServer]:
    """An Inngest server on this machine, that the release's pods reach."""
    async with inngest_server(
        INNGEST_SIGNING_KEY, event_key=INNGEST_EVENT_KEY, host=current().host_address
    ) as server:
        yield server


@pytest.fixture(scope="session")
async def release(inngest: InngestServer) -> AsyncIterator[Release]:
    """The installed chart, an App of the recorded GitHub; removed afterwards."""
    release = Release(current(), NAMESPACE, values=_values(inngest), say=print)
    kueue.wake(release)
    release.install_anew()
    public_key = APP_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    installations = [{"id": id_, "account": name} for id_, name in enumerate(ACCOUNTS, 1)]
    async with release.access() as access:
        await access.tell_github(
            "app",
            {"appId": APP_ID, "publicKey": public_key.decode(), "installations": installations},
        )
    yield release
    release.uninstall()


@pytest.fixture
async def access(release: Release) -> AsyncIterator[Access]:
    """The way in to it."""
    release.ready("ingress")
    release.ready("operator")
    async with release.access() as access:
        yield access


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that is closed."""
    with Gate() as gate:
        yield gate


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's time is its own: releases are installed, and waited for, with limits of theirs."""
    for item in items:
        installs = {"release", "traced"} & {*getattr(item, "fixturenames", ())}
        if installs and item.path.parent == FOLDER:
            marker = item.get_closest_marker("timeout")
            assert marker is not None, item.nodeid
            item.add_marker(pytest.mark.timeout(*marker.args, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show what the cluster says when a test fails."""
    report = yield
    release = getattr(item, "funcargs", {}).get("release")
    if report.when == "call" and report.failed and isinstance(release, Release):  # type: ignore[attr-defined]
        for what, command in {
            "hybridjobs": ("get", "hybridjobs,jobs,pods", "-o", "wide"),
            "operator": ("logs", "deployment/hybridjobs-operator", "--tail=60"),
            "ingress": ("logs", "deployment/hybridjobs-ingress", "--tail=40"),
        }.items():
            report.sections.append((what, _tried(release, *command)))  # type: ignore[attr-defined]
    return report


def _tried(release: Release, *command: str) -> str:
    try:
        return release.kubectl(*command)
    except Exception as error:  # the evidence is extra: the failure itself must be shown
        return str(error)
