import base64
import hmac
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import yaml

from tests.conftest import free_port
from tests.recorded import deliveries, signed_headers
from tests.recorded.manifest import archive, manifest
from tests.recorded.paths import DATA, require


def test_every_recorded_delivery_is_there() -> None:
    recorded = deliveries()
    assert len(recorded) == 329
    assert [each.index for each in recorded] == list(range(329))
    assert Counter(each.event for each in recorded)["pull_request"] > 20
    assert {each.action for each in recorded if each.event == "push"} == {None}
    assert all(isinstance(json.loads(each.payload), dict) for each in recorded)
    assert len({each.id for each in recorded}) == 329


def test_a_delivery_is_signed_as_github_signs() -> None:
    delivery = deliveries()[0]
    headers = signed_headers("s3cret", delivery)
    signature = hmac.new(b"s3cret", delivery.payload, "sha256").hexdigest()
    assert headers["x-hub-signature-256"] == f"sha256={signature}"
    assert headers["x-github-event"] == delivery.event
    assert headers["x-github-delivery"] == delivery.id
    assert signed_headers("s3cret", delivery, delivery_id="other")["x-github-delivery"] == "other"


def test_the_list_shows_event_action_and_size() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.recorded", "deliveries"],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[1] for line in lines] == [each.event for each in deliveries()]
    assert ["push", "-"] in [line[1:3] for line in lines]


def test_the_manifest_holds_all_that_the_pod_needs() -> None:
    objects = {each["kind"]: each for each in yaml.safe_load_all(manifest("demo", "hybridjobs:x"))}
    assert list(objects) == ["ConfigMap", "Deployment", "Service"]
    assert {each["metadata"]["namespace"] for each in objects.values()} == {"demo"}
    assert base64.b64decode(objects["ConfigMap"]["binaryData"]["server.pyz"]) == archive()
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "hybridjobs:x"
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert objects["Service"]["spec"]["ports"][0]["port"] == 80


def test_the_server_stands_alone(tmp_path: Path) -> None:
    """As in the pod: one file by its path, outside this package, without our modules."""
    assert require(DATA).stat().st_size < 1 << 19
    port = free_port()
    options = ["--data", str(DATA), "--port", str(port)]
    server = tmp_path / "server.pyz"
    server.write_bytes(archive())
    with subprocess.Popen([sys.executable, "-I", str(server), *options], cwd="/") as process:
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            transport=httpx.HTTPTransport(retries=8),
            timeout=30,
        )
        with client:
            assert client.get("/_test/health").status_code == 204
            assert client.get("/repos/Codertocat/Hello-World/pulls/2").json()["number"] == 2
            answer = client.post(
                "/graphql",
                headers={"authorization": "Bearer any"},
                json={"query": '{ repository(owner: "Codertocat", name: "Hello-World") { id } }'},
            )
            assert answer.json()["data"]["repository"]["id"]
        process.terminate()
