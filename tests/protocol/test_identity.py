"""Identities of producers and consumers (SPEC §7.2)."""

import pytest

from rocksmq.protocol.identity import Identity, birth_of
from rocksmq.protocol.wire import ID_BYTES


@pytest.mark.parametrize("present_id", [0, 1, 1_800_000_000_000 << 18, 2**64 - 1])
def test_given_a_present_id_when_an_identity_is_made_then_it_begins_with_it_and_counts_from_0(present_id: int) -> None:
    identity = Identity.new(present_id)
    assert len(identity.id) == ID_BYTES
    assert identity.id[:8] == present_id.to_bytes(8, "big")
    assert birth_of(identity.id) == present_id
    assert identity.number == 0


def test_given_one_present_id_when_identities_are_made_then_they_differ() -> None:
    assert len({Identity.new(5).id for _ in range(100)}) == 100


def test_given_identities_when_compared_as_bytes_then_the_younger_is_greater() -> None:
    assert Identity.new(255).id < Identity.new(256).id
