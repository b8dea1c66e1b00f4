import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.sdk.values import to_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
)


@given(json_values)
def test_json_values_are_kept(value: Any) -> None:
    text = to_json(value)
    assert json.loads(text) == value
    assert repr(json.loads(text)) == repr(value)


def test_numbers_keep_their_kind() -> None:
    assert to_json({"a": 10**30, "b": 1.0, "c": -0.0}) == (
        '{"a":1000000000000000000000000000000,"b":1.0,"c":-0.0}'
    )


def test_other_values_get_pydantics_form() -> None:
    assert to_json({"d": Decimal("1.10"), "s": {1}}) == '{"d":"1.10","s":[1]}'


@pytest.mark.parametrize("value", [math.nan, math.inf, {"d": Decimal(1), "n": math.nan}, "\ud800"])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own message
        to_json(value)


def test_foreign_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="object"):
        to_json({"x": object()})
