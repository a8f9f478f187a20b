"""Sealing, from well-known parts: a first message to a known key, and a two-way stream after a key exchange.

Nothing here draws randomness: ephemeral seeds come in from the edge. Keys and first messages are libsodium's. The
stream is ChaCha20-Poly1305 (RFC 8439) under one key a direction with a counter as nonce, as in Noise's transport: a
frame that is replayed, dropped, reordered or altered does not open. It is OpenSSL's, whose object for a key seals in
one call: a token passes through several streams, and there each layer between a caller and the cipher is felt.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import (
    crypto_box,
    crypto_box_open,
    crypto_box_seed_keypair,
    crypto_kx_client_session_keys,
    crypto_kx_server_session_keys,
)
from nacl.exceptions import CryptoError

from dllm_protocol.errors import ChannelRefused
from dllm_protocol.hashing import Tag, tagged_hash

_STATE = struct.Struct("<32s32sQQ")
STATE_BYTES = _STATE.size
PAD_BYTES = 64
"""Frames are padded to a multiple of this, so that their size says little."""
_PADDING = b"\x80" + bytes(PAD_BYTES - 1)
"""ISO/IEC 7816-4: one byte that says where it begins, then zeros. As much of it as fills the block up, at least one."""


class SealBroken(ChannelRefused):
    """Bytes that do not open: altered, replayed, out of order, or for another key."""

    code = "E_SEAL"


class SealingKey:
    """An X25519 key pair from a 32-byte seed. Its repr shows the public key only."""

    __slots__ = ("_secret_key", "public_key")

    def __init__(self, seed: bytes) -> None:
        self.public_key: bytes
        self.public_key, self._secret_key = crypto_box_seed_keypair(seed)

    def __repr__(self) -> str:
        return f"SealingKey({self.public_key.hex()})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a sealing key is never pickled")

    def seal_to(self, recipient: bytes, message: bytes) -> bytes:
        """Seal to a public key: own public key ‖ box. Use each ephemeral key for one message only."""
        nonce = _first_nonce(self.public_key, recipient)
        return self.public_key + crypto_box(message, nonce, recipient, self._secret_key)

    def open_from(self, sealed: bytes) -> tuple[bytes, bytes]:
        """Open what `seal_to` made; return (sender's ephemeral public key, message).

        Raises:
            SealBroken: it is not for this key, or was altered.
        """
        sender, box = sealed[:32], sealed[32:]
        try:
            return sender, crypto_box_open(
                box, _first_nonce(sender, self.public_key), sender, self._secret_key
            )
        except (CryptoError, ValueError, TypeError) as error:
            raise SealBroken("the first message does not open with this provider's sealing key") from error

    def client_stream(self, provider_ephemeral: bytes) -> SealedStream:
        """The client's end of the stream with a provider's ephemeral key (libsodium crypto_kx)."""
        try:
            receive, send = crypto_kx_client_session_keys(
                self.public_key, self._secret_key, provider_ephemeral
            )
        except (CryptoError, ValueError, TypeError) as error:
            raise SealBroken("the provider's ephemeral key is not a usable X25519 key") from error
        return SealedStream(send, receive)

    def provider_stream(self, client_ephemeral: bytes) -> SealedStream:
        """The provider's end of the stream with a client's ephemeral key."""
        try:
            receive, send = crypto_kx_server_session_keys(self.public_key, self._secret_key, client_ephemeral)
        except (CryptoError, ValueError, TypeError) as error:
            raise SealBroken("the client's ephemeral key is not a usable X25519 key") from error
        return SealedStream(send, receive)


class SealedStream:
    """One end of a sealed stream of frames."""

    __slots__ = ("_keys", "_opener", "_received", "_sealer", "_sent")

    def __init__(self, send_key: bytes, receive_key: bytes) -> None:
        self._keys = send_key, receive_key
        self._sealer = ChaCha20Poly1305(send_key)
        self._opener = ChaCha20Poly1305(receive_key)
        self._sent = 0
        self._received = 0

    def __repr__(self) -> str:
        return f"SealedStream(sent={self._sent}, received={self._received})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a sealed stream is never pickled")

    def hand_over(self) -> bytes:
        """What another process of ours needs to go on with this stream (`STATE_BYTES`).

        Here it is over: whoever seals or opens anything more meets an OverflowError, for there is no nonce left.
        """
        state = _STATE.pack(*self._keys, self._sent, self._received)
        self._sealer = self._opener = ChaCha20Poly1305(bytes(32))
        self._sent = self._received = 1 << 96  # no nonce any more
        self._keys = bytes(32), bytes(32)
        return state

    @classmethod
    def taken_over(cls, state: bytes) -> SealedStream:
        """The stream that another process handed over.

        Raises:
            ValueError: that is no state of one.
        """
        if len(state) != STATE_BYTES:
            raise ValueError(f"a stream's state has {len(state)} bytes, not {STATE_BYTES}")
        send_key, receive_key, sent, received = _STATE.unpack(state)
        stream = cls(send_key, receive_key)
        stream._sent, stream._received = sent, received
        return stream

    def seal(self, plain: bytes) -> bytes:
        """The next frame to send."""
        nonce = self._sent.to_bytes(12, "little")
        self._sent += 1
        return self._sealer.encrypt(nonce, plain + _PADDING[: PAD_BYTES - len(plain) % PAD_BYTES], None)

    def open(self, frame: bytes) -> bytes:
        """The plain bytes of the next frame received.

        Raises:
            SealBroken: the frame is not the next one of this stream.
        """
        try:
            plain = unpadded(self._opener.decrypt(self._received.to_bytes(12, "little"), frame, None))
        except (InvalidTag, ValueError, TypeError) as error:
            raise SealBroken(
                f"frame {self._received} does not open: altered, replayed or out of order"
            ) from error
        self._received += 1
        return plain


def unpadded(padded: bytes) -> bytes:
    """What was there before the padding. The bytes are the sender's own by now: how long this takes tells nobody more.

    Raises:
        ValueError: no padding stands at the end, or more than one block of it.
    """
    end = len(padded.rstrip(b"\0")) - 1
    if len(padded) < PAD_BYTES or end < len(padded) - PAD_BYTES or padded[end] != _PADDING[0]:
        raise ValueError("the padding is broken")
    return padded[:end]


def _first_nonce(sender: bytes, recipient: bytes) -> bytes:
    """A box key pair is used once, so any fixed nonce is safe; this one also binds both public keys."""
    return tagged_hash(Tag.FIRST_MESSAGE, sender, recipient)[:24]
