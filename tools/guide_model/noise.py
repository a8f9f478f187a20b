"""How hurried people type: casing, missing punctuation, typos, dropped words. Deterministic for a given generator."""

from __future__ import annotations

import random

_NEIGHBOURS = {
    "a": "sqz", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "ko", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "xa",
}  # fmt: skip
_SMALL = {
    "the",
    "a",
    "an",
    "my",
    "do",
    "to",
    "is",
    "of",
    "it",
    "me",
    "can",
    "please",
    "does",
    "are",
    "in",
    "i",
}
_ONSETS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sh sk sl sn sp st t th tr v w z"
)
_CODAS = "b ck d ff g k l lm lt m mp n nd ng nk nt p r rd rk rn s sh sk st t x zz"


def made_up_word(rng: random.Random) -> str:
    """A pronounceable word that means nothing."""
    onsets, codas = _ONSETS.split(), _CODAS.split()
    syllables = [
        rng.choice(onsets) + rng.choice("aeiou") + (rng.choice(codas) if rng.random() < 0.5 else "")
        for _ in range(rng.choice((1, 2, 2, 3)))
    ]
    return "".join(syllables)


def typo(word: str, rng: random.Random) -> str:
    """The word with one slip: swapped, dropped, doubled or neighbouring letter. Short words stay."""
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice(_NEIGHBOURS.get(word[at].lower(), "e")) + word[at + 1 :]


def roughen(text: str, rng: random.Random) -> str:
    """The text as somebody in a hurry may have typed it."""
    if rng.random() < 0.7:
        text = text.replace("`", "")
    words = text.split()
    if len(words) > 3 and rng.random() < 0.10:
        small = [i for i, word in enumerate(words) if word.lower() in _SMALL]
        if small:
            del words[rng.choice(small)]
    if rng.random() < 0.14:
        at = rng.randrange(len(words))
        words[at] = typo(words[at], rng)
    text = " ".join(words)
    if rng.random() < 0.3:
        text = text.replace("'", "")
    dice = rng.random()
    if dice < 0.45:
        text = text.lower()
    elif dice < 0.88:
        text = text[:1].upper() + text[1:]
        text = text.replace(" i ", " I ").replace(" i'", " I'")
    elif dice < 0.90:
        text = text.upper()
    return text
