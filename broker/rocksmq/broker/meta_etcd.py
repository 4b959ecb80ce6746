"""Positions in etcd: the one place that speaks to it, and what `--meta` says about where it is.

Every call blocks, for `call_seconds` at most, and belongs to one thread at a time. Whatever goes wrong is RemoteFailed:
whether a transaction was applied is then unknown, and the next call goes to the next endpoint over a new connection. An
old one may be dead without knowing, and TCP would take a minute to try again.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would write to stderr whatever is also raised

import grpc
import pyetcd
from pyetcd.transactions import Delete, Get, Put, Value, Version

from .fence import Attempt, CommitValue, Met
from .keys import prefix_end
from .meta_url import MetaUrl
from .prefix import COMMIT, OWNER
from .remote import RemoteFailed

PAGE_KEYS = 500
DETAIL_CHARACTERS = 300
REPLY_BYTES_MAX = 64 << 20  # a page of groups with all their consumer entries
CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", REPLY_BYTES_MAX),
)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Login:
    """Files and name for etcd's TLS and its user; each may be missing."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str | None = None
    password_file: Path | None = None


class EtcdRemote:
    """As `Remote`: one prefix of an etcd cluster."""

    def __init__(self, url: MetaUrl, login: Login, *, call_seconds: float) -> None:
        """Reads the certificates of ``login`` now, its password with each connection. Raises OSError."""
        self.name = f"etcd prefix {url.prefix}"
        self._url = url
        self._login = login
        self._credentials = (
            grpc.ssl_channel_credentials(*map(_content, (login.ca, login.key, login.cert))) if url.is_tls else None
        )
        self._call_seconds = call_seconds
        self._endpoint = 0
        self._client: Any = None

    def read(self) -> dict[str, str]:
        return self._do(self._read)

    def transact(self, attempt: Attempt, entries: Mapping[str, str | None], lease: int | None) -> Met:
        commit = self._key(COMMIT)
        expected = Version(commit) == 0 if attempt.expected is None else Value(commit) == str(attempt.expected)
        changes: list[Put | Delete] = [Put(commit, str(attempt.value))]
        for key, value in entries.items():
            path = self._key(key)
            changes.append(Delete(path) if value is None else Put(path, value, lease if key == OWNER else None))
        is_applied, replies = self._do(lambda client: client.transaction([expected], changes, [Get(commit)]))
        if is_applied:
            return Met(True, None)
        return Met(False, _commit_value([value for value, _ in replies[0]]))

    def found(self) -> CommitValue | None:
        key = self._key(COMMIT)
        return _commit_value([pair.value for pair in self._do(lambda client: client.get_response(key).kvs)])

    def grant(self, seconds: int) -> int:
        return int(self._do(lambda client: client.lease(seconds).id))

    def keep_alive(self, lease: int) -> bool:
        return self._do(lambda client: any(reply.TTL > 0 for reply in client.refresh_lease(lease)))

    def revoke(self, lease: int) -> None:
        self._do(lambda client: client.revoke_lease(lease))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _key(self, name: str) -> str:
        return f"{self._url.prefix}/{name}"

    def _read(self, client: Any) -> dict[str, str]:
        begin, end = self._key("").encode(), prefix_end(self._key("").encode())
        entries: dict[str, str] = {}
        revision = None
        while True:
            page = client.get_range_response(begin, end, sort_order="ascend", limit=PAGE_KEYS, revision=revision)
            revision = page.header.revision if revision is None else revision
            for pair in page.kvs:
                entries[pair.key.decode(errors="replace").removeprefix(self._key(""))] = pair.value.decode(errors="replace")
            if not page.more:
                return entries
            begin = page.kvs[-1].key + b"\0"

    def _do(self, call: Callable[[Any], Result]) -> Result:
        try:
            if self._client is None:
                self._client = self._connect()
            return call(self._client)
        except (pyetcd.exceptions.Etcd3Exception, grpc.RpcError, ValueError, OSError) as error:
            detail = f"{':'.join(map(str, self._present_endpoint))}: {_cause(error)}"
            self.close()
            self._endpoint += 1
            raise RemoteFailed(self._reason(error), detail) from error

    @property
    def _present_endpoint(self) -> tuple[str, int]:
        return self._url.endpoints[self._endpoint % len(self._url.endpoints)]

    def _connect(self) -> Any:
        file = self._login.password_file
        password = None if file is None else file.read_text().rstrip("\r\n")
        host, port = self._present_endpoint
        endpoint = pyetcd.Endpoint(
            host,
            port,
            secure=self._credentials is not None,
            creds=self._credentials,
            time_retry=0.0,
            opts=CHANNEL_OPTIONS,
        )
        try:
            client = pyetcd.MultiEndpointEtcd3Client(
                [endpoint], timeout=self._call_seconds, user=self._login.user, password=password
            )
        except BaseException:
            endpoint.close()
            raise
        client.call_credentials = None  # the token goes as metadata, over connections without TLS too
        return client

    def _reason(self, error: Exception) -> str:
        """Why, for a message that clients may see: no address, no text of a file."""
        code = error.code() if isinstance(error, grpc.Call) else None
        if code is grpc.StatusCode.DEADLINE_EXCEEDED or isinstance(error, pyetcd.exceptions.ConnectionTimeoutError):
            return f"no answer within {self._call_seconds:g} s"
        if code is grpc.StatusCode.UNAVAILABLE or isinstance(error, pyetcd.exceptions.ConnectionFailedError):
            return "it cannot be reached"
        if isinstance(error, OSError):
            return f"its password file cannot be read: {error.strerror}"
        details = error.details() if isinstance(error, grpc.Call) else None
        return f"it refuses: {details}" if details is not None and details.startswith("etcdserver: ") else "it failed"


def _content(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()


def _cause(error: Exception) -> str:
    """What grpc said, below what pyetcd makes of it, in one line."""
    said = error if isinstance(error, grpc.Call) else error.__context__
    text = (said.details() if isinstance(said, grpc.Call) else None) or str(error)
    return " ".join(text.split())[:DETAIL_CHARACTERS]


def _commit_value(found: list[bytes]) -> CommitValue | None:
    try:
        return CommitValue.parse(found[0].decode())
    except (IndexError, ValueError):
        return None
