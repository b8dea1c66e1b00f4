"""A folder of custom resources: what is wrong with a file is said by its name."""

from pathlib import Path

import pytest

from hybridjobs.errors import ConfigurationError
from hybridjobs.type_files import read_objects


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"kind: [", "is no YAML"),
        (b"kind: HybridJobType\n# caf\xe9\n", "is no YAML"),
        (b"kind: Pod", "holds no HybridJobType"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "a.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"{file} {said}"):
        read_objects(tmp_path, ("HybridJobType",))
