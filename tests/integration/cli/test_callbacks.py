"""Commands on callbacks."""

from pathlib import Path
from typing import Any

from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.callbacks.receiver import answers, receiving
from tests.integration.cli.conftest import run
from tests.integration.ingress.conftest import TOKEN, running
from tests.waiting import eventually


async def test_callbacks_are_asked_for_listed_shown_and_sent_again(
    database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    (tmp_path / "default").write_text("whsec_" + "c2VjcmV0" * 4)
    async with (
        receiving(answers(200, b"thanks")) as receiver,
        running(
            database_urls.service,
            inline_children=0,
            callback_secrets_dir=str(tmp_path),
            callback_allow="127.0.0.0/8",
        ) as ingress,
    ):
        await ingress.register(job_type())
        variables = {
            "HYBRIDJOBS_API_URL": f"http://127.0.0.1:{ingress.ports.api}",
            "HYBRIDJOBS_API_TOKEN": TOKEN,
        }
        alone = await run("submit", "test/long", "--callback-on", "failed", **variables)
        assert (alone.code, "--callback-on needs --callback" in alone.err) == (2, True)
        asked = ("--callback", receiver.url(), "--callback-on", "cancelled")
        job_id = (await run("submit", "test/long", *asked, **variables)).out.strip()
        await run("cancel", job_id, **variables)
        [message] = await receiver.received()

        async def delivered() -> Any:
            listing = ("callbacks", "list", "--status", "delivered", "--json")
            return (await run(*listing, **variables)).json["callbacks"]

        [line] = await eventually(delivered)
        assert (line["id"], line["jobId"]) == (message.id, job_id)
        table = (await run("callbacks", "list", "--job", job_id, **variables)).out
        assert "job.cancelled" in table
        shown = (await run("callbacks", "show", line["id"], **variables)).out
        assert "thanks" in shown
        again = await run("callbacks", "redeliver", line["id"], **variables)
        assert (again.code, again.out) == (0, f"{line['id']} goes once more\n")
        assert len(await receiver.received(2)) == 2
