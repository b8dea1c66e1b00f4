"""One release for all end-to-end tests, on the cluster that `make cluster` made."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.e2e.release import IMAGE, Access, Release, installed

NAMESPACE = "hybridjobs-e2e"
PYTHON = "/app/bin/python"

# Does as its payload says, by the worker contract alone: any language could.
SCRIPT = """
import json, os, sys, time
told = json.loads(os.environ["HYBRIDJOB_PAYLOAD"])
print("begun attempt", os.environ["HYBRIDJOB_ATTEMPT"], flush=True)
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
LATE = """
import os, signal, time, urllib.error, urllib.request
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun", flush=True)
time.sleep(8)
url = "{HYBRIDJOB_API}/worker/v1/attempts/{HYBRIDJOB_ID}/{HYBRIDJOB_ATTEMPT}/outcome"
request = urllib.request.Request(
    url.format(**os.environ), data=b'{"result": "late"}', method="PUT",
    headers={"Authorization": "Bearer " + open(os.environ["HYBRIDJOB_TOKEN_FILE"]).read(),
             "Content-Type": "application/json"})
try:
    print("answered", urllib.request.urlopen(request).status, flush=True)
except urllib.error.HTTPError as error:
    print("answered", error.code, flush=True)
"""


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


VALUES = {
    "log": {"level": "debug"},
    "types": {
        "extra": {
            "test/script": _type(SCRIPT),
            "test/echo": _type(ECHO),
            "test/late": _type(LATE, gracePeriodSeconds=30),
            "test/missing-image": _type(
                SCRIPT, image="localhost:1/hybridjobs:none", startDeadlineSeconds=8
            ),
        }
    },
}


@pytest.fixture(scope="session")
def release() -> Iterator[Release]:
    """The installed chart; removed afterwards."""
    release = installed(NAMESPACE, values=VALUES, say=print)
    yield release
    release.uninstall()


@pytest.fixture
async def access(release: Release) -> AsyncIterator[Access]:
    """The way in to it."""
    release.ready("ingress")
    release.ready("operator")
    async with release.access() as access:
        yield access


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
