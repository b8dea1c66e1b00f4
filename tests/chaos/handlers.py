"""What the jobs do: one script, told by the payload; and the release's values that have it run.

It knows the worker contract alone, and tells the ledger of its life before anything else can.
"""

from typing import Any

from tests.e2e.release import IMAGE

JOB = "chaos/job"
HOOK = "chaos/hook"
LEDGER_TYPES = frozenset({JOB, HOOK})
SCHEDULE = "chaos"
GITHUB_EVENT = "github/issues.opened"

KEEP_SECONDS = 20
SWEEP_SECONDS = 5

_SCRIPT = """
import json, os, sys, time, urllib.error, urllib.request, uuid
told = json.loads(os.environ["HYBRIDJOB_PAYLOAD"])
job, attempt = os.environ["HYBRIDJOB_ID"], int(os.environ["HYBRIDJOB_ATTEMPT"])
run = uuid.uuid4().hex
def send(url, method, body, headers, settled):
    body = json.dumps(body).encode()
    for _ in range(400):
        headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            if error.code in settled:
                return
        except OSError:
            pass
        time.sleep(0.3)
    sys.exit("nobody answers " + url)
def tell(event, **more):
    line = {"job": job, "attempt": attempt, "pod": os.environ["HOSTNAME"], "run": run}
    send(os.environ["LEDGER"], "POST", {**line, "event": event, **more}, {}, ())
tell("began")
time.sleep(told.get("sleep", 0))
plan = told.get("plan", [])
step = plan[attempt - 1] if attempt <= len(plan) else "succeed"
if step == "oom":
    held = []
    while True:
        held.append(bytearray(4 << 20))
code, message = {
    "succeed": (0, {"number": told.get("number"), "attempt": attempt}),
    "fail": (3, {"error": "as asked"}),
    "permanent": (65, {"error": "never", "permanent": True}),
    "later": (4, {"error": "not now", "retryAfter": 3}),
}[step]
tell("ended", exit=code)
if told.get("report"):
    token = open(os.environ["HYBRIDJOB_TOKEN_FILE"]).read().strip()
    url = "{HYBRIDJOB_API}/worker/v1/attempts/{HYBRIDJOB_ID}/{HYBRIDJOB_ATTEMPT}/outcome"
    headers = {"Authorization": "Bearer " + token}
    send(url.format(**os.environ), "PUT", {"result": message}, headers, (409,))
with open("/dev/termination-log", "w") as out:
    json.dump(message, out)
sys.exit(code)
"""


def _type(ledger: str, **spec: Any) -> dict[str, Any]:
    return {
        "image": IMAGE,
        "command": ["/app/bin/python", "-S", "-c", _SCRIPT],
        "env": [{"name": "LEDGER", "value": ledger}],
        "deadlineSeconds": 300,
        "startDeadlineSeconds": 300,
        "gracePeriodSeconds": 2,
        "retry": {"limit": 2, "baseSeconds": 1, "maxSeconds": 3},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        **spec,
    }


def values(ledger: str) -> dict[str, Any]:
    """The chart's values; `ledger` is its URL. What is over goes soon, so that it can be seen."""
    return {
        "log": {"level": "info"},
        # No more at once than one node begins in time, however far behind it is.
        "jobs": {"window": 12},
        "ingress": {"replicas": 2},
        "operator": {
            "extraEnv": [
                {"name": "HYBRIDJOBS_KEEP_SUCCEEDED_SECONDS", "value": str(KEEP_SECONDS)},
                {"name": "HYBRIDJOBS_KEEP_FAILED_SECONDS", "value": str(KEEP_SECONDS)},
                {"name": "HYBRIDJOBS_SWEEP_SECONDS", "value": str(SWEEP_SECONDS)},
            ]
        },
        "types": {
            "extra": {
                JOB: _type(ledger),
                HOOK: _type(ledger, events=[GITHUB_EVENT], mapping={"issue": "issue.number"}),
            }
        },
    }


def hybridjob(name: str, payload: dict[str, Any]) -> dict[str, Any]:
    """A HybridJob as people make them."""
    return {
        "apiVersion": "hybridjobs.dev/v1alpha1",
        "kind": "HybridJob",
        "metadata": {"name": name},
        "spec": {"type": JOB, "payload": payload, "ttlSecondsAfterFinished": KEEP_SECONDS},
    }


def schedule() -> dict[str, Any]:
    """A job every minute."""
    return {
        "apiVersion": "hybridjobs.dev/v1alpha1",
        "kind": "HybridJobSchedule",
        "metadata": {"name": SCHEDULE},
        "spec": {"schedule": "* * * * *", "type": JOB, "payload": {"sleep": 1}},
    }
