"""The broker's configuration: a TOML file < environment ROCKSMQ_* < flags, each value with its origin.

One frozen dataclass, validated once, here. Unknown keys are errors: a misspelt option
must not be ignored silently.
"""

import ipaddress
import json
import re
import ssl
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from rocksmq.protocol.errors import InvalidRequest

from .durability import Durability
from .limits import LIMIT_NAMES, MIB, Limits
from .logs import CONSOLE, FORMATS, LEVELS
from .meta_url import MetaUrl
from .mirror_options import MirrorSection
from .retention import RetentionSection

ENVIRONMENT_PREFIX = "ROCKSMQ_"
LIMITS_TABLE = "limits"
MIRROR_TABLE = "mirror"
RETENTION_TABLE = "retention"
PAYLOAD_BYTES_MOST = 64 * MIB
COLUMN_BYTES = 20  # a message, at most, in the columns of a reply beside payloads and headers
DEFAULT = "default"  # the origin of what nobody has set
OFF = "off"
EMBEDDED = "embedded"
REMOTE_CONSUMERS_MAX = 3_000
_META_FILES = ("meta_ca", "meta_cert", "meta_key", "meta_password_file")
# The client's own variables, and those that Kubernetes makes of a service named rocksmq.
_NOT_OURS = re.compile(r"ROCKSMQ_(URL|TOKEN|TOKEN_FILE|CA|CERT|KEY|TIMEOUT|CONTEXT|SERVICE_.*|PORT|PORT_.*)")


Refuse = Callable[[str, str], None]


class BadConfiguration(Exception):
    """The configuration cannot be used; the message names the key, its origin and what is allowed."""


@dataclass(frozen=True, slots=True)
class Config:
    """What `rocksmqd` runs with."""

    data_dir: str = "data"
    listen: str = "127.0.0.1:7660"
    http: str = "127.0.0.1:7661"  # metrics and health; or OFF
    tls_cert: str = ""  # files: the broker's certificate and key for its clients, and who signed those of clients
    tls_key: str = ""
    tls_client_ca: str = ""
    auth_file: str = ""  # of tokens
    durability: str = "fsync"
    meta: str = EMBEDDED
    meta_ca: str = ""  # files: who signed etcd's certificate, and the broker's own certificate and key for it
    meta_cert: str = ""
    meta_key: str = ""
    meta_user: str = ""
    meta_password_file: str = ""
    log_level: str = "info"
    log_format: str = CONSOLE
    insecure: bool = False  # allow an address that other machines reach, without TLS and tokens
    retention: RetentionSection = field(default_factory=RetentionSection)
    mirror: MirrorSection = field(default_factory=MirrorSection)
    limits: Limits = field(default_factory=Limits)
    origins: Mapping[str, str] = field(default_factory=dict[str, str])  # key -> where its value comes from

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on; port 0 picks a free one."""
        return _host_and_port(self.listen)

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port of metrics and health; None: there are none."""
        return None if self.http == OFF else _host_and_port(self.http)

    def values(self) -> dict[str, Any]:
        """Every key with its value, those of a table as ``<table>.<name>``."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in (*_TABLES, "origins")}
        of_tables = {
            f"{table}.{name}": getattr(getattr(self, table), name) for table, names in _TABLES.items() for name in names
        }
        return own | of_tables


_TABLES = {
    RETENTION_TABLE: tuple(option.name for option in fields(RetentionSection)),
    MIRROR_TABLE: tuple(option.name for option in fields(MirrorSection)),
    LIMITS_TABLE: LIMIT_NAMES,
}


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


_DEFAULTS: dict[str, Any] = Config().values()


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """The configuration. ``flags`` holds the flags that were given, by key. Raises BadConfiguration."""
    values = dict(_DEFAULTS)
    origins = dict.fromkeys(values, DEFAULT)
    layers = (_from_file(file), _from_environment(environment), {key: (value, _flag(key)) for key, value in flags.items()})
    for layer in layers:
        for key, (value, origin) in layer.items():
            if key not in values:
                raise BadConfiguration(f"{origin}: there is no option {key!r}")
            values[key] = _typed(key, value, origin)
            origins[key] = origin
    retention, mirror, limits = ({name: values.pop(f"{table}.{name}") for name in names} for table, names in _TABLES.items())
    config = Config(
        **values,
        retention=RetentionSection(**retention),
        mirror=MirrorSection(**mirror),
        limits=Limits(**limits),
        origins=origins,
    )
    _check(config)
    return config


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _from_file(file: Path | None) -> dict[str, tuple[Any, str]]:
    if file is None:
        return {}
    try:
        tree = tomllib.loads(file.read_text())
    except OSError as error:
        raise BadConfiguration(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadConfiguration(f"{file}: not valid TOML: {error}") from None
    for table in _TABLES:
        inside = tree.pop(table, {})
        if not isinstance(inside, dict):
            raise BadConfiguration(f"{file}: {table} is a table: write [{table}] above its options")
        tree |= {f"{table}.{name}": value for name, value in cast(dict[str, Any], inside).items()}
    return {key: (value, str(file)) for key, value in tree.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    names = {ENVIRONMENT_PREFIX + key.upper().replace(".", "_"): key for key in _DEFAULTS}
    found: dict[str, tuple[Any, str]] = {}
    for name, value in environment.items():
        if name in names:
            found[names[name]] = value, name
        elif name.startswith(ENVIRONMENT_PREFIX) and not _NOT_OURS.fullmatch(name):
            raise BadConfiguration(f"the environment variable {name} names no option")
    return found


def _typed(key: str, value: Any, origin: str) -> Any:
    """``value`` as the type of the key's default; text is read where it comes from the environment."""
    wanted = cast(type[str] | type[int] | type[float] | type[bool], type(_DEFAULTS[key]))
    if isinstance(value, str) and wanted is not str:
        try:
            value = {"true": True, "false": False}[value.lower()] if wanted is bool else wanted(value)
        except (ValueError, KeyError):
            raise BadConfiguration(f"{origin}: {key} {value!r} is not {_KINDS[wanted]}") from None
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise BadConfiguration(f"{origin}: {key} {value!r} is not {_KINDS[wanted]}")
    return value


