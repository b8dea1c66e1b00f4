"""The end of a job, told to a receiver that the chart's values allow, and to no other."""

from typing import Any

import pytest

from tests.e2e.release import Access, Release, eventually
from tests.integration.callbacks.receiver import receiving

pytestmark = pytest.mark.timeout(180)


async def _tried(access: Access, job_id: str) -> dict[str, Any]:
    """The delivery of the job's callback, once a try has ended."""

    async def look() -> dict[str, Any] | None:
        answer = await access.request("GET", "/api/callbacks", params={"job": job_id})
        found: list[dict[str, Any]] = answer.json()["callbacks"]
        return found[0] if found and (found[0]["lastCode"] or found[0]["lastError"]) else None

    return await eventually(look, seconds=60, what=f"the callback of {job_id} to be tried")


async def test_a_receiver_on_the_allow_list_is_told_signed_by_the_release_s_secret(
    release: Release, access: Access
) -> None:
    async with receiving(host=release.cluster.host_address) as receiver:
        callback = {"url": receiver.url("/done?for=me")}
        job_id = await access.submit("test/script", {"message": '{"pages":3}'}, callback=callback)
        delivery = await _tried(access, job_id)
    [message] = receiver.messages
    message.verify(release.secret("callbacks", "default"))
    assert (message.path, message.json["type"]) == ("/done?for=me", "job.completed")
    told = message.json["data"]
    assert (told["id"], told["result"], told["attempts"]) == (job_id, {"pages": 3}, 1)
    assert (delivery["id"], delivery["status"], delivery["lastCode"]) == (
        message.id,
        "delivered",
        200,
    )


async def test_a_service_of_the_cluster_that_nobody_listed_is_not_called(
    release: Release, access: Access
) -> None:
    address = release.object("service", "hybridjobs-api")["spec"]["clusterIP"]
    callback = {"url": f"https://{address}:8081/"}
    body = {"type": "test/script", "payload": {}, "callback": callback}
    answer = await access.request("POST", "/api/jobs", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "/callback/url")
    # Where a name leads is known when it is called.
    callback = {"url": f"https://hybridjobs-api.{release.namespace}.svc:8081/"}
    delivery = await _tried(access, await access.submit("test/script", callback=callback))
    assert (delivery["status"], delivery["lastCode"]) == ("pending", None)
    assert "may not enter" in delivery["lastError"]
