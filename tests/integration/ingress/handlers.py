"""Quick handlers that behave well and badly; the children find them by an installed entry point."""

import asyncio
import os
import time
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
