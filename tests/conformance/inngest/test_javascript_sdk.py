"""Inngest's JavaScript SDK, which Inngest's own server is tested with, agrees with us.

It signs and verifies as we do, takes what our tests' server sends, finds nothing wrong with our
functions, and plans the same steps by the same ids for the function that ours stand for.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridjobs.ingress.inngest.signature import fault, sign
from tests.builders import job_type
from tests.integration.ingress.conftest import quick_type
from tests.integration.ingress.inngest.conftest import KEY, PATH, Start
from tests.integration.ingress.inngest.server import Run, call_body

FOLDER = Path(__file__).parent
SECRET = KEY.removeprefix("signkey-test-").encode()
EVENTS = ["shop/order.paid", "shop/order.sent"]
LONG = job_type("test/long", events=EVENTS, deadlineSeconds=870)  # of which a run waits 21 min


async def peer(command: str, **request: Any) -> Any:
    """The other side's answer."""
    process = await asyncio.create_subprocess_exec(
        "node",
        FOLDER / "peer.mjs",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(json.dumps({"command": command, **request}).encode())
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


async def its_answer(method: str, body: bytes, signature: str, run_id: str = "01A") -> Any:
    """The other side's answer to a request for the function that ours of LONG stands for."""
    query = "?fnId=hybridjobs-test-long&stepId=step" if method == "POST" else ""
    return await peer(
        "call",
        url=f"http://127.0.0.1{PATH}{query}",
        method=method,
        body=body.decode(),
        headers={"x-inngest-signature": signature, "content-type": "application/json"},
        appId="hybridjobs",
        key=KEY,
        fnId="test-long",
        event=EVENTS[0],
        expression=f"async.data.run_id == '{run_id}'",
        timeout="21m",
    )


async def test_it_signs_as_we_verify_and_sign() -> None:
    moment = str(int(time.time()))
    for body in ('{"name":"a","data":{}}', "", '{"s":"ä€😀"}'):
        digest = await peer("sign", body=body, key=KEY, moment=moment)
        header = f"t={moment}&s={digest}"
        assert sign(SECRET, body.encode(), now=int(moment)) == header
        assert fault([header.encode()], body.encode(), [SECRET], now=int(moment)) is None


async def test_it_verifies_what_we_sign_and_nothing_else() -> None:
    good = sign(SECRET, b"", now=time.time())
    wrong = sign(b"0123", b"", now=time.time())
    assert json.loads((await its_answer("GET", b"", good))["body"])["authentication_succeeded"]
    assert not json.loads((await its_answer("GET", b"", wrong))["body"]).get("app_id")


async def test_it_finds_nothing_wrong_with_our_functions(inngest: Start) -> None:
    many = job_type("test/many", events=[f"shop/{n}" for n in range(23)])
    throttle = {"limit": 5, "periodSeconds": 90}
    slow = job_type("test/slow", events=["shop/slow"], throttle=throttle)
    scene = await inngest(LONG, many, slow, quick_type("quick/echo", events=["shop/ping"]))
    await scene.registered("test/long", "test/many", "test/slow", "quick/echo")
    functions = list(scene.server.functions.values())
    assert len(functions) == 7
    assert await peer("configs", functions=functions) == [None] * 7
    broken = [{**functions[0], "unknown": 1}]
    assert await peer("configs", functions=broken) != [None]


async def test_it_plans_the_same_steps_for_the_same_call(inngest: Start) -> None:
    scene = await inngest(LONG)
    known = await scene.registered("test/long")
    event = {"name": EVENTS[0], "data": {}, "id": "e", "ts": 1}
    run = Run("01A", known["test/long"], event)
    body = call_body(run, "step", attempt=0, parallel=False)
    ours = await scene.server.post(run.function, "step", body)
    theirs = await its_answer("POST", body, scene.server.sign(body))
    assert (ours.status_code, theirs["status"]) == (206, 206)
    assert _essence(ours.json()) == _essence(json.loads(theirs["body"]))
    assert ours.headers["x-inngest-req-version"] == theirs["headers"]["x-inngest-req-version"]


async def test_it_remembers_the_same_steps(inngest: Start) -> None:
    scene = await inngest(LONG)
    known = await scene.registered("test/long")
    event = {"name": EVENTS[0], "data": {}, "id": "e", "ts": 1}
    run = Run("01A", known["test/long"], event)
    body = call_body(run, "step", attempt=0, parallel=False)
    ops = {op["displayName"]: op["id"] for op in (await its_planned(scene.server, body))}
    ended = {"run_id": "01A", "status": "completed", "result": {"n": 1}}
    run.steps = {
        ops["submit"]: {"data": {"job_id": "x", "status": "queued"}},
        ops["finished"]: {"name": "hybridjobs/job.finished", "data": ended, "id": "f", "ts": 2},
    }
    body = call_body(run, "step", attempt=0, parallel=True)
    ours = await scene.server.post(run.function, "step", body)
    theirs = await its_answer("POST", body, scene.server.sign(body))
    assert (ours.status_code, ours.json()) == (200, {"n": 1})
    assert theirs["status"] in (200, 206)
    assert '"n":1' in theirs["body"].replace("\\", "")


async def its_planned(server: Any, body: bytes) -> list[dict[str, Any]]:
    answer = await its_answer("POST", body, server.sign(body))
    planned: list[dict[str, Any]] = json.loads(answer["body"])
    return planned


async def test_our_introspection_has_no_member_that_its_has_not(inngest: Start) -> None:
    scene = await inngest(LONG)
    signature = scene.server.sign(b"")
    ours = await scene.ingress.webhooks.get(PATH, headers={"x-inngest-signature": signature})
    theirs = json.loads((await its_answer("GET", b"", signature))["body"])
    # The specification has that one too.
    assert set(ours.json()) - {"has_signing_key_fallback"} <= set(theirs)
    for name in ("schema_version", "mode", "app_id", "has_signing_key"):
        assert ours.json()[name] == theirs[name], name
    # It shortens the hash.
    assert ours.json()["signing_key_hash"].startswith(theirs["signing_key_hash"])


def _essence(ops: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What the server acts on."""
    return [(op["id"], op["op"], op["name"], op["displayName"], op.get("opts") or {}) for op in ops]


@settings(max_examples=5)
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
async def test_it_signs_any_text_as_we_do(document: dict[str, str]) -> None:
    body = json.dumps(document, ensure_ascii=True)
    digest = await peer("sign", body=body, key=KEY, moment="1780000000")
    assert sign(SECRET, body.encode(), now=1_780_000_000) == f"t=1780000000&s={digest}"


@pytest.mark.parametrize("moment", [-400, -310])
async def test_it_too_refuses_what_was_signed_long_ago(moment: int) -> None:
    stale = sign(SECRET, b"", now=time.time() + moment)
    answer = json.loads((await its_answer("GET", b"", stale))["body"])
    assert not answer.get("app_id")
