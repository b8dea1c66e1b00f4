"""The pod's main process as the cluster sees it: a real process, a real API, real signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.otlp import collecting
from tests.unit.worker.worker_api import WorkerApiServer, token_file

PROGRAM = """
import asyncio, sys
from pathlib import Path
from hybridjobs.worker import pod, reporter
for name, value in {settings}.items():
    module, _, constant = name.partition(".")
    assert hasattr({{"pod": pod, "reporter": reporter}}[module], constant)
    setattr({{"pod": pod, "reporter": reporter}}[module], constant, value)
sys.exit(asyncio.run(pod.main(termination_log=Path({log!r}))))
"""


@dataclass
class Pod:
    """A running worker process."""

    process: subprocess.Popen[str]
    termination_log: Path

    def wait(self) -> int:
        with self.process:
            self.errors = self.process.communicate(timeout=50)[1]
        return self.process.returncode

    @property
    def message(self) -> str | None:
        return self.termination_log.read_text() if self.termination_log.exists() else None


Start = Callable[..., Pod]


@pytest.fixture
def api() -> Iterator[WorkerApiServer]:
    with WorkerApiServer() as server:
        yield server


@pytest.fixture
def start(api: WorkerApiServer, environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    pods = []

    def start(
        type_: str,
        payload: str | None = "{}",
        settings: dict[str, float] | None = None,
        deadline: float = 900,
        **variables: str,
    ) -> Pod:
        log = tmp_path / "termination-log"
        variables = {
            "HYBRIDJOB_ID": str(api.job_id),
            "HYBRIDJOB_TYPE": f"probe/{type_}",
            "HYBRIDJOB_ATTEMPT": str(api.attempt),
            "HYBRIDJOB_DEADLINE_SECONDS": str(deadline),
            "HYBRIDJOB_API": api.url,
            "HYBRIDJOB_TOKEN_FILE": str(token_file(tmp_path)),
            **({} if payload is None else {"HYBRIDJOB_PAYLOAD": payload}),
            **variables,
        }
        program = PROGRAM.format(settings=settings or {}, log=str(log))
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment | variables,
            stderr=subprocess.PIPE,
            text=True,
        )
        pods.append(Pod(process, log))
        return pods[-1]

    yield start
    for pod in pods:
        with pod.process:
            pod.process.kill()


def test_a_result_reaches_the_api_and_the_pod_succeeds(start: Start, api: WorkerApiServer) -> None:
    pod = start("sum", '{"numbers": [1, 20000000000000000000]}')
    assert pod.wait() == 0
    assert api.seen("outcome") == [{"result": 20000000000000000001}]
    assert len(api.seen("heartbeat")) == 1
    assert pod.message is None


HARD = {
    "integer": 12345678901234567890,
    "float": 1.0,
    "small": 1e-320,
    "shell": "$(HOME) $$ $HYBRIDJOB_ID `id`",
    "planes": "".join(chr(plane << 16 | 0x3042) for plane in (0, 1, 2, 3, 14, 15, 16)),
    "control": "\u0001\u2028\u007f\ufeff",
    "deep": [[[[{}]]]],
}


@pytest.mark.parametrize("by", ["environment", "url"])
def test_a_payload_arrives_unchanged(start: Start, api: WorkerApiServer, by: str) -> None:
    text = json.dumps(HARD, ensure_ascii=False)
    if by == "environment":
        pod = start("echo", text.replace("$", "\\u0024"))
    else:
        api.payload = text
        url = f"{api.url}/worker/v1/attempts/{api.job_id}/1/payload"
        pod = start("echo", None, HYBRIDJOB_PAYLOAD_URL=url)
    assert pod.wait() == 0
    outcome = next(request for request in api.requests if request.path == "outcome")
    assert json.dumps(outcome.body["result"], ensure_ascii=False) == text
    assert '"float":1.0' in outcome.text


@pytest.mark.parametrize(
    ("how", "code", "error", "retry_after"),
    [
        ("transient", 1, "OSError: the network is away", None),
        ("permanent", 65, "there is no such thing", None),
        ("later", 1, "rate limit", 90.0),
        ("exit", 1, "the handler called exit(0)", None),
        ("cancel", 1, "the handler cancelled itself", None),
    ],
)
def test_a_failure_is_told_thrice(
    start: Start,
    api: WorkerApiServer,
    how: str,
    code: int,
    error: str,
    retry_after: float | None,
) -> None:
    pod = start("fail", json.dumps({"how": how}))
    assert pod.wait() == code
    document = {"error": error, "permanent": code == 65, "retryAfter": retry_after}
    assert api.seen("outcome") == [document]
    assert json.loads(pod.message or "") == document


def test_a_long_message_is_cut_to_what_the_kubelet_keeps(
    start: Start, api: WorkerApiServer
) -> None:
    pod = start("fail", json.dumps({"how": "permanent", "message": '"\u00e4\\' * 10_000}))
    assert pod.wait() == 65
    assert len((pod.message or "").encode()) <= 4096
    assert json.loads(pod.message or "")["error"].startswith('"\u00e4\\')
    assert len(api.seen("outcome")[0]["error"]) == 4000


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        ("unknown", "there is no handler 'probe/unknown'"),
        ("broken", "cannot import handler 'probe/broken'"),
        ("sum", "invalid payload: /numbers: Field required"),
    ],
)
def test_what_cannot_ever_run_is_permanent(
    start: Start, api: WorkerApiServer, type_: str, words: str
) -> None:
    assert start(type_).wait() == 65
    assert words in api.seen("outcome")[0]["error"]


def test_the_handlers_name_may_differ_from_the_type(start: Start, api: WorkerApiServer) -> None:
    pod = start("anything", '{"numbers": [2]}', HYBRIDJOB_HANDLER="probe/sum")
    assert pod.wait() == 0
    assert api.seen("outcome") == [{"result": 2}]


@pytest.mark.parametrize("missing", ["HYBRIDJOB_ID", "HYBRIDJOB_ATTEMPT", "HYBRIDJOB_API"])
def test_outside_a_pod_it_says_so(start: Start, missing: str) -> None:
    pod = start("echo", **{missing: ""})
    assert pod.wait() == 65
    assert f"{missing} is not set" in pod.errors


def test_a_wrong_variable_is_named(start: Start) -> None:
    pod = start("echo", HYBRIDJOB_ATTEMPT="first")
    assert pod.wait() == 65
    assert (
        "invalid literal for int() with base 10: 'first'" in json.loads(pod.message or "")["error"]
    )


def test_a_later_attempt_goes_on_from_the_checkpoint(start: Start, api: WorkerApiServer) -> None:
    api.attempt, api.saved = 2, "3"
    assert start("steps", '{"steps": 5}', TRACEPARENT="00-1-2-01").wait() == 0
    assert api.seen("outcome") == [{"result": 3}]
    assert api.saved == "5"
    assert api.seen("progress")[-1] == {"done": 5, "total": 5, "message": None}
    assert {request.traceparent for request in api.requests} == {"00-1-2-01"}


def test_a_later_attempt_without_checkpoint_begins_anew(start: Start, api: WorkerApiServer) -> None:
    api.attempt = 2
    assert start("facts").wait() == 0
    assert api.seen("outcome")[0]["result"]["checkpoint"] is None


def test_sigterm_ends_the_pod_as_interrupted_with_its_checkpoint_saved(
    start: Start, api: WorkerApiServer
) -> None:
    pod = start("last-words")
    api.wait_for("checkpoint", "begun")
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait() == 75
    assert api.saved == '"last words"'
    assert api.seen("outcome") == []
    assert json.loads(pod.message or "")["error"] == "interrupted: SIGTERM"


def test_a_checkpoint_that_could_not_be_saved_is_saved_at_the_end(
    start: Start, api: WorkerApiServer
) -> None:
    api.fail("checkpoint", 503, times=2)
    pod = start("steps", '{"steps": 2, "wait_at": 2}')
    api.wait_for("checkpoint", 2, times=2)
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait() == 75
    assert api.saved == "2"


def test_a_handler_may_finish_its_work_after_sigterm(start: Start, api: WorkerApiServer) -> None:
    pod = start("finish-anyway")
    api.wait_for("checkpoint", "begun")
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait() == 0
    assert api.seen("outcome") == [{"result": "done anyway"}]


@pytest.mark.parametrize("sleep", [True, False])
def test_heartbeats_go_on_while_a_handler_holds_the_loop(
    start: Start, api: WorkerApiServer, tmp_path: Path, sleep: bool
) -> None:
    gate = tmp_path / "gate"
    payload = json.dumps({"until": str(gate), "sleep": sleep})
    pod = start("hold", payload, {"reporter.HEARTBEAT_SECONDS": 0.1})
    api.wait_for("progress")
    api.wait_for("heartbeat", times=len(api.seen("heartbeat")) + 5)
    gate.touch()
    assert pod.wait() == 0
    assert api.seen("outcome") == [{"result": "let go"}]


@pytest.mark.parametrize("sleep", [True, False])
def test_sigterm_ends_a_handler_that_holds_the_loop(
    start: Start, api: WorkerApiServer, tmp_path: Path, sleep: bool
) -> None:
    payload = json.dumps({"until": str(tmp_path / "never"), "sleep": sleep})
    pod = start("hold", payload, {"pod.BLOCKED_SECONDS": 0.1})
    api.wait_for("progress")
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait() == 75
    assert json.loads(pod.message or "")["error"] == "interrupted: SIGTERM"


def test_a_fenced_attempt_stops(start: Start, api: WorkerApiServer) -> None:
    pod = start("steps", '{"steps": 2, "wait_at": 1}', {"reporter.HEARTBEAT_SECONDS": 0.1})
    api.wait_for("checkpoint", 1)
    api.closed = True
    assert pod.wait() == 75
    assert api.seen("outcome") == []
    assert json.loads(pod.message or "")["error"] == "interrupted: fenced"


def test_an_attempt_that_is_fenced_before_it_begins_does_nothing(
    start: Start, api: WorkerApiServer
) -> None:
    api.closed, api.attempt = True, 2
    assert start("steps", '{"steps": 2}').wait() == 75
    assert api.seen("outcome") == []


def test_a_fenced_submission_stops_the_attempt(start: Start, api: WorkerApiServer) -> None:
    api.fail("jobs", 409)
    assert start("submit", '{"jobs": [{"type": "probe/a", "payload": 1}]}').wait() == 75
    assert api.seen("outcome") == []


def test_a_result_of_a_fenced_attempt_is_no_success(start: Start, api: WorkerApiServer) -> None:
    api.fail("outcome", 409)
    assert start("echo", "1").wait() == 75


def test_a_cancelled_attempt_stops(start: Start, api: WorkerApiServer) -> None:
    pod = start("last-words", settings={"reporter.HEARTBEAT_SECONDS": 0.1})
    api.wait_for("checkpoint", "begun")
    api.cancel_requested = True
    assert pod.wait() == 75
    assert json.loads(pod.message or "")["error"] == "interrupted: cancelled"


def test_a_handler_that_does_not_heed_its_cancellation_is_ended(
    start: Start, api: WorkerApiServer, tmp_path: Path
) -> None:
    payload = json.dumps({"until": str(tmp_path / "never")})
    pod = start("hold", payload, {"pod.BLOCKED_SECONDS": 0.1, "reporter.HEARTBEAT_SECONDS": 0.1})
    api.wait_for("progress")
    api.closed = True
    assert pod.wait() == 75


def test_a_result_is_reported_again_until_the_api_takes_it(
    start: Start, api: WorkerApiServer
) -> None:
    api.fail("outcome", 503, times=3)
    pod = start("echo", '"kept"')
    assert pod.wait() == 0
    assert api.seen("outcome", answered=204) == [{"result": "kept"}]
    assert pod.message is None


def test_a_result_whose_answer_was_lost_is_a_success(start: Start, api: WorkerApiServer) -> None:
    api.fail("outcome", 0)
    assert start("echo", "1").wait() == 0
    assert [request.answer for request in api.requests if request.path == "outcome"] == [0, 409]


def test_a_token_not_yet_valid_is_tried_again(start: Start, api: WorkerApiServer) -> None:
    api.fail("outcome", 401, times=2)
    assert start("echo", "1").wait() == 0


def test_a_replaced_token_is_read_again(start: Start, api: WorkerApiServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    pod = start("hold", json.dumps({"until": str(gate)}))
    api.wait_for("progress")
    api.token = "token-2"
    (tmp_path / "token").write_text("token-2\n")
    gate.touch()
    assert pod.wait() == 0
    assert api.seen("outcome", answered=204) == [{"result": "let go"}]


def test_progress_that_is_no_text_costs_no_sign_of_life(
    start: Start, api: WorkerApiServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    payload = json.dumps({"until": str(gate)})
    pod = start("odd-progress", payload, {"reporter.HEARTBEAT_SECONDS": 0.1})
    api.wait_for("progress", {"done": 1, "total": None, "message": "?.txt"})
    api.wait_for("checkpoint", "after")
    api.wait_for("heartbeat", times=len(api.seen("heartbeat")) + 2)
    gate.touch()
    assert pod.wait() == 0


def test_progress_that_is_no_json_is_the_handlers_failure(
    start: Start, api: WorkerApiServer
) -> None:
    assert start("odd-progress", '{"object": true}').wait() == 1
    assert "TypeError: Object of type object is not JSON" in api.seen("outcome")[0]["error"]


def test_without_the_api_a_small_result_goes_into_the_termination_message(
    start: Start, api: WorkerApiServer
) -> None:
    api.fail("outcome", 503, times=1000)
    pod = start("echo", '{"n": 12345678901234567890}', {"pod.PATIENCE_SECONDS": 0.5})
    assert pod.wait() == 0
    assert pod.message == '{"n":12345678901234567890}'


def test_a_result_that_fits_nowhere_is_a_transient_failure(
    start: Start, api: WorkerApiServer
) -> None:
    patience = {"pod.PATIENCE_SECONDS": 0.5, "pod.FLUSH_SECONDS": 0.5}
    api.fail("outcome", 503, times=1000)
    pod = start("size", '{"bytes": 5000}', patience)
    assert pod.wait() == 1
    message = json.loads(pod.message or "")
    assert "does not fit the termination message" in message["error"]
    assert message["permanent"] is False


def test_a_result_over_the_limit_is_a_permanent_failure(start: Start, api: WorkerApiServer) -> None:
    api.max_result_bytes = 10_000
    pod = start("size", '{"bytes": 20000}')
    assert pod.wait() == 65
    assert "the result was refused: 413" in api.seen("outcome")[-1]["error"]


def test_sigterm_while_reporting_hurries_the_report(start: Start, api: WorkerApiServer) -> None:
    api.fail("outcome", 503, times=1000)
    pod = start("echo", '"kept"')
    api.wait_for("outcome")
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait() == 0
    assert pod.message == '"kept"'


def test_an_api_that_is_away_for_all_of_the_run_loses_nothing(
    start: Start, api: WorkerApiServer, tmp_path: Path
) -> None:
    port = api.stop()
    gate = tmp_path / "gate"
    pod = start("hold", json.dumps({"until": str(gate)}), {"reporter.HEARTBEAT_SECONDS": 0.1})
    while "worker API does not answer" not in (pod.process.stderr or sys.stderr).readline():
        pass
    gate.touch()
    api.start(port)
    assert pod.wait() == 0
    assert api.seen("outcome", answered=204) == [{"result": "let go"}]


def test_children_are_submitted_and_a_repeated_request_has_the_same_key(
    start: Start, api: WorkerApiServer
) -> None:
    api.fail("jobs", 0)
    jobs = [
        {"type": "probe/a", "payload": {"n": 10**20}},
        {"type": "probe/b", "payload": [1.0], "key": "k", "priority": 5},
    ]
    assert start("submit", json.dumps({"jobs": jobs})).wait() == 0
    first, again, second = api.seen("jobs")
    assert first == again == {"type": "probe/a", "payload": {"n": 10**20}, "key": first["key"]}
    assert second == jobs[1]


def test_a_refused_child_is_a_permanent_failure(start: Start, api: WorkerApiServer) -> None:
    assert start("submit", '{"jobs": [{"type": "unknown", "payload": 1}]}').wait() == 65
    assert "there is no job type 'unknown'" in api.seen("outcome")[0]["error"]


def test_a_payload_that_cannot_be_fetched_is_a_transient_failure(
    start: Start, api: WorkerApiServer
) -> None:
    api.fail("payload", 503, times=1000)
    url = f"{api.url}/worker/v1/attempts/{api.job_id}/1/payload"
    pod = start("echo", None, {"pod.PATIENCE_SECONDS": 0.5}, HYBRIDJOB_PAYLOAD_URL=url)
    assert pod.wait() == 1
    assert "cannot begin: the worker API does not answer: 503" in api.seen("outcome")[0]["error"]


def test_a_thread_that_a_handler_leaves_does_not_keep_the_pod(
    start: Start, api: WorkerApiServer
) -> None:
    assert start("thread", settings={"pod.LEAVE_SECONDS": 0.2}).wait() == 0
    assert api.seen("outcome") == [{"result": "left"}]


def test_each_line_of_its_log_is_json_and_names_the_attempt(
    start: Start, api: WorkerApiServer
) -> None:
    api.fail("outcome", 503, times=9)
    pod = start("fail", '{"how": "transient"}', settings={"pod.FLUSH_SECONDS": 0.1})
    assert pod.wait() == 1
    lines = [json.loads(line) for line in pod.errors.splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "handler probe/fail failed"
    assert events[-1].startswith("the outcome goes into the termination message")
    assert "OSError: the network is away" in lines[0]["exception"]
    assert {(line["job_id"], line["attempt"]) for line in lines} == {(str(api.job_id), 1)}


def test_its_handler_is_a_span_of_the_trace_that_it_was_given(
    start: Start, api: WorkerApiServer
) -> None:
    context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with collecting() as collector:
        sent = {"TRACEPARENT": context, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        assert start("echo", **sent).wait() == 0
    [handler] = collector.trace("4bf92f3577b34da6a3ce929d0e0e4736").values()
    assert (handler.service, handler.name) == ("hybridjobs-worker", "handler")
    assert handler.parent == "00f067aa0ba902b7"


def test_a_collector_that_is_away_costs_the_trace_and_not_the_job(
    start: Start, api: WorkerApiServer
) -> None:
    settings = {"pod.FLUSH_SECONDS": 0.2}
    away = f"http://127.0.0.1:{free_port()}"
    pod = start("echo", settings=settings, OTEL_EXPORTER_OTLP_ENDPOINT=away)
    assert pod.wait() == 0
    assert api.seen("outcome") == [{"result": {}}]


def test_the_command_imports_no_more_than_it_needs(
    api: WorkerApiServer, environment: dict[str, str], tmp_path: Path
) -> None:
    command = Path(sys.executable).parent / "hybridjobs"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", command, "worker"],
        env=environment
        | {
            "HYBRIDJOB_ID": str(api.job_id),
            "HYBRIDJOB_TYPE": "probe/echo",
            "HYBRIDJOB_ATTEMPT": "1",
            "HYBRIDJOB_DEADLINE_SECONDS": "60",
            "HYBRIDJOB_PAYLOAD": "{}",
            "HYBRIDJOB_API": api.url,
            "HYBRIDJOB_TOKEN_FILE": str(token_file(tmp_path)),
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hybridjobs.worker.pod" in modules
    heavy = {"kopf", "kubernetes", "psycopg", "starlette", "typer", "githubkit"}
    heavy |= {"structlog", "opentelemetry"}
    assert not modules & heavy


def test_the_environment_of_this_test_is_no_pods() -> None:
    assert not [name for name in os.environ if name.startswith("HYBRIDJOB_")]
