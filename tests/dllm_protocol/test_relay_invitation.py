"""A relay invitation's code is short, differs from a local one, and opens one bundle only."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.base32 import ALPHABET, grouped, read_base32, write_base32
from dllm_protocol.invitation import BadInvitation, InvitationRefused, bundle_hash_of, looks_like_code
from dllm_protocol.relay_invitation import (
    PART_BYTES,
    SEALED_PART_BYTES_MAX,
    BundleReader,
    RelayInvitation,
    looks_like_relay_code,
    read_relay_code,
    relay_hint_of,
    sealed_parts,
    write_relay_code,
)

INVITATIONS = st.builds(RelayInvitation, st.binary(min_size=10, max_size=10), st.integers(0, 255))
KNOWN = RelayInvitation(bytes(range(10)), 0xAB)
CODE = "4001-081G-8186-0W40-KAR8"
RAW = b"a bundle " * 20_000
BYTES_MAX = 4 << 20


def reader(raw: bytes = RAW, bytes_max: int = BYTES_MAX) -> BundleReader:
    return BundleReader(RelayInvitation(bundle_hash_of(raw), 0), "the relay r:1", bytes_max)


def parts(raw: bytes = RAW) -> list[bytes]:
    return list(sealed_parts(raw, RelayInvitation(bundle_hash_of(raw), 0)))


def test_a_code_is_what_the_documents_say() -> None:
    """Worked out once from the table in docs/protocol/bundle.md; a change is a change of the format."""
    body = (2).to_bytes(1) + KNOWN.bundle_hash + bytes([KNOWN.relay_hint])
    bits = f"{int.from_bytes(body):092b}" + f"{hashlib.sha256(body).digest()[0]:08b}"
    assert grouped("".join(ALPHABET[int(bits[at : at + 5], 2)] for at in range(0, 100, 5))) == CODE
    assert write_relay_code(KNOWN) == CODE
    assert read_relay_code(CODE) == KNOWN


@given(INVITATIONS)
def test_every_invitation_is_read_as_it_was_written(invitation: RelayInvitation) -> None:
    code = write_relay_code(invitation)
    assert [len(group) for group in code.split("-")] == [4] * 5
    assert read_relay_code(code.lower().replace("-", " ")) == invitation
    assert looks_like_relay_code(code)
    assert not looks_like_code(code)


def test_one_wrong_digit_is_noticed_nearly_always() -> None:
    digits = CODE.replace("-", "")
    slips = noticed = 0
    for at, right in enumerate(digits):
        for wrong in ALPHABET.replace(right, ""):
            slips += 1
            try:
                read_relay_code(digits[:at] + wrong + digits[at + 1 :])
            except BadInvitation:
                noticed += 1
    assert noticed >= slips * 98 // 100


@pytest.mark.parametrize("text", ["", "network.bundle", CODE[:-1], CODE + "0", CODE.replace("4", "U", 1)])
def test_other_texts_are_no_code(text: str) -> None:
    assert not looks_like_relay_code(text)
    with pytest.raises(BadInvitation):
        read_relay_code(text)


def test_another_version_says_so() -> None:
    body = (3).to_bytes(1) + bytes(11)
    value = int.from_bytes(body) << 8 | hashlib.sha256(body).digest()[0]
    with pytest.raises(BadInvitation, match="version 3"):
        read_relay_code(write_base32(value, 20))


def test_every_digit_counts() -> None:
    assert read_base32(CODE, 20) == int.from_bytes(
        b"\x02"
        + KNOWN.bundle_hash
        + b"\xab"
        + hashlib.sha256(b"\x02" + KNOWN.bundle_hash + b"\xab").digest()[:1]
    )


def test_the_hint_tells_most_relays_apart() -> None:
    assert len({relay_hint_of(f"relay-{number}.example:443") for number in range(100)}) > 70


def test_a_bundle_comes_through_whole_and_unreadable() -> None:
    taken = reader()
    sent = parts()
    assert len(sent) == -(-len(RAW) // PART_BYTES)
    for part in sent:
        assert b"bundle" not in part
        assert len(part) <= SEALED_PART_BYTES_MAX
        taken.take(part)
    assert taken.received_bytes == len(RAW)
    assert taken.finish() == RAW


@pytest.mark.parametrize(
    "bent",
    [
        lambda sent: [sent[1], sent[0], *sent[2:]],
        lambda sent: [sent[0], sent[0]],
        lambda sent: [sent[0][:-1] + bytes([sent[0][-1] ^ 1])],
        lambda sent: [b""],
        lambda sent: [b"a bundle that the relay made"],
        lambda sent: parts(b"another bundle"),
        lambda sent: [bytes(SEALED_PART_BYTES_MAX + 1)],
    ],
    ids=["swapped", "twice", "bent", "empty", "plain", "another", "long"],
)
def test_what_the_inviter_did_not_seal_is_refused_at_once(bent: object) -> None:
    taken = reader()
    with pytest.raises(InvitationRefused) as refused:
        for part in bent(parts()):  # type: ignore[operator]  # a lambda of the table
            taken.take(part)
    assert "the relay r:1" in refused.value.message
    assert "another relay" in refused.value.hint


def test_a_bundle_that_was_cut_short_is_refused_with_both_hashes() -> None:
    taken = reader()
    for part in parts()[:-1]:
        taken.take(part)
    with pytest.raises(InvitationRefused, match=bundle_hash_of(RAW).hex()):
        taken.finish()


def test_more_than_a_bundle_may_have_is_refused_even_from_who_knows_the_code() -> None:
    taken = reader(bytes_max=PART_BYTES)
    first, second, *_ = parts()
    taken.take(first)
    with pytest.raises(InvitationRefused, match=f"more than {PART_BYTES} bytes"):
        taken.take(second)


def test_an_empty_part_would_let_somebody_send_for_ever() -> None:
    invitation = RelayInvitation(bundle_hash_of(RAW), 0)
    from dllm_protocol.relay_invitation import _stream

    with pytest.raises(InvitationRefused, match="empty"):
        reader().take(_stream(invitation).seal(b""))
