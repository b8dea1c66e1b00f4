"""The Lease decides which of several replicas acts."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from hybridjobs.controller.leadership import Leadership, Timing
from hybridjobs.kube.client import LEASES, Kubernetes
from tests.cluster import Cluster
from tests.integration.controller.scene import configured
from tests.waiting import eventually

TIMING = Timing(duration=8, give_up=6.0, renew=0.3, look=0.2)


@dataclass
class Replica:
    """One that notes, in `history`, when it begins and ends to act."""

    name: str
    kubernetes: Kubernetes
    leadership: Leadership
    history: list[str]
    task: asyncio.Task[None] = field(init=False)
    fails: asyncio.Event = field(default_factory=asyncio.Event)

    async def lead(self) -> None:
        self.history.append(f"{self.name} leads")
        try:
            await self.fails.wait()
            raise ValueError("by test")
        finally:
            self.history.append(f"{self.name} ends")

    async def follow(self) -> None:
        await asyncio.Event().wait()

    def cut_off(self) -> None:
        """It reaches no API server any more."""
        self.kubernetes.configuration.host = "https://127.0.0.1:1"


@dataclass
class Election:
    """Replicas of one Lease."""

    kubernetes: Kubernetes
    namespace: str
    lease: str
    start: Callable[[str], Replica]
    history: list[str]

    async def until(self, *told: str) -> None:
        await eventually(lambda: self.history == list(told))

    async def until_followed(self, replica: Replica) -> None:
        await eventually(lambda: replica.leadership.follows)


@pytest.fixture
async def election(cluster: Cluster, jobs_namespace: str) -> AsyncIterator[Election]:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Kubernetes(await configured(cluster), field_manager="test")
            )
            for _ in range(3)
        ]
        lease, history = f"lease-{secrets.token_hex(4)}", list[str]()
        replicas: list[Replica] = []

        def start(name: str) -> Replica:
            kubernetes = clients[1 + len(replicas)]
            leadership = Leadership(
                kubernetes, namespace=jobs_namespace, name=lease, identity=name, timing=TIMING
            )
            replica = Replica(name, kubernetes, leadership, history)
            replica.task = asyncio.create_task(leadership.run(replica.lead, replica.follow))
            replicas.append(replica)
            return replica

        yield Election(clients[0], jobs_namespace, lease, start, history)
        for each in replicas:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in replicas), return_exceptions=True)


async def test_one_leads_and_the_other_follows_as_soon_as_it_ends(election: Election) -> None:
    first = election.start("a")
    await election.until("a leads")
    second = election.start("b")
    await election.until_followed(second)
    assert (first.leadership.leads, second.leadership.leads) == (True, False)
    first.task.cancel()
    await election.until("a leads", "a ends", "b leads")
    lease = await election.kubernetes.get(LEASES, election.namespace, election.lease)
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("b", 2)


async def test_who_cannot_renew_ends_before_another_begins(election: Election) -> None:
    first = election.start("a")
    await election.until("a leads")
    await election.until_followed(election.start("b"))
    first.cut_off()
    await election.until("a leads", "a ends", "b leads")
    assert not first.leadership.leads
    assert not first.task.done()


async def test_a_lease_that_another_took_is_not_renewed(election: Election) -> None:
    first = election.start("a")
    await election.until("a leads")
    stolen = {"spec": {"holderIdentity": "c", "leaseDurationSeconds": 1}}
    await election.kubernetes.patch(LEASES, election.namespace, election.lease, stolen)
    await election.until("a leads", "a ends", "a leads")
    assert first.leadership.leads


async def test_a_lease_that_changed_and_is_ours_still_goes_on(election: Election) -> None:
    first = election.start("a")
    await election.until("a leads")
    for _ in range(3):
        # As a write of its own would, whose answer was lost.
        labels = {"metadata": {"labels": {"changed": secrets.token_hex(4)}}}
        await election.kubernetes.patch(LEASES, election.namespace, election.lease, labels)
        await asyncio.sleep(2 * TIMING.renew)
    assert first.leadership.leads
    assert election.history == ["a leads"]


async def test_a_deleted_lease_is_made_again(election: Election) -> None:
    election.start("a")
    await election.until("a leads")
    lease = await election.kubernetes.get(LEASES, election.namespace, election.lease)
    uid = lease["metadata"]["uid"]
    await election.kubernetes.delete(LEASES, election.namespace, election.lease, uid=uid)
    await election.until("a leads", "a ends", "a leads")


async def test_what_fails_while_it_leads_ends_it_and_frees_the_lease(election: Election) -> None:
    first = election.start("a")
    await election.until("a leads")
    await election.until_followed(election.start("b"))
    first.fails.set()
    with pytest.raises(ValueError, match="by test"):
        await first.task
    await election.until("a leads", "a ends", "b leads")


async def test_of_many_that_start_at_once_one_leads(election: Election) -> None:
    replicas = [election.start("a"), election.start("b")]
    await eventually(lambda: any(each.leadership.leads for each in replicas))
    await eventually(lambda: any(each.leadership.follows for each in replicas))
    await asyncio.sleep(1.5 * TIMING.duration)
    assert len(election.history) == 1
