"""One broker process: the composition root, started top-down and stopped bottom-up.

data directory -> engine -> listening socket -> server; at a signal: no new connections, no new
requests, everything accepted is finished and answered, then the store is closed.
"""

import logging
import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import trio

from rocksmq.protocol.errors import StorageFailed

from .config import EMBEDDED, Config
from .durability import Durability
from .engine import RocksMQ
from .limits import Limits
from .meta_url import MetaUrl
from .reconcile import PrefixInUse
from .remote import Remote
from .server import BACKLOG, Server
from .store import DataRefused, DirectoryInUse

logger = logging.getLogger("rocksmq.broker")

EXIT_OK, EXIT_CONFIGURATION, EXIT_DATA_REFUSED, EXIT_IN_USE, EXIT_STORAGE_FAILED = 0, 2, 3, 4, 5
CONNECTIONS_OF_FILES = 0.8  # the rest is for the database


def run(config: Config, *, accept_loss: bool, say: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. ``say`` gets the ready line and what to try next."""
    code = EXIT_OK

    def failed(why: object, exit_code: int) -> None:
        nonlocal code
        code = exit_code
        print(f"rocksmqd: {why}", file=sys.stderr)  # noqa: T201

    os.umask(0o077)
    try:
        trio.run(_serve, config, accept_loss, say)
    except* (DirectoryInUse, PrefixInUse) as group:
        failed(_first(group), EXIT_IN_USE)
    except* DataRefused as group:
        failed(_first(group), EXIT_DATA_REFUSED)
    except* StorageFailed as group:
        failed(f"{_first(group)}: stopped, so that nothing is acknowledged that may be lost", EXIT_STORAGE_FAILED)
    except* OSError as group:
        failed(_first(group), EXIT_CONFIGURATION)
    return code


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(cast(BaseExceptionGroup[BaseException], inner)) if isinstance(inner, BaseExceptionGroup) else inner


async def _serve(config: Config, accept_loss: bool, say: Callable[[str], None]) -> None:
    limits = _within_files(config.limits)
    durability = Durability.parse(config.durability)
    remote = meta_store(config)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with RocksMQ(
            config.data_dir, durability=durability, limits=limits, accept_loss=accept_loss, remote=remote
        ) as engine:
            listener = _listen(*config.address)
            server = Server(engine.core, limits)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, listener)
                _say_ready(listener, config, say)
                await anext(signals)
                logger.info("stopping: finishing what is in flight")
                with trio.move_on_after(limits.drain_seconds):
                    server.stop_accepting()
                    await engine.drain()
                    await server.flushed()
                nursery.cancel_scope.cancel()


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
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; --listen HOST:PORT names another address"
        ) from error


def _within_files(limits: Limits) -> Limits:
    """Raise the limit of open files as far as allowed, and take no more connections than fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = int(limits.connections_max / CONNECTIONS_OF_FILES) + 1
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return replace(limits, connections_max=min(limits.connections_max, int(soft * CONNECTIONS_OF_FILES)))


def _say_ready(listener: socket.socket, config: Config, say: Callable[[str], None]) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    data = Path(config.data_dir).resolve()
    say(f"listening on {address} (rocksmqd {version('rocksmq')}, durability {config.durability}, data in {data})")
    command = "rocksmq" if shutil.which("rocksmq") else os.path.relpath(Path(sys.executable).with_name("rocksmq"))
    url = "" if port == 7660 and host == "127.0.0.1" else f" --url rocksmq://{address}"
    say(f"try: echo hello | {command}{url} produce greetings --create")
