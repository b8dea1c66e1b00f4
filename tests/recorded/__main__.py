"""The commands of `python -m tests.recorded`."""

import argparse
import sys

from tests.recorded import build, manifest, server
from tests.recorded.packages import install
from tests.recorded.paths import DATA, FOLDER, require
from tests.recorded.recording import deliveries


def _setup() -> None:
    """Install what package-lock.json pins unless it is there, then build the data file."""
    install(FOLDER)
    build.build()
    print(f"{DATA}: {DATA.stat().st_size} bytes")


def _list() -> None:
    for delivery in deliveries():
        print(delivery.index, delivery.event, delivery.action or "-", len(delivery.payload))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.recorded")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="install the recordings and build the data file")
    serve = commands.add_parser(
        "serve",
        help="answer as GitHub's API",
        description=server.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--port", type=int, default=8080)
    serve.add_argument("--host", default="127.0.0.1")
    commands.add_parser("deliveries", help="list them: index, event, action, bytes")
    objects = commands.add_parser("manifest", help="the API as Kubernetes objects")
    objects.add_argument("--namespace", required=True)
    objects.add_argument("--image", default="hybridjobs:dev")
    options = parser.parse_args()
    match options.command:
        case "setup":
            _setup()
        case "serve":
            server.serve(require(DATA), host=options.host, port=options.port)
        case "deliveries":
            _list()
        case "manifest":
            sys.stdout.write(manifest.manifest(options.namespace, options.image))


if __name__ == "__main__":
    main()
