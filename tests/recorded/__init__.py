"""GitHub as it was recorded: webhook deliveries, and an API that answers from them.

python -m tests.recorded setup         install the recordings (npm ci) and build the data file
python -m tests.recorded serve         answer as GitHub's API
python -m tests.recorded deliveries    list the recorded deliveries
python -m tests.recorded manifest      the API as Kubernetes objects
"""

from tests.recorded.recording import Delivery, deliveries, signed_headers

__all__ = ["Delivery", "deliveries", "signed_headers"]
