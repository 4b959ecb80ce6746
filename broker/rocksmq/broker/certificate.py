"""When a certificate expires, out of its DER: the few fields before that are stepped over (RFC 5280 §4.1).

    Certificate = SEQUENCE { SEQUENCE { [0] version?, serial, algorithm, issuer, SEQUENCE { not before, not after }, … }, … }

The standard library tells it only of the other side's certificate, and only once that was verified.
"""

import re
import ssl
from datetime import UTC, datetime

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION = 0xA0
_UTC_TIME = 0x17
_BEFORE_VALIDITY = 3  # serial, algorithm, issuer


def expiry_of(pem: str) -> float | None:
    """When the first certificate in ``pem`` expires, in seconds since 1970; None: it is none that this understands."""
    try:
        der = ssl.PEM_cert_to_DER_cert(_PEM.findall(pem)[0])
        at, _ = _content(der, _content(der, 0)[0])
        for _ in range(_BEFORE_VALIDITY + (der[at] == _VERSION)):
            at = _content(der, at)[1]
        not_before = _content(der, at)[0]
        not_after = _content(der, not_before)[1]
        begin, end = _content(der, not_after)
        year = "%y" if der[not_after] == _UTC_TIME else "%Y"
        return datetime.strptime(der[begin:end].decode(), f"{year}%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, IndexError):
        return None


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the value at ``at`` begins, and where it ends, which is where the next value is."""
    size, begin = der[at + 1], at + 2
    if size & 0x80:
        begin += size & 0x7F
        size = int.from_bytes(der[at + 2 : begin])
    return begin, begin + size
