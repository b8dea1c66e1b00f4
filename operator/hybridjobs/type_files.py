"""Custom resources in a folder, a YAML file each."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from hybridjobs.errors import ConfigurationError


class _Loader(yaml.SafeLoader):
    """What looks like a date is a string, as for kubectl: JSON has no dates."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_objects(folder: Path, kinds: Collection[str]) -> list[dict[str, Any]]:
    """The objects of `*.yaml`, by file name; ConfigurationError names a file that holds none."""
    bodies = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            body = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a SafeLoader
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigurationError(f"{path} is no YAML: {error}") from None
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
        if not isinstance(body, dict) or body.get("kind") not in kinds:
            raise ConfigurationError(f"{path} holds no {' or '.join(kinds)}")
        bodies.append(body)
    return bodies
