"""The developer's code: which handlers it has, made visible to workers, and watched for changes."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hybridjobs.errors import ConfigurationError
from hybridjobs.worker import registry

_DISCOVER_SECONDS = 60.0
_MAX_FILES = 5000
_PASSED_OVER = {"__pycache__", "node_modules", "site-packages", "dist-packages"}

Snapshot = Mapping[str, tuple[int, int]]


class Code:
    """The modules named, or whatever is installed where none is.

    Workers find the modules' handlers as those of an installed package: `folder` is on their path.
    """

    def __init__(self, modules: Sequence[str], folder: Path) -> None:
        self._modules = tuple(modules)
        self._folder = folder
        self._files: list[str] = []
        self.handlers: dict[str, str] = {}

    def environment(self) -> dict[str, str]:
        """Of workers: this process', less what is the services'."""
        path = [str(self._folder), str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HYBRIDJOB")}
        return {**kept, "PYTHONPATH": os.pathsep.join(each for each in path if each)}

    async def discover(self) -> None:
        """Find the handlers; ConfigurationError shows why a module cannot be imported."""
        if not self._modules:
            self.handlers = dict.fromkeys(registry.names(), "installed")
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hybridjobs.dev.discover",
            *self._modules,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment(),
        )
        try:
            async with asyncio.timeout(_DISCOVER_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise ConfigurationError(f"importing {self._names} takes too long") from None
        if process.returncode:
            said = err.decode(errors="replace").strip()
            raise ConfigurationError(f"cannot import {self._names}:\n{said}")
        found = json.loads(out.splitlines()[-1])
        self.handlers, self._files = found["handlers"], found["files"]
        if not self.handlers:
            raise ConfigurationError(
                f"{self._names} holds no handler: decorate an async function with @handler(TYPE)"
            )
        self._install()

    def snapshot(self) -> Snapshot:
        """Every Python file that may matter, with its time and size; at most 5,000 of them."""
        found: dict[str, tuple[int, int]] = {}
        for root in self._roots():
            for path in _python_files(root):
                try:
                    about = path.stat()
                except OSError:
                    continue
                found[str(path)] = (about.st_mtime_ns, about.st_size)
                if len(found) == _MAX_FILES:
                    return found
        return found

    @property
    def _names(self) -> str:
        return ", ".join(self._modules)

    def _roots(self) -> list[Path]:
        """The folders of the modules, and this one."""
        folders = {Path(each).parent for each in self._files}
        return sorted({Path.cwd(), *folders})

    def _install(self) -> None:
        package = self._folder / "hybridjobs_dev-1.dist-info"
        package.mkdir(parents=True, exist_ok=True)
        about = "Metadata-Version: 2.1\nName: hybridjobs-dev\nVersion: 1\n"
        (package / "METADATA").write_text(about)
        lines = [f"{name} = {value}" for name, value in sorted(self.handlers.items())]
        text = "\n".join([f"[{registry.GROUP}]", *lines, ""])
        scratch = package / "entry_points.new"
        scratch.write_text(text)
        scratch.replace(package / "entry_points.txt")


def _python_files(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(
            name
            for name in names
            if name not in _PASSED_OVER
            and not name.startswith(".")
            and not Path(folder, name, "pyvenv.cfg").exists()
        )
        yield from (Path(folder, file) for file in sorted(files) if file.endswith(".py"))
