"""Finds the handlers of modules, in a process of its own.

`python -m hybridjobs.dev.discover MODULE…` prints JSON:

    {"handlers": {type: "module:attribute"}, "files": [of the modules]}

A module that cannot be imported ends it with the traceback.
"""

import importlib
import json
import os
import pkgutil
import sys
from types import ModuleType

from hybridjobs.sdk.handler import Handler


def _modules(name: str) -> list[ModuleType]:
    """The module and, of a package, everything below it."""
    module = importlib.import_module(name)
    below = pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}.")
    return [module, *(importlib.import_module(each.name) for each in below)]


def main(names: list[str]) -> None:
    """Print what the modules hold."""
    handlers: dict[str, str] = {}
    known: dict[str, Handler[object, object]] = {}
    files: list[str] = []
    for module in (module for name in names for module in _modules(name)):
        if module.__file__:
            files.append(module.__file__)
        for attribute, value in vars(module).items():
            if not isinstance(value, Handler):
                continue
            if known.setdefault(value.type, value) is not value:
                sys.exit(f"two handlers are for {value.type}: {known[value.type]} and {value}")
            handlers.setdefault(value.type, f"{module.__name__}:{attribute}")
    # On a line of its own, whatever the modules print.
    sys.stdout.write("\n" + json.dumps({"handlers": handlers, "files": files}))
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # the last line it is, whatever the modules leave behind
