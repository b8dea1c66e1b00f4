from hybridjobs.kube.identity import is_dispatched, job_id
from tests.unit.controller.objects import hybridjob


def test_who_made_a_hybridjob_is_told_by_its_id_whatever_its_name() -> None:
    body = hybridjob()
    body["metadata"]["name"] = "made-again"
    assert is_dispatched(body)
    del body["spec"]["jobId"]
    assert not is_dispatched(body)
    body["spec"]["jobId"] = str(job_id(body))
    assert not is_dispatched(body)
