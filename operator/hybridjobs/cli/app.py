"""The commands by name, and what their errors mean to a script."""

import sys
from typing import Annotated

import typer

from hybridjobs import __version__
from hybridjobs.cli import (
    callbacks,
    dead_letters,
    dev,
    doctor,
    github,
    jobs,
    processes,
    queue,
    submit,
    tokens,
)
from hybridjobs.cli.exits import Exit, exit_for
from hybridjobs.errors import HybridJobsError
from hybridjobs.logs import configure_logging
from hybridjobs.settings import LogSettings

_EPILOG = (
    "Exit codes: 0 done · 1 failed, or the job that was waited for did · 2 wrong usage or input · "
    "3 no such job or type · 4 not allowed · 5 not reachable, try again · 6 waited too long"
)


class _App(typer.Typer):
    def __call__(self, *arguments: object, **options: object) -> None:
        # For people; the long-running processes have a form of their own.
        configure_logging(LogSettings(log_level="warning", log_format="console"))
        try:
            super().__call__(*arguments, **options)
        except HybridJobsError as error:
            sys.stderr.write(f"hybridjobs: {error}\n")
            sys.exit(exit_for(error))
        except KeyboardInterrupt:
            sys.exit(Exit.INTERRUPTED)


app = _App(
    name="hybridjobs",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Webhooks that start long work: answered at once, run as Kubernetes Jobs with a deadline, "
    "never lost.",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(rich_help_panel="About")
def version(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
) -> None:
    """Print the version, and the schema version that it needs."""
    from hybridjobs.store.migrate import required_version

    schema = required_version()
    text = f'{{"version": "{__version__}", "schema": {schema}}}' if as_json else __version__
    typer.echo(text)


app.command(rich_help_panel="Jobs")(submit.submit)
app.command(rich_help_panel="Jobs")(submit.batch)
app.command(rich_help_panel="Jobs")(jobs.get)
app.command(rich_help_panel="Jobs")(jobs.logs)
app.command("jobs", rich_help_panel="Jobs")(jobs.list_)
app.command(rich_help_panel="Jobs")(jobs.retry)
app.command(rich_help_panel="Jobs")(jobs.cancel)
app.add_typer(dead_letters.app, name="dlq", rich_help_panel="Jobs")
app.add_typer(callbacks.app, name="callbacks", rich_help_panel="Jobs")
app.command(rich_help_panel="Queue")(queue.types)
app.command(rich_help_panel="Queue")(queue.pause)
app.command(rich_help_panel="Queue")(queue.resume)
app.command(rich_help_panel="Queue")(queue.schedules)
app.command(rich_help_panel="Queue")(queue.stats)
app.command(rich_help_panel="Queue")(doctor.doctor)
app.add_typer(tokens.app, name="token", rich_help_panel="Server")
app.command(rich_help_panel="Handlers")(dev.dev)
app.command(rich_help_panel="Handlers")(processes.run)
app.command(rich_help_panel="Handlers")(processes.worker)
app.command(rich_help_panel="Server")(processes.migrate)
app.command(rich_help_panel="Server")(processes.ingress)
app.command(rich_help_panel="Server")(processes.operator)
app.command(rich_help_panel="Server")(processes.postgres)
app.command(rich_help_panel="Server")(github.github_redeliver)
