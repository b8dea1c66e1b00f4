"""Which addresses callbacks may go to."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.callbacks.targets import Targets
from hybridjobs.errors import ConfigurationError

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1"]
PRIVATE = [
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "::1",
    "fc00::1",
    "fdff:ffff::1",
]
SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
BESIDE = [
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:db7::1",
    "2003::1",
]


@pytest.mark.parametrize("address", [*PUBLIC, *BESIDE])
def test_public_addresses_are_open(address: str) -> None:
    assert Targets().permits("host.example", address)


@pytest.mark.parametrize("address", [*PRIVATE, *SPECIAL])
def test_what_is_not_public_is_closed(address: str) -> None:
    assert not Targets().permits("host.example", address)


@pytest.mark.parametrize("address", [each for each in (*PRIVATE, *SPECIAL) if ":" not in each])
@pytest.mark.parametrize("form", ["::ffff:{}", "64:ff9b::{}"])
def test_an_ipv4_address_inside_an_ipv6_one_is_what_counts(form: str, address: str) -> None:
    assert not Targets().permits("host.example", form.format(address))
    assert Targets().permits("host.example", form.format("8.8.8.8"))


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_what_python_calls_private_is_closed(address: IPv4Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert not Targets().permits("host.example", str(address))


@pytest.mark.parametrize("address", ["", "example.com", "1.1.1", "0x7f.1", "2130706433"])
def test_what_is_no_address_is_closed(address: str) -> None:
    assert not Targets().permits("host.example", address)


@pytest.mark.parametrize("host", ["svc.team", "SVC.TEAM", "svc.team.", "a.b.team.local"])
def test_a_listed_host_may_be_in_a_private_network_but_in_no_special_one(host: str) -> None:
    targets = Targets.parse("svc.team, *.team.local")
    assert all(targets.permits(host, address) for address in PRIVATE)
    assert not any(targets.permits(host, address) for address in SPECIAL)
    assert not any(targets.permits("other.team", address) for address in PRIVATE)
    assert not any(targets.permits("team.local", address) for address in PRIVATE)
    assert not any(targets.permits("xteam.local", address) for address in PRIVATE)


@pytest.mark.parametrize("address", [each for each in (*PRIVATE, *SPECIAL) if "%" not in each])
def test_a_listed_network_is_open_whatever_it_is(address: str) -> None:
    targets = Targets.parse(address)
    assert targets.permits("host.example", address)
    assert not targets.permits("host.example", "10.9.9.9")


def test_public_addresses_of_our_own_network_are_as_private_ones() -> None:
    targets = Targets.parse("svc.team,8.8.8.0/24", private="2600:1f18::/32, 8.8.0.0/16")
    assert not any(targets.permits("host.example", each) for each in ("2600:1f18::1", "8.8.4.4"))
    assert all(targets.permits("svc.team", each) for each in ("2600:1f18::1", "8.8.4.4"))
    assert targets.permits("host.example", "8.8.8.8")
    assert targets.permits("host.example", "2600:1f19::1")
    assert not targets.permits("host.example", "10.0.0.1")
    assert not targets.permits("host.example", "::ffff:8.8.4.4")
    with pytest.raises(ConfigurationError, match="HYBRIDJOBS_CALLBACK_PRIVATE: 'a\\.example'"):
        Targets.parse("", private="10.0.0.0/8,a.example")


def test_a_listed_ipv4_network_is_open_in_ipv6_too() -> None:
    assert Targets.parse("10.1.0.0/16").permits("host.example", "::ffff:10.1.2.3")


@pytest.mark.parametrize("allow", ["10.0.0.1/8", "a b", "*", "a.*.b", "https://x", "10.0.0.0/33"])
def test_a_wrong_entry_of_the_list_is_named(allow: str) -> None:
    with pytest.raises(ConfigurationError, match="HYBRIDJOBS_CALLBACK_ALLOW"):
        Targets.parse(f"ok.example,{allow}")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/done?job=1&token=a%20b",
        "HTTPS://EXAMPLE.COM/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:444/x",
        "https://bücher.example/",
        "https://xn--bcher-kva.example/",
    ],
)
def test_these_may_be_asked_for(url: str) -> None:
    assert Targets().fault_in(url) is None


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "absolute"),
        ("example.com", "absolute"),
        ("/done", "absolute"),
        ("//example.com", "absolute"),
        ("https://", "absolute"),
        ("ftp://example.com/", "absolute"),
        ("javascript:alert(1)", "absolute"),
        ("file:///etc/passwd", "absolute"),
        ("https:///done", "absolute"),
        ("http://example.com/", "https"),
        ("http://8.8.8.8/", "https"),
        ("https://user@example.com/", "user name"),
        ("https://user:secret@example.com/", "user name"),
        ("https://example.com@10.0.0.1/", "user name"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com:0/", "port"),
        ("https://example.com:99999/", "port"),
        ("https://example.com:x/", "is not valid"),
        ("https://exa mple.com/", "spaces"),
        ("https://example.com/\r\nX: y", "control"),
        ("https://example.com/\u2028", "control"),
        ("https://[::1/", "is not valid"),
        ("https://10.0.0.1/", "network"),
        ("https://127.0.0.1:5432/", "network"),
        ("https://169.254.169.254/latest/meta-data", "network"),
        ("https://[::1]/", "network"),
        ("https://[::ffff:127.0.0.1]/", "network"),
        ("https://[fe80::1]/", "network"),
        ("https://[::]/", "network"),
        ("https://[::ffff:7f00:1]/", "network"),
        ("https://[64:ff9b::10.0.0.1]/", "network"),
        ("https://[64:ff9b::a9fe:a9fe]/", "network"),
        ("https://[2002:7f00:1::1]/", "network"),
        ("https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", "network"),
        ("https://0177.0.0.1/", "is not valid"),
        ("https://127.0.0.01/", "is not valid"),
        ("https://127.0.0.1./", "four decimal numbers"),
        ("https://127.1/", "four decimal numbers"),
        ("https://2130706433/", "four decimal numbers"),
        ("https://0x7f000001/", "four decimal numbers"),
        ("https://0X7f.0.0.1/", "four decimal numbers"),
        ("https://0177.1/", "four decimal numbers"),
        ("https://127%2e0%2e0%2e1/", "four decimal numbers"),
        ("https://127\N{IDEOGRAPHIC FULL STOP}0.0.1/", "network"),
        ("https://\N{FULLWIDTH DIGIT ONE}27.0.0.1/", "is not valid"),
        ("https://a..example/", "name of a host"),
        ("https://localhost/", "network"),
        ("https://LOCALHOST./", "network"),
        ("https://a.localhost/", "network"),
        ("https://metadata.google.internal/", "network"),
        ("https://kubernetes.default.svc/", "network"),
        ("https://kubernetes.default.svc.cluster.local/", "network"),
        ("https://example.com/" + "a" * 2048, "2048"),
    ],
)
def test_these_may_not(url: str, fault: str) -> None:
    found = Targets().fault_in(url)
    assert found is not None
    assert fault in found


def test_what_is_listed_may_be_called_by_http() -> None:
    targets = Targets.parse("svc.team,10.0.0.0/8")
    assert targets.fault_in("http://svc.team:8080/") is None
    assert targets.fault_in("http://10.1.2.3/") is None
    assert targets.fault_in("http://example.com/") == "must be https"
    # Where a name leads shows when it is called.
    assert targets.fault_in("https://receiver.team.svc.cluster.local/") is None


def test_without_secrets_nobody_may_ask() -> None:
    fault = Targets.parse("", enabled=False).fault_in("https://example.com/")
    assert fault is not None
    assert "HYBRIDJOBS_CALLBACK_SECRETS_DIR" in fault


@given(st.text(max_size=60).map(lambda rest: f"https://{rest}"))
def test_any_text_gets_an_answer(url: str) -> None:
    Targets().fault_in(url)
