"""Single scenes that the simulation came upon."""

from random import Random
from typing import Any

from hybridjobs.ids import derived_id
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, Conflict, TooManyRequests
from hybridjobs.kube.identity import job_id
from hybridjobs.kube.manifests import hybridjob
from hybridjobs.kube.names import hybridjob_name
from hybridjobs.store import resources
from hybridjobs.store.claim import claim
from hybridjobs.store.jobs import _RETRY
from tests.simulation.cluster import ApiServer, Object
from tests.simulation.processes import NAMESPACE, StoreConnection
from tests.simulation.tables import SET_BY_HAND
from tests.simulation.virtual import EPOCH
from tests.simulation.world import World


def test_what_a_dispatcher_makes_when_the_job_is_over_goes() -> None:
    world = World(Random(0))
    with world.at_peace() as server:
        body = _claimed_and_cancelled(world)
        server.create(HYBRIDJOBS.plural, body)
        world.calm()
        assert server.list(HYBRIDJOBS.plural) == []


def test_an_attempt_that_a_restored_database_does_not_know_is_the_jobs() -> None:
    world = World(Random(0))
    with world.at_peace() as server:
        body = _claimed_and_cancelled(world)
        world.checks.on_restore()
        later = {**body, "spec": {**body["spec"], "attempt": 3}}
        made = server.create(HYBRIDJOBS.plural, later)
        world.calm()
        [job], attempts = world.store.rows()[0].values(), world.store.rows()[1].values()
    assert (job["status"], job["resource_uid"]) == ("cancelled", made["metadata"]["uid"])
    assert [each["outcome"] for each in attempts] == ["cancelled", "lost", "cancelled"]


def test_one_made_by_hand_and_cancelled_runs_anew_though_its_row_has_forgotten_it() -> None:
    world = World(Random(0))
    with world.at_peace() as server:
        _make_by_hand(world, server, "mine", cancel=True)
        world.calm()
        cancelled = server.get(HYBRIDJOBS.plural, "mine")
        assert cancelled["status"]["state"] == "cancelled"
        forgotten = {"job_id": job_id(cancelled), "uid": cancelled["metadata"]["uid"]}
        world.checks.on_moved(job_id(cancelled))
        world.store.execute(_RETRY, [job_id(cancelled)])
        world.store.execute(resources._FORGET, forgotten)
        world.fleet.begin(operators=0, dispatchers=1)
        world.wait(5)
        anew = server.get(HYBRIDJOBS.plural, "mine")
    assert anew["metadata"]["uid"] != cancelled["metadata"]["uid"]
    assert (anew["spec"]["jobId"], anew["spec"]["attempt"]) == (str(job_id(cancelled)), 1)
    assert "cancel" not in anew["spec"]


def test_one_whose_name_was_given_away_runs_under_a_name_of_its_own() -> None:
    world = World(Random(0))
    with world.at_peace() as server:
        [job] = world.store.rows()[0].values()
        lost = {"job_id": job["id"], "namespace": NAMESPACE, "name": "mine", "uid": "lost"}
        world.store.execute(resources._ADOPTED, lost)
        _make_by_hand(world, server, "mine", cancel=True)
        world.calm()
        cancelled = server.get(HYBRIDJOBS.plural, "mine")
        assert cancelled["status"]["state"] == "cancelled"
        world.fleet.begin(operators=0, dispatchers=1)
        world.wait(20)
        assert server.get(HYBRIDJOBS.plural, "mine") == cancelled
        own = server.get(HYBRIDJOBS.plural, hybridjob_name(job["type"], job["id"]))
        assert (own["spec"]["jobId"], own["spec"]["attempt"]) == (str(job["id"]), 1)


