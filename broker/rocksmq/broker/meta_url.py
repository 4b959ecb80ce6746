"""Where positions are kept: the option `--meta`, `embedded` or `etcd://host:port[,...]/prefix`."""

import re
from dataclasses import dataclass

PORT = 2379
WANTED = "etcd://host:port[,host:port...]/prefix, or etcds:// with TLS"
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_ENDPOINT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class MetaUrl:
    """A prefix in an etcd cluster."""

    endpoints: tuple[tuple[str, int], ...]
    prefix: str
    is_tls: bool

    @classmethod
    def parse(cls, text: str) -> "MetaUrl":
        """Raises ValueError that says what is wrong."""
        scheme, _, rest = text.partition("://")
        if scheme not in ("etcd", "etcds"):
            raise ValueError(f"not `embedded`, nor {WANTED}")
        hosts, _, prefix = rest.partition("/")
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"the prefix is letters, digits and ._- with / between: {WANTED}")
        endpoints: list[tuple[str, int]] = []
        if "@" in hosts:
            raise ValueError("it holds no user: --meta-user and --meta-password-file name user and password")
        for host in hosts.split(","):
            match = _ENDPOINT.fullmatch(host)
            if match is None or not 0 < int(match["port"] or PORT) < 1 << 16:
                raise ValueError(f"{host!r} is no host:port: {WANTED}")
            endpoints.append((match["host"], int(match["port"] or PORT)))
        return cls(tuple(endpoints), prefix, scheme == "etcds")
