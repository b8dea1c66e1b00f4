"""Cut and slow connections inside the native cluster's own network namespace, nowhere else."""

from collections.abc import Iterable

from tests.cluster import ClusterError
from tests.cluster.native import node
from tests.cluster.native.layout import API_URL, NODE_ADDRESS

_API_PORT = int(API_URL.rpartition(":")[2])
_TABLE = "hybridjobs-chaos-"
_SLOW = ("rate", "64kbit", "burst", "4kb", "latency", "1s")
"""What is above it waits up to a second, and is then dropped: slower than any timeout likes."""


def cut_database(pods: Iterable[str], database: str, *, reset: bool) -> None:
    """Packets between pods (addresses) and Postgres: dropped, or answered by a reset."""
    rules = [f"ip saddr {pod} ip daddr {database} tcp dport 5432" for pod in pods]
    # What the other side sends is dropped, so that neither learns of it.
    back = [] if reset else [f"ip saddr {database} ip daddr {pod} tcp sport 5432" for pod in pods]
    _cut("database", "forward", [*rules, *back], reset=reset)


def cut_api(pods: Iterable[str], *, reset: bool) -> None:
    """Packets of pods (addresses) to the API server, which the node itself receives."""
    to_node = f"ip daddr {NODE_ADDRESS} tcp dport {_API_PORT}"
    _cut("api", "input", [f"ip saddr {pod} {to_node}" for pod in pods], reset=reset)


def heal(what: str) -> None:
    """End a cut: "database" or "api"; harmless where there is none."""
    _quietly("nft", "delete", "table", "inet", f"{_TABLE}{what}")


def slow(pod: str) -> str:
    """Slow all that goes to a pod (address); the link to `hasten` afterwards."""
    route = node.run_inside("ip", "route", "get", pod).split()
    link = route[route.index("dev") + 1]
    _quietly("tc", "qdisc", "add", "dev", link, "root", "tbf", *_SLOW)
    return link


def hasten(link: str) -> None:
    """Undo `slow`; harmless where the link has gone with its pod."""
    _quietly("tc", "qdisc", "del", "dev", link, "root")


def _cut(what: str, hook: str, matches: list[str], *, reset: bool) -> None:
    heal(what)
    verdict = "reject with tcp reset" if reset else "drop"
    lines = "\n".join(f"{match} {verdict}" for match in matches)
    table = f"inet {_TABLE}{what}"
    chain = f"chain cut {{\ntype filter hook {hook} priority -10; policy accept;\n{lines}\n}}"
    node.run_inside("nft", f"table {table} {{\n{chain}\n}}")


def _quietly(*command: str) -> None:
    try:
        node.run_inside(*command)
    except ClusterError:
        return