def test_a_dispatcher_that_wakes_late_leaves_what_was_cancelled_meanwhile() -> None:
    world = World(Random(1))
    with world.at_peace() as server:
        _make_by_hand(world, server, "mine")
        world.calm()
        world.fleet.begin(operators=0, dispatchers=1)
        [claim] = world.fleet.requests()
        world.answer(claim)
        claim.process.paused = True
        world.fleet.begin(operators=0, dispatchers=1)
        world.wait(20)
        said = server.get(HYBRIDJOBS.plural, "mine")
        assert "attempt" in said["spec"]
        world.checks.on_unwanted(said)
        server.patch(HYBRIDJOBS.plural, "mine", {"spec": {"cancel": True}}, "")
        world.wait(60)
        cancelled = server.get(HYBRIDJOBS.plural, "mine")
        assert cancelled["status"]["state"] == "cancelled"
        claim.process.paused = False
        world.calm()
        assert server.get(HYBRIDJOBS.plural, "mine") == cancelled


def test_a_job_that_is_refused_for_load_is_made_when_there_is_less() -> None:
    world = World(Random(0))
    with world.at_peace() as server:
        accept = server.refuse

        def refuse(kind: str, _body: Object) -> None:
            if kind == JOBS.plural:
                raise TooManyRequests(429, "TooManyRequests", "please try again later")

        server.refuse = refuse
        world.fleet.begin(operators=0, dispatchers=1)
        world.wait(15)
        assert server.list(JOBS.plural) == []
        server.refuse = accept
        world.wait(60)
        assert server.list(JOBS.plural) != []


def test_a_hybridjob_that_is_refused_for_contention_is_made_when_there_is_less() -> None:
    world = World(Random(0))
    with world.at_peace() as server:
        accept = server.refuse

        def refuse(kind: str, body: Object) -> None:
            if kind == HYBRIDJOBS.plural:
                raise Conflict(409, "Conflict", f"on resourcequotas for {body['metadata']['name']}")

        server.refuse = refuse
        world.fleet.begin(operators=0, dispatchers=1)
        world.wait(400)
        server.refuse = accept
        world.wait(60)
        [hybridjob] = server.list(HYBRIDJOBS.plural)
    assert hybridjob["spec"]["attempt"] == 1


def test_the_status_of_what_the_database_does_not_know_is_written_once() -> None:
    world = World(Random(0))
    with world.at_peace() as server:
        body = _claimed_and_cancelled(world)
        body["spec"]["jobId"] = str(derived_id("unknown", EPOCH))
        server.create(HYBRIDJOBS.plural, {**body, "status": {"state": "queued", "attempt": 1}})
        world.wait(30)
        [left] = server.list(HYBRIDJOBS.plural)
    assert (left["status"]["state"], left["status"]["reason"]) == ("queued", "UnknownJob")
    name = body["metadata"]["name"]
    assert len([line for line in world.trace if f"patch {name} status" in line]) == 1


def _make_by_hand(world: World, server: ApiServer, name: str, **spec: Any) -> None:
    kind = {"apiVersion": "hybridjobs.dev/v1alpha1", "kind": "HybridJob"}
    metadata = {"name": name, "namespace": NAMESPACE}
    body = {**kind, "metadata": metadata, "spec": {"type": "sim/plain", **spec}}
    world.checks.on_made(server.create(HYBRIDJOBS.plural, body))


def _claimed_and_cancelled(world: World) -> Object:
    """The HybridJob of a claim whose job is over, and had another one."""
    store = world.store
    try:
        claim(StoreConnection(store, None), window=1).send(None)  # type: ignore[arg-type]
    except StopIteration as claims:
        [claimed] = claims.value
    name = f"{claimed.type.replace('/', '-')}-{claimed.job_id.hex[-12:]}"
    bound = {"job_id": claimed.job_id, "namespace": NAMESPACE, "name": name, "uid": "another"}
    store.execute(resources._ADOPTED, bound)
    world.checks.on_cancel(claimed.job_id)
    store.execute(SET_BY_HAND, {"id": claimed.job_id, "status": "cancelled"})
    return hybridjob(claimed, name=name, namespace=NAMESPACE)
