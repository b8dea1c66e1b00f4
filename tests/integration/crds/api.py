"""A release's objects on a real API server, beside whatever is installed there.

The definitions get a group of their own for the run: rules, columns and policy do not depend on
its name, and nobody's HybridJobs are touched.
"""

import json
import re
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.cluster import Cluster
from tests.unit.chart import helm
from tests.unit.chart.helm import Object
from tests.waiting import until


@dataclass(frozen=True)
class Answer:
    """What kubectl said."""

    code: int
    out: str
    error: str

    @property
    def accepted(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class Api:
    """kubectl, in a namespace and an API group of this run.

    The group's name begins with "test-", so that `kubectl get hj` of others never means it: among
    equal short names the first group by name wins, which is hybridjobs.dev.
    """

    cluster: Cluster
    id: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def namespace(self) -> str:
        return f"crds-{self.id}"

    @property
    def other_namespace(self) -> str:
        """One that the release has nothing to do with."""
        return f"{self.namespace}-other"

    @property
    def group(self) -> str:
        return f"test-{self.id}.hybridjobs.dev"

    def account(self, component: str) -> str:
        """The user name of a service account of the release."""
        return f"system:serviceaccount:{self.namespace}:hybridjobs-{component}"

    def ours(self, objects: Object | Sequence[Object]) -> str:
        """Objects as JSON, moved into this run's group."""
        many = [objects] if isinstance(objects, Mapping) else objects
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": many})
        return re.sub(r"(?<![\w-])hybridjobs\.dev", self.group, text)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> Answer:
        result = subprocess.run(
            [self.cluster.kubectl, f"--namespace={self.namespace}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=self.cluster.environment,
        )
        return Answer(result.returncode, result.stdout.strip(), result.stderr.strip())

    def must(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl that has to succeed; returns what it printed."""
        answer = self.kubectl(*arguments, stdin=stdin)
        assert answer.accepted, answer.error
        return answer.out

    def send(self, verb: str, objects: Object | Sequence[Object], *options: str) -> Answer:
        """`kubectl create` or `replace` of objects, moved into this run's group."""
        return self.kubectl(verb, "-f", "-", *options, stdin=self.ours(objects))

    def patch(self, name: str, change: Object, *options: str, plural: str = "hybridjobs") -> Answer:
        """Merge into a HybridJob, or another object of ours."""
        resource = f"{plural}.{self.group}"
        return self.kubectl(
            "patch", resource, name, "--type=merge", "-p", json.dumps(change), *options
        )

    def release(self, values: Mapping[str, Any] | None = None) -> list[Object]:
        """The chart's objects for this run's namespace."""
        return helm.render(values, namespace=self.namespace)

    def set_up(self) -> None:
        """Both namespaces (ours for restricted pods), definitions, accounts, roles and policy."""
        restricted = {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/warn": "restricted",
        }
        for name, labels in ((self.namespace, restricted), (self.other_namespace, {})):
            metadata = {"name": name, "labels": labels}
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
            self.must("create", "-f", "-", stdin=json.dumps(body))
        release = self.release()
        crds = [each for each in release if each["kind"] == "CustomResourceDefinition"]
        self.must("apply", "-f", "-", stdin=self.ours(crds))
        names = [f"crd/{each['metadata']['name'].split('.')[0]}.{self.group}" for each in crds]
        self.must("wait", "--for=condition=Established", "--timeout=60s", *names)
        kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
        rights = [each for each in release if each["kind"].startswith(("Validating", *kinds))]
        self.must("apply", "-f", "-", stdin=self.ours(rights))
        # The API server takes them up a moment later: of either account, here and everywhere.
        for component, *right in (
            ("ingress", "create", f"hybridjobs.{self.group}"),
            ("ingress", "create", "tokenreviews.authentication.k8s.io"),
            ("operator", "create", "jobs.batch"),
            ("operator", "get", f"crd/hybridjobs.{self.group}"),
        ):
            asked = ("auth", "can-i", *right, f"--as={self.account(component)}")
            until(partial(self._says_yes, *asked))

    def _says_yes(self, *arguments: str) -> bool:
        return self.kubectl(*arguments).accepted

    def tear_down(self) -> None:
        """All of it gone again; the namespace's end is not waited for."""
        for kind in ("hybridjobs", "hybridjobtypes", "hybridjobschedules"):
            self.kubectl("delete", "crd", f"{kind}.{self.group}", "--ignore-not-found")
        for kind in (
            *("validatingadmissionpolicybinding", "validatingadmissionpolicy"),
            *("clusterrolebinding", "clusterrole"),
        ):
            for name in (f"hybridjobs.{self.namespace}", f"hybridjobs.{self.namespace}.types"):
                self.kubectl("delete", kind, name, "--ignore-not-found")
        for name in (self.namespace, self.other_namespace):
            self.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def hybridjobschedule(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "hybridjobs.dev/v1alpha1",
        "kind": "HybridJobSchedule",
        "metadata": {"name": name},
        "spec": {"schedule": "@daily", "type": "test/sync", **spec},
    }


def hybridjobtype(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "hybridjobs.dev/v1alpha1",
        "kind": "HybridJobType",
        "metadata": {"name": name},
        "spec": {"type": name.replace("-", "/", 1), **spec},
    }


def hybridjob(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "hybridjobs.dev/v1alpha1",
        "kind": "HybridJob",
        "metadata": {"name": name},
        "spec": {"type": "test/sync", **spec},
    }
