from __future__ import annotations

import json
import random
import tempfile
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_chat.wallet import json_file, keystore
from dllm_chat.wallet.errors import BadMnemonic, FileDamaged, UnknownVersion, WrongPassword
from dllm_chat.wallet.keystore import (
    DEFAULT_COST,
    KdfCost,
    WalletSecret,
    fingerprint_of,
    open_keystore,
    read_public,
    seal_keystore,
)
from dllm_protocol.errors import DllmError
from tests.dllm_chat.wallet.parts import CHEAP, PASSWORD

SECRET = WalletSecret(bytes(range(16)), "more words")
PUBLIC_KEY = bytes(range(100, 132))


def sealed_in(folder: Path, secret: WalletSecret = SECRET, password: str = PASSWORD) -> Path:
    path = folder / "keystore.json"
    seal_keystore(path, secret, password, PUBLIC_KEY, cost=CHEAP, random_bytes=random.Random(7).randbytes)
    return path


secrets_of_all_kinds = st.builds(
    WalletSecret,
    st.one_of(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=64),
)
passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)


@given(secrets_of_all_kinds, passwords)
def test_what_was_sealed_comes_back(secret: WalletSecret, password: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = sealed_in(Path(folder), secret, password)
        opened = open_keystore(path, password)
        assert opened.secret == secret
        assert opened.public_key == PUBLIC_KEY
        assert opened.version == keystore.VERSION


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = sealed_in(Path(folder))
        raw = bytearray(path.read_bytes())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)
        with pytest.raises((FileDamaged, UnknownVersion)):
            open_keystore(path, PASSWORD)


def test_every_byte_of_the_file_matters(tmp_path: Path) -> None:
    path = sealed_in(tmp_path)
    whole = path.read_bytes()
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 1
        path.write_bytes(changed)
        with pytest.raises((FileDamaged, UnknownVersion)):
            open_keystore(path, PASSWORD)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_or_longer_file_is_damaged(tmp_path: Path, cut: int) -> None:
    path = sealed_in(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with pytest.raises(FileDamaged):
        open_keystore(path, PASSWORD)
    path.write_bytes(whole + b"\n")
    with pytest.raises(FileDamaged, match="spelling"):
        open_keystore(path, PASSWORD)


def rewritten(path: Path, *, inside: str | None = None, **changes: object) -> None:
    """Change fields as somebody would who also makes the checksum fit."""
    content = json.loads(path.read_bytes())
    del content["checksum"]
    (content[inside] if inside else content).update(changes)
    json_file.write_json(path, content)


@pytest.mark.parametrize(
    ("inside", "changes"),
    [
        (None, {"public_key": bytes(32).hex()}),
        (None, {"fingerprint": "00000000"}),
        (None, {"extra": 1}),
        ("kdf", {"salt": bytes(16).hex()}),
        ("kdf", {"opslimit": 2}),
        ("cipher", {"nonce": bytes(24).hex()}),
    ],
)
def test_the_header_is_bound_to_the_secret(
    tmp_path: Path, inside: str | None, changes: dict[str, object]
) -> None:
    path = sealed_in(tmp_path)
    rewritten(path, inside=inside, **changes)
    with pytest.raises(WrongPassword):
        open_keystore(path, PASSWORD)


@pytest.mark.parametrize(
    ("inside", "changes"),
    [
        ("kdf", {"opslimit": 10**9}),
        ("kdf", {"memlimit_bytes": 1 << 40}),
        ("kdf", {"opslimit": True}),
        ("kdf", {"name": "md5"}),
        ("kdf", {"salt": "zz"}),
        ("cipher", {"name": "rot13"}),
        ("cipher", {"nonce": "00"}),
        (None, {"kdf": []}),
        (None, {"ciphertext": 5}),
        (None, {"format": "other"}),
        (None, {"version": "1"}),
        (None, {"version": 0}),
    ],
)
def test_parameters_out_of_bounds_are_refused_before_work(
    tmp_path: Path, inside: str | None, changes: dict[str, object]
) -> None:
    path = sealed_in(tmp_path)
    rewritten(path, inside=inside, **changes)
    with pytest.raises(FileDamaged):
        open_keystore(path, PASSWORD)


def test_a_wrong_password_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    path = sealed_in(tmp_path)
    with pytest.raises(WrongPassword) as caught:
        open_keystore(path, PASSWORD + "x")
    assert caught.value.exit_code == 7
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FileDamaged) as damaged:
        open_keystore(path, PASSWORD)
    assert damaged.value.hint


