"""Single scenes that the simulation came upon."""

from random import Random

from hybridjobs.kube.client import HYBRIDJOBS
from hybridjobs.kube.manifests import hybridjob
from hybridjobs.store import resources
from hybridjobs.store.claim import claim
from tests.simulation.cluster import Object
from tests.simulation.processes import NAMESPACE, StoreConnection
from tests.simulation.stores import Store
from tests.simulation.tables import SET_BY_HAND
from tests.simulation.world import World


def test_what_a_dispatcher_makes_when_the_job_is_over_goes() -> None:
    world = World(Random(0))
    with world.at_peace() as server:
        body = _claimed_and_cancelled(world.store)
        server.create(HYBRIDJOBS.plural, body)
        world.calm()
        assert server.list(HYBRIDJOBS.plural) == []


def test_what_the_database_does_not_know_of_yet_stays() -> None:
    world = World(Random(0))
    with world.at_peace() as server:
        body = _claimed_and_cancelled(world.store)
        later = {**body, "spec": {**body["spec"], "attempt": 2}}
        server.create(HYBRIDJOBS.plural, later)
        world.calm()
        [left] = server.list(HYBRIDJOBS.plural)
    assert left["status"]["reason"] == "NotOurs"


def _claimed_and_cancelled(store: Store) -> Object:
    """The HybridJob of a claim whose job is over, and had another one."""
    try:
        claim(StoreConnection(store, None), window=1).send(None)  # type: ignore[arg-type]
    except StopIteration as claims:
        [claimed] = claims.value
    name = f"{claimed.type.replace('/', '-')}-{claimed.job_id.hex[-12:]}"
    bound = {"job_id": claimed.job_id, "namespace": NAMESPACE, "name": name, "uid": "another"}
    store.execute(resources._ADOPTED, bound)
    store.execute(SET_BY_HAND, {"id": claimed.job_id, "status": "cancelled"})
    return hybridjob(claimed, name=name, namespace=NAMESPACE)
