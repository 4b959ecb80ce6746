"""What `rocksmqd` says of options for etcd that cannot work: exit 2, one line, no secret in it, and nothing is made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rocksmq.broker.config import BadConfiguration, load
from rocksmq.broker.meta_url import MetaUrl
from tests.helpers.certificates import Certificates

BAD_CONFIGURATION = 2
PATIENCE_SECONDS = 30
SECRET = "never-shown"
URL, TLS_URL = "etcd://127.0.0.1:1/p", "etcds://127.0.0.1:1/p"
RUN_WITHOUT = """
import sys
sys.modules[{missing!r}] = None
from rocksmq.broker.__main__ import main
main(prog_name="rocksmqd")
"""


def ran(*arguments: str, program: tuple[str, ...] = ("-m", "rocksmq.broker")) -> subprocess.CompletedProcess[str]:
    """A broker that ends by itself."""
    return subprocess.run(
        [sys.executable, "-P", *program, "--listen", "127.0.0.1:0", "--http", "off", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={name: value for name, value in os.environ.items() if not name.startswith("ROCKSMQ_")},
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str], *fragments: str) -> None:
    """It ended with exit code 2 and one line that says why."""
    assert result.returncode == BAD_CONFIGURATION, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("rocksmqd: ")
    assert SECRET not in line
    for fragment in fragments:
        assert fragment in line, line


@pytest.mark.parametrize(
    ("text", "endpoints", "prefix", "is_tls"),
    [
        ("etcd://one:1/p", [("one", 1)], "p", False),
        ("etcd://one/p", [("one", 2379)], "p", False),
        ("etcds://one,two:2,127.0.0.1/a/b.c", [("one", 2379), ("two", 2), ("127.0.0.1", 2379)], "a/b.c", True),
        ("etcd://[::1]:7,[::2]/p", [("[::1]", 7), ("[::2]", 2379)], "p", False),
    ],
)
def test_given_a_url_when_read_then_endpoints_prefix_and_tls_are_told(
    text: str, endpoints: list[tuple[str, int]], prefix: str, is_tls: bool
) -> None:
    assert MetaUrl.parse(text) == MetaUrl(tuple(endpoints), prefix, is_tls)


BAD_URLS = [
    *(
        "",
        "Embedded",
        "etcd",
        "etcd:/h/p",
        "http://h/p",
        "etcd://",
        "etcd://h",
        "etcd://h/",
        "etcd:///p",
        "etcd://h,/p",
        "etcd://,h/p",
    ),
    *("etcd://h:0/p", "etcd://h:65536/p", "etcd://h:x/p", "etcd://h:/p", "etcd://h:-1/p", "etcd://::1/p", "etcd://h /p"),
    *(
        "etcd://h//p",
        "etcd://h/p/",
        "etcd://h/a//b",
        "etcd://h/a b",
        "etcd://h/p?x=1",
        "etcd://h/p#x",
        "etcd://h/é",
        "etcd://é/p",
        "etcd://h/p\n",
    ),
]


@pytest.mark.parametrize("text", BAD_URLS)
def test_given_a_bad_url_when_loaded_then_the_option_its_origin_and_what_is_wanted_are_told(text: str) -> None:
    with pytest.raises(BadConfiguration, match=r"^--meta: .*etcd://host:port"):
        load(None, {}, {"meta": text})
    with pytest.raises(BadConfiguration, match=r"^ROCKSMQ_META: meta: .*etcd://host:port"):
        load(None, {"ROCKSMQ_META": text}, {})


@pytest.mark.parametrize("url", [f"etcd://root:{SECRET}@h:1/p", f"etcd://h/p?password={SECRET}"])
def test_given_a_secret_in_the_url_when_started_then_it_is_not_printed(tmp_path: Path, url: str) -> None:
    refused(ran("--data-dir", str(tmp_path / "data"), "--meta", url), "--meta")
    assert not (tmp_path / "data").exists()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Good and bad ones, by name."""
    directory = tmp_path_factory.mktemp("files")
    certificates = Certificates.make(directory)
    contents = {"junk": b"junk", "binary": b"\xff\xfe\0", "empty": b"", "newline": b"\n", "password": f"{SECRET}\n".encode()}
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    found = {name: str(directory / name) for name in (*contents, "missing")}
    found |= {"ca": str(certificates.authority), "directory": str(directory)}
    return found | {
        "cert": str(certificates.client_certificate),
        "key": str(certificates.client_key),
        "other key": str(certificates.server_key),
    }


