"""What a client shows to a broker, and by whom it knows the broker: from arguments, else the environment."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from rocksmq.protocol.errors import InvalidRequest

from .address import Address

TOKEN_BYTES_MAX = 4_096
TOKEN, TOKEN_FILE = "ROCKSMQ_TOKEN", "ROCKSMQ_TOKEN_FILE"
CA, CERT, KEY = "ROCKSMQ_CA", "ROCKSMQ_CERT", "ROCKSMQ_KEY"


@dataclass(frozen=True, slots=True)
class Credentials:
    """``context``: by what TLS is spoken; None: it is not. The token is never shown."""

    context: ssl.SSLContext | None = None
    _token: str | None = field(default=None, repr=False)
    _token_file: str | None = None

    @classmethod
    def found(
        cls,
        address: Address,
        *,
        token: str | None = None,
        context: ssl.SSLContext | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """``token``, else that of the URL, else of ROCKSMQ_TOKEN, else of the file that ROCKSMQ_TOKEN_FILE names.

        ``context``, else for rocksmqs:// one by ROCKSMQ_CA, ROCKSMQ_CERT and ROCKSMQ_KEY. Raises InvalidRequest.
        """
        if context is not None and not address.is_tls:
            raise InvalidRequest("ssl_context is of use with rocksmqs:// only: begin the URL with that")
        if address.is_tls and context is None:
            context = _context(environment)
        token = token or address.token or environment.get(TOKEN) or None
        return cls(context, token, None if token else environment.get(TOKEN_FILE) or None)

    def token(self) -> str | None:
        """The one to show now: a file is read each time, so that another may take its place. Raises InvalidRequest."""
        if self._token_file is None:
            return self._token
        try:
            with Path(self._token_file).open("rb") as file:
                token = file.read(TOKEN_BYTES_MAX + 1).decode().strip()
        except OSError as error:
            raise InvalidRequest(f"{TOKEN_FILE} names {self._token_file}, which cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            token = ""
        if not token or len(token) > TOKEN_BYTES_MAX:
            raise InvalidRequest(f"{TOKEN_FILE} names {self._token_file}, which holds no token")
        return token


def _context(environment: Mapping[str, str]) -> ssl.SSLContext:
    ca, cert, key = (environment.get(name) or None for name in (CA, CERT, KEY))
    if key and not cert:
        raise InvalidRequest(f"{KEY} is set, and {CERT} is not")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise InvalidRequest(f"{CA} names {ca}, which holds no certificate in PEM ({error.strerror})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert:
        try:
            context.load_cert_chain(cert, key, password="")  # never asked for at a terminal
        except OSError:
            raise InvalidRequest(f"{CERT} and {KEY} are no certificate in PEM and its key, without a password") from None
    return context
