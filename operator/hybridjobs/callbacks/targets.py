"""Which addresses callbacks may go to. Callers name them, so our own network must be out of reach.

A name says nothing about where it leads: what counts is the address at the moment of connecting,
which `network` asks about. What is plainly wrong is refused at the submission already.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Self

import httpx

from hybridjobs.errors import ConfigurationError
from hybridjobs.model import MAX_CALLBACK_URL_LENGTH
from hybridjobs.settings import comma_separated

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA has given out
_PRIVATE: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared; also a cloud's metadata
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "::1/128",
            "fc00::/7",
        ),
    )
)
# IANA's registries of special-purpose addresses, and clouds' metadata. A host on the allow list
# does not open these; their networks would have to be named.
_SPECIAL: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "168.63.129.16/32",  # Azure's platform
            "169.254.0.0/16",  # link-local, metadata
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "2001::/23",  # protocols, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4: any IPv4 address in disguise
            "3fff::/20",
            "fd00:ec2::/32",  # AWS's metadata
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Targets:
    """Every public address by https, and what the administrator's list adds to that.

    A listed host may be anywhere but in special networks, a listed network is open whatever it
    is; both may be called by http. `private` are the networks that are nobody else's to call.
    `enabled` False: nobody may ask for a callback.
    """

    hosts: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()  # with their leading dot
    networks: tuple[Network, ...] = ()
    private: tuple[Network, ...] = _PRIVATE
    enabled: bool = True

    @classmethod
    def parse(cls, allow: str, *, private: str = "", enabled: bool = True) -> Self:
        """From names, *.domains and CIDRs with commas between; ConfigurationError names a fault.

        `private`: CIDRs beside those that are private everywhere, such as public addresses that
        the cluster uses.
        """
        hosts: set[str] = set()
        domains: list[str] = []
        networks: list[Network] = []
        for entry in comma_separated(allow.lower()):
            if (network := _network(entry)) is not None:
                networks.append(network)
            elif entry.startswith("*.") and _is_name(entry[2:]):
                domains.append(entry[1:])
            elif _is_name(entry):
                hosts.add(entry)
            else:
                raise ConfigurationError(
                    f"HYBRIDJOBS_CALLBACK_ALLOW: {entry!r} is no host name, *.domain or CIDR"
                )
        more: list[Network] = []
        for entry in comma_separated(private):
            if (network := _network(entry)) is None:
                raise ConfigurationError(f"HYBRIDJOBS_CALLBACK_PRIVATE: {entry!r} is no CIDR")
            more.append(network)
        return cls(frozenset(hosts), tuple(domains), tuple(networks), (*_PRIVATE, *more), enabled)

    def fault_in(self, url: str) -> str | None:
        """What keeps the address from being called, as far as it shows; None: nothing."""
        if not self.enabled:
            return "cannot be called: this installation has no HYBRIDJOBS_CALLBACK_SECRETS_DIR"
        if len(url) > MAX_CALLBACK_URL_LENGTH:
            return f"must have at most {MAX_CALLBACK_URL_LENGTH} characters"
        if not url.isprintable() or " " in url:
            return "must have no spaces or control characters"
        try:
            parsed = httpx.URL(url)
            host = parsed.raw_host.decode("ascii").lower()
        except (httpx.InvalidURL, ValueError) as error:
            return f"is not valid: {error}"
        if parsed.scheme not in ("http", "https") or not host:
            return "must be an absolute https:// URL"
        if parsed.userinfo:
            return "must have no user name or password"
        if parsed.fragment:
            return "must have no fragment"
        if parsed.port is not None and not 0 < parsed.port < 65536:
            return "must have a port from 1 to 65535"
        address = _address(host)
        if address is None and not _is_name(host):
            return "must have the name of a host, or an IPv4 address of four decimal numbers"
        if (address is not None and not self.permits(host, host)) or (
            address is None and _is_local_name(host) and not (self._lists(host) or self.networks)
        ):
            return "leads into a network that callbacks may not enter"
        if parsed.scheme == "http" and not self._may_be_plain(host, address):
            return "must be https"
        return None

    def permits(self, host: str, address: str) -> bool:
        """Whether the address, to which the host's name leads at the moment, may be called."""
        parsed = _address(address)
        if parsed is None:
            return False
        if _within(parsed, self.networks):
            return True
        if isinstance(parsed, IPv6Address) and not (
            parsed in _GLOBAL_UNICAST or _within(parsed, self.private)
        ):
            return False
        if _within(parsed, _SPECIAL):
            return False
        return self._lists(host) or not _within(parsed, self.private)

    def _lists(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return name in self.hosts or name.endswith(self.domains)

    def _may_be_plain(self, host: str, address: Address | None) -> bool:
        return self._lists(host) or (address is not None and _within(address, self.networks))


def _address(text: str) -> Address | None:
    """The address that a packet would reach: an IPv4 one within an IPv6 one is what counts."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _is_name(text: str) -> bool:
    """Whether it can be a host's; what ends in a number is an address (WHATWG's URL Standard)."""
    labels = text.removesuffix(".").split(".")
    return (
        len(text) <= 253
        and not _NUMBER.fullmatch(labels[-1])
        and all(
            label.isascii() and label.replace("-", "").replace("_", "").isalnum()
            for label in labels
        )
    )


def _is_local_name(host: str) -> bool:
    name = host.rstrip(".")
    return name == "localhost" or name.endswith((".localhost", ".local", ".internal", ".svc"))
