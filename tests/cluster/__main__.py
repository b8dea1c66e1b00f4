"""`make cluster`, `make cluster-down`, `make image` and what helps to look inside."""

import argparse
import shlex
import sys

from tests.cluster import images, kind, kueue, native, tools
from tests.cluster.current import choice, current, named
from tests.cluster.paths import BIN
from tests.cluster.shell import ClusterError, run, say


def _up() -> None:
    chosen = choice()
    say(f"cluster: {chosen}" + (f" ({named()})" if chosen == "named" else ""))
    if chosen == "native":
        native.up()
    elif chosen == "kind":
        kind.up()
    cluster = current()
    version = run(cluster.kubectl, "version", env=cluster.environment).splitlines()[-1]
    say(f"{version} (helm and kubectl in {BIN})")
    if chosen != "named":
        say('for your own shell: eval "$(python -m tests.cluster env)"')


def _down() -> None:
    if path := named():
        say(f"KUBECONFIG names {path}: not ours to take down")
        return
    native.down()
    kind.down()


def _env() -> None:
    cluster = current()
    print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    print(f"export PATH={shlex.quote(str(BIN))}:$PATH")


def _status() -> None:
    if choice() == "native":
        print(native.status())
        print(images.status())
        return
    cluster = current()
    print(f"{cluster.kind} cluster, kubeconfig {cluster.kubeconfig}")
    print(run(cluster.kubectl, "get", "nodes", "-o", "wide", env=cluster.environment))


def _api_server(action: str) -> None:
    cluster = current()
    if action == "start":
        cluster.start_api_server()
    else:
        cluster.stop_api_server(pause=action == "pause")


def _tools() -> None:
    print(tools.kubectl().resolve())
    print(tools.helm().resolve())
    print(tools.PROMETHEUS.built() / "promtool")


def main() -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="make or mend the cluster")
    commands.add_parser("down", help="take it away")
    commands.add_parser("image", help="build the image and load it, when anything changed")
    commands.add_parser("kueue", help="build Kueue and load it, for the end-to-end tests")
    commands.add_parser("env", help="print export lines for a shell")
    commands.add_parser("status", help="one screen: which cluster, node, processes")
    commands.add_parser("tools", help="find or build kubectl, helm and promtool only")
    api_server = commands.add_parser("api-server", help="stop, freeze and start the API server")
    api_server.add_argument("action", choices=["stop", "pause", "start"])
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "up":
                _up()
            case "down":
                _down()
            case "image":
                images.make()
            case "kueue":
                kueue.load()
            case "env":
                _env()
            case "status":
                _status()
            case "tools":
                _tools()
            case _:
                _api_server(arguments.action)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where this one stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
