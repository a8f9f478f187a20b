"""A code is short, survives being read aloud, and names one bundle at one place."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_protocol.base32 import ALPHABET, grouped, read_base32, write_base32
from dllm_protocol.invitation import (
    BadInvitation,
    Invitation,
    InvitationRefused,
    bundle_hash_of,
    hash_words,
    looks_like_code,
    read_code,
    read_hash,
    require_invited,
    write_code,
)

INVITATIONS = st.builds(
    Invitation,
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(1, 65_535),
    st.binary(min_size=10, max_size=10),
)
KNOWN = Invitation(IPv4Address("192.168.1.20"), 41_000, bytes(range(10)))
CODE = "3G58-04AA-0A00-0410-6105-0R3G-G2CJ"


def test_a_code_is_what_the_documents_say() -> None:
    """Worked out once from the table in docs/protocol/bundle.md; a change is a change of the format."""
    assert write_code(KNOWN) == CODE
    assert read_code(CODE) == KNOWN


@given(INVITATIONS)
def test_every_invitation_is_read_as_it_was_written(invitation: Invitation) -> None:
    code = write_code(invitation)
    assert [len(group) for group in code.split("-")] == [4] * 7
    assert read_code(code) == invitation
    assert looks_like_code(code)


def test_how_it_is_typed_does_not_matter() -> None:
    for typed in (CODE.lower(), CODE.replace("-", ""), CODE.replace("-", " "), CODE.replace("0", "o")):
        assert read_code(typed) == KNOWN
    assert read_code(CODE.replace("1", "l")) == KNOWN


def test_one_wrong_digit_is_noticed_nearly_always() -> None:
    digits = CODE.replace("-", "")
    slips = noticed = 0
    for at, right in enumerate(digits):
        for wrong in ALPHABET.replace(right, ""):
            slips += 1
            try:
                read_code(digits[:at] + wrong + digits[at + 1 :])
            except BadInvitation:
                noticed += 1
    assert noticed >= slips * 98 // 100


@pytest.mark.parametrize("text", ["", "network.bundle", CODE[:-1], CODE + "0", CODE.replace("3", "U", 1)])
def test_other_texts_are_no_code(text: str) -> None:
    assert not looks_like_code(text)
    with pytest.raises(BadInvitation):
        read_code(text)


def test_a_later_version_says_so() -> None:
    digits = "5" + CODE.replace("-", "")[1:]  # 0010, and the address's first bit
    body = (read_base32(digits, 28) or 0) >> 8
    value = body << 8 | hashlib.sha256(body.to_bytes(17)).digest()[0]
    with pytest.raises(BadInvitation, match="version 2"):
        read_code(write_base32(value, 28))


def test_another_bundle_than_the_named_one_is_refused_with_both_hashes() -> None:
    expected = bundle_hash_of(b"the right one")
    require_invited(b"the right one", expected, "here")
    with pytest.raises(InvitationRefused) as refused:
        require_invited(b"another", expected, "here")
    assert expected.hex() in refused.value.message
    assert bundle_hash_of(b"another").hex() in refused.value.message


def test_the_hash_behind_an_address_is_the_same_in_digits() -> None:
    assert read_hash(hash_words(b"a bundle")) == bundle_hash_of(b"a bundle")
    with pytest.raises(BadInvitation):
        read_hash("top")


@given(st.integers(0, 2**80 - 1))
def test_base_32_is_read_as_written(value: int) -> None:
    assert read_base32(grouped(write_base32(value, 16)), 16) == value
