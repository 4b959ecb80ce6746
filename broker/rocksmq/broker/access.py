"""What the options `tls_*` and `auth_file` name, read: at the start, and at SIGHUP again from the same files."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rocksmq.metrics import catalogue
from rocksmq.metrics.instruments import MetricFamily, gauges

from .auth import Token
from .auth_file import BadTokens, read
from .certificate import expiry_of
from .config import Config, refusal


class Access(NamedTuple):
    """``tls``: by what clients are served, None: without TLS. ``tokens``: of whom is admitted, None: everybody.

    ``certificate_expires``: when what is shown to clients does, in seconds since 1970; None: there is none, or it is not known.
    """

    tls: ssl.SSLContext | None
    tokens: tuple[Token, ...] | None
    certificate_expires: float | None = None

    def families(self) -> Iterator[MetricFamily]:
        """As metrics."""
        tokens = ((("token", token.name), token.expires) for token in self.tokens or ())
        expiring = (*tokens, (("certificate", "tls_cert"), self.certificate_expires))
        yield gauges(catalogue.CREDENTIAL_EXPIRY, ((labels, at) for labels, at in expiring if at is not None))


def access_of(config: Config) -> Access:
    """Read the files. Raises BadConfiguration."""
    tls = _context(config) if config.tls_cert else None
    expires = None if tls is None else expiry_of(Path(config.tls_cert).read_text(errors="replace"))
    return Access(tls, _tokens(config) if config.auth_file else None, expires)


def _tokens(config: Config) -> tuple[Token, ...]:
    try:
        return read(Path(config.auth_file))
    except BadTokens as error:
        raise refusal(config, "auth_file", str(error)) from None


def _context(config: Config) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key, password="")  # never asked for at a terminal
    except ssl.SSLError:
        why = "it and tls_key are no certificate in PEM and its key, without a password"
        raise refusal(config, "tls_cert", why) from None
    except OSError as error:
        raise refusal(config, "tls_cert", f"it or tls_key cannot be read: {error.strerror}") from None
    if config.tls_client_ca:
        try:
            context.load_verify_locations(config.tls_client_ca)
        except ssl.SSLError:
            raise refusal(config, "tls_client_ca", "it holds no certificate in PEM") from None
        except OSError as error:
            raise refusal(config, "tls_client_ca", f"it cannot be read: {error.strerror}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context
