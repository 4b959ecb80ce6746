"""Certificates for servers of a test: one authority of its own, a server on the loopback and one client."""

import ssl
from pathlib import Path
from typing import NamedTuple, Self

import trustme


class Certificates(NamedTuple):
    """PEM files. The client's common name is its user, where authentication is on and it gives no password."""

    authority: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path

    @classmethod
    def make(cls, directory: Path, user: str = "client") -> Self:
        """New ones in ``directory``, made if missing; what one call makes does not trust what another made."""
        directory.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        files = cls(*(directory / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")))
        authority.cert_pem.write_to_path(str(files.authority))
        server = authority.issue_cert("127.0.0.1", "localhost")
        client = authority.issue_cert("localhost", common_name=user)
        for leaf, certificate, key in (
            (server, files.server_certificate, files.server_key),
            (client, files.client_certificate, files.client_key),
        ):
            certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
            leaf.private_key_pem.write_to_path(str(key))
        return files

    def server_flags(self) -> list[str]:
        """What makes etcd serve TLS only, and only to clients of this authority."""
        own = ["--cert-file", str(self.server_certificate), "--key-file", str(self.server_key)]
        return [*own, "--client-cert-auth", "--trusted-ca-file", str(self.authority)]

    def ctl_flags(self) -> list[str]:
        """What etcdctl needs to be served."""
        own = ["--cert", str(self.client_certificate), "--key", str(self.client_key)]
        return ["--cacert", str(self.authority), *own]

    def context(self) -> ssl.SSLContext:
        """For a connection of Python's own as the client."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.client_certificate, self.client_key)
        return context
