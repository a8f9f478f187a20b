"""Domain tags keep purposes apart."""

from __future__ import annotations

import hashlib

from dllm_protocol.hashing import Tag, domain, sha256, tagged_hash


def test_a_tagged_hash_is_sha256_over_prefix_tag_zero_and_parts() -> None:
    wanted = hashlib.sha256(b"DLLM/v1/voucher\x00abc").digest()
    assert tagged_hash(Tag.VOUCHER, b"a", b"bc") == wanted
    assert sha256(b"abc") == hashlib.sha256(b"abc").digest()


def test_no_domain_begins_another() -> None:
    domains = [domain(tag) for tag in Tag]
    for one in domains:
        assert [other for other in domains if other.startswith(one)] == [one]


def test_tags_are_ascii_words() -> None:
    for tag in Tag:
        assert tag.value.isascii()
        assert b"\x00" not in tag.value
