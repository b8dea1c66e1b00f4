"""`hybridjobs token`, and commands that use one, also from a file."""

import re
from pathlib import Path

from tests.conftest import DatabaseUrls, free_port
from tests.integration.cli.conftest import Command, Done, run
from tests.integration.ingress.conftest import Running

UNKNOWN = "0192e4a0-0000-7000-8000-000000000000"


async def _token(urls: DatabaseUrls, *arguments: str) -> Done:
    return await run(
        "token", *arguments, HYBRIDJOBS_DATABASE_URL=urls.service, HYBRIDJOBS_USER="ana"
    )


async def test_a_token_from_its_making_to_its_end(
    database_urls: DatabaseUrls, api: Running, command: Command, tmp_path: Path
) -> None:
    made = await _token(database_urls, "create", "ci", "--scope", "submit")
    assert made.code == 0, made.err
    text = made.out.strip()
    assert re.fullmatch(r"hj_[A-Za-z0-9_-]{43}", text)
    assert "expires" in made.err
    assert text not in made.err

    done = await command("submit", "test/long", "-p", "{}", HYBRIDJOBS_API_TOKEN=text)
    assert done.code == 0, done.err
    assert (await api.job(done.out.strip())).submitted_by == "token:ci"
    refused = await command("pause", "--all", HYBRIDJOBS_API_TOKEN=text)
    assert (refused.code, "this needs operate" in refused.err) == (4, True)

    listed = await _token(database_urls, "list", "--json")
    [token] = listed.json["tokens"]
    assert text not in listed.out
    assert (token["name"], token["scope"], token["createdBy"]) == ("ci", "submit", "ana")
    assert token["lastUsedAt"] is not None
    assert token["revokedAt"] is None
    assert text.startswith(token["hint"])

    file = tmp_path / "token"
    file.write_text("wrong\n")
    wrong = await command("jobs", HYBRIDJOBS_API_TOKEN=f"@{file}")
    assert wrong.code == 4
    file.write_text(f"{text}\n")
    assert (await command("jobs", "--token", f"@{file}")).code == 0
    missing = await command("jobs", "--token", f"@{tmp_path}/none")
    assert (missing.code, "none" in missing.err) == (2, True)

    assert (await _token(database_urls, "revoke", token["id"])).code == 0
    again = await _token(database_urls, "revoke", token["id"])
    assert (again.code, token["id"] in again.err) == (3, True)
    assert (await _token(database_urls, "list", "--json")).json == {"tokens": []}
    table = await _token(database_urls, "list", "--all")
    assert token["id"] in table.out
    assert text not in table.out


async def test_how_long_a_token_is_good(database_urls: DatabaseUrls) -> None:
    for expires, good in (("never", True), ("12h", True), ("0d", False), ("9999d", False)):
        made = await _token(
            database_urls, "create", "ci", "--scope", "read", "--expires", expires, "--json"
        )
        assert made.code == (0 if good else 2), made.err
        if good:
            assert (made.json["expiresAt"] is None) == (expires == "never")
    assert "--expires 9999d" in made.err


async def test_what_is_wrong_makes_no_token(database_urls: DatabaseUrls) -> None:
    assert (await _token(database_urls, "create", "A b", "--scope", "read")).code == 2
    assert (await _token(database_urls, "create", "ci", "--scope", "all")).code == 2
    assert (await _token(database_urls, "create", "ci")).code == 2
    assert (await _token(database_urls, "revoke", UNKNOWN)).code == 3
    assert (await _token(database_urls, "list", "--all", "--json")).json == {"tokens": []}
    nowhere = await run("token", "list")
    assert (nowhere.code, "HYBRIDJOBS_DATABASE_URL" in nowhere.err) == (2, True)
    away = f"postgresql://u:secret@127.0.0.1:{free_port()}/x"
    gone = await run("token", "list", "--database-url", away)
    assert (gone.code, "secret" in gone.err) == (5, False)
