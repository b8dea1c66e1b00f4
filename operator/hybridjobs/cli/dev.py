"""`hybridjobs dev`."""

from pathlib import Path
from typing import Annotated

import typer


def dev(
    module: Annotated[
        list[str] | None,
        typer.Option(help="A module or package of handlers; several times. Default: installed."),
    ] = None,
    types_dir: Annotated[
        Path | None,
        typer.Option(help="A folder of HybridJobTypes and HybridJobSchedules, a YAML file each."),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            help="Webhooks; the API, workers, health and Postgres follow it.", min=1, max=65531
        ),
    ] = 8080,
    data: Annotated[
        Path | None, typer.Option(help="Where the data is kept. Default: .hybridjobs here.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Begin anew, without the data.")] = False,
) -> None:
    """Run everything on this machine, without a cluster: for people who write handlers.

    Postgres (of hybridjobs\\[embedded]), the ingress, and each long job as a local process. Changes
    of the code take effect with the next job. Not for production: it keeps no promise that needs a
    cluster.
    """
    import uvloop

    from hybridjobs.dev.app import Options, serve

    uvloop.run(serve(Options(tuple(module or ()), types_dir, port, reset, data)))
