"""From what handlers return, save and submit to JSON text."""

from hybridjobs import codec


def to_json(value: object) -> str:
    """Compact JSON text of JSON values, pydantic models, dataclasses, dates, UUIDs and the like.

    Numbers are kept as they are. ValueError or TypeError where there is no JSON for the value: NaN,
    infinities, text that is no Unicode, circles, foreign objects.
    """
    try:
        text = codec.dumps(value)
    except TypeError:
        # Paid for by those who need it: a handler without pydantic never imports it.
        from pydantic_core import to_jsonable_python

        text = codec.dumps(to_jsonable_python(value, by_alias=True, inf_nan_mode="constants"))
    text.encode()
    return text
