"""The light client against honest and hostile nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_protocol.block import LightBlock, SignedHeader, block_id_of
from dllm_protocol.commit import CommitSig
from light_node.client import LightClient, LightEvent, PeerRole, TrustOptions, TrustStatus
from light_node.errors import (
    ForkDetected,
    HeaderRefused,
    HeightUnavailable,
    NotYetProvable,
    RootExpired,
    RootMismatch,
    SourceUnreachable,
)
from light_node.trust_store import TrustStore
from tests.light_node.conftest import MakeClient
from tests.light_node.signed_chain import (
    CHAIN_ID,
    ChainSource,
    ManualClock,
    SignedChain,
    forged,
    signed_commit,
)


class HeaderLiar(ChainSource):
    """Serves a changed header at one height."""

    def __init__(self, chain: SignedChain, height: int, signing: tuple[str, ...], **changes: object) -> None:
        super().__init__(chain, "liar")
        block = forged(chain.blocks[height], **changes)
        commit = signed_commit(
            chain.chain_id, block_id_of(block), height, signing, block.header.time.add_ms(1000)
        )
        self.lie = {height: SignedHeader(block.header, commit)}

    async def signed_header(self, height: int | None) -> SignedHeader:
        asked = self.chain.height if height is None else height
        return self.lie.get(asked) or await super().signed_header(height)


async def test_the_tip_is_verified_and_stored(
    make_client: MakeClient, chain: SignedChain, store: TrustStore
) -> None:
    client = make_client()
    assert client.status().state is TrustStatus.OFFLINE
    tip = await client.sync()
    assert tip.hash() == chain.blocks[10].hash()
    stored = store.latest()
    assert stored is not None
    assert stored.hash() == tip.hash()
    fresh = client.status()
    assert (fresh.state, fresh.height, fresh.hash, fresh.lag_blocks) == (
        TrustStatus.VERIFIED,
        10,
        tip.hash(),
        0,
    )
    assert fresh.root_age_s == 60
    assert fresh.expires_in_s == 7 * 24 * 3600 - 60


async def test_a_second_client_goes_on_from_the_store(
    make_client: MakeClient, chain: SignedChain, source: ChainSource
) -> None:
    await make_client().sync()
    chain.grow(3)
    source.headers_asked.clear()
    again = make_client()
    assert (await again.sync()).height == 13
    assert source.headers_asked == [13]


async def test_a_forged_header_is_refused(make_client: MakeClient, chain: SignedChain) -> None:
    liar = HeaderLiar(chain, 10, ("stranger",) * 4, app_hash=b"\x07" * 32)
    with pytest.raises(HeaderRefused) as caught:
        await make_client(liar).sync()
    assert caught.value.exit_code == 8
    client = make_client(liar)
    with pytest.raises(HeaderRefused):
        await client.sync()
    assert client.status().state is TrustStatus.TRUSTING
    assert client.status().problem


async def test_a_minority_cannot_sign_a_tip(make_client: MakeClient, chain: SignedChain) -> None:
    chain.add(signing=("a", "b"))
    with pytest.raises(HeaderRefused, match="power 20 of 40 signed, more than 26 needed"):
        await make_client().sync()


async def test_another_chain_id_is_refused(make_client: MakeClient, chain: SignedChain) -> None:
    liar = HeaderLiar(chain, 10, chain.validators[10], chain_id="another-chain")
    with pytest.raises(HeaderRefused, match="claimed another-chain, found signed-chain"):
        await make_client(liar).sync()


async def test_a_header_from_the_future_is_refused(
    make_client: MakeClient, chain: SignedChain, clock: ManualClock
) -> None:
    late = clock.now().add_ms(11_000)
    liar = HeaderLiar(chain, 10, tuple(_ordered_names(chain, 10)), time=late)
    with pytest.raises(HeaderRefused, match="from the future"):
        await make_client(liar).sync()


async def test_a_wrong_root_is_refused_with_both_hashes(
    chain: SignedChain, source: ChainSource, store: TrustStore, clock: ManualClock
) -> None:
    client = LightClient(CHAIN_ID, TrustOptions(1, b"\x09" * 32), store, source, clock=clock)
    with pytest.raises(RootMismatch) as caught:
        await client.sync()
    assert "09" * 32 in caught.value.message
    assert chain.blocks[1].hash().hex() in caught.value.message
    assert store.latest() is None


async def test_a_root_that_contradicts_the_store_is_refused(
    make_client: MakeClient, source: ChainSource, store: TrustStore, clock: ManualClock
) -> None:
    await make_client().sync()
    client = LightClient(CHAIN_ID, TrustOptions(10, b"\x09" * 32), store, source, clock=clock)
    with pytest.raises(RootMismatch, match="another home"):
        try:
            await client.sync()
        except RootMismatch as error:
            raise RootMismatch(f"{error.message} {error.hint}") from error


async def test_a_younger_root_must_follow_from_the_store(
    make_client: MakeClient, chain: SignedChain, store: TrustStore
) -> None:
    await make_client().sync()
    chain.grow(5)
    assert (await make_client(root_height=14).sync()).height == 15
    assert store.at(14) is not None


async def test_expired_trust_is_refreshed_only_by_a_root_that_links(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, clock: ManualClock
) -> None:
    await make_client().sync()
    clock.advance_s(8 * 24 * 3600)
    chain.grow(1)
    # The chain slept; its next vote carries the new time, and so does the block after it.
    chain.commits[11] = signed_commit(
        CHAIN_ID, block_id_of(chain.blocks[11]), 11, _ordered_names(chain, 11), clock.now()
    )
    chain.grow(2)
    client = make_client()
    with pytest.raises(RootExpired):
        await client.sync()
    assert client.status().state is TrustStatus.OFFLINE
    with pytest.raises(RootMismatch):
        await client.refresh_root(TrustOptions(12, b"\x01" * 32))
    root = await client.refresh_root(TrustOptions(12, chain.blocks[12].hash()))
    assert root.height == 12
    assert (await client.sync()).height == 13


def _ordered_names(chain: SignedChain, height: int) -> list[str]:
    by_address = {SignedChain((name,)).set_at(1).validators[0].address: name for name in "abcd"}
    return [by_address[one.address] for one in chain.set_at(height).validators]


async def test_a_fork_that_the_validators_signed_stops_everything(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, store: TrustStore
) -> None:
    witness = HeaderLiar(chain, 10, tuple(_ordered_names(chain, 10)), app_hash=b"\x07" * 32)
    with pytest.raises(ForkDetected) as caught:
        await make_client(source, [witness]).sync()
    assert chain.blocks[10].hash().hex() in caught.value.message
    assert witness.lie[10].header.hash().hex() in caught.value.message
    latest = store.latest()
    assert latest is not None
    assert latest.height == 1


async def test_a_witness_with_a_made_up_header_is_asked_no_more(
    make_client: MakeClient, chain: SignedChain, source: ChainSource
) -> None:
    liar = HeaderLiar(chain, 10, ("x", "y", "z", "w"), app_hash=b"\x07" * 32)
    honest = ChainSource(chain, "honest")
    client = make_client(source, [liar, honest])
    assert (await client.sync()).hash() == chain.blocks[10].hash()
    assert client.witnesses == (honest,)


async def test_a_witness_that_contradicts_the_root_stops_everything(
    make_client: MakeClient, chain: SignedChain, source: ChainSource, store: TrustStore
) -> None:
    witness = HeaderLiar(chain, 1, ("x",), app_hash=b"\x07" * 32)
    with pytest.raises(ForkDetected, match="height 1"):
        await make_client(source, [witness]).sync()
    assert store.latest() is None


async def test_headers_between_and_below_are_verified(
    make_client: MakeClient, chain: SignedChain, source: ChainSource
) -> None:
    chain.grow(60)
    client = make_client(root_height=30)
    client.clock.advance_s(60)  # type: ignore[attr-defined]  # a ManualClock in these tests
    await client.sync()
    for height in (69, 35, 12, 1, 70):
        assert (await client.verified_header(height)).hash() == chain.blocks[height].hash()


async def test_a_forged_header_below_the_root_is_refused(make_client: MakeClient, chain: SignedChain) -> None:
    liar = HeaderLiar(chain, 4, chain.validators[4], app_hash=b"\x07" * 32)
    client = make_client(liar, root_height=6)
    await client.sync()
    with pytest.raises(HeaderRefused, match="follows block"):
        await client.verified_header(4)


async def test_a_height_that_does_not_exist_yet(make_client: MakeClient) -> None:
    client = make_client()
    with pytest.raises(HeightUnavailable):
        await client.verified_header(11)
    with pytest.raises(NotYetProvable, match="the tip is 10"):
        await client.wait_for_header(11, 1.0)


async def test_a_source_that_is_away_is_offline_and_one_behind_says_so(
    make_client: MakeClient, source: ChainSource
) -> None:
    client = make_client()
    await client.sync()
    source.serve_height = 5
    assert (await client.sync()).height == 10
    assert client.status().state is TrustStatus.TRUSTING
    assert "its tip is 5, verified is 10" in client.status().problem
    source.offline = True
    with pytest.raises(SourceUnreachable):
        await client.sync()
    assert client.status().state is TrustStatus.OFFLINE


async def test_a_set_that_is_not_the_header_s_is_refused(make_client: MakeClient, chain: SignedChain) -> None:
    chain.add(next_names=("a", "b", "c", "e"))
    chain.grow(2)

    class SetLiar(ChainSource):
        async def validators(self, height: int):  # type: ignore[no-untyped-def]  # same as the base class
            return SignedChain(("x",)).set_at(1)

    with pytest.raises(HeaderRefused, match="those supplied hash to"):
        await make_client(SetLiar(chain)).sync()


def test_light_blocks_compare_by_value(chain: SignedChain) -> None:
    one, other = chain.light_block(3), chain.light_block(3)
    assert isinstance(one, LightBlock)
    assert one == other
    assert replace(one, validators=chain.set_at(1)) == other


async def test_light_blocks_of_any_height_are_verified(make_client: MakeClient, chain: SignedChain) -> None:
    chain.add(next_names=("a", "b", "c", "e"))
    chain.grow(30)
    client = make_client(root_height=20)
    client.clock.advance_s(60)  # type: ignore[attr-defined]  # a ManualClock in these tests
    await client.sync()
    for height in (20, 41, 30, 11, 12, 13, 1):
        assert await client.light_block(height) == chain.light_block(height)


async def test_a_commit_that_does_not_belong_to_a_verified_header_is_refused(
    make_client: MakeClient, chain: SignedChain
) -> None:
    class CommitLiar(ChainSource):
        async def signed_header(self, height: int | None) -> SignedHeader:
            found = await super().signed_header(height)
            entries = (*found.commit.signatures[:2], CommitSig.absent(), CommitSig.absent())
            return found if height != 3 else replace(found, commit=replace(found.commit, signatures=entries))

    client = make_client(CommitLiar(chain))
    await client.sync()
    assert (await client.verified_header(3)).hash() == chain.blocks[3].hash()
    with pytest.raises(HeaderRefused, match="power 20 of 40 signed, more than 26 needed"):
        await client.light_block(3)


async def test_being_alone_is_said_where_witnesses_are_expected(
    chain: SignedChain, source: ChainSource, store: TrustStore, clock: ManualClock
) -> None:
    root = TrustOptions(1, chain.blocks[1].hash(), witnesses_expected=True)
    alone = LightClient(CHAIN_ID, root, store, source, clock=clock)
    await alone.sync()
    fresh = alone.status()
    assert (fresh.state, fresh.problem) == (TrustStatus.VERIFIED, "")
    assert fresh.warning == "one source only: nobody confirms what it shows"
    assert [(peer.name, peer.role, peer.height) for peer in fresh.peers] == [("node", PeerRole.PRIMARY, 10)]
    accompanied = LightClient(CHAIN_ID, root, store, source, [ChainSource(chain, "witness")], clock=clock)
    assert accompanied.status().warning == ""
    ours = LightClient(CHAIN_ID, replace(root, witnesses_expected=False), store, source, clock=clock)
    assert ours.status().warning == ""


async def test_events_are_heard_when_they_happen(
    chain: SignedChain, store: TrustStore, clock: ManualClock
) -> None:
    heard: list[LightEvent] = []
    away, one, two = (ChainSource(chain, name) for name in ("away", "one", "two"))
    away.offline = True
    root = TrustOptions(1, chain.blocks[1].hash())
    client = LightClient(CHAIN_ID, root, store, away, [one, two], clock=clock, on_event=heard.append)
    await client.sync()
    assert tuple(heard) == client.events
    assert heard[0].name == "away"
    assert heard[0].at == clock.now()
    assert "cannot talk to away" in heard[0].message


async def test_the_last_refusal_stays_after_what_followed_was_good(
    make_client: MakeClient, chain: SignedChain, source: ChainSource
) -> None:
    liar = HeaderLiar(chain, 10, ("stranger",) * 4, app_hash=b"\x07" * 32)
    client = make_client(liar)
    with pytest.raises(HeaderRefused) as caught:
        await client.sync()
    liar.lie.clear()
    await client.sync()
    fresh = client.status()
    assert (fresh.state, fresh.problem) == (TrustStatus.VERIFIED, "")
    assert fresh.last_refusal == caught.value.message
