"""`make bench-latency`: what HybridJobs adds between "accepted" and "the container runs".

Both ways to a running container are measured in turn in one run, on the same cluster, image and
pod: the Job as our operator makes it, created directly through the API, and the same by way of
POST /api/jobs. A container's own clock says when it runs; the difference of the medians is ours.
"""

import argparse
import asyncio
import copy
import os
import statistics
import sys
import time
import uuid
from typing import Any

from bench.report import Report
from hybridjobs.kube.client import JOBS, Kubernetes
from hybridjobs.kube.credentials import load_configuration
from tests.e2e.release import IMAGE, Access, Release, eventually, installed

NAMESPACE = "hybridjobs-bench"
TYPE = "bench/clock"
_CLOCK = 'import time; open("/dev/termination-log", "w").write(repr(time.time()))'


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__)
    parser.add_argument("--pairs", type=int, default=40, help="measurements of each kind")
    arguments = parser.parse_args()
    values = {
        "types": {
            "extra": {
                TYPE: {
                    "image": IMAGE,
                    "command": ["/app/bin/python", "-S", "-c", _CLOCK],
                    "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
                }
            }
        }
    }
    release = installed(NAMESPACE, values=values, say=lambda text: print(text, file=sys.stderr))
    try:
        ours, bare = asyncio.run(_measure(release, arguments.pairs))
    finally:
        release.uninstall()
    added = sorted(mine - statistics.median(bare) for mine in ours)
    report = Report("latency", "make bench-latency")
    report.add("bare_job_ms_median", statistics.median(bare))
    report.add("hybridjob_ms_median", statistics.median(ours))
    report.add("added_latency_ms_median", statistics.median(added))
    p99 = statistics.quantiles(ours, n=100)[98] - statistics.quantiles(bare, n=100)[98]
    report.add("added_latency_ms_p99", p99)
    report.write()
    return 0


async def _measure(release: Release, pairs: int) -> tuple[list[float], list[float]]:
    ours, bare = [], []
    os.environ["KUBECONFIG"] = str(release.cluster.kubeconfig)
    kubernetes = Kubernetes(await load_configuration(), field_manager="bench")
    async with release.access() as access, kubernetes:
        template = await _job_of_ours(release, access)
        for pair in range(pairs + 3):
            measured_ours = await _through_us(access)
            measured_bare = await _bare(kubernetes, release, template)
            if pair >= 3:  # the first ones warm caches on both sides
                ours.append(measured_ours)
                bare.append(measured_bare)
    return ours, bare


async def _job_of_ours(release: Release, access: Access) -> dict[str, Any]:
    job_id = await access.submit(TYPE)
    await access.until(job_id)
    return release.object("job", f"hj-{job_id}-1")


async def _through_us(access: Access) -> float:
    job_id = await access.submit(TYPE)
    accepted = time.time()
    job = await access.until(job_id)
    return (float(job["result"]) - accepted) * 1000


async def _bare(kubernetes: Kubernetes, release: Release, template: dict[str, Any]) -> float:
    name = f"bare-{uuid.uuid4().hex[:12]}"
    labels = {"bench": name}
    spec = copy.deepcopy(template["spec"])
    for set_by_server in ("selector", "manualSelector", "suspend"):
        spec.pop(set_by_server, None)
    spec["template"]["metadata"]["labels"] = labels
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }
    await kubernetes.create(JOBS, release.namespace, body)
    created = time.time()

    async def clock() -> float | None:
        for pod in release.objects("pods", f"bench={name}"):
            for status in pod["status"].get("containerStatuses", []):
                if message := status["state"].get("terminated", {}).get("message"):
                    return float(message)
        return None

    began = await eventually(clock, seconds=60, what="the bare Job's container")
    return (began - created) * 1000


if __name__ == "__main__":
    sys.exit(main())
