"""The queue as a Python program uses it: through the API, or inside its own transaction.

What the caller did wrong is InvalidInput, with the answer's status and the faults by their paths;
a service that does not answer is Unavailable, after which the same call may be made again: with a
`key` it never makes a second job.
"""

from hybridjobs.client.api import Batch, Client
from hybridjobs.client.auth import BearerAuth
from hybridjobs.client.values import BatchJob, Job, JobEvent, JobTree, Missed, TreeJob
from hybridjobs.model import Callback

__all__ = [
    "Batch",
    "BatchJob",
    "BearerAuth",
    "Callback",
    "Client",
    "Job",
    "JobEvent",
    "JobTree",
    "Missed",
    "TreeJob",
]
