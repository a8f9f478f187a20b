"""From two keys on chain to one sealed stream.

    client                                            provider
    seal(ClientHello) to the sealing key      ──▶
                                              ◀──     ProviderHello: ephemeral key, signed with the service key
    [ Claim: session key over the handshake ] ──▶     everything in brackets is sealed
                                              ◀──     [ Ready ]

The prompt goes out only after the provider's ephemeral key arrived, signed for this very first message; both
ephemeral keys are forgotten with the connection (forward secrecy). The first message hides the session from
whoever carries it.
"""

from __future__ import annotations

from dllm_protocol.errors import ChannelRefused, MalformedBytes
from dllm_protocol.hashing import Tag, sha256, tagged_hash
from dllm_protocol.messages import CHANNEL_VERSION, Claim, ClientHello, ProviderHello
from dllm_protocol.sealing import SealedStream, SealingKey
from dllm_protocol.signing import Signer, sign_tagged, verify_tagged

MAX_HELLO_BYTES = 1024


class ProviderNotProved(ChannelRefused):
    """Whoever answered does not hold the provider's service key."""

    code = "E_PROVIDER_KEY"


class SessionNotProved(ChannelRefused):
    """Whoever called does not hold the session's key."""

    code = "E_SESSION_KEY"


class ClientHandshake:
    """The client's side.

    Args:
        ephemeral_seed: 32 random bytes, used once.
        service_key, sealing_key: from the provider's proved record.
    """

    def __init__(
        self,
        *,
        chain_id: str,
        provider: bytes,
        session: bytes,
        service_key: bytes,
        sealing_key: bytes,
        ephemeral_seed: bytes,
    ) -> None:
        self._ephemeral = SealingKey(ephemeral_seed)
        self._service_key = service_key
        hello = ClientHello(CHANNEL_VERSION, chain_id, provider, session)
        self.first_message = self._ephemeral.seal_to(sealing_key, hello.encode())

    def finish(self, answer: bytes) -> tuple[SealedStream, bytes]:
        """Take the provider's answer; return the stream and the handshake's hash that the Claim signs.

        Raises:
            ProviderNotProved: the service key did not sign this ephemeral key for this first message.
        """
        if len(answer) > MAX_HELLO_BYTES:
            raise ProviderNotProved(
                f"the provider's hello has {len(answer)} bytes, at most {MAX_HELLO_BYTES} are taken"
            )
        try:
            hello = ProviderHello.decode(answer)
        except MalformedBytes as error:
            raise ProviderNotProved(f"the answer is no provider's hello: {error.message}") from error
        payload = sha256(self.first_message) + hello.ephemeral_key
        if not verify_tagged(self._service_key, Tag.CHANNEL_OFFER, payload, hello.signature):
            raise ProviderNotProved(
                "the answer is not signed with the provider's registered service key",
                hint="somebody else answers at its address; another provider will be used",
            )
        stream = self._ephemeral.client_stream(hello.ephemeral_key)
        return stream, handshake_hash(self.first_message, answer)


class ProviderHandshake:
    """The provider's side of one connection."""

    def __init__(
        self, first_message: bytes, *, chain_id: str, provider: bytes, sealing_key: SealingKey
    ) -> None:
        """Open the client's first message.

        Raises:
            SealBroken, MalformedBytes: not for this key, or garbage.
            ChannelRefused: another version, chain or provider, both named.
        """
        if len(first_message) > MAX_HELLO_BYTES:
            raise ChannelRefused(
                f"the first message has {len(first_message)} bytes, at most {MAX_HELLO_BYTES}"
            )
        self._first_message = first_message
        self._client_ephemeral, plain = sealing_key.open_from(first_message)
        self.hello = ClientHello.decode(plain)
        for what, got, wanted in (
            ("channel version", self.hello.version, CHANNEL_VERSION),
            ("chain", self.hello.chain_id, chain_id),
            ("provider", self.hello.provider.hex(), provider.hex()),
        ):
            if got != wanted:
                raise ChannelRefused(f"the client wants {what} {got}, here is {wanted}")

    def answer(self, service_key: Signer, ephemeral_seed: bytes) -> tuple[bytes, SealedStream, bytes]:
        """Return (bytes to send, the stream, the handshake's hash).

        Args:
            ephemeral_seed: 32 random bytes, used once.
        """
        ephemeral = SealingKey(ephemeral_seed)
        payload = sha256(self._first_message) + ephemeral.public_key
        hello = ProviderHello(ephemeral.public_key, sign_tagged(service_key, Tag.CHANNEL_OFFER, payload))
        raw = hello.encode()
        return (
            raw,
            ephemeral.provider_stream(self._client_ephemeral),
            handshake_hash(self._first_message, raw),
        )


def handshake_hash(first_message: bytes, answer: bytes) -> bytes:
    """What the session key signs to claim a channel (32 bytes)."""
    return tagged_hash(Tag.CHANNEL_CLAIM, sha256(first_message), sha256(answer))


def make_claim(
    session_key: Signer, hash_of_handshake: bytes, transcript_secret: bytes, previous_transcript: bytes
) -> Claim:
    """The client's proof that the session is its own."""
    payload = hash_of_handshake + transcript_secret + previous_transcript
    return Claim(sign_tagged(session_key, Tag.CHANNEL_CLAIM, payload), transcript_secret, previous_transcript)


def check_claim(claim: Claim, session_key: bytes, hash_of_handshake: bytes) -> None:
    """Refuse a claim that the session's key on chain did not sign for this handshake.

    Raises:
        SessionNotProved
    """
    payload = hash_of_handshake + claim.transcript_secret + claim.previous_transcript
    if not verify_tagged(session_key, Tag.CHANNEL_CLAIM, payload, claim.signature):
        raise SessionNotProved("the claim is not signed with the session's key")
