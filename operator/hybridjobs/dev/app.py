"""The process: Postgres, the ingress, local workers, and what watches the code, put together."""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import PrivateAttr

from hybridjobs.dev.code import Code
from hybridjobs.dev.home import Home, default_folder
from hybridjobs.dev.runtime import LocalRuntime
from hybridjobs.dev.schedules import LocalSchedules
from hybridjobs.dev.tokens import LocalKeys
from hybridjobs.dev.types import mirror
from hybridjobs.dispatch.loop import Runtime
from hybridjobs.errors import ConfigurationError, DatabaseUnavailable
from hybridjobs.ingress.app import Ingress, Ports
from hybridjobs.model import JobType
from hybridjobs.settings import IngressSettings
from hybridjobs.store.database import Database
from hybridjobs.store.migrate import migrate
from hybridjobs.type_files import read_objects

log = structlog.get_logger(__name__)

_HOST = "127.0.0.1"
_WINDOW = 8
_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Options:
    """What the command line says; `port` is the first of five."""

    modules: tuple[str, ...] = ()
    types_dir: Path | None = None
    port: int = 8080
    reset: bool = False
    data: Path | None = None


class _Settings(IngressSettings):
    """The ingress' settings; quick handlers see what the long ones do."""

    _workers: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def child_environment(self) -> dict[str, str]:
        return {**self._workers, **super().child_environment}


async def serve(options: Options) -> None:
    """Run until SIGINT or SIGTERM. A second one does not wait for what runs."""
    interrupted, hurried = asyncio.Event(), asyncio.Event()

    def interrupt() -> None:
        (hurried if interrupted.is_set() else interrupted).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, interrupt)
    if options.types_dir is not None and not options.types_dir.is_dir():
        raise ConfigurationError(f"--types-dir: {options.types_dir} is no folder")
    home = Home((options.data or default_folder()).absolute(), reset=options.reset)
    try:
        await _Dev(options, home, interrupted, hurried).run()
    finally:
        home.close()