# What is given, by option, and whom the line must name.
BAD_OPTIONS: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "a certificate without key": (TLS_URL, {"meta-cert": "cert"}, ["--meta-cert", "meta_key"]),
    "a key without certificate": (TLS_URL, {"meta-key": "key"}, ["--meta-key", "meta_cert"]),
    "another key": (TLS_URL, {"meta-cert": "cert", "meta-key": "other key"}, ["--meta-cert", "meta_key"]),
    "a certificate that is none": (TLS_URL, {"meta-cert": "junk", "meta-key": "key"}, ["--meta-cert"]),
    "an authority that is none": (TLS_URL, {"meta-ca": "junk"}, ["--meta-ca", "PEM"]),
    "an authority that is missing": (TLS_URL, {"meta-ca": "missing"}, ["--meta-ca", "No such file"]),
    "an authority without TLS": (URL, {"meta-ca": "ca"}, ["--meta-ca", "etcds://"]),
    "an authority without etcd": ("embedded", {"meta-ca": "ca"}, ["--meta-ca", "etcds://"]),
    "a password without user": (URL, {"meta-password-file": "password"}, ["--meta-password-file", "meta_user"]),
    "a user without etcd": (
        "embedded",
        {"meta-user": "root", "meta-password-file": "password"},
        ["--meta-password-file", "etcd://"],
    ),
    "a password file that is missing": (
        URL,
        {"meta-user": "root", "meta-password-file": "missing"},
        ["--meta-password-file", "No such file"],
    ),
    "a password file that is a directory": (
        URL,
        {"meta-user": "root", "meta-password-file": "directory"},
        ["--meta-password-file", "directory"],
    ),
    "a password file that is no text": (
        URL,
        {"meta-user": "root", "meta-password-file": "binary"},
        ["--meta-password-file", "text"],
    ),
    "a password file that is empty": (
        URL,
        {"meta-user": "root", "meta-password-file": "empty"},
        ["--meta-password-file", "empty"],
    ),
    "a password file with a line end": (
        URL,
        {"meta-user": "root", "meta-password-file": "newline"},
        ["--meta-password-file", "empty"],
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_given_options_that_do_not_fit_when_loaded_then_the_given_one_is_named(files: dict[str, str], case: str) -> None:
    url, options, fragments = BAD_OPTIONS[case]
    flags = {option.replace("-", "_"): files.get(value, value) for option, value in options.items()}
    with pytest.raises(BadConfiguration) as refusal:
        load(None, {}, {"meta": url, **flags})
    for fragment in fragments:
        assert fragment in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_given_more_consumers_than_etcd_takes_of_a_group_when_loaded_then_the_limit_is_named() -> None:
    limit = {"ROCKSMQ_LIMITS_CONSUMERS_MAX": "6000"}
    with pytest.raises(BadConfiguration, match=r"limits\.consumers_max"):
        load(None, limit, {"meta": URL})
    assert load(None, limit, {}).limits.consumers_max == 6_000


def test_given_a_user_without_password_file_when_started_then_exit_2_and_nothing_is_made(tmp_path: Path) -> None:
    for flags in ((), ("--check-config",)):
        refused(
            ran("--data-dir", str(tmp_path / "data"), "--meta", URL, "--meta-user", "root", *flags),
            "--meta-user",
            "meta_password_file",
        )
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything: run the tests as another user to see this one")
def test_given_a_password_file_that_may_not_be_read_when_loaded_then_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    file.chmod(0)
    with pytest.raises(BadConfiguration, match=r"--meta-password-file.*Permission denied"):
        load(None, {}, {"meta": URL, "meta_user": "root", "meta_password_file": str(file)})


@pytest.mark.parametrize("flag", ["--print-config", "--check-config"])
def test_given_a_password_when_the_configuration_is_printed_or_checked_then_it_is_not_shown(
    files: dict[str, str], flag: str
) -> None:
    result = ran("--meta", URL, "--meta-user", "root", "--meta-password-file", files["password"], flag)
    assert result.returncode == 0, result.stderr
    assert SECRET not in result.stdout + result.stderr
    if flag == "--print-config":
        for shown in (f'meta = "{URL}"', 'meta_user = "root"', f'meta_password_file = "{files["password"]}"'):
            assert shown in result.stdout


@pytest.mark.parametrize("missing", ["pyetcd", "grpc"])
def test_given_the_extra_is_not_installed_when_started_then_exit_2_says_what_to_install(tmp_path: Path, missing: str) -> None:
    program = ("-c", RUN_WITHOUT.format(missing=missing))
    result = ran("--data-dir", str(tmp_path / "data"), "--meta", URL, program=program)
    refused(result, missing, "pip install 'rocksmq[etcd]'")
    assert not (tmp_path / "data").exists()
