"""`hybridjobs doctor`: what is wrong with an installation, and what to do about it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hybridjobs.cli.exits import Exit
from hybridjobs.cli.options import AsJson
from hybridjobs.cli.output import print_table
from hybridjobs.errors import ConfigurationError, HybridJobsError, SchemaError
from hybridjobs.model import GROUP, VERSION

if TYPE_CHECKING:
    from hybridjobs.kube.client import Kubernetes
    from hybridjobs.store.database import Database
    from hybridjobs.store.server import ServerFacts

_OLDEST_POSTGRES = 16
_SKEW_WARN_SECONDS = 2.0
_SKEW_FAIL_SECONDS = 30.0
_RESOURCES = ("hybridjobs", "hybridjobtypes", "hybridjobschedules")


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Process(StrEnum):
    """Whose rights in the cluster to look at."""

    INGRESS = "ingress"
    OPERATOR = "operator"


@dataclass(slots=True)
class Access:
    """The ways into the API that were found."""

    bootstrap: bool = False
    tokens: int = 0
    reviews: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do if that is not good."""

    check: str
    level: Level
    message: str
    action: str = ""


def doctor(
    database_url: Annotated[
        str, typer.Option(envvar="HYBRIDJOBS_DATABASE_URL", help="The services' database URL.")
    ] = "",
    namespace: Annotated[
        str, typer.Option(envvar="HYBRIDJOBS_NAMESPACE", help="The jobs' namespace.")
    ] = "default",
    process: Annotated[
        list[Process] | None,
        typer.Option(help="Whose rights the cluster's credentials must have; default: both."),
    ] = None,
    api_token: Annotated[
        str, typer.Option(envvar="HYBRIDJOBS_API_TOKEN", help="The API's bootstrap token.")
    ] = "",
    no_cluster: Annotated[
        bool, typer.Option("--no-cluster", help="Look at the database alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at database and cluster, and say what is wrong and what to do. Exits 1 if any fails.

    Run it where a process runs, so that it sees what that one sees:
    kubectl exec deploy/hybridjobs-operator -- hybridjobs doctor --process operator
    """
    processes = [each.value for each in process or Process]
    access = Access(bootstrap=bool(api_token))
    findings = asyncio.run(
        _findings(database_url, namespace, processes, access, cluster=not no_cluster)
    )
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        print_table(
            ("", "CHECK", "FOUND", "WHAT TO DO"),
            ((each.level, each.check, each.message, each.action) for each in findings),
        )
    if any(each.level is Level.FAIL for each in findings):
        raise typer.Exit(Exit.FAILED)


async def _findings(
    database_url: str, namespace: str, processes: list[str], access: Access, *, cluster: bool
) -> list[Finding]:
    findings = [finding async for finding in _database(database_url, access)]
    if cluster:
        findings += [finding async for finding in _cluster(namespace, processes, access)]
    return [*findings, access_finding(access)]


async def _database(url: str, access: Access) -> AsyncIterator[Finding]:
    import psycopg

    from hybridjobs.store.database import Database
    from hybridjobs.store.server import server_facts

    if not url:
        yield Finding(
            "database", Level.FAIL, "no address", "set HYBRIDJOBS_DATABASE_URL or --database-url"
        )
        return
    try:
        async with Database(url, size=1) as database:
            async with database.connection() as connection:
                asked = datetime.now(UTC)
                facts = await server_facts(connection)
            yield version_finding(facts)
            yield durability_finding(facts)
            yield standby_finding(facts)
            yield clock_finding("database's clock", facts.now, asked, datetime.now(UTC))
            async for finding in _queue(database, access):
                yield finding
    except (HybridJobsError, psycopg.Error) as error:
        yield Finding(
            "database",
            Level.FAIL,
            str(error).strip(),
            "is it up, and are address, user and password right?",
        )


async def _queue(database: "Database", access: Access) -> AsyncIterator[Finding]:
    from hybridjobs.store.migrate import required_version
    from hybridjobs.store.queue import queue_pause
    from hybridjobs.store.tokens import list_tokens
    from hybridjobs.store.types import list_types

    try:
        await database.check_schema()
    except SchemaError as error:
        yield Finding("schema", Level.FAIL, str(error), "run `hybridjobs migrate`")
        return
    yield Finding("schema", Level.OK, f"version {required_version()} or newer")
    async with database.connection() as connection:
        pause = await queue_pause(connection)
        types = await list_types(connection)
        access.tokens = len(await list_tokens(connection))
    if pause is not None:
        yield Finding(
            "queue",
            Level.WARN,
            f"paused by {pause.paused_by}: no job starts",
            "`hybridjobs resume --all`",
        )
    if not types:
        yield Finding("job types", Level.WARN, "there are none", "apply a HybridJobType")
    else:
        yield Finding("job types", Level.OK, f"{len(types)} known")


async def _cluster(namespace: str, processes: list[str], access: Access) -> AsyncIterator[Finding]:
    # kubernetes.aio takes 2 s to import.
    from hybridjobs.kube.client import Kubernetes
    from hybridjobs.kube.credentials import load_configuration
    from hybridjobs.kube.rights import may_review

    try:
        configuration = await load_configuration()
    except ConfigurationError as error:
        yield Finding("cluster", Level.WARN, str(error), "set KUBECONFIG, or say --no-cluster")
        return
    try:
        async with Kubernetes(configuration, field_manager="hybridjobs-doctor") as kubernetes:
            asked = datetime.now(UTC)
            version, now = await kubernetes.version()
            yield Finding("cluster", Level.OK, f"Kubernetes {version}")
            yield clock_finding("API server's clock", now, asked, datetime.now(UTC))
            yield resources_finding(await kubernetes.served(GROUP, VERSION))
            access.reviews = await may_review(kubernetes)
            async for finding in _rights(kubernetes, namespace, processes):
                yield finding
    except HybridJobsError as error:
        yield Finding(
            "cluster", Level.FAIL, str(error), "are the API server's address and credentials right?"
        )


async def _rights(
    kubernetes: "Kubernetes", namespace: str, processes: list[str]
) -> AsyncIterator[Finding]:
    from hybridjobs.kube.rights import missing_rights

    for process in processes:
        check = f"rights of the {process}"
        missing = await missing_rights(kubernetes, namespace, process)
        if missing:
            may_not = ", ".join(map(str, missing))
            yield Finding(
                check,
                Level.FAIL,
                f"these credentials may not, in namespace {namespace}: {may_not}",
                f"upgrade the chart, or run this in the {process}'s pod with --process {process}",
            )
        else:
            yield Finding(check, Level.OK, f"all there in namespace {namespace}")


def access_finding(access: Access) -> Finding:
    """Whether anybody can use the API."""
    check = "API access"
    ways = [
        f"{access.tokens} tokens" if access.tokens else "",
        "HYBRIDJOBS_API_TOKEN" if access.bootstrap else "",
        "the cluster's service accounts and users" if access.reviews else "",
    ]
    if found := ", ".join(filter(None, ways)):
        return Finding(check, Level.OK, found)
    return Finding(
        check,
        Level.WARN,
        "closed: no token in the database, no HYBRIDJOBS_API_TOKEN here, and these credentials may "
        "not review the cluster's tokens",
        "`hybridjobs token create`, or api.clusterTokens in the chart; or run this in the ingress' "
        "pod with --process ingress",
    )


def version_finding(facts: "ServerFacts") -> Finding:
    """Whether the server is one that HybridJobs is tested with, and takes writes."""
    found = f"Postgres {facts.version}"
    if facts.is_standby:
        action = "point HYBRIDJOBS_DATABASE_URL to the primary"
        return Finding("database", Level.FAIL, f"{found}, a standby: it takes no writes", action)
    if facts.major < _OLDEST_POSTGRES:
        action = f"upgrade to Postgres {_OLDEST_POSTGRES} or newer"
        return Finding("database", Level.FAIL, f"{found} is too old", action)
    return Finding("database", Level.OK, found)


def durability_finding(facts: "ServerFacts") -> Finding:
    """Whether a commit survives a crash of the server, which every 2xx promises."""
    off = [
        setting
        for setting, is_on in (
            ("fsync", facts.fsync),
            ("synchronous_commit", facts.synchronous_commit != "off"),
        )
        if not is_on
    ]
    if off:
        return Finding(
            "durability",
            Level.FAIL,
            f"{' and '.join(off)} off: a crash loses jobs that were accepted",
            f"ALTER SYSTEM SET {off[0]} = on",
        )
    return Finding("durability", Level.OK, "a commit survives a crash")


def standby_finding(facts: "ServerFacts") -> Finding:
    """Whether a commit survives the loss of the server, by a failover to a standby that has it."""
    check = "synchronous standby"
    if not facts.synchronous_standby_names:
        return Finding(
            check,
            Level.WARN,
            "synchronous_standby_names is empty: a failover may lose jobs that were accepted",
            "name a standby there, or accept that; one server with good disks and backups will do "
            "for many",
        )
    if facts.synchronous_commit == "local":
        action = "ALTER SYSTEM SET synchronous_commit = on"
        return Finding(
            check, Level.WARN, "synchronous_commit is local: no commit waits for it", action
        )
    return Finding(check, Level.OK, facts.synchronous_standby_names)


def clock_finding(check: str, there: datetime, asked: datetime, answered: datetime) -> Finding:
    """How far a clock is from ours, by what it showed between the question and the answer.

    Ours decides whether tokens have expired, the database's when a job is due.
    """
    # Within that span nobody can tell; the API server's has no fractions of a second.
    early, late = (asked - there).total_seconds() - 1, (there - answered).total_seconds()
    seconds = max(early, late, 0.0)
    direction = "behind" if early > late else "ahead of"
    if seconds < _SKEW_WARN_SECONDS:
        return Finding(check, Level.OK, f"within {_SKEW_WARN_SECONDS:g} s of the clock here")
    return Finding(
        check,
        Level.WARN if seconds < _SKEW_FAIL_SECONDS else Level.FAIL,
        f"{seconds:.0f} s {direction} the clock here",
        "let both machines' clocks be set by NTP",
    )


def resources_finding(served: frozenset[str]) -> Finding:
    """Whether the API server knows the custom resources."""
    missing = [name for name in _RESOURCES if name not in served]
    if missing:
        return Finding(
            "custom resources",
            Level.FAIL,
            f"not served in {GROUP}/{VERSION}: {', '.join(missing)}",
            "install the chart's CRDs (crds.enabled), or kubectl apply -f manifests/crds",
        )
    return Finding("custom resources", Level.OK, f"{GROUP}/{VERSION} is served")
