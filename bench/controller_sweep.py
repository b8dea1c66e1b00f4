"""Sweeps in a process of their own: seconds each, and the memory that they add, as JSON.

`python -m bench.controller_sweep NAMESPACE DATABASE_URL`, with KUBECONFIG. What seems to be gone is
not acted on, since every one of these sweeps is a first one.
"""

import asyncio
import gc
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from hybridjobs.controller.cache import Cache
from hybridjobs.controller.sweep import Sweep
from hybridjobs.controller.types import TypeMirror
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, Kubernetes
from hybridjobs.kube.credentials import load_configuration
from hybridjobs.settings import OperatorSettings
from hybridjobs.store.database import Database

_TIMES = 3


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@contextmanager
def peak() -> Iterator[list[float]]:
    """The largest resident memory within: the list's last."""
    seen, over = [rss_mb()], threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            seen[-1] = max(seen[-1], rss_mb())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


async def main(namespace: str, url: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = OperatorSettings(
        database_url=url,
        namespace=namespace,
        worker_image="hybridjobs:none",
        worker_api_url="http://none:8082",
    )
    cache, queue = Cache(), WorkQueue()
    kubernetes = Kubernetes(await load_configuration(), field_manager="hybridjobs-bench")
    async with Database(url, size=4) as database, kubernetes:
        mirror = TypeMirror(database, kubernetes, cache, queue, namespace=namespace)
        await mirror.read_all()
        # As the operator has them.
        async for page in kubernetes.pages(HYBRIDJOBS, namespace):
            for body in page:
                cache.put_hybridjob(body)
        async for page in kubernetes.pages(JOBS, namespace, labels=names.SELECTOR):
            for body in page:
                cache.put_job(body)
        del body, page
        gc.collect()
        before, seconds, cpu_seconds, largest = rss_mb(), [], [], []
        for _ in range(_TIMES):
            sweep = Sweep(database, kubernetes, cache, queue, mirror, settings)
            with peak() as seen:
                began, cpu_began = time.monotonic(), time.process_time()
                await sweep.once()
                seconds.append(time.monotonic() - began)
                cpu_seconds.append(time.process_time() - cpu_began)
            largest.append(seen[-1])
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,  # ours alone, not the API server's and Postgres'
        "mb": max(largest) - before,
        "mb_before": before,
        "hybridjobs": len(cache.hybridjobs),
        "jobs": len(cache.job_uids()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
