"""Where the API server is, and who we are to it."""

import os
from pathlib import Path

from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from hybridjobs.errors import ConfigurationError

TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
CA_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"


class _TokenFile:
    """The pod's token, read again as soon as the kubelet has renewed it.

    The library reads the file once a minute, which is too late for a token that was revoked.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int] | None = None

    def __call__(self, configuration: Configuration) -> None:
        try:
            now = self._path.stat()
            if (now.st_ino, now.st_mtime_ns) == self._seen:
                return
            token = self._path.read_text().strip()
        except OSError:
            return  # it is being replaced: the one that is known may be good still
        if token:
            configuration.api_key["BearerToken"] = f"Bearer {token}"
            self._seen = (now.st_ino, now.st_mtime_ns)


async def load_configuration() -> Configuration:
    """The credentials of this pod, else those of KUBECONFIG or ~/.kube/config."""
    configuration = Configuration()
    # The default reads proxies and netrc again for every request, at four times its cost.
    configuration.client_session_kwargs = {"trust_env": False}
    try:
        InClusterConfigLoader(TOKEN_FILE, CA_FILE, try_refresh_token=False).load_and_set(
            configuration
        )
        configuration.refresh_api_key_hook = _TokenFile(TOKEN_FILE)  # type: ignore[assignment]
    except config.ConfigException:
        try:
            # Named here, since the library reads the variable once, when it is imported.
            await config.load_kube_config(
                config_file=os.environ.get("KUBECONFIG"), client_configuration=configuration
            )
        except (config.ConfigException, OSError, TypeError) as error:
            raise ConfigurationError(
                f"no cluster: not in a pod, and no usable kubeconfig ({error})"
            ) from error
    return configuration
