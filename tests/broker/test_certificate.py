"""When a certificate expires, as OpenSSL says it."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from rocksmq.broker.certificate import expiry_of

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.mark.parametrize("days", [-3, 1, 90, 36_500], ids=["over", "soon", "later", "beyond 2049"])
@pytest.mark.parametrize("key_type", trustme.KeyType)
def test_given_a_certificate_when_read_then_it_is_known_when_it_expires(days: int, key_type: trustme.KeyType) -> None:
    wanted = NOW + timedelta(days=days)
    issued = trustme.CA(key_type=key_type).issue_cert("localhost", not_before=NOW - timedelta(days=9), not_after=wanted)
    chain = "".join(blob.bytes().decode() for blob in issued.cert_chain_pems)
    assert expiry_of(chain) == wanted.timestamp()


def test_given_a_certificate_of_openssl_when_read_then_it_is_the_same_as_openssl_says(tmp_path: Path) -> None:
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a", "-days", "42", *files]
    subprocess.run(made, check=True, capture_output=True)
    asked = ["openssl", "x509", "-in", str(tmp_path / "cert"), "-noout", "-enddate", "-dateopt", "iso_8601"]
    said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    found = expiry_of((tmp_path / "cert").read_text())
    assert found is not None
    assert said == f"notAfter={datetime.fromtimestamp(found, UTC):%Y-%m-%d %H:%M:%SZ}"


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
    ],
)
def test_given_what_is_no_certificate_when_read_then_nothing_is_known(pem: str) -> None:
    assert expiry_of(pem) is None
