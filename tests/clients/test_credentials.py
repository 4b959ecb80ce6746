"""What a client shows, and whom it trusts: arguments before the URL, that before the environment."""

import ssl
from pathlib import Path

import pytest

from rocksmq.clients import InvalidRequest
from rocksmq.clients.address import Address
from rocksmq.clients.credentials import TOKEN_BYTES_MAX, Credentials
from tests.helpers.certificates import Certificates

PLAIN, WITH_TOKEN, TLS = (Address.parse(url) for url in ("rocksmq://h", "rocksmq://of%2Durl@h", "rocksmqs://h"))


def test_given_tokens_in_several_places_then_the_nearest_counts(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("of-file\n")
    both = {"ROCKSMQ_TOKEN": "of-variable", "ROCKSMQ_TOKEN_FILE": str(file)}

    def token(address: Address, environment: dict[str, str], given: str | None = None) -> str | None:
        return Credentials.found(address, token=given, environment=environment).token()

    assert token(WITH_TOKEN, both, "given") == "given"
    assert token(WITH_TOKEN, both) == "of-url"
    assert token(PLAIN, both) == "of-variable"
    assert token(PLAIN, both | {"ROCKSMQ_TOKEN": ""}) == "of-file"
    assert token(PLAIN, {}) is None


def test_given_a_file_when_another_token_is_written_into_it_then_that_is_shown_next(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    credentials = Credentials.found(PLAIN, environment={"ROCKSMQ_TOKEN_FILE": str(file)})
    assert credentials.token() == "one"
    file.write_text("two\n")
    assert credentials.token() == "two"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), (b"", "holds no token"), (b" \n", "no token"), (b"\xff", "no token")]
)
def test_given_a_file_without_a_token_when_it_is_needed_then_it_is_named(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    credentials = Credentials.found(PLAIN, environment={"ROCKSMQ_TOKEN_FILE": str(file)})
    with pytest.raises(InvalidRequest, match=f"{file}.*{said}"):
        credentials.token()


def test_given_a_file_that_is_too_long_when_read_then_not_all_of_it_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="holds no token"):
        Credentials.found(PLAIN, environment={"ROCKSMQ_TOKEN_FILE": "/dev/zero"}).token()
    (tmp_path / "token").write_text("x" * (TOKEN_BYTES_MAX + 1))
    with pytest.raises(InvalidRequest, match="holds no token"):
        Credentials.found(PLAIN, environment={"ROCKSMQ_TOKEN_FILE": str(tmp_path / "token")}).token()


def test_given_a_token_when_its_owner_is_shown_then_it_is_not() -> None:
    assert "of-url" not in repr(Credentials.found(WITH_TOKEN, environment={}))


def test_given_a_url_of_tls_then_the_context_is_the_one_given_or_one_that_checks_everything(tmp_path: Path) -> None:
    own = ssl.create_default_context()
    assert Credentials.found(TLS, context=own, environment={}).context is own
    certificates = Certificates.make(tmp_path)
    environment = {
        "ROCKSMQ_CA": str(certificates.authority),
        "ROCKSMQ_CERT": str(certificates.client_certificate),
        "ROCKSMQ_KEY": str(certificates.client_key),
    }
    for found in (Credentials.found(TLS, environment=values).context for values in ({}, environment)):
        assert found is not None
        assert (found.verify_mode, found.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert found.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert Credentials.found(PLAIN, environment=environment).context is None


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"ROCKSMQ_CA": "/nowhere"}, "ROCKSMQ_CA names /nowhere"),
        ({"ROCKSMQ_CA": __file__}, "ROCKSMQ_CA names"),
        ({"ROCKSMQ_KEY": __file__}, "ROCKSMQ_KEY is set, and ROCKSMQ_CERT is not"),
        ({"ROCKSMQ_CERT": __file__}, "ROCKSMQ_CERT and ROCKSMQ_KEY are no certificate"),
    ],
)
def test_given_files_that_are_no_certificates_when_a_client_is_made_then_they_are_named(
    names: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Credentials.found(TLS, environment=names)
