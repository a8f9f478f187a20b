from __future__ import annotations

import random
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.wallet.errors import BadMnemonic
from dllm_chat.wallet.mnemonic import entropy_of, generate_entropy, seed_of, suggestions, words_of
from tests.dllm_chat.wallet.parts import MNEMONIC

# github.com/trezor/python-mnemonic/blob/master/vectors.json, passphrase "TREZOR"
TREZOR = [
    (
        "00" * 16,
        "abandon " * 11 + "about",
        "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04",
    ),
    (
        "7f" * 16,
        MNEMONIC,
        "2e8905819b8723fe2c1d161860e5ee1830318dbf49a83bd451cfb8440c28bd6fa457fe1296106559a3c80937a1c1069be3a3a5bd381ee6260e8d9739fce1f607",
    ),
    (
        "00" * 32,
        "abandon " * 23 + "art",
        "bda85446c68413707090a52022edd26a1c9462295029f2e60cd7c4f2bbd3097170af7a4d73245cafa9c3cca8d561a7c3de6f5d4a10be8ed2a5e608d68f92fcc8",
    ),
]


@pytest.mark.parametrize(("entropy", "mnemonic", "seed"), TREZOR)
def test_trezors_vectors(entropy: str, mnemonic: str, seed: str) -> None:
    assert words_of(bytes.fromhex(entropy)) == mnemonic
    assert entropy_of(mnemonic).hex() == entropy
    assert seed_of(bytes.fromhex(entropy), "TREZOR").hex() == seed


@given(st.one_of(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)))
def test_words_come_back(entropy: bytes) -> None:
    mnemonic = words_of(entropy)
    assert entropy_of(mnemonic) == entropy
    assert entropy_of("  " + mnemonic.upper().replace(" ", "\n\t ")) == entropy


def test_generation_takes_12_or_24_words() -> None:
    chance = random.Random(1)
    assert len(words_of(generate_entropy(12, chance.randbytes)).split()) == 12
    assert len(words_of(generate_entropy(24, chance.randbytes)).split()) == 24
    assert generate_entropy() != generate_entropy()
    with pytest.raises(BadMnemonic, match="not 15"):
        generate_entropy(15)


def test_a_bad_word_is_named_with_the_nearest_ones() -> None:
    with pytest.raises(BadMnemonic, match="word 3, 'thanx', is not") as caught:
        entropy_of(MNEMONIC.replace("thank", "thanx", 1))
    assert "thank" in caught.value.hint


@pytest.mark.parametrize(
    "mnemonic", ["", "legal", MNEMONIC + " legal", " ".join(MNEMONIC.split()[:-1]), "abandon " * 15]
)
def test_other_numbers_of_words_are_refused(mnemonic: str) -> None:
    with pytest.raises(BadMnemonic, match="12 or 24"):
        entropy_of(mnemonic)


def test_two_words_that_changed_places_are_noticed() -> None:
    words = MNEMONIC.split()
    words[0], words[1] = words[1], words[0]
    with pytest.raises(BadMnemonic, match="checksum"):
        entropy_of(" ".join(words))


def test_no_refusal_shows_the_mnemonic() -> None:
    words = MNEMONIC.split()
    words[0], words[1] = words[1], words[0]
    for typed in (" ".join(words), MNEMONIC.replace("winner", "winnerr"), MNEMONIC + " wave"):
        with pytest.raises(BadMnemonic) as caught:
            entropy_of(typed)
        text = "".join(traceback.format_exception(caught.value))
        assert not any(word in text for word in ("sausage", "yellow", "worth useful"))
        assert caught.value.__context__ is None


def test_a_flood_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadMnemonic, match="at most 1024"):
        entropy_of("abandon " * 1000)


def test_the_passphrase_matters_and_is_bounded() -> None:
    entropy = bytes(16)
    assert seed_of(entropy, "a") != seed_of(entropy, "b") != seed_of(entropy)
    assert seed_of(entropy, "é") == seed_of(entropy, "e\u0301"), "BIP-39 normalises to NFKD"
    with pytest.raises(BadMnemonic, match="257 bytes"):
        seed_of(entropy, "x" * 257)


def test_suggestions_know_the_first_letters() -> None:
    assert "abandon" in suggestions("abandn")
    assert "zoo" in suggestions("zoos")
    assert suggestions("qqqqqq") == []


@pytest.mark.parametrize("size", [0, 15, 20, 33])
def test_entropy_of_other_lengths_is_refused(size: int) -> None:
    with pytest.raises(BadMnemonic, match=f"not {size}"):
        words_of(bytes(size))
