"""Credentials that change while the operator runs."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kubernetes.aio.client import Configuration

from hybridjobs.controller import watch
from hybridjobs.kube import credentials
from hybridjobs.kube.client import PODS, Kubernetes, Object, Resource, Unauthorized
from tests.cluster import Cluster
from tests.integration.controller.scene import configured
from tests.integration.controller.watching import watching

SECRETS = Resource("", "v1", "secrets")


@dataclass
class Account:
    """A service account, and tokens of it that can be revoked."""

    kubernetes: Kubernetes
    namespace: str

    async def token(self, bound_to: str) -> str:
        """A token that is good for as long as the Secret exists, which is made."""
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": bound_to}}
        made = await self.kubernetes.create(SECRETS, self.namespace, secret)
        reference = {"apiVersion": "v1", "kind": "Secret", "name": bound_to}
        reference["uid"] = made["metadata"]["uid"]
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [], "expirationSeconds": 600, "boundObjectRef": reference},
        }
        tokens = Resource("", "v1", "serviceaccounts/default/token")
        answer = await self.kubernetes.create(tokens, self.namespace, asked)
        token: str = answer["status"]["token"]
        return token

    async def revoke(self, bound_to: str) -> None:
        secret = await self.kubernetes.get(SECRETS, self.namespace, bound_to)
        await self.kubernetes.delete(
            SECRETS, self.namespace, bound_to, uid=secret["metadata"]["uid"]
        )


async def test_a_token_that_is_renewed_is_taken_up_by_client_and_watches(
    cluster: Cluster,
    kubernetes: Kubernetes,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await _allow_pods(kubernetes, namespace)
    account, file = Account(kubernetes, namespace), tmp_path / "token"
    first = await account.token("first")
    file.write_text(first + "\n")
    _as_in_a_pod(await configured(cluster), file, monkeypatch)
    monkeypatch.setattr(watch, "_INACTIVITY_SECONDS", 1.0)  # so that it soon connects again
    configuration = await credentials.load_configuration()
    async with (
        Kubernetes(configuration, field_manager="test") as ours,
        watching(configuration, kubernetes, namespace, [PODS]) as found,
    ):
        await found.make(PODS, "one")
        await found.told_of("one")
        # As the kubelet does: the file is replaced, not written to.
        renewed = tmp_path / "renewed"
        renewed.write_text(await account.token("second"))
        renewed.rename(file)
        await account.revoke("first")
        await _until_refused(configuration, first, namespace)
        assert len(await ours.list(PODS, namespace)) == 1
        await found.make(PODS, "two")
        await found.told_of("two")
        assert not found.task.done()


async def _allow_pods(kubernetes: Kubernetes, namespace: str) -> None:
    """The namespace's default account may watch pods."""
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "pods"}}
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    to = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"}
    bodies: dict[str, Object] = {
        "roles": {**rbac, "kind": "Role", "rules": [rule]},
        "rolebindings": {**rbac, "kind": "RoleBinding", "subjects": [to], "roleRef": role},
    }
    for plural, body in bodies.items():
        resource = Resource("rbac.authorization.k8s.io", "v1", plural)
        await kubernetes.create(resource, namespace, body)


def _as_in_a_pod(behind: Configuration, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = urlsplit(behind.host)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(at.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(at.port))
    monkeypatch.setattr(credentials, "TOKEN_FILE", str(token))
    monkeypatch.setattr(credentials, "CA_FILE", behind.ssl_ca_cert)


async def _until_refused(like: Configuration, token: str, namespace: str) -> None:
    """Wait until the API server has forgotten that the token was good: some 10 s."""
    configuration = Configuration(host=like.host)
    configuration.ssl_ca_cert = like.ssl_ca_cert
    configuration.api_key = {"BearerToken": f"Bearer {token}"}
    async with Kubernetes(configuration, field_manager="test") as kubernetes:
        async with asyncio.timeout(40):
            try:
                while True:
                    await kubernetes.list(PODS, namespace)
                    await asyncio.sleep(0.25)
            except Unauthorized:
                return
