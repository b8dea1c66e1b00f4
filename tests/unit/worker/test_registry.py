import pytest

from hybridjobs.worker import registry

pytestmark = pytest.mark.usefixtures("installed")


def test_a_handler_is_found_by_its_entry_point() -> None:
    assert registry.load("probe/sum").type == "probe/sum"


def test_the_names_are_listed_in_order() -> None:
    names = registry.names()
    assert names == sorted(names)
    assert {"probe/echo", "capture/pr.details", "capture/repository.sync"} <= set(names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "probe/unknown",
            "there is no handler 'probe/unknown' in this image; installed .*probe/echo",
        ),
        (
            "probe/missing",
            r"cannot import handler .*\(probes:nothing_of_that_name\): AttributeError",
        ),
        ("probe/broken", "cannot import handler .*SystemExit: 0"),
        ("probe/undecorated", "probes:Sum is not decorated with @handler"),
    ],
)
def test_a_handler_that_cannot_be_had_is_explained(name: str, message: str) -> None:
    with pytest.raises(registry.HandlerNotFound, match=message):
        registry.load(name)
