"""Decoders of `dllm_chat`: wallet files, settings, receipts, bundles, what is typed, and text that is shown."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dllm_chat.config import load_config
from dllm_chat.devnet.plan import Folder, NodePlan, Plan, read_plan
from dllm_chat.embedded.clock import read_floor_ns
from dllm_chat.embedded.wire import read_line
from dllm_chat.models_found import _ollama_model_digest, is_gguf
from dllm_chat.sanitize import clean, clean_line
from dllm_chat.session.faucet import _granted
from dllm_chat.session.networks import decode_bundle
from dllm_chat.session.receipts import check_receipt, load_receipt
from dllm_chat.session.text import TextStream
from dllm_chat.tui.safe_markdown import safe_parser
from dllm_chat.wallet import address_book, keystore, profile
from dllm_chat.wallet.json_file import read_json, spell
from dllm_chat.wallet.mnemonic import entropy_of, words_of
from dllm_chat.wallet.wrapping_key import _key_of
from dllm_protocol.errors import MalformedBytes
from dllm_protocol.vocabulary import NORMAL, TokenPiece, Vocabulary
from tests.fuzz.decoder import Decoder, text
from tests.fuzz.node import through_file
from tests.fuzz.protocol import as_json, golden_records
from tests.fuzz.records import example, record_types

_PIECES = tuple(TokenPiece(bytes((value,)), NORMAL) for value in range(256))
_BYTES = Vocabulary(1, _PIECES, 0, 1, 0, 0)
_PLAN = Plan("solo", (NodePlan("node-0", 1, 2),), ("worker-0",), 3)
_GRANT = {"tx_hash": "AA" * 32, "height": 7, "amount_udllm": 5}
_PUBLIC_KEY = b"\x07" * 32
_RECIPIENT = {"address": "07" * 20, "name": "ann", "times_paid": 2}
_ACCOUNT = {"index": 0, "label": "main", "public_key": "07" * 32}


def checksummed(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    """A wallet file whose checksum and spelling fit its content: whoever forges one computes them too."""
    of_file = through_file(read, name)

    def read_bytes(data: bytes) -> object:
        try:
            content = json.loads(data)
            if not isinstance(content, dict):
                return of_file(data)
            content.pop("checksum", None)
            data = spell({**content, "checksum": hashlib.sha256(spell(content)).hexdigest()})
        except (ValueError, RecursionError, TypeError):
            return of_file(data)
        return of_file(data)

    return read_bytes


def _shown(data: bytes) -> None:
    """What a model says, token by token: nothing that is shown may command a terminal."""
    stream = TextStream(_BYTES, ("<|im_end|>", "\n\nUser:"))
    for token in data[:4096]:
        stream.push(token)
    stream.finish()
    _harmless(stream.text)


def _cleaned(given: str) -> None:
    _harmless(clean(given))
    line = clean_line(given)
    _harmless(line)
    if "\n" in line or len(line) > 200 or clean(clean(given)) != clean(given):
        raise AssertionError(f"{given[:80]!r} is not cleaned")


def _harmless(shown: str) -> None:
    if any((ord(one) < 32 and one not in "\n\t") or 127 <= ord(one) < 160 for one in shown):
        raise AssertionError(f"a control character is shown: {shown[:80]!r}")


def _markdown(given: str) -> None:
    for token in safe_parser().parse(clean(given)[:4096]):
        _harmless(token.content)


def _line(data: bytes) -> None:
    async def read() -> None:
        reader = asyncio.StreamReader(limit=1 << 16)
        reader.feed_data(data)
        reader.feed_eof()
        await read_line(reader)

    asyncio.run(read())


def _words(typed: str) -> None:
    if entropy_of(words_of(entropy_of(typed))) != entropy_of(typed):
        raise AssertionError(f"{typed[:200]!r}")


def _floor(path: Path) -> None:
    if read_floor_ns(path.parent) < 0:
        raise MalformedBytes("a time before 1970")


def _files() -> list[Decoder]:
    receipt = next(one for one in record_types() if one.__name__ == "Receipt")
    key = {"format": keystore.FORMAT, "version": 1, "public_key": _PUBLIC_KEY.hex()}
    key["fingerprint"] = keystore.fingerprint_of(_PUBLIC_KEY).hex()
    book = {"format": address_book.FORMAT, "version": 1, "recipients": [_RECIPIENT]}
    accounts = {"format": profile.FORMAT, "version": 1, "accounts": [_ACCOUNT]}
    counter = {"format": profile.COUNTER_FORMAT, "version": 1, "next": {"0": 7}}
    table: list[tuple[str, Callable[[bytes], object], Any]] = [
        (
            "wallet.json_file.read_json",
            checksummed(lambda path: read_json(path, "kind", 1), "any.json"),
            {"format": "kind", "version": 1},
        ),
        ("wallet.keystore.read_public", checksummed(keystore.read_public, "keystore.json"), key),
        (
            "wallet.address_book.AddressBook.recipients",
            checksummed(lambda path: address_book.AddressBook(path).recipients(), "book.json"),
            book,
        ),
        (
            "wallet.profile.Profile.accounts",
            checksummed(lambda path: profile.Profile(path.parent).accounts(), "profile.json"),
            accounts,
        ),
        (
            "wallet.profile.SessionCounter.peek",
            checksummed(lambda path: profile.SessionCounter(path.parent).peek(), "sessions.json"),
            counter,
        ),
        (
            "devnet.plan.read_plan",
            through_file(lambda path: read_plan(Folder(path.parent)), "devnet.json"),
            {"format": "dllm-devnet", "version": 1, **asdict(_PLAN)},
        ),
        ("session.faucet._granted", _granted, {"ok": True, "data": _GRANT}),
        ("embedded.wire.read_line", _line, {"say": "hello"}),
        (
            "models_found._ollama_model_digest",
            through_file(_ollama_model_digest),
            {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "0" * 64}]},
        ),
    ]
    made = [
        Decoder(f"dllm_chat.{name}", "chat-json", read, (as_json(content),), is_json=True)
        for name, read, content in table
    ]
    binary: list[tuple[str, Callable[[bytes], object], tuple[bytes, ...]]] = [
        (
            "session.receipts.load_receipt",
            through_file(lambda path: check_receipt(load_receipt(path))),
            (example(receipt).encode(),),
        ),
        ("session.networks.decode_bundle", decode_bundle, golden_records()["SignedBundle"]),
        (
            "wallet.keystore._unpack",
            keystore._unpack,
            (keystore._pack(keystore.WalletSecret(b"\x01" * 16, "pass")),),
        ),
        ("models_found.is_gguf", through_file(is_gguf), (b"GGUF\x03\x00\x00\x00",)),
    ]
    return made + [Decoder(f"dllm_chat.{name}", "chat", read, examples) for name, read, examples in binary]


def _texts() -> list[Decoder]:
    words = words_of(b"\x01" * 16).encode()
    table: list[tuple[str, Callable[[bytes], object], tuple[bytes, ...]]] = [
        (
            "config.load_config",
            through_file(lambda path: load_config(path, environ={})),
            (b'wallet = "main"\n',),
        ),
        ("embedded.clock.read_floor_ns", through_file(_floor, "clock_floor"), (b"1700000000000000000",)),
        ("wallet.mnemonic.entropy_of", text(_words), (words,)),
        ("wallet.wrapping_key._key_of", text(_key_of), (b"07" * 32,)),
        ("sanitize.clean", text(_cleaned), ("a\x1b[2Jb\u202ec".encode(),)),
        ("session.text.TextStream.push", _shown, (b"hello\x1b[31m <|im_end|>",)),
        ("tui.safe_markdown.safe_parser", text(_markdown), (b"# a\n\n&#x202E;&#27;[2J `x` <b>",)),
    ]
    return [Decoder(f"dllm_chat.{name}", "chat", read, examples) for name, read, examples in table]


def decoders() -> list[Decoder]:
    """Files and text."""
    return _files() + _texts()
