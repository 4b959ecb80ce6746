"""A client of an etcd of a test, for what needs a deadline shorter than etcdctl takes to start."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import grpc
from pyetcd import Endpoint, MultiEndpointEtcd3Client

from .certificates import Certificates

# What http_proxy names would be asked for the loopback too; and connections of one client would be another's.
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


@contextmanager
def etcd_client(endpoint: str, certificates: Certificates | None = None, timeout: float = 10.0) -> Generator[Any]:
    """A pyetcd client of ``endpoint`` (``HOST:PORT``), each of whose calls raises after ``timeout`` seconds."""
    host, port = endpoint.rsplit(":", 1)
    credentials: grpc.ChannelCredentials | None = None
    if certificates is not None:
        credentials = grpc.ssl_channel_credentials(
            certificates.authority.read_bytes(),
            certificates.client_key.read_bytes(),
            certificates.client_certificate.read_bytes(),
        )
    # A time to retry of nothing: calls go out although the one before failed.
    place = Endpoint(host, int(port), secure=certificates is not None, creds=credentials, time_retry=0.0, opts=_OPTIONS)
    client: Any = MultiEndpointEtcd3Client([place], timeout=timeout)
    try:
        yield client
    finally:
        client.close()
