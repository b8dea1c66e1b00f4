"""The long-running processes, and the commands that prepare for them."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from hybridjobs.cli.exits import exit_for
from hybridjobs.cli.worker import run_worker
from hybridjobs.errors import ConfigurationError, HybridJobsError
from hybridjobs.logs import configure_logging
from hybridjobs.settings import DatabaseSettings, IngressSettings, LogSettings, OperatorSettings
from hybridjobs.tracing import configure_tracing, flush_traces

_FLUSH_SECONDS = 2.0

log = structlog.get_logger(__name__)


def migrate(
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the database to answer.", min=0)
    ] = 0,
) -> None:
    """Bring the database's schema and roles up to this version. Safe to run again, and at once.

    Reads HYBRIDJOBS_MIGRATE_URL (the owner's; else HYBRIDJOBS_DATABASE_URL). The users of
    HYBRIDJOBS_DATABASE_URL and HYBRIDJOBS_HANDLERS_DATABASE_URL are created if they are missing,
    and get the rights that they need.
    """
    from hybridjobs.store.migrate import migrate as apply

    settings = DatabaseSettings.load()
    service = settings.database_url.get_secret_value()
    logins = {service: "hybridjobs_service"}
    if settings.handlers_database_url is not None:
        logins[settings.handlers_database_url.get_secret_value()] = "hybridjobs_handlers"
    owner = settings.migrate_url or settings.database_url
    applied = asyncio.run(apply(owner.get_secret_value(), logins=logins, wait_seconds=wait))
    typer.echo(f"applied: {', '.join(applied)}" if applied else "the schema is up to date")


def ingress() -> None:
    """Serve webhooks (:8080), the API (:8081), workers (:8082) and health (:9090), and dispatch.

    Configured by HYBRIDJOBS_* variables; a missing or wrong one is named at the start.
    """
    from hybridjobs.ingress.app import serve

    with _logging():
        configure_tracing("ingress")
        _run(serve(IngressSettings.load()))


def operator() -> None:
    """Run HybridJobs as Kubernetes Jobs, and bring their outcomes back into the database.

    Configured by HYBRIDJOBS_* variables; a missing or wrong one is named at the start.
    """
    from hybridjobs.controller.app import serve

    with _logging():
        configure_tracing("operator")
        _run(serve(OperatorSettings.load()))


def worker() -> None:
    """Run one job: the main process of a job's pod, told by HYBRIDJOB_* variables.

    Exit codes: 0 success, 1 failure, 65 permanent failure, 75 interrupted with work left to do.
    """
    run_worker()


def run(
    name: Annotated[
        str,
        typer.Argument(
            metavar="HANDLER", help="The name of one that is installed, or MODULE:FUNCTION."
        ),
    ],
    payload: Annotated[
        str, typer.Option(help="A file with the payload's JSON; - for standard input.")
    ] = "-",
    deadline: Annotated[float, typer.Option(help="Seconds the handler may take.", min=1)] = 900,
) -> None:
    """Run a handler alone: no cluster, no database, no queue. Prints its result as JSON.

    Progress and what it would submit are shown on standard error.

    Example: echo '{"owner": "octocat", "repo": "hello-world", "number": 1}' |
    hybridjobs run capture/pr.details
    """
    from hybridjobs.worker.alone import run_alone

    try:
        text = sys.stdin.read() if payload == "-" else Path(payload).read_text()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the payload cannot be read: {error}") from None
    # As `python -m` does: a module of this folder need not be installed.
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(asyncio.run(run_alone(name, text, deadline_seconds=deadline)))


def postgres(
    data: Annotated[Path, typer.Option(help="The data directory; made when it is empty.")],
    port: Annotated[int, typer.Option(help="The TCP port.")] = 5432,
    host: Annotated[str, typer.Option(help="The addresses to listen on.")] = "0.0.0.0",  # noqa: S104
) -> None:
    """Run the embedded Postgres in the foreground: for demos and tests, one node, no backups.

    The superuser is `postgres`; its password comes from POSTGRES_PASSWORD when the data directory
    is made.
    """
    from hybridjobs.store.embedded import EmbeddedPostgres

    password = os.environ.get("POSTGRES_PASSWORD")
    if not password:
        raise ConfigurationError("POSTGRES_PASSWORD is not set")
    server = EmbeddedPostgres(data, password=password, port=port, host=host)
    server.run_forever()


@contextmanager
def _logging() -> Iterator[None]:
    """Log in the form that is asked for: also what ends the process."""
    configure_logging(LogSettings.load())
    try:
        yield
    except HybridJobsError as error:
        log.critical("ended", error=str(error))
        raise typer.Exit(exit_for(error)) from None


def _run(process: Coroutine[Any, Any, None]) -> None:
    import uvloop

    try:
        uvloop.run(process)
    finally:
        flush_traces(_FLUSH_SECONDS)
