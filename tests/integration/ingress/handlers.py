"""Quick handlers that behave well and badly; the children find them by an installed entry point."""

import asyncio
import multiprocessing
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import RootModel

from hybridjobs.sdk import Context, PermanentError, RetryLater, handler


class Payload(RootModel[dict[str, Any]]):
    """Any object."""


@handler("quick/echo")
async def echo(payload: Payload, context: Context) -> dict[str, Any]:
    print("echoing")
    await context.progress(1, 2, "half")
    return payload.root


@handler("quick/pid")
async def pid(payload: Payload, context: Context) -> dict[str, Any]:
    await asyncio.sleep(payload.root.get("seconds", 0))
    return {"pid": os.getpid(), "names": sorted(os.environ)}


@handler("quick/waits")
async def waits(payload: Payload, context: Context) -> dict[str, Any]:
    """It tells that it has begun."""
    await context.progress(0, None, "begun")
    await asyncio.sleep(payload.root.get("seconds", 0))
    return {"pid": os.getpid()}


@handler("quick/blocks")
async def blocks(payload: Payload, context: Context) -> None:
    time.sleep(60)  # noqa: ASYNC251 - the fault that this one has


@handler("quick/spins")
async def spins(payload: Payload, context: Context) -> None:
    while True:
        pass


@handler("quick/hoards")
async def hoards(payload: Payload, context: Context) -> None:
    held = b"x" * payload.root["bytes"]
    await asyncio.sleep(60)
    del held


@handler("quick/exits")
async def exits(payload: Payload, context: Context) -> None:
    os._exit(3)


@handler("quick/raises")
async def raises(payload: Payload, context: Context) -> None:
    raise RuntimeError("a transient fault")


@handler("quick/refuses")
async def refuses(payload: Payload, context: Context) -> None:
    raise PermanentError("never \0 possible")


@handler("quick/later")
async def later(payload: Payload, context: Context) -> None:
    raise RetryLater(3600, "come back")


@handler("quick/large")
async def large(payload: Payload, context: Context) -> str:
    return "x" * int(payload.root["size"])


@handler("quick/nul")
async def nul(payload: Payload, context: Context) -> str:
    return "a\0b"


@handler("quick/submits")
async def submits(payload: Payload, context: Context) -> dict[str, str]:
    await context.save_checkpoint({"at": 1})
    child = await context.submit("test/long", {"from": "parent"}, key="only")
    again = await context.submit("test/long", {"from": "parent"}, key="only")
    return {"child": str(child), "again": str(again)}


@handler("quick/forks")
async def forks(payload: Payload, context: Context) -> dict[str, int]:
    """What is forked returns from here, too."""
    parent = os.getpid()
    if os.fork() == 0:
        await context.progress(99, 99, "of the fork")
        await context.save_checkpoint({"of": "the fork"})
    return {"pid": os.getpid(), "parent": parent}


@handler("quick/leaves")
async def leaves(payload: Payload, context: Context) -> dict[str, int]:
    command = ["sleep", "600"]
    process = subprocess.Popen(command)  # noqa: ASYNC220 - it returns at once
    other = subprocess.Popen(command, start_new_session=True)  # noqa: ASYNC220
    pids = {"pid": os.getpid(), "left": process.pid, "other": other.pid}
    if file := payload.root.get("hangs"):
        Path(file).write_text(str(other.pid))  # noqa: ASYNC240
        time.sleep(60)  # noqa: ASYNC251
    return pids


@handler("quick/ends")
async def ends(payload: Payload, context: Context) -> dict[str, int]:
    """Its process has ended, though nobody has waited for it."""
    with subprocess.Popen(["true"]):  # noqa: ASYNC220
        pass
    process = subprocess.Popen(["true"])  # noqa: ASYNC220
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
    return {"pid": os.getpid()}


@handler("quick/hoards-elsewhere")
async def hoards_elsewhere(payload: Payload, context: Context) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_hoard, args=[payload.root["bytes"]]
    )
    process.start()
    await asyncio.sleep(60)


def _hoard(size: int) -> None:
    held = b"x" * size
    time.sleep(60)
    del held


@handler("quick/haunts")
async def haunts(payload: Payload, context: Context) -> None:
    """A thread of it goes on talking of it after its end."""
    loop = asyncio.get_running_loop()

    def talk() -> None:
        for place in range(20):
            time.sleep(0.05)
            for said in (context.progress(place, 20, "a ghost"), context.save_checkpoint("ghost")):
                asyncio.run_coroutine_threadsafe(said, loop)

    threading.Thread(target=talk, daemon=True).start()


@handler("quick/chatters")
async def chatters(payload: Payload, context: Context) -> None:
    """It writes without an end, from a thread that outlives it."""

    def write() -> None:
        while True:
            os.write(1, b"chatter\n" * 1000)
            sum(range(100_000))  # else it is gigabytes, which the tests' runner keeps

    threading.Thread(target=write, daemon=True).start()
    if payload.root.get("never"):
        write()
