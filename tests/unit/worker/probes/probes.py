"""Handlers of a package of its own, as a user's image would have them."""

import asyncio
import ctypes
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hybridjobs.sdk import Context, PermanentError, RetryLater, handler


@handler("probe/echo")
async def echo(payload: Any, context: Context) -> Any:
    return payload


class Sum(BaseModel):
    numbers: list[int]


@handler("probe/sum")
async def total(payload: Sum, context: Context) -> int:
    return sum(payload.numbers)


@handler("probe/fail")
async def fail(payload: dict[str, Any], context: Context) -> object:
    match payload["how"]:
        case "transient":
            raise OSError(payload.get("message", "the network is away"))
        case "permanent":
            raise PermanentError(payload.get("message", "there is no such thing"))
        case "later":
            raise RetryLater(90, "rate limit")
        case "exit":
            sys.exit(0)
        case "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        case "unserialisable":
            pass
    return object()


@handler("probe/facts")
async def facts(payload: Any, context: Context) -> dict[str, Any]:
    return {
        "jobId": str(context.job_id),
        "type": context.type,
        "attempt": context.attempt,
        "checkpoint": context.checkpoint,
        "traceparent": context.traceparent,
    }


@handler("probe/steps")
async def steps(payload: dict[str, Any], context: Context) -> int:
    """Count on from the checkpoint, and wait for ever at `wait_at`."""
    start: int = context.checkpoint or 0
    for step in range(start + 1, payload["steps"] + 1):
        await context.progress(step, payload["steps"])
        await context.save_checkpoint(step)
        if step == payload.get("wait_at"):
            await asyncio.sleep(3600)
    return start


@handler("probe/last-words")
async def last_words(payload: Any, context: Context) -> None:
    """Wait for ever, and save a checkpoint when cancelled."""
    try:
        await context.save_checkpoint("begun")
        await asyncio.sleep(3600)
    finally:
        await context.save_checkpoint("last words")


@handler("probe/finish-anyway")
async def finish_anyway(payload: Any, context: Context) -> str:
    try:
        await context.save_checkpoint("begun")
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return "done anyway"
    return "not reached"


@handler("probe/hold")
async def hold(payload: dict[str, Any], context: Context) -> str:
    """Hold the event loop, computing or sleeping, until the file exists."""
    await context.progress(1)
    while not os.path.exists(payload["until"]):  # noqa: ASYNC240, PTH110 - held on purpose
        if payload.get("sleep"):
            time.sleep(0.05)  # noqa: ASYNC251 - held on purpose
    return "let go"


@handler("probe/odd-progress")
async def odd_progress(payload: dict[str, Any], context: Context) -> str:
    """Tell of a name that is not UTF-8, as os.listdir has it, and live until the file exists."""
    if payload.get("object"):
        await context.progress(object())  # type: ignore[arg-type]
    await context.progress(1, message="\udcff.txt")
    await context.save_checkpoint("after")
    await asyncio.to_thread(_exists, payload["until"])
    return "lived"


def _exists(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.05)


@handler("probe/thread")
async def leave_thread(payload: Any, context: Context) -> str:
    """Leave a thread behind that never ends."""
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
    return "left"


@handler("probe/submit")
async def submit(payload: dict[str, Any], context: Context) -> list[str]:
    jobs = [await context.submit(**job) for job in payload["jobs"]]
    return [str(job) for job in jobs]


@handler("probe/size")
async def size(payload: dict[str, Any], context: Context) -> str:
    return "x" * int(payload["bytes"])


@handler("probe/noise")
async def noise(payload: dict[str, Any], context: Context) -> str:
    """Write by every way there is."""
    print("printed", flush=True)
    print("printed, not flushed")
    print("to standard error", file=sys.stderr)
    sys.stdout.buffer.write(b"\x00\x00\x00\x05hello\n")
    os.write(1, b"by descriptor\n")
    ctypes.CDLL(None).puts(b"by C")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["/bin/echo", "by another program"], check=True)  # noqa: ASYNC221 - held
    logging.getLogger("probe").warning("by logging")
    context.log.info("by the context's log")
    if payload.get("flood"):
        os.write(2, b"flood\n" * int(payload["flood"]))
    if payload.get("read"):
        return sys.stdin.read()
    return "quiet"


@handler("probe/litter")
async def litter(payload: dict[str, Any], context: Context) -> str:
    """Leave a task behind that would speak into the next run."""

    async def speak() -> None:
        while True:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                if not payload.get("stubborn"):
                    raise
            await context.progress(666)

    context.left = asyncio.create_task(speak())  # type: ignore[attr-defined]
    await asyncio.sleep(0.05)
    return "left"


@handler("probe/die")
async def die(payload: dict[str, Any], context: Context) -> None:
    os._exit(int(payload["code"]))
