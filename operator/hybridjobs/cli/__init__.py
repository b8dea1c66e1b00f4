"""The command `hybridjobs`."""

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["worker"]:
        # Every pod begins here: typer and rich would delay its handler by more than they help.
        from hybridjobs.cli.worker import run_worker

        run_worker()
    from hybridjobs.cli.app import app

    app()
