"""A few requests to the API server, without starting a kubectl for each."""

import http.client
import json
import ssl
from typing import Any

from tests.cluster.native.layout import NODE_ADDRESS, PKI
from tests.cluster.shell import ClusterError

_SERVER_SIDE_APPLY = "application/apply-patch+yaml"


class Api:
    """A connection as cluster administrator; kept open between requests, until `close`."""

    def __init__(self) -> None:
        context = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
        context.load_cert_chain(PKI / "admin.crt", PKI / "admin.key")
        self._connection = http.client.HTTPSConnection(
            NODE_ADDRESS, 6443, timeout=5, context=context
        )

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        """Return status and text; status 0 when no server answers."""
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, data, {"Content-Type": content_type})
            response = self._connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, str(error)

    def close(self) -> None:
        """End the connection; a later request would open it again."""
        self._connection.close()

    def get(self, path: str) -> Any:
        """Return the object at this path, None when it cannot be had."""
        status, text = self.request("GET", path)
        return json.loads(text) if status == 200 else None

    def is_ready(self) -> bool:
        """Return whether the API server answers requests."""
        return self.request("GET", "/readyz")[0] == 200

    def apply(self, path: str, body: dict[str, Any]) -> None:
        """Create or update an object by server-side apply."""
        query = "fieldManager=hybridjobs-cluster&force=true"
        status, text = self.request("PATCH", f"{path}?{query}", body, _SERVER_SIDE_APPLY)
        if status not in (200, 201):
            raise ClusterError(f"cannot apply {path}: {status} {text[:500]}")
