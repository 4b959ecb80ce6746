"""One broker process: the composition root, started top-down and stopped bottom-up.

signals -> data directory -> engine -> listening sockets -> servers; at a signal: no new connections, no new
requests, everything accepted is finished and answered, then the store is closed.
"""

import logging
import os
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import trio

from rocksmq.metrics import catalogue
from rocksmq.metrics.http import HttpLimits, HttpServer
from rocksmq.metrics.instruments import MetricFamily, gauge
from rocksmq.protocol.errors import DiskFull, StorageFailed

from .access import Access, access_of
from .auth import ALL, Authority, Token, digest_of, new_secret
from .config import DEFAULT, EMBEDDED, Config
from .durability import Durability
from .engine import RocksMQ
from .health import Health
from .http import routes
from .limits import LIMIT_NAMES, Limits
from .logs import ALIKE_SECONDS, JSON, Logs
from .meta_url import MetaUrl
from .mirror import MirrorProcess
from .mirror_options import TOKEN_VARIABLE, environment_of_child
from .notify import PARTS, Notifier
from .readings import is_aggregated
from .reconcile import PrefixInUse
from .reload import Reloader
from .remote import Remote
from .server import BACKLOG, Door, Server
from .signals import Signals, cut_off, hold
from .store import DataRefused, DirectoryInUse

logger = logging.getLogger("rocksmq.broker")

EXIT_OK, EXIT_BUG, EXIT_CONFIGURATION, EXIT_DATA_REFUSED, EXIT_IN_USE, EXIT_STORAGE_FAILED = range(6)
CONNECTIONS_OF_FILES = 0.8  # the rest is for the database
CLOSE_SECONDS = 5.0  # for the store to close, once all is drained; beyond, it is left as kill -9 would leave it


@dataclass(frozen=True, slots=True)
class Launch:
    """What the command line asked for."""

    config: Config
    access: Access
    read: Callable[[], Config]  # the options anew, at SIGHUP. Raises BadConfiguration
    accept_loss: bool
    say: Callable[[str], None]  # gets the ready lines


def run(launch: Launch) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    code = EXIT_OK
    logs = Logs(sys.stderr)
    logs.install()
    logs.configure(launch.config.log_level, launch.config.log_format)

    def failed(group: BaseExceptionGroup[BaseException], exit_code: int, then: str = "") -> None:
        nonlocal code
        code = exit_code
        if logs.format_name == JSON:
            logger.critical("%s%s", _first(group), then)
        else:
            print(f"rocksmqd: {_first(group)}{then}", file=sys.stderr)  # noqa: T201

    hold()
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # messages and keys would be in it
    daemon = _Daemon(launch, logs)
    try:
        trio.run(daemon.live)
    except* (DirectoryInUse, PrefixInUse) as group:
        failed(group, EXIT_IN_USE)
    except* DataRefused as group:
        failed(group, EXIT_DATA_REFUSED)
    except* DiskFull as group:
        failed(group, EXIT_STORAGE_FAILED)
    except* StorageFailed as group:
        failed(group, EXIT_STORAGE_FAILED, ": stopped, so that nothing is acknowledged that may be lost")
    except* Exception as group:
        if isinstance(_first(group), OSError) and not daemon.is_serving:
            failed(group, EXIT_CONFIGURATION)
        else:
            code = EXIT_BUG
            logger.critical("a bug: the broker ended by it", exc_info=group)
    logs.tell_withheld(is_over=True)
    return code


def _http_limits(limits: Limits) -> HttpLimits:
    return HttpLimits(limits.http_connections_max, limits.http_request_bytes_max, limits.http_request_seconds)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(cast(BaseExceptionGroup[BaseException], inner)) if isinstance(inner, BaseExceptionGroup) else inner


