"""The names of an event, as a full parse would give them."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.ingress.sources.github import _names
from tests.recorded import deliveries


def _expected(event: str, document: dict[str, Any]) -> tuple[str, ...]:
    action = document.get("action")
    if isinstance(action, str):
        return (f"github/{event}", f"github/{event}.{action}")
    return (f"github/{event}",)


def test_every_recorded_delivery() -> None:
    for delivery in deliveries():
        names = _names(delivery.event, delivery.payload)
        assert names == _expected(delivery.event, delivery.document)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["action", "a", "b"]), inner),
    max_leaves=8,
)


@given(
    document=st.dictionaries(st.sampled_from(["action", "a", "b", "c"]), _values),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " : ")]),
)
def test_any_object_however_it_is_written(
    document: dict[str, Any], separators: tuple[str, str]
) -> None:
    # GitHub's integers fit into 64 bits; orjson reads larger ones as floats, which no name shows.
    payload = json.dumps(document, separators=separators).encode()
    assert _names("e", payload) == _expected("e", document)
