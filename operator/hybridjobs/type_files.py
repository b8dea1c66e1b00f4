"""HybridJobTypes in a folder, a YAML file each."""

from pathlib import Path
from typing import Any

import yaml

from hybridjobs.errors import ConfigurationError


def read_types(folder: Path) -> list[dict[str, Any]]:
    """The objects of `*.yaml`, by file name; ConfigurationError names a file that holds none."""
    bodies = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            body = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{path} is no YAML: {error}") from None
        if not isinstance(body, dict) or body.get("kind") != "HybridJobType":
            raise ConfigurationError(f"{path} holds no HybridJobType")
        bodies.append(body)
    return bodies
