"""Tokens and patterns: who is admitted, and what they may do."""

import hashlib

import pytest

from rocksmq.broker.auth import ALL, ANYBODY, EVERYBODY, Authority, BadPattern, Patterns, Token, digest_of, new_secret
from rocksmq.protocol.errors import Unauthenticated
from rocksmq.protocol.permissions import Permission

NOW = 1_700_000_000
NONE = Patterns()


def token(name: str = "shop", secret: str = "s", expires: int | None = None, admin: Patterns = NONE) -> Token:
    return Token(name, digest_of(secret), NOW, expires, admin=admin)


def failures(authority: Authority) -> dict[str, float]:
    counted = next(samples for metric, samples in authority.families() if metric.name.endswith("failures_total"))
    return {sample.labels: sample.value for sample in counted if sample is not None}


@pytest.mark.parametrize(
    ("texts", "covered", "others"),
    [
        (["orders"], ["orders"], ["orders.eu", "order", "ORDERS", ""]),
        (["orders.*"], ["orders.", "orders.eu", "orders.eu.1"], ["orders", "orders-eu", "xorders.eu"]),
        (["*"], ["a", "orders", "0"], []),
        (["a", "b*", "c.*"], ["a", "b", "bb", "c.x"], ["aa", "c", "d"]),
        ([], [], ["a", ""]),
    ],
)
def test_given_patterns_when_names_are_looked_up_then_only_those_meant_are_covered(
    texts: list[str], covered: list[str], others: list[str]
) -> None:
    patterns = Patterns.of(texts)
    assert [name for name in covered if not patterns.cover(name)] == []
    assert [name for name in others if patterns.cover(name)] == []
    assert patterns.cover_all is ("*" in texts)
    assert patterns.texts == sorted(texts)


@pytest.mark.parametrize("text", ["", "**", "a*b", "*a", "a b", "a/*", ".a*", "é*", "a\n", "a" * 201, "?", "[ab]*"])
def test_given_what_is_no_pattern_when_read_then_it_is_refused(text: str) -> None:
    with pytest.raises(BadPattern):
        Patterns.of([text])


def test_given_a_new_secret_then_it_has_256_bits_and_its_hash_alone_is_kept() -> None:
    secret = new_secret()
    assert secret.startswith("rmq_")
    assert len(secret) == len("rmq_") + 43  # of 6 bits
    assert new_secret() != secret
    assert digest_of(secret) == hashlib.sha256(secret.encode()).digest()
    assert secret not in repr(token(secret=secret))


def test_given_no_file_of_tokens_then_everybody_may_do_everything() -> None:
    assert EVERYBODY.admit(None, NOW) is ANYBODY
    assert EVERYBODY.admit("whatever", NOW) is ANYBODY
    assert EVERYBODY.is_current(ANYBODY, NOW)
    assert all(ANYBODY.allows_all(permission) for permission in Permission if permission is not Permission.CONNECT)


def test_given_tokens_when_a_client_shows_one_then_its_rights_are_had() -> None:
    shop, ops = token(), token("ops", "o", admin=ALL)
    authority = Authority([shop, ops])
    assert authority.admit("s", NOW) is shop
    assert authority.admit("o", NOW) is ops
    assert failures(authority) == {'{reason="expired"}': 0, '{reason="missing"}': 0, '{reason="unknown"}': 0}


def test_given_any_cause_when_a_client_is_not_admitted_then_it_is_told_the_same_and_the_cause_is_counted() -> None:
    authority = Authority([token(expires=NOW)])
    said = set[str]()
    for secret in (None, "", "S", "s ", "s"):
        with pytest.raises(Unauthenticated) as raised:
            authority.admit(secret, NOW)
        said.add(raised.value.message)
    assert len(said) == 1
    assert failures(authority) == {'{reason="expired"}': 1, '{reason="missing"}': 1, '{reason="unknown"}': 3}


def test_given_a_file_without_tokens_then_nobody_is_admitted() -> None:
    authority = Authority([])
    assert authority.is_on
    with pytest.raises(Unauthenticated):
        authority.admit("s", NOW)
    with pytest.raises(Unauthenticated):
        authority.admit(None, NOW)


def test_given_a_token_that_expires_then_it_is_good_until_that_second() -> None:
    shop = token(expires=NOW)
    authority = Authority([shop])
    assert authority.admit("s", NOW - 0.001) is shop
    assert authority.is_current(shop, NOW - 0.001)
    assert not authority.is_current(shop, NOW)


def test_given_other_tokens_when_they_take_the_place_then_who_was_admitted_stays_only_with_the_same_rights() -> None:
    shop, ops = token(), token("ops", "o")
    authority = Authority([shop, ops])
    authority.replace([token(), token("ops", "o", admin=ALL)])
    assert authority.is_current(shop, NOW)
    assert not authority.is_current(ops, NOW)
    authority.replace([])
    assert not authority.is_current(shop, NOW)


def test_given_any_right_on_a_channel_then_it_may_be_described() -> None:
    for permission in (Permission.PRODUCE, Permission.CONSUME, Permission.ADMIN):
        one, every = (
            Token(
                "t",
                b"",
                NOW,
                None,
                **{name: patterns if name == permission else NONE for name in ("produce", "consume", "admin")},
            )
            for patterns in (Patterns.of(["a"]), ALL)
        )
        assert {other for other in Permission if other is not Permission.CONNECT and one.allows(other, "a")} == {
            Permission.DESCRIBE,
            permission,
        }
        assert not one.allows(Permission.DESCRIBE, "b")
        assert not one.allows_all(Permission.DESCRIBE)
        assert every.allows_all(Permission.DESCRIBE)
