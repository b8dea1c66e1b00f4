from typing import Any

from hybridjobs.controller.cache import Cache
from tests.unit.controller.objects import COMPLETE, JOB_ID, hybridjob, job, pod

NAME = "test-long-b302099a8057"


def _hybridjob(uid: str = "hj-1", **spec: Any) -> dict[str, Any]:
    body = hybridjob(**spec)
    body["metadata"]["uid"] = uid
    return body


def _pod() -> dict[str, Any]:
    body = pod()
    body["metadata"]["labels"] = {"batch.kubernetes.io/job-name": f"hj-{JOB_ID}-1"}
    return body


def _known_pod(cache: Cache) -> tuple[str, str | None] | None:
    """Uid and phase of the Job's pod."""
    known = cache.pod_of(job()["metadata"]["name"])
    return None if known is None else (known["metadata"]["uid"], known["status"].get("phase"))


def test_the_answer_to_a_write_does_not_hide_what_a_watch_told_since() -> None:
    cache = Cache()
    known, newer = _hybridjob(attempt=1), _hybridjob(attempt=2)
    cache.put_hybridjob(known)
    looked_at = cache.hybridjobs[NAME]
    cache.put_hybridjob(newer)
    cache.replace_hybridjob(looked_at, _hybridjob(attempt=1))
    assert cache.hybridjobs[NAME] == newer
    answer = _hybridjob(attempt=2, cancel=True)
    cache.replace_hybridjob(cache.hybridjobs[NAME], answer)
    assert cache.hybridjobs[NAME] == answer


def test_a_late_event_of_the_one_before_does_not_hide_its_successor() -> None:
    cache = Cache()
    before, successor = _hybridjob("hj-1"), _hybridjob("hj-2")
    before["metadata"]["resourceVersion"], successor["metadata"]["resourceVersion"] = "9", "10"
    cache.put_hybridjob(before)
    cache.put_hybridjob(successor)
    cache.put_hybridjob(before)
    cache.remove_hybridjob(before)
    assert cache.hybridjobs[NAME] == successor


def test_a_late_deletion_leaves_the_successor_and_is_acted_on() -> None:
    cache = Cache()
    successor = _hybridjob("hj-2")
    cache.put_hybridjob(successor)
    cache.remove_hybridjob(_hybridjob("hj-1"))
    cache.remove_hybridjob(_hybridjob("hj-0"))
    assert cache.hybridjobs[NAME] == successor
    assert [body["metadata"]["uid"] for body in cache.deleted[NAME]] == ["hj-1", "hj-0"]


def test_a_job_told_by_the_watch_stands_against_the_answer_to_its_create() -> None:
    cache = Cache()
    told = job(COMPLETE)
    cache.put_job(told)
    cache.add_job(job())
    assert cache.job(told["metadata"]["name"]) == told


def test_a_log_is_kept_until_it_is_recorded_or_its_job_goes() -> None:
    cache = Cache()
    cache.keep_log(_pod(), "of no known Job")
    assert cache.log_of(_pod()) is None
    cache.put_job(job())
    cache.keep_log(_pod(), "tail")
    assert (cache.log_of(_pod()), cache.log_of(_pod())) == ("tail", "tail")
    other = _pod()
    other["metadata"]["uid"] = "another"
    cache.forget_log(other)
    assert (cache.log_of(_pod()), cache.log_of(other)) == ("tail", None)
    cache.forget_log(_pod())
    assert cache.log_of(_pod()) is None
    cache.keep_log(_pod(), "tail")
    cache.remove_job(job())
    assert cache.log_of(_pod()) is None


def test_a_pod_that_is_gone_stays_evidence_until_its_job_goes() -> None:
    cache = Cache()
    cache.put_job(job())
    cache.put_pod(_pod())
    ended = _pod()
    ended["status"]["phase"] = "Failed"
    cache.remove_pod(ended)
    assert _known_pod(cache) == ("pod-1", "Failed")
    cache.remove_job(job(uid="the one before"))
    assert cache.job_uids() == {job()["metadata"]["name"]: "job-1"}
    assert _known_pod(cache) == ("pod-1", "Failed")
    cache.remove_job(job())
    assert _known_pod(cache) is None


def test_a_pod_without_a_job_goes_when_it_is_gone() -> None:
    cache = Cache()
    cache.put_pod(_pod())
    late = _pod()
    late["metadata"]["uid"] = "the one before"
    cache.remove_pod(late)
    assert _known_pod(cache) == ("pod-1", None)
    cache.remove_pod(_pod())
    assert _known_pod(cache) is None


def test_a_pod_of_no_job_is_nothing_to_us() -> None:
    cache = Cache()
    cache.put_pod(pod())
    cache.keep_log(pod(), "text")
    assert cache.log_of(pod()) is None
    cache.remove_pod(pod())