class _Daemon:
    """The life of one process."""

    def __init__(self, launch: Launch, logs: Logs) -> None:
        self._launch = launch
        self._config = launch.config
        self._limits = _within_files(launch.config.limits)
        self._logs = logs
        self._notifier = Notifier(os.environ)
        self._access = launch.access
        self._authority = Authority(launch.access.tokens)
        self._reloader = Reloader(launch.config, self._read, self._apply)
        self._status = ""
        self._is_open = False
        self.is_serving = False

    async def live(self) -> None:
        """All of it; returns once stopped by a signal."""
        config = self._config
        config.mirror.require_client()
        remote = meta_store(config)
        self._log_start()
        signals = Signals(self._limits.drain_seconds + CLOSE_SECONDS)
        await self._notifier.tell(f"STATUS=opening the data in {Path(config.data_dir).resolve()}")
        async with trio.open_nursery() as nursery:

            async def interrupt() -> None:
                """A stop while the store of the positions is waited for."""
                await signals.stop.wait()
                if not self._is_open:
                    if remote is not None:
                        remote.close()  # ends the call that is on its way, for which a thread waits
                    nursery.cancel_scope.cancel()

            nursery.start_soon(interrupt)
            async with RocksMQ(
                config.data_dir,
                durability=Durability.parse(config.durability),
                limits=self._limits,
                accept_loss=self._launch.accept_loss,
                remote=remote,
                retention=config.retention,
            ) as engine:
                self._is_open = True
                await self._serve(engine, signals)
            logger.info("stopped: all that was accepted is stored and answered")
            nursery.cancel_scope.cancel()

    async def _serve(self, engine: RocksMQ, signals: Signals) -> None:
        listener = _listen(*self._config.address)
        http = self._http_listener()
        doors = [Door(listener, self._authority, lambda: self._access.tls)]
        server = Server(engine.core, self._limits)
        health = Health(engine.core)
        engine.core.status.checks = health.checks
        for families in (health.families, self._logs.families, self._reloader.families, self._authority.families):
            engine.core.telemetry.add(families)
        engine.core.telemetry.add(self._expiries)
        mirror = self._mirror_of(engine, doors)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, *doors)
            if http is not None:
                exposer = HttpServer(routes(engine.core.telemetry, health), _http_limits(self._limits))
                engine.core.telemetry.add(lambda: iter((gauge(catalogue.HTTP_REFUSED, exposer.refused),)))
                nursery.start_soon(exposer.serve, http)
            self.is_serving = True
            self._say_ready(listener, http)
            await self._notifier.tell("READY=1", f"STATUS={self._status}")
            nursery.start_soon(self._feed_watchdog, engine)
            nursery.start_soon(self._reload, signals)
            nursery.start_soon(self._tell_withheld)
            if mirror is not None:
                nursery.start_soon(mirror.run)
            await signals.stop.wait()
            await self._stop(engine, server, mirror)
            nursery.cancel_scope.cancel()

    async def _stop(self, engine: RocksMQ, server: Server, mirror: MirrorProcess | None) -> None:
        logger.info("stopping: finishing what is in flight")
        await self._notifier.tell("STOPPING=1", "STATUS=finishing what is in flight")
        seconds = self._limits.drain_seconds
        is_drained = False
        with trio.move_on_after(seconds):
            server.stop_accepting()
            if mirror is not None:
                await mirror.stop()
            await engine.drain()
            is_drained = True
            await server.flushed()  # to clients that read
        if not is_drained:
            cut_off(f"what was in flight took longer than {seconds:g} s (drain_seconds)")

    # -- beside serving ----------------------------------------------------------

    def _mirror_of(self, engine: RocksMQ, doors: list[Door]) -> MirrorProcess | None:
        """The one that the options want, not started yet; its figures are among the broker's.

        Where clients need certificates or tokens, it has a door of its own among ``doors``, on the loopback, and a token for it
        that nobody else knows.
        """
        section = self._config.mirror
        if not section.is_on:
            return None
        environment = environment_of_child()
        if self._access.tls is not None or self._authority.is_on:
            secret = new_secret()
            only_it = Authority([Token(section.name, digest_of(secret), 0, None, consume=ALL)])
            doors.append(Door(_listen("127.0.0.1", 0), only_it))
            environment[TOKEN_VARIABLE] = secret
        mirror = MirrorProcess(section.name, section.command(*doors[-1].listener.getsockname()[:2]), environment)

        def families(names: Sequence[str] | None) -> Iterator[MetricFamily]:
            return mirror.families(names, is_aggregated=is_aggregated(engine.core, names))

        engine.core.telemetry.add_of_channels(families)
        return mirror

    async def _feed_watchdog(self, engine: RocksMQ) -> None:
        """Tell systemd that all is well, as long as what makes messages durable answers."""
        period = self._notifier.watchdog_seconds
        while period is not None:
            await engine.probe()
            await self._notifier.tell("WATCHDOG=1")
            await trio.sleep(period / PARTS)

    async def _reload(self, signals: Signals) -> None:
        while True:
            await signals.hung_up()
            now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
            await self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=reading the options again")
            await self._reloader.reload()
            await self._notifier.tell("READY=1", f"STATUS={self._status}")

    def _read(self) -> tuple[Config, Access]:
        """The options anew, and what is now in the files that those named which are in effect. Raises BadConfiguration."""
        return self._launch.read(), access_of(self._config)

    def _expiries(self) -> Iterator[MetricFamily]:
        """Of what is in effect at the time."""
        return self._access.families()

    def _apply(self, config: Config, access: Access) -> None:
        """Put into effect what may change while the broker runs."""
        self._logs.configure(config.log_level, config.log_format)
        self._access = access
        self._authority.replace(access.tokens or ())

    async def _tell_withheld(self) -> None:
        while True:
            await trio.sleep(ALIKE_SECONDS)
            self._logs.tell_withheld()

    # -- what is said --------------------------------------------------------------

    def _log_start(self) -> None:
        config, asked, limits = self._config, self._config.limits, self._limits
        usual = Limits()
        unusual = [f"{name} {getattr(limits, name)}" for name in LIMIT_NAMES if getattr(limits, name) != getattr(usual, name)]
        logger.info(
            "rocksmqd %s starts: data in %s, durability %s, positions %s, limits: %s",
            *(version("rocksmq"), Path(config.data_dir).resolve(), config.durability, config.meta),
            ", ".join(unusual) or "the defaults",
        )
        if limits.connections_max < asked.connections_max:
            logger.warning(
                "connections_max is %d instead of %d: this process may open so few files only (ulimit -n)",
                *(limits.connections_max, asked.connections_max),
            )

    def _http_listener(self) -> socket.socket | None:
        address = self._config.http_address
        if address is None:
            return None
        try:
            return _bound("http", *address)
        except OSError as error:
            if self._config.origins.get("http") != DEFAULT:
                raise
            logger.warning("there are no metrics and health over HTTP: %s", error)
            return None

    def _say_ready(self, listener: socket.socket, http: socket.socket | None) -> None:
        config, say = self._config, self._launch.say
        address = _address(listener)
        data = Path(config.data_dir).resolve()
        self._status = f"serving on {address}"
        logger.info("%s", self._status)
        say(f"listening on {address} (rocksmqd {version('rocksmq')}, durability {config.durability}, data in {data})")
        if http is not None:
            say(f"metrics and health on http://{_address(http)}")
        if self._notifier.is_asked or self._logs.format_name == JSON:
            return  # nobody reads it who would try
        script = Path(sys.executable).with_name("rocksmq")
        command = "rocksmq" if shutil.which("rocksmq") else min(os.path.relpath(script), str(script), key=len)
        scheme = "rocksmq" if self._access.tls is None else "rocksmqs"
        url = "" if (scheme, address) == ("rocksmq", "127.0.0.1:7660") else f" --url {scheme}://{address}"
        say(f"try: echo hello | {command}{url} produce greetings --create")


