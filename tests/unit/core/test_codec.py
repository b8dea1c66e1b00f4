import json
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs import codec

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    st.lists,
    max_leaves=5,
)


@given(st.dictionaries(st.text(), _JSON), st.sampled_from(["", " ", "\n\t"]))
def test_members_are_the_text_that_was_written(value: dict[str, object], space: str) -> None:
    parts = [f"{json.dumps(k)}{space}:{space}{json.dumps(v)}" for k, v in value.items()]
    text = space + "{" + space + f"{space},{space}".join(parts) + space + "}" + space
    assert codec.members(text) == {k: json.dumps(v) for k, v in value.items()}


@given(st.lists(_JSON), st.sampled_from(["", " ", "\n\t"]))
def test_elements_are_the_text_that_was_written(values: list[object], space: str) -> None:
    texts = [json.dumps(value) for value in values]
    text = space + "[" + space + f"{space},{space}".join(texts) + space + "]" + space
    assert codec.elements(text) == texts


@pytest.mark.parametrize(
    "text", ["", "{}", "1", "[", "[1", "[1,", "[1,]", "[1 2]", "[1]x", "[NaN]"]
)
def test_what_is_no_array_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        codec.elements(text)
    with pytest.raises(ValueError, match=r".+"):
        codec.members(f'{{"a": {text}' if text else "")


def test_numbers_keep_their_digits() -> None:
    found = codec.members('{"a": 12345678901234567890, "b": 1.0, "c": 1E30, "d": 0.10}')
    assert found == {"a": "12345678901234567890", "b": "1.0", "c": "1E30", "d": "0.10"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "{",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        '{"a":1}x',
        "{a:1}",
        '{"a":NaN}',
        '{"a":1 "b":2}',
    ],
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        codec.members(text)


@pytest.mark.parametrize(
    "number", ["123456789012345678901234567890", "1" * 400, "1e999", "-1e999", "NaN", "01", "1E+5"]
)
def test_what_orjson_cannot_take_is_the_codecs_to_judge(number: str) -> None:
    value = f'{{"n":[{number}]}}'
    text = f'{{"a":1,"b":{value} ,"c":{value}}}'
    try:
        codec.loads(value)
    except ValueError:
        for refuse in codec.check, codec.members:
            with pytest.raises(ValueError, match=r".+"):
                refuse(text)
    else:
        codec.check(text)
        assert codec.members(text) == {"a": "1", "b": value, "c": value}


@pytest.mark.parametrize("string", [r'"\ud83d"', r'"\ud83d\ude00"', r'"\u0000"', '"\u2028é😀"'])
def test_strings_stay_as_they_were_written(string: str) -> None:
    value = f"{{{string}:[{string}]}}"
    text = f'{{"a":{value}\n, "b":{string}}}'
    codec.check(text)
    assert codec.members(text) == {"a": value, "b": string}


@pytest.mark.parametrize(
    "text", ['{"a":{} {}}', '{"a":{}]}', '{"a":{}', '{"a":{"b":1,}}', '{"a":{}}}']
)
def test_an_object_within_ends_where_it_does(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        codec.members(text)


@pytest.mark.parametrize("refuse", [codec.check, codec.loads, codec.members])
def test_what_is_too_deep_for_the_parser_is_refused(refuse: Callable[[str], object]) -> None:
    """orjson takes it."""
    with pytest.raises(RecursionError):
        refuse(f'{{"a":{{"b":{"[" * 1015}{"]" * 1015}}},"c":1}}')


def test_orjson_says_where_a_value_ends() -> None:
    with pytest.raises(orjson.JSONDecodeError) as raised:
        orjson.loads('{"é😀":1} ,')
    assert (raised.value.msg, raised.value.pos) == (codec.MORE_FOLLOWS, 9)


def test_what_is_not_finite_is_not_json() -> None:
    with pytest.raises(ValueError, match="NaN"):
        codec.loads("NaN")
    with pytest.raises(ValueError, match="1e999 is beyond every finite number"):
        codec.loads('{"n": [1e999]}')
    with pytest.raises(ValueError, match="not JSON compliant"):
        codec.dumps(float("nan"))


def test_a_member_twice_counts_once_or_is_refused() -> None:
    text = '{"a":1,"b":2,"\\u0061":3}'
    assert codec.members(text) == {"a": "3", "b": "2"}
    with pytest.raises(ValueError, match="'a' is there more than once"):
        codec.members(text, once=True)
