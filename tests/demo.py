"""`make demo`: install the chart, deliver a recorded GitHub webhook, watch its job to the end.

Every run delivers under an id of its own, so that it may be run again and again.
"""

import argparse
import asyncio
import sys
import textwrap
import time
import uuid
from typing import Any

from tests.cluster import ClusterError
from tests.e2e.release import Access, CommandFailedError, Release, delivery_of, installed

NAMESPACE = "hybridjobs-demo"
PULL_REQUESTS = 1500
_BEGUN = time.monotonic()


def say(text: str) -> None:
    """A line with the seconds since the start."""
    print(f"{time.monotonic() - _BEGUN:6.1f} s  {text}", flush=True)


def main() -> int:
    """Run the demo, or take it down; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--down", action="store_true", help="remove what the demo installed")
    arguments = parser.parse_args()
    try:
        if arguments.down:
            _down()
        else:
            asyncio.run(_demo(installed(NAMESPACE, values={}, say=say)))
    except (ClusterError, CommandFailedError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def _down() -> None:
    from tests.cluster import current

    try:
        cluster = current()
    except ClusterError:
        say("there is no cluster, so nothing to remove")
        return
    Release(cluster, NAMESPACE).uninstall()
    say(f"namespace {NAMESPACE} removed; `make cluster-down` removes the cluster too")


async def _demo(release: Release) -> None:
    delivery, delivery_id = delivery_of("repository", "renamed"), str(uuid.uuid4())
    repository = delivery.document["repository"]["full_name"]
    async with release.access() as access:
        await access.fill(repository, PULL_REQUESTS)
        say(f"{repository} at the recorded GitHub has {PULL_REQUESTS} pull requests")
        say(f"POST /webhooks/github: {delivery.event}, {len(delivery.payload)} bytes, signed")
        answer = await access.deliver(delivery, delivery_id=delivery_id)
        say(f"answered {answer.status_code}: {answer.text.strip()}")
        answer.raise_for_status()
        [accepted] = answer.json()["jobs"]
        again = await access.deliver(delivery, delivery_id=delivery_id)
        say(f"delivered once more, the same job: {again.json()['jobs'][0]['id']}")
        job = await access.until(accepted["id"], seen=_Progress(), seconds=120)
        _show(release, job, await _captured(access))
    if job["status"] != "completed":
        raise CommandFailedError(f"the job is {job['status']}: {job['error']}")


class _Progress:
    """Says what of a job has changed since the last look."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, job: dict[str, Any]) -> None:
        progress = job.get("progress") or {}
        total = f"/{progress['total']}" if progress.get("total") else ""
        done = f"  {progress['done']}{total} {progress.get('message') or ''}" if progress else ""
        line = f"{job['status']}, attempt {job['attempt']}{done}"
        if line != self._last:
            say(line)
            self._last = line


async def _captured(access: Access) -> list[dict[str, Any]]:
    return await access.sql(
        "SELECT r.full_name AS repository, p.number, p.state, c.username AS author, p.title "
        "FROM github.pull_requests p JOIN github.repositories r ON r.id = p.repository_id "
        "LEFT JOIN github.contributors c ON c.id = p.author_id ORDER BY p.updated_at DESC LIMIT 5"
    )


def _show(release: Release, job: dict[str, Any], captured: list[dict[str, Any]]) -> None:
    name = f"hybridjob/{job['resourceName']}"
    release.kubectl("wait", name, "--for=condition=Finished", "--timeout=30s")
    print("\n$ kubectl get hybridjobs")
    print(release.kubectl("get", "hybridjobs"))
    print("the row in background_jobs:")
    for name in ("id", "type", "status", "source", "key", "durationMs", "result"):
        print(f"  {name:<12}{job[name]}")
    print("\ncaptured (github.pull_requests, the newest):")
    for row in captured:
        place = f"{row['repository']}#{row['number']}"
        print(f"  {place:<32}{row['state']:<8}{row['author']}: {row['title']}")
    print(
        textwrap.dedent(
            f"""
            Try next:
              eval "$(.venv/bin/python -m tests.cluster env)"
              kubectl config set-context --current --namespace {release.namespace}
              kubectl describe hybridjob {job["resourceName"]}
              kubectl logs -l hybridjobs.dev/job-id={job["id"]}
              kubectl port-forward svc/hybridjobs-api 8081 &
              export HYBRIDJOBS_API_TOKEN=$(kubectl get secret hybridjobs-api \\
                  -o go-template='{{{{.data.token | base64decode}}}}')
              .venv/bin/hybridjobs jobs
              .venv/bin/hybridjobs submit capture/repository.sync \\
                  -p '{{"owner": "Octocoders", "repo": "Hello-World"}}' --wait
              make demo-down
            """
        )
    )


if __name__ == "__main__":
    sys.exit(main())