def test_a_newer_version_says_what_to_do(tmp_path: Path) -> None:
    path = sealed_in(tmp_path)
    rewritten(path, version=2)
    with pytest.raises(UnknownVersion, match="version 2, this program knows up to 1") as caught:
        open_keystore(path, PASSWORD)
    assert "upgrade" in caught.value.hint


def test_the_file_is_private_and_shows_no_secret(tmp_path: Path) -> None:
    path = sealed_in(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert SECRET.entropy.hex() not in text
    assert SECRET.passphrase not in text
    assert "more words" not in repr(SECRET)
    assert repr(SECRET) == "WalletSecret()"


def test_a_refusals_traceback_shows_no_password(tmp_path: Path) -> None:
    path = sealed_in(tmp_path)
    typed = "-".join(["hidden", "password", "of", "mine"])  # tracebacks quote source lines
    with pytest.raises(DllmError) as caught:
        open_keystore(path, typed)
    assert typed not in "".join(traceback.format_exception(caught.value))


def test_sizes_tell_nothing_about_the_secret(tmp_path: Path) -> None:
    short = sealed_in(tmp_path / "a", WalletSecret(bytes(16))).stat().st_size
    long = sealed_in(tmp_path / "b", WalletSecret(bytes(32), "x" * 256)).stat().st_size
    assert short == long


def test_the_same_letters_typed_in_another_form_open_it(tmp_path: Path) -> None:
    path = sealed_in(tmp_path, password="caf\u00e9 lantern violin")
    assert open_keystore(path, "cafe\u0301 lantern violin").secret == SECRET


def test_passwords_and_passphrases_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(WrongPassword, match="1025 bytes"):
        sealed_in(tmp_path, password="x" * 1025)
    with pytest.raises(BadMnemonic, match="257 bytes"):
        sealed_in(tmp_path, WalletSecret(bytes(16), "x" * 257))
    with pytest.raises(ValueError, match="17 bytes"):
        sealed_in(tmp_path, WalletSecret(bytes(17)))


def test_salt_and_nonce_are_fresh_each_time(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        seal_keystore(tmp_path / name, SECRET, PASSWORD, PUBLIC_KEY, cost=CHEAP)
        files.append(json.loads((tmp_path / name).read_bytes()))
    assert files[0]["kdf"]["salt"] != files[1]["kdf"]["salt"]
    assert files[0]["cipher"]["nonce"] != files[1]["cipher"]["nonce"]
    assert files[0]["ciphertext"] != files[1]["ciphertext"]


def test_the_default_cost_is_libsodiums_moderate_and_opens(tmp_path: Path) -> None:
    from nacl.pwhash import argon2id

    assert KdfCost(argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE) == DEFAULT_COST
    path = tmp_path / "keystore.json"
    seal_keystore(path, SECRET, PASSWORD, PUBLIC_KEY)
    assert open_keystore(path, PASSWORD).secret == SECRET


def test_public_parts_are_readable_while_locked(tmp_path: Path) -> None:
    path = sealed_in(tmp_path)
    assert read_public(path) == (PUBLIC_KEY, fingerprint_of(PUBLIC_KEY))
    rewritten(path, fingerprint="00000000")
    with pytest.raises(FileDamaged, match="says fingerprint 00000000"):
        read_public(path)