_KINDS: dict[type, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def refusal(config: Config, key: str, why: str) -> BadConfiguration:
    """That the value of ``key`` cannot be used, and whose it is."""
    origin, value = config.origins.get(key, DEFAULT), config.values()[key]
    return BadConfiguration(f"{origin}: {key} {value!r}: {why}" if origin != _flag(key) else f"{origin} {value!r}: {why}")


def _check(config: Config) -> None:
    def refuse(key: str, why: str) -> None:
        raise refusal(config, key, why)

    if not config.data_dir:
        refuse("data_dir", "it is empty")

    _check_pairs(config, refuse, ("tls_cert", "tls_key"))
    if config.tls_client_ca and not config.tls_cert:
        refuse("tls_client_ca", "tls_cert and tls_key belong to it")
    _check_address(config, "listen", refuse, "HOST:PORT, for example 127.0.0.1:7660")
    if config.http != OFF:
        _check_address(config, "http", refuse, "HOST:PORT, for example 127.0.0.1:7661, nor off")
    _check_meta(config, refuse)
    for table, problems in ((RETENTION_TABLE, config.retention.problems()), (MIRROR_TABLE, config.mirror.problems())):
        for name, why in problems:
            refuse(f"{table}.{name}", why)
    for key, known in (("log_level", LEVELS), ("log_format", FORMATS)):
        if getattr(config, key) not in known:
            refuse(key, f"not one of {', '.join(known)}")
    try:
        Durability.parse(config.durability)
    except InvalidRequest as error:
        refuse("durability", error.message.partition(" is ")[2])
    for name in LIMIT_NAMES:
        if not 0 < getattr(config.limits, name) < float("inf"):
            refuse(f"{LIMITS_TABLE}.{name}", "a limit is above 0, and not infinite")
    limits = config.limits
    if limits.payload_bytes_max > PAYLOAD_BYTES_MOST:
        refuse("limits.payload_bytes_max", f"at most {PAYLOAD_BYTES_MOST}")
    if limits.frame_bytes_max < limits.payload_bytes_max + MIB:
        refuse("limits.frame_bytes_max", f"at least payload_bytes_max + 1 MiB = {limits.payload_bytes_max + MIB}")
    if limits.consume_bytes_max > limits.frame_bytes_max - MIB:
        refuse("limits.consume_bytes_max", f"at most frame_bytes_max - 1 MiB = {limits.frame_bytes_max - MIB}")
    if limits.consume_messages_max * COLUMN_BYTES > MIB:
        refuse("limits.consume_messages_max", f"at most {MIB // COLUMN_BYTES}, so that a reply fits into a frame")
    if limits.poll_ms_max > limits.idle_close_seconds * 1000:
        refuse("limits.poll_ms_max", "a poll may not outlast idle_close_seconds")
    if limits.page_names_max > Limits().page_names_max:
        refuse("limits.page_names_max", f"a page must stay below 4,096 CBOR items: at most {Limits().page_names_max}")
    if limits.request_channels_max > Limits().request_channels_max:
        refuse(
            "limits.request_channels_max",
            f"a reply about all of them must stay below 4,096 CBOR items: at most {Limits().request_channels_max}",
        )


def _check_address(config: Config, key: str, refuse: Refuse, wanted: str) -> None:
    host, colon, port = getattr(config, key).rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        refuse(key, f"not {wanted}")
    if _is_loopback(host.strip("[]")) or config.insecure:
        return
    if key == "http":
        refuse(
            key,
            "other machines reach it, and metrics have no TLS and no token: use 127.0.0.1, or --insecure where that is meant",
        )
    missing = [option for option in ("tls_cert", "tls_key", "auth_file") if not getattr(config, option)]
    if missing:
        refuse(key, f"other machines reach it: give {', '.join(missing)}, use 127.0.0.1, or --insecure on a trusted network")


def _check_pairs(config: Config, refuse: Refuse, *pairs: tuple[str, str]) -> None:
    for one, other in pairs:
        for given, missing in ((one, other), (other, one)):
            if getattr(config, given) and not getattr(config, missing):
                refuse(given, f"{missing} belongs to it")


def _check_meta(config: Config, refuse: Refuse) -> None:
    is_tls = False
    if config.meta != EMBEDDED:
        try:
            is_tls = MetaUrl.parse(config.meta).is_tls
        except ValueError as error:  # the value may hold a password
            origin = config.origins.get("meta", DEFAULT)
            raise BadConfiguration(f"{origin}: {error}" if origin == _flag("meta") else f"{origin}: meta: {error}") from None
    for key in _META_FILES:
        if not getattr(config, key):
            continue
        if config.meta == EMBEDDED or (not is_tls and key != "meta_password_file"):
            refuse(key, "it is used with etcd:// only" if key == "meta_password_file" else "it is used with etcds:// only")
        try:
            Path(getattr(config, key)).read_text()
        except (OSError, ValueError) as error:
            refuse(key, f"cannot be read: {error.strerror if isinstance(error, OSError) else 'it is not text'}")
    _check_pairs(config, refuse, ("meta_cert", "meta_key"), ("meta_user", "meta_password_file"))
    if config.meta_password_file and not Path(config.meta_password_file).read_text().rstrip("\r\n"):
        refuse("meta_password_file", "it is empty")
    if config.meta != EMBEDDED and config.limits.consumers_max > REMOTE_CONSUMERS_MAX:
        refuse("limits.consumers_max", f"at most {REMOTE_CONSUMERS_MAX} with etcd, which takes a group's record in one request")
    _check_certificates(config, refuse)


def _check_certificates(config: Config, refuse: Refuse) -> None:
    context = ssl.create_default_context()
    try:
        if config.meta_ca:
            context.load_verify_locations(config.meta_ca)
    except ssl.SSLError:
        refuse("meta_ca", "it holds no certificate in PEM")
    try:
        if config.meta_cert:
            context.load_cert_chain(config.meta_cert, config.meta_key, password="")  # never asked for at a terminal
    except ssl.SSLError:
        refuse("meta_cert", "it and meta_key are no certificate in PEM and its key, without a password")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown(config: Config) -> str:
    """Every value and where it comes from, a line each, as TOML."""
    rows = [(f"{key} = {json.dumps(value)}", config.origins[key]) for key, value in config.values().items()]
    width = max(len(setting) for setting, _ in rows)
    return "\n".join(f"{setting:{width}}  # {origin}" for setting, origin in rows)
