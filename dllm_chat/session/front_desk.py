"""What the first stage of a session is asked before any row: its vocabulary, and the tokens of texts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from dllm_chat.session.text_batches import text_batches
from dllm_protocol.errors import ChannelRefused, VerificationFailed
from dllm_protocol.messages import VOCABULARY_PART_BYTES, Tokens, VocabularyPart, unpack_ids
from dllm_protocol.vocabulary import Vocabulary, vocabulary_bytes_hash


class LegFailed(ChannelRefused):
    """The provider of this leg is of no more use; another may be.

    Attributes:
        provider: its id, where a route has several; empty: of the one leg in use.
    """

    code = "E_LEG"
    provider = b""


class VocabularyRefused(VerificationFailed):
    """A provider's vocabulary is not the one that the model's manifest promises."""

    code = "E_VOCABULARY"


async def gather_tokens(
    texts: Sequence[bytes], ask: Callable[[Sequence[bytes]], Awaitable[Tokens]]
) -> list[list[int]]:
    """Token ids of texts, unchecked.

    Args:
        ask: gives those of a batch.

    Raises:
        LegFailed: an answer is not of as many texts as were sent.
    """
    ids: list[list[int]] = []
    for batch in text_batches(texts):
        answer = await ask(batch)
        if len(answer.ids) != len(batch):
            raise LegFailed(f"{len(batch)} texts were to be tokenised, {len(answer.ids)} were")
        ids += [unpack_ids(packed) for packed in answer.ids]
    return ids


async def gather_vocabulary(
    ask: Callable[[int], Awaitable[VocabularyPart]], expected_hash: bytes
) -> Vocabulary:
    """The model's vocabulary, checked against the manifest.

    Args:
        ask: gives the part that begins at an offset.

    Raises:
        LegFailed: the parts do not come as asked.
        VocabularyRefused: another vocabulary.
    """
    data, total = bytearray(), 0
    while not data or len(data) < total:
        part = await ask(len(data))
        if part.offset != len(data) or not part.data:
            raise LegFailed("the vocabulary does not come as asked")
        data += part.data
        total = total or part.total_bytes
        whole = len(part.data) == VOCABULARY_PART_BYTES or len(data) == total
        if part.total_bytes != total or not whole:
            raise LegFailed(f"the vocabulary comes in crumbs: {len(part.data)} bytes at {part.offset}")
    got = vocabulary_bytes_hash(bytes(data))
    if got != expected_hash:  # before anything of it is parsed
        raise VocabularyRefused(
            f"the vocabulary hashes to {got.hex()}, the manifest says {expected_hash.hex()}",
            hint="the provider serves another model than it offers; it will not be used",
        )
    return Vocabulary.decode(bytes(data))
