"""`rocksmq token`: the file that it makes, and what it says."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rocksmq.broker.auth import Authority
from rocksmq.broker.auth_file import read
from rocksmq.clients.cli import main
from rocksmq.protocol.errors import Unauthenticated
from rocksmq.protocol.permissions import Permission


def token(file: Path, *arguments: str, as_json: bool = False) -> Result:
    return CliRunner().invoke(main, [*(["--json"] if as_json else []), "token", *arguments, "--auth-file", str(file)])


def made(file: Path, *arguments: str) -> str:
    result = token(file, "create", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_given_a_token_when_made_then_it_is_printed_once_and_admits_whoever_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    result = token(file, "create", "shop", "--produce", "orders.*", "--consume", "bills", "--consume", "b*", "--days", "2")
    secret = result.stdout.strip()
    assert re.fullmatch(r"rmq_[A-Za-z0-9_-]{43}", secret)
    assert "shop: produce orders.*, consume b* bills; expires " in result.stderr
    assert secret not in result.stderr
    assert secret not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    (kept,) = read(file)
    assert kept.expires == kept.created + 2 * 86_400
    admitted = Authority([kept]).admit(secret, kept.created)
    assert admitted.allows(Permission.PRODUCE, "orders.eu")
    assert not admitted.allows(Permission.CONSUME, "orders.eu")
    with pytest.raises(Unauthenticated):
        Authority([kept]).admit(secret, kept.expires or 0)


def test_given_tokens_when_listed_then_names_and_rights_are_shown_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    secrets = [made(file, "ops", "--admin", "*"), made(file, "shop", "--produce", "orders", "--days", "1")]
    shown = token(file, "list").stdout
    assert shown.startswith("ops: admin *; never expires\nshop: produce orders; expires ")
    rows = [json.loads(line) for line in token(file, "list", as_json=True).stdout.splitlines()]
    assert [(row["name"], row["produce"], row["admin"], row["has_expired"]) for row in rows] == [
        ("ops", [], ["*"], False),
        ("shop", ["orders"], [], False),
    ]
    assert not any(secret in shown or secret in json.dumps(rows) for secret in secrets)


def test_given_a_token_when_revoked_then_it_is_gone_and_the_others_are_not(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    made(file, "ops", "--admin", "*")
    made(file, "shop", "--produce", "orders")
    result = token(file, "revoke", "shop")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "shop: revoked; the broker admits it until it has read" in result.stderr
    assert [left.name for left in read(file)] == ["ops"]
    assert token(file, "revoke", "ops").exit_code == 0
    assert read(file) == ()  # which admits nobody, and is no empty file


def test_given_json_when_a_token_is_made_and_revoked_then_all_of_it_is_on_stdout(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    record = json.loads(token(file, "create", "shop", "--consume", "*", as_json=True).stdout)
    assert Authority(read(file)).admit(record.pop("token"), 0).name == "shop"
    assert record | {"created": 0} == {
        **{"name": "shop", "created": 0, "expires": None, "has_expired": False},
        **{"produce": [], "consume": ["*"], "admin": []},
    }
    assert json.loads(token(file, "revoke", "shop", as_json=True).stdout) == {"name": "shop", "revoked": True}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "shop"], 2, "it would be allowed nothing"),
        (["create", "a b", "--admin", "*"], 2, "is no name"),
        (["create", "shop", "--admin", "a*b"], 2, "is no name of a channel"),
        (["create", "shop", "--admin", "*", "--days", "0"], 2, "--days"),
        (["create", "taken", "--admin", "*"], 1, "a token named taken is in it already"),
        (["revoke", "nobody"], 1, "no token named nobody is in it"),
    ],
)
def test_given_what_cannot_be_done_when_asked_for_then_it_says_why_and_the_file_stays(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    file = tmp_path / "tokens.json"
    made(file, "taken", "--produce", "x")
    before = file.read_text()
    result = token(file, *arguments)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())
    assert file.read_text() == before


def test_given_no_file_then_what_needs_one_says_so(tmp_path: Path) -> None:
    for command in (["list"], ["revoke", "shop"]):
        result = token(tmp_path / "none.json", *command)
        assert result.exit_code == 1
        assert "No such file" in result.stderr
    result = CliRunner().invoke(main, ["token", "list"], env={"ROCKSMQ_AUTH_FILE": ""})
    assert result.exit_code == 2
    assert "--auth-file" in result.stderr