class _Dev:
    def __init__(
        self, options: Options, home: Home, interrupted: asyncio.Event, hurried: asyncio.Event
    ) -> None:
        self._options = options
        self._home = home
        self._interrupted = interrupted
        self._hurried = hurried
        self._code = Code(options.modules, home.handlers)
        self._keys = LocalKeys()
        self._runtime: LocalRuntime | None = None
        self._ports = [options.port + place for place in range(5)]

    async def run(self) -> None:
        """From the first import to the end of Postgres."""
        await self._code.discover()
        database_port = self._ports[4]
        postgres = self._home.postgres(database_port)
        _require_free(self._ports)
        await asyncio.to_thread(postgres.start)
        try:
            urls = {user: self._home.url(database_port, user) for user in _LOGINS}
            logins = {urls[user]: group for user, group in _LOGINS.items()}
            await migrate(postgres.url, logins=logins)
            settings = self._settings(urls["hybridjobs"], urls["hybridjobs_jobs"])
            async with Database(urls["hybridjobs"], size=4) as database:
                await self._serve(settings, database)
        finally:
            await asyncio.to_thread(postgres.stop)
        _say("ended")

    async def _serve(self, settings: IngressSettings, database: Database) -> None:
        schedules = LocalSchedules(database, _say)
        types = await self._mirror(database, schedules)
        ingress = Ingress(settings, keys=self._keys, runtime=self._make_runtime(settings, database))
        stop = asyncio.Event()
        serving = asyncio.create_task(ingress.run(stop))
        interrupted = asyncio.create_task(self._interrupted.wait())
        parts: list[asyncio.Task[None]] = []
        try:
            begun: list[asyncio.Future[Any]] = [serving, ingress.ports]
            await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                self._show(settings, ingress.ports.result(), types)
                parts = [
                    asyncio.create_task(self._watch(ingress, database, schedules)),
                    asyncio.create_task(schedules.run()),
                ]
            waited: list[asyncio.Task[Any]] = [serving, interrupted, *parts]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
                part.cancel()
            if self._runtime is not None and not serving.done():
                await self._end_jobs(self._runtime)
        finally:
            interrupted.cancel()
            stop.set()
            await serving

    async def _mirror(self, database: Database, schedules: LocalSchedules) -> list[JobType]:
        """Take over what the folder says; ConfigurationError names what is wrong there."""
        folder, bodies = self._options.types_dir, []
        if folder is not None:
            bodies = await asyncio.to_thread(read_objects, folder, (_TYPE, _SCHEDULE))
        types = [body for body in bodies if body["kind"] == _TYPE]
        mirrored = await mirror(database, types, self._code.handlers)
        schedules.replace([body for body in bodies if body["kind"] == _SCHEDULE])
        return mirrored

    async def _end_jobs(self, runtime: LocalRuntime) -> None:
        if runtime.is_running:
            _say("ending what runs; it goes on with the next start (again: at once)")
        hurried = asyncio.create_task(self._hurried.wait())
        ending = asyncio.create_task(runtime.stop(_GRACE_SECONDS))
        waited: list[asyncio.Task[None] | asyncio.Task[bool]] = [ending, hurried]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            runtime.kill()
        hurried.cancel()
        await ending

    def _settings(self, url: str, handlers_url: str) -> IngressSettings:
        webhooks, api, workers, health = self._ports[:4]
        values: dict[str, object] = {
            "database_url": url,
            "handlers_database_url": handlers_url,
            "bind": _HOST,
            "webhook_port": webhooks,
            "api_port": api,
            "worker_port": workers,
            "health_port": health,
            "api_token": self._home.secrets.api_token,
            "window": _WINDOW,
            "inline_children": 1,
            "dispatch": True,
        }
        if IngressSettings.load(**values).github_webhook_secret is None:
            values["github_webhook_secret"] = self._home.secrets.webhook_secret
        settings = _Settings.load(**values)
        settings._workers.update(self._code.environment())
        return settings

    def _make_runtime(
        self, settings: IngressSettings, database: Database
    ) -> Callable[[AsyncExitStack, Database], Awaitable[Runtime]]:
        async def make(stack: AsyncExitStack, _: Database) -> Runtime:
            runtime = LocalRuntime(
                database,
                settings,
                self._keys,
                api_url=f"http://{_HOST}:{settings.worker_port}",
                folder=self._home.run,
                environment=self._environment(settings),
                say=_say,
            )
            stack.callback(runtime.kill)
            if left := await runtime.recover():
                _say(f"{left} jobs ran when the last run ended; they go on")
            self._runtime = runtime
            return runtime

        return make

    def _environment(self, settings: IngressSettings) -> Callable[[], dict[str, str]]:
        def environment() -> dict[str, str]:
            url = settings.handlers_database_url
            assert url is not None
            return {**self._code.environment(), "DATABASE_URL": url.get_secret_value()}

        return environment

    async def _watch(self, ingress: Ingress, database: Database, schedules: LocalSchedules) -> None:
        """Take changes of code and types over, until cancelled."""
        folder = self._options.types_dir
        code, types = await asyncio.to_thread(self._code.snapshot), _type_files(folder)
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now, types_now = await asyncio.to_thread(self._code.snapshot), _type_files(folder)
            if now == code and types_now == types:
                continue
            try:
                if now != code:
                    await self._code.discover()
                    ingress.renew_children()
                mirrored = await self._mirror(database, schedules)
                await ingress.renew_types()
            except (ConfigurationError, DatabaseUnavailable) as error:
                _say(f"the change is not taken: {error}")
            else:
                _say(f"changes taken: {', '.join(each.spec.type for each in mirrored)}")
            code, types = now, types_now

    def _show(self, settings: IngressSettings, ports: Ports, types: list[JobType]) -> None:
        api = f"http://{_HOST}:{ports.api}"
        token, secret = settings.api_token, settings.github_webhook_secret
        assert token is not None
        assert secret is not None
        first = types[0].spec.type if types else "TYPE"
        curl = (
            f"  curl -H 'Authorization: Bearer {token.get_secret_value()}' {api}/api/jobs "
            f"""-d '{{"type": "{first}", "payload": {{}}}}'"""
        )
        lines = [
            f"data in {self._home.folder}; --reset begins anew",
            "",
            f"  API       {api}",
            f"  webhooks  http://{_HOST}:{ports.webhooks}/webhooks/github",
            f"            secret {secret.get_secret_value()}",
            "",
            *(_about(each, self._code.handlers) for each in types),
            "",
            f"  export HYBRIDJOBS_API_URL={api} HYBRIDJOBS_API_TOKEN={token.get_secret_value()}",
            f"  export HYBRIDJOBS_DATABASE_URL='{settings.database_url.get_secret_value()}'",
            curl,
            "",
            "ready; Ctrl-C ends it",
        ]
        _say("\n".join(lines))


_USES = ("webhooks", "the API", "workers", "health", "Postgres")
_TYPE, _SCHEDULE = "HybridJobType", "HybridJobSchedule"
_LOGINS = {"hybridjobs": "hybridjobs_service", "hybridjobs_jobs": "hybridjobs_handlers"}


def _require_free(ports: Sequence[int]) -> None:
    """ConfigurationError names a port that another process has."""
    for port, use in zip(ports, _USES, strict=True):
        try:
            socket.create_server((_HOST, port)).close()
        except OSError as error:
            raise ConfigurationError(
                f"port {port}, for {use}, cannot be had ({error.strerror}): "
                f"--port takes the first of {len(ports)} that are free one after another"
            ) from None


def _about(job_type: JobType, handlers: dict[str, str]) -> str:
    spec = job_type.spec
    name = spec.handler or spec.type
    runs = " ".join(spec.command) if spec.command else handlers.get(name)
    events = f", on {', '.join(spec.events)}" if spec.events else ""
    missing = f"image {spec.image}, which is not run here" if spec.image else "no such handler"
    note = runs or missing
    return f"  {spec.type}  {spec.mode}, {note}{events}"


def _type_files(folder: Path | None) -> dict[str, tuple[int, int]]:
    files = folder.glob("*.yaml") if folder else ()
    about = {}
    for path in files:
        try:
            found = path.stat()
        except OSError:
            continue
        about[str(path)] = (found.st_mtime_ns, found.st_size)
    return about


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
