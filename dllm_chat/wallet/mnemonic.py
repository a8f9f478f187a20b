"""BIP-39 mnemonics, in English, of 12 or 24 words, through bip-utils.

bip-utils takes about 0.1 s to import, whichever part is asked for, so it is imported when a word is needed:
on creation, restoring and unlocking, never for a balance or with the play wallet.
"""

from __future__ import annotations

import difflib
import secrets
import unicodedata
from collections.abc import Callable
from typing import Any

from dllm_chat.wallet.errors import BadMnemonic

ENTROPY_BYTES = {12: 16, 24: 32}
"""Words → bytes of entropy; every word carries 11 bits, of which 1 in 33 is checksum."""
MAX_PASSPHRASE_BYTES = 256
MAX_TEXT_CHARACTERS = 1024


def generate_entropy(
    word_count: int = 12, random_bytes: Callable[[int], bytes] = secrets.token_bytes
) -> bytes:
    """Fresh entropy for a mnemonic of 12 or 24 words (16 or 32 bytes).

    Raises:
        BadMnemonic: another number of words.
    """
    if word_count not in ENTROPY_BYTES:
        raise BadMnemonic(f"a mnemonic has 12 or 24 words, not {word_count}")
    return random_bytes(ENTROPY_BYTES[word_count])


def words_of(entropy: bytes) -> str:
    """The mnemonic of 16 or 32 bytes of entropy, words separated by single spaces."""
    if len(entropy) not in ENTROPY_BYTES.values():
        raise BadMnemonic(f"a mnemonic holds 16 or 32 bytes of entropy, not {len(entropy)}")
    from bip_utils import Bip39MnemonicEncoder  # type: ignore[import-untyped]  # ships no types

    return str(Bip39MnemonicEncoder().Encode(entropy).ToStr())


def entropy_of(mnemonic: str) -> bytes:
    """Entropy of a typed mnemonic (16 or 32 bytes); spacing and case do not matter.

    Raises:
        BadMnemonic: number of words, a word that is not in the list (named, with the nearest ones), or a
            checksum that does not fit. No message holds more than one word.
    """
    if len(mnemonic) > MAX_TEXT_CHARACTERS:
        raise BadMnemonic(f"a mnemonic has at most {MAX_TEXT_CHARACTERS} characters, not {len(mnemonic)}")
    words = unicodedata.normalize("NFKD", mnemonic).lower().split()
    if len(words) not in ENTROPY_BYTES:
        raise BadMnemonic(
            f"a mnemonic has 12 or 24 words, this one {len(words)}", hint="write all words, in their order"
        )
    known = _word_list()
    for position, word in enumerate(words, start=1):
        if word not in known:
            near = suggestions(word)
            raise BadMnemonic(
                f"word {position}, {word[:20]!r}, is not in the BIP-39 list",
                hint=f"did you mean {' or '.join(near)}?" if near else "look at the word again",
            )
    return _decode(" ".join(words))


def seed_of(entropy: bytes, passphrase: str = "") -> bytes:
    """BIP-39's seed (64 bytes): PBKDF2-HMAC-SHA512 of the words, salted with the passphrase, 2048 rounds.

    Raises:
        BadMnemonic: a passphrase of more than 256 bytes.
    """
    check_passphrase(passphrase)
    words = words_of(entropy)
    from bip_utils import Bip39SeedGenerator

    return bytes(Bip39SeedGenerator(words).Generate(passphrase))


def check_passphrase(passphrase: str) -> None:
    """Raises BadMnemonic for a passphrase longer than we keep."""
    size = len(passphrase.encode())
    if size > MAX_PASSPHRASE_BYTES:
        raise BadMnemonic(f"the passphrase has {size} bytes, at most {MAX_PASSPHRASE_BYTES} are kept")


def suggestions(word: str, limit: int = 3) -> list[str]:
    """Words of the list that start like ``word`` (its first four letters identify one), else similar ones."""
    known = _word_list()
    prefix = word[:4]
    starting = [candidate for candidate in known if len(prefix) >= 3 and candidate.startswith(prefix)]
    near = difflib.get_close_matches(word[:20], known, n=limit, cutoff=0.6)
    return list(dict.fromkeys(near + starting))[:limit]


def _decode(text: str) -> bytes:
    from bip_utils import Bip39MnemonicDecoder, MnemonicChecksumError

    fits = True
    entropy = b""
    try:
        entropy = bytes(Bip39MnemonicDecoder().Decode(text))
    except MnemonicChecksumError:
        fits = False
    if not fits:  # raised outside the handler, so that no chained traceback names parts of the mnemonic
        raise BadMnemonic(
            "the words are all in the list, and their checksum does not fit",
            hint="one word is another than was shown, or two changed places",
        )
    return entropy


_words: dict[str, int] = {}


def _word_list() -> dict[str, int]:
    """The 2048 English words in order; looked up through bip-utils once."""
    if not _words:
        from bip_utils import Bip39Languages
        from bip_utils.bip.bip39.bip39_mnemonic_utils import (  # type: ignore[import-untyped]  # ships no types
            Bip39WordsListGetter,
        )

        words: Any = Bip39WordsListGetter.Instance().GetByLanguage(Bip39Languages.ENGLISH)
        _words.update((str(words.GetWordAtIdx(index)), index) for index in range(words.Length()))
    return _words
