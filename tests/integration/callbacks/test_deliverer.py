"""What ended jobs tell: signed, tried again, given up, taken over."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from svix.webhooks import WebhookVerificationError

from hybridjobs.callbacks.deliverer import MAX_SENDS_PER_HOST
from hybridjobs.store.callbacks import KEPT_TRIES, claim_deliveries
from tests.builders import new_job
from tests.integration.callbacks.conftest import OTHER, SECRET, Calls, Delivering
from tests.integration.callbacks.receiver import (
    Behave,
    Message,
    answers,
    drips,
    endless_headers,
    endless_hints,
    floods,
    hangs_up,
    never_answers,
    no_http,
    receiving,
)
from tests.waiting import eventually


async def test_a_delivery_is_signed_as_standard_webhooks_has_it(
    calls: Calls, delivering: Delivering
) -> None:
    async with receiving(answers(202, b"thanks")) as receiver, delivering() as results:
        job_id = await calls.ended(receiver.url("/done?for=me"), key="order 7")
        [message] = await receiver.received()
        row = await calls.in_status(job_id, "delivered")
    message.verify(SECRET)
    with pytest.raises(WebhookVerificationError):
        message.verify(OTHER)
    assert message.path == "/done?for=me"
    assert message.headers["content-type"] == "application/json"
    assert message.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert message.id == str(row["id"])
    assert message.json["type"] == "job.completed"
    assert message.json["data"]["id"] == str(job_id)
    assert message.json["data"]["key"] == "order 7"
    assert (row["last_code"], row["last_error"], row["response"]) == (202, None, "thanks")
    assert results == {"delivered": 1}


async def test_while_a_secret_is_rotated_each_of_them_verifies(
    calls: Calls, delivering: Delivering, secrets_folder: Path
) -> None:
    async with receiving() as receiver, delivering():
        (secrets_folder / "default").write_text(f"{OTHER},\n{SECRET}\n")
        await calls.ended(receiver.url())
        [message] = await receiver.received()
    message.verify(SECRET)
    message.verify(OTHER)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no callback secret 'default'"),
        ("", "is empty"),
        ("whsec_c2hvcnQ=", "24 to 64 bytes"),
        ("not base64 at all!", "24 to 64 bytes"),
    ],
)
async def test_without_a_secret_nothing_is_sent(
    calls: Calls,
    delivering: Delivering,
    secrets_folder: Path,
    content: str | None,
    message: str,
) -> None:
    if content is None:
        (secrets_folder / "default").unlink()
    else:
        (secrets_folder / "default").write_text(content)
    async with receiving() as receiver, delivering():
        row = await calls.tried(await calls.ended(receiver.url()))
        assert receiver.messages == []
    assert row["status"] == "pending"
    assert message in row["last_error"]
    assert "c2hvcnQ" not in row["last_error"]


async def test_a_failure_is_tried_again_with_the_same_id_and_body(
    calls: Calls, delivering: Delivering
) -> None:
    async with receiving(answers(500, b"oops"), answers(200)) as receiver, delivering():
        job_id = await calls.ended(receiver.url())
        row = await calls.tried(job_id)
        assert (row["status"], row["last_code"], row["response"]) == ("pending", 500, "oops")
        wait = row["next_at"] - datetime.fromisoformat(row["tries"][-1]["at"])
        assert timedelta(seconds=5) < wait < timedelta(seconds=25)
        await calls.make_due()
        first, second = await receiver.received(2)
        row = await calls.in_status(job_id, "delivered")
    assert (first.id, first.body) == (second.id, second.body)
    second.verify(SECRET)
    assert [(each["attempt"], each["code"]) for each in row["tries"]] == [(1, 500), (2, 200)]


async def test_a_receiver_says_when_to_come_again(calls: Calls, delivering: Delivering) -> None:
    busy = answers(429, headers=("Retry-After: 3600",))
    async with receiving(busy) as receiver, delivering():
        row = await calls.tried(await calls.ended(receiver.url()))
    wait = row["next_at"] - datetime.now(UTC)
    assert timedelta(minutes=59) < wait < timedelta(minutes=61)


async def test_410_disables(calls: Calls, delivering: Delivering) -> None:
    async with receiving(answers(410)) as receiver, delivering() as results:
        row = await calls.in_status(await calls.ended(receiver.url()), "disabled")
    assert row["last_code"] == 410
    assert results == {"disabled": 1}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_failures_and_not_followed(
    calls: Calls, delivering: Delivering, status: int
) -> None:
    async with receiving() as elsewhere:
        moved = answers(status, headers=(f"Location: {elsewhere.url()}",))
        async with receiving(moved) as receiver, delivering():
            row = await calls.tried(await calls.ended(receiver.url()))
            await asyncio.sleep(0.2)
        assert elsewhere.messages == []
    assert (row["status"], row["last_code"]) == ("pending", status)


@pytest.mark.parametrize(
    ("behaviour", "seconds", "error"),
    [
        (hangs_up, 20, "Error"),
        (never_answers, 1, "no answer within 1 s"),
        (endless_headers, 20, "RemoteProtocolError"),
        (endless_hints, 1, "no answer within 1 s"),
        (no_http, 20, "RemoteProtocolError"),
    ],
)
async def test_one_that_hangs_up_or_hangs_is_a_failure(
    calls: Calls, delivering: Delivering, behaviour: Behave, seconds: float, error: str
) -> None:
    async with receiving(behaviour) as receiver, delivering(try_seconds=seconds):
        row = await calls.tried(await calls.ended(receiver.url()))
    assert (row["status"], row["last_code"]) == ("pending", None)
    assert error in row["last_error"]


@pytest.mark.parametrize("behaviour", [floods, drips])
async def test_a_body_without_end_is_cut_and_the_status_counts(
    calls: Calls, delivering: Delivering, behaviour: Behave
) -> None:
    async with receiving(behaviour) as receiver, delivering(try_seconds=4):
        row = await calls.in_status(await calls.ended(receiver.url()), "delivered")
    assert set(row["response"]) == {"x"}
    assert len(row["response"]) <= 1024


async def test_what_cannot_be_stored_or_shown_of_an_answer_is_replaced(
    calls: Calls, delivering: Delivering
) -> None:
    async with receiving(answers(200, b"a\0b\x1b[31m\xff")) as receiver, delivering():
        row = await calls.in_status(await calls.ended(receiver.url()), "delivered")
    assert row["response"] == "a�b�[31m�"


async def test_it_is_given_up_after_three_days(calls: Calls, delivering: Delivering) -> None:
    async with receiving(answers(503)) as receiver, delivering() as results:
        job_id = await calls.ended(receiver.url())
        await calls.tried(job_id)
        row = await calls.delivery(job_id)
        assert row["give_up_at"] - row["created_at"] == timedelta(days=3)
        await calls.execute("UPDATE callback_deliveries SET give_up_at = now()")
        await calls.make_due()
        row = await calls.in_status(job_id, "failed")
    assert (row["attempts"], row["last_code"]) == (2, 503)
    assert results == {"pending": 1, "failed": 1}


async def test_of_many_tries_the_last_ones_are_kept(calls: Calls, delivering: Delivering) -> None:
    async with receiving(answers(500)) as receiver, delivering():
        job_id = await calls.ended(receiver.url())
        await calls.tried(job_id)
        await calls.execute(
            "UPDATE callback_deliveries SET attempts = cardinality(made), tries = to_jsonb(made), "
            "next_at = now() FROM (SELECT array_agg(jsonb_build_object('attempt', n)) AS made "
            "FROM generate_series(1, %s) AS n) AS earlier",
            KEPT_TRIES,
        )
        row = await calls.tried(job_id, 2)
    attempts = [each["attempt"] for each in row["tries"]]
    assert attempts == list(range(2, KEPT_TRIES + 2))


async def test_a_url_that_can_never_be_called_fails_at_once(
    calls: Calls, delivering: Delivering
) -> None:
    async with delivering():
        row = await calls.in_status(await calls.ended("ftp://example.com/"), "failed")
    assert "must be an absolute https:// URL" in row["last_error"]


async def test_a_slow_receiver_has_few_at_once_and_holds_up_no_other(
    calls: Calls, delivering: Delivering
) -> None:
    # What is under way to the slow one stays so until the end: nothing here waits for it.
    for_ever = delivering(try_seconds=3600, lease=timedelta(hours=2))
    async with receiving(never_answers) as slow, receiving() as quick, for_ever:
        for _ in range(50):
            await calls.ended(slow.url())
        await slow.received(MAX_SENDS_PER_HOST)
        for _ in range(20):
            await calls.ended(quick.url())
        await quick.received(20)
        assert slow.most_open == MAX_SENDS_PER_HOST


async def test_two_replicas_deliver_each_once(calls: Calls, delivering: Delivering) -> None:
    async with receiving() as receiver, delivering(), delivering():
        jobs = [await calls.ended(receiver.url()) for _ in range(60)]
        for job_id in jobs:
            await calls.in_status(job_id, "delivered")
    assert len(receiver.messages) == 60
    assert len({message.id for message in receiver.messages}) == 60


async def test_what_a_killed_process_had_claimed_goes_when_its_lease_ends(
    calls: Calls, delivering: Delivering
) -> None:
    async with receiving() as receiver:
        job_id = await calls.ended(receiver.url())
        async with calls.database.connection() as connection:
            [due] = await claim_deliveries(
                connection, sends={}, per_host=4, limit=9, lease=timedelta(seconds=60)
            )
            assert due.job_id == job_id
        async with delivering():
            await asyncio.sleep(0.3)
            assert receiver.messages == []
            await calls.end_lease()
            [message] = await receiver.received()
            row = await calls.in_status(job_id, "delivered")
    assert row["attempts"] == 2
    assert message.id == str(due.id)


async def test_a_late_record_changes_nothing(calls: Calls, delivering: Delivering) -> None:
    is_late = asyncio.Event()

    async def late(message: Message, writer: asyncio.StreamWriter) -> None:
        await is_late.wait()
        await answers(500)(message, writer)

    async with receiving(late, answers(200)) as receiver, delivering() as results:
        job_id = await calls.ended(receiver.url())
        await receiver.received(1)
        await calls.end_lease()
        row = await calls.in_status(job_id, "delivered")
        is_late.set()
        await eventually(lambda: results == {"delivered": 1, "pending": 1})
        assert await calls.delivery(job_id) == row
    assert [message.id for message in receiver.messages] == [str(row["id"])] * 2


async def test_an_unreachable_receiver_delays_no_job(calls: Calls, delivering: Delivering) -> None:
    for_ever = delivering(try_seconds=3600, lease=timedelta(hours=2))
    async with receiving(never_answers) as receiver, for_ever:
        for _ in range(40):
            await calls.ended(receiver.url())
        await receiver.received(MAX_SENDS_PER_HOST)
        ids = await calls.enqueue(*(new_job() for _ in range(40)))
        assert set(await calls.claimed()) == set(ids)
        assert await calls.end_all() == 40
        assert {await calls.status(job_id) for job_id in ids} == {"completed"}