def meta_store(config: Config) -> Remote | None:
    """Where positions are kept, if not in the data directory. Raises OSError."""
    if config.meta == EMBEDDED:
        return None
    try:
        from .meta_etcd import EtcdRemote, Login
    except ModuleNotFoundError as error:
        raise OSError(f"{error.name} is missing: install it with  pip install 'rocksmq[etcd]'") from None
    ca, cert, key, password = (
        Path(name) if name else None for name in (config.meta_ca, config.meta_cert, config.meta_key, config.meta_password_file)
    )
    login = Login(ca, cert, key, config.meta_user or None, password)
    return EtcdRemote(MetaUrl.parse(config.meta), login, call_seconds=config.limits.meta_call_seconds)


def _listen(host: str, port: int) -> socket.socket:
    return _bound("listen", host, port)


def _bound(option: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror  # below 0 the name was not found
        raise OSError(f"cannot listen on {host}:{port}: {why}; --{option} HOST:PORT names another address") from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _within_files(limits: Limits) -> Limits:
    """Raise the limit of open files as far as allowed, and take no more connections than fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = int(limits.connections_max / CONNECTIONS_OF_FILES) + 1
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return replace(limits, connections_max=min(limits.connections_max, int(soft * CONNECTIONS_OF_FILES)))
