"""Certificates and kubeconfig files, made by openssl for one life of the cluster."""

import base64
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.native.layout import (
    API_SERVICE_ADDRESS,
    API_URL,
    DOMAIN,
    KUBECONFIG,
    NODE,
    NODE_ADDRESS,
    PKI,
)
from tests.cluster.shell import run

_DAYS = "365"


@dataclass(frozen=True)
class _Certificate:
    name: str
    subject: str
    usage: str
    authority: str = "ca"
    names: str = ""


_API_NAMES = ",".join(
    [
        f"DNS:kubernetes.default.svc.{DOMAIN}",
        *("DNS:kubernetes.default.svc", "DNS:kubernetes.default", "DNS:kubernetes"),
        *("DNS:localhost", "IP:127.0.0.1", f"IP:{API_SERVICE_ADDRESS}", f"IP:{NODE_ADDRESS}"),
    ]
)
_CLIENTS = (
    _Certificate("admin", "/O=system:masters/CN=admin", "clientAuth"),
    _Certificate("controller-manager", "/CN=system:kube-controller-manager", "clientAuth"),
    _Certificate("scheduler", "/CN=system:kube-scheduler", "clientAuth"),
    _Certificate("kubelet", f"/O=system:nodes/CN=system:node:{NODE}", "clientAuth"),
    _Certificate("kube-proxy", "/CN=system:kube-proxy", "clientAuth"),
    _Certificate("coredns", "/CN=system:coredns", "clientAuth"),
)
_OTHERS = (
    _Certificate("api-server", "/CN=kube-apiserver", "serverAuth", names=_API_NAMES),
    _Certificate("api-server-kubelet", "/O=system:masters/CN=api-server", "clientAuth"),
    _Certificate("front-proxy", "/CN=front-proxy-client", "clientAuth", "front-proxy-ca"),
    _Certificate(
        "kubelet-server",
        f"/O=system:nodes/CN=system:node:{NODE}",
        "serverAuth",
        names=f"DNS:{NODE},IP:{NODE_ADDRESS}",
    ),
)


def create() -> None:
    """Make all keys, certificates and kubeconfigs, unless they are there: all or none."""
    if PKI.exists() and KUBECONFIG.exists():
        return
    partial = PKI.with_name("pki.partial")
    for leftover in (partial, PKI):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    # The front-proxy authority must differ from the clients': else the API server exits.
    for authority in ("ca", "front-proxy-ca"):
        _make_authority(partial, authority)
    for certificate in _CLIENTS + _OTHERS:
        _make_certificate(partial, certificate)
    run("openssl", "genrsa", "-out", partial / "service-accounts.key", "2048")
    public = ("openssl", "rsa", "-pubout", "-in", partial / "service-accounts.key")
    run(*public, "-out", partial / "service-accounts.pub")
    for client in _CLIENTS:
        write_private(partial / f"{client.name}.kubeconfig", _kubeconfig(partial, client.name))
    partial.rename(PKI)
    fresh = KUBECONFIG.with_name(".kubeconfig")
    write_private(fresh, (PKI / "admin.kubeconfig").read_text())
    fresh.rename(KUBECONFIG)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)


def _make_key(path: Path) -> None:
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)


def _make_authority(folder: Path, name: str) -> None:
    _make_key(folder / f"{name}.key")
    run(
        *("openssl", "req", "-x509", "-new", "-key", folder / f"{name}.key", "-days", _DAYS),
        *("-subj", f"/CN=hybridjobs-{name}", "-out", folder / f"{name}.crt"),
        *("-addext", "keyUsage=critical,digitalSignature,keyCertSign,cRLSign"),
    )


def _make_certificate(folder: Path, wanted: _Certificate) -> None:
    key, request = folder / f"{wanted.name}.key", folder / f"{wanted.name}.csr"
    extensions = folder / f"{wanted.name}.ext"
    lines = ["basicConstraints=CA:FALSE", f"extendedKeyUsage={wanted.usage}"]
    lines += ["keyUsage=critical,digitalSignature"]
    if wanted.names:
        lines.append(f"subjectAltName={wanted.names}")
    extensions.write_text("\n".join(lines) + "\n")
    _make_key(key)
    run("openssl", "req", "-new", "-key", key, "-subj", wanted.subject, "-out", request)
    authority = folder / wanted.authority
    run(
        *("openssl", "x509", "-req", "-in", request, "-days", _DAYS, "-extfile", extensions),
        *("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key"),
        *("-set_serial", str(secrets.randbits(63)), "-out", folder / f"{wanted.name}.crt"),
    )
    request.unlink()
    extensions.unlink()


def _kubeconfig(folder: Path, name: str) -> str:
    def data(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    user = {
        "client-certificate-data": data(f"{name}.crt"),
        "client-key-data": data(f"{name}.key"),
    }
    cluster = {"server": API_URL, "certificate-authority-data": data("ca.crt")}
    context = {"cluster": "hybridjobs", "user": name}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "hybridjobs", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "hybridjobs", "context": context}],
            "current-context": "hybridjobs",
        },
        indent=2,
    )
