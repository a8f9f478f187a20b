"""Records `formats.json`: what every implementation of the formats must reproduce.

``python -m tests.vectors.record_formats`` writes it anew; a change of the file is a change of a format.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from dllm_protocol import state_keys
from dllm_protocol.actions import (
    BondProvider,
    ClaimVoucher,
    CloseSession,
    GrantChatKey,
    Heartbeat,
    OpenSession,
    Rating,
    RegisterModel,
    RegisterProvider,
    ReportContradiction,
    SetHolding,
    SetOffer,
    Stake,
    TopUpSession,
    Transfer,
    UnbondProvider,
    Unstake,
    UpdateProvider,
    WithdrawHolding,
    WithdrawOffer,
)
from dllm_protocol.actions.validators import prove_key
from dllm_protocol.address import address_of, encode_address, provider_id_of
from dllm_protocol.assignment import leg_payees, make_route, route_hash, session_id_of
from dllm_protocol.bundle import BUNDLE_VERSION, NetworkBundle, fingerprint, sign_bundle
from dllm_protocol.encoding import Record
from dllm_protocol.genesis import (
    Genesis,
    GenesisAccount,
    GenesisModel,
    GenesisValidator,
    chain_id_of,
    genesis_hash,
)
from dllm_protocol.holder_book import HolderBook, HolderEntry, holders_hash
from dllm_protocol.model_manifest import Manifest, Piece, manifest_hash, piece_root
from dllm_protocol.offer_book import BookEntry, OfferBook, book_hash
from dllm_protocol.params import NETWORK_PARAMS
from dllm_protocol.pricing import RowCounts, RowPrices, cost_of_rows
from dllm_protocol.ranked_book import rank, rules_of
from dllm_protocol.records import (
    Account,
    AppVersion,
    Candidate,
    CandidateList,
    Chain,
    ChatKey,
    Holding,
    ModelRecord,
    ModelSet,
    Offer,
    OfferBookHead,
    Pool,
    Provider,
    ProviderSet,
    RaterQuota,
    Reputation,
    RetiredKey,
    SeatedValidator,
    SeatedValidators,
    Session,
    Slash,
    StakeUnbonding,
    Supply,
    Unbonding,
    ValidatorRecord,
)
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import make_body, sign_transaction, transaction_hash
from dllm_protocol.vocabulary import CONTROL, NORMAL, TokenPiece, Vocabulary, vocabulary_hash
from dllm_protocol.voucher import Voucher, VoucherLeg, WindowAck, sign_ack, sign_voucher

FILE = Path(__file__).with_name("formats.json")

CLIENT, OWNER, OPERATOR, SERVICE, SESSION_KEY, SLICED_KEY = (SeedSigner(bytes([n]) * 32) for n in range(1, 7))
ACCOUNT, EARNER = address_of(CLIENT.public_key), address_of(OWNER.public_key)
PROVIDER_ID = provider_id_of(EARNER, address_of(OPERATOR.public_key))
STANDBY_OWNER = b"\x77" * 20
STANDBY_ID = provider_id_of(STANDBY_OWNER, STANDBY_OWNER)
FULL_ID = provider_id_of(STANDBY_OWNER, ACCOUNT)
"""Its offer is the cheapest, and has no room."""
PRICES = RowPrices(1_000, 10_000, 8_000, 1_500)
RESERVE = RowPrices(4_000, 40_000, 40_000, 4_000)

VOCABULARY = Vocabulary(
    1,
    (TokenPiece(b"<s>", CONTROL), TokenPiece(b"</s>", CONTROL), TokenPiece(b" hello", NORMAL)),
    begin_token=0,
    end_token=1,
    adds_begin=1,
    adds_space=1,
)
MANIFEST = Manifest(
    version=1,
    name="guide-1",
    architecture="llama",
    layers=4,
    context_rows=2048,
    vocabulary_hash=vocabulary_hash(VOCABULARY),
    chat_template="chatml",
    licence="Apache-2.0",
    reserve_prices=RESERVE,
    pieces=(Piece(1, 0, 5_000_000, piece_root([b"a" * 16384, b"b" * 16384, b"c"])),),
)
GENESIS = Genesis(
    version=1,
    name="vectors",
    genesis_time_ms=1_700_000_000_000,
    address_prefix="dllm",
    params=NETWORK_PARAMS,
    accounts=(GenesisAccount(ACCOUNT, 5_000_000_000), GenesisAccount(EARNER, 7_000_000_000)),
    models=(GenesisModel(EARNER, MANIFEST),),
    validators=(GenesisValidator(OPERATOR.public_key, EARNER, 1_000_000_000),),
    nonce=bytes(range(32)),
)
CHAIN_ID = chain_id_of(GENESIS)
BUNDLE = sign_bundle(
    OPERATOR,
    NetworkBundle(
        BUNDLE_VERSION,
        GENESIS,
        trust_height=77,
        trust_hash=b"\x22" * 32,
        sources=("ws://127.0.0.1:26657/websocket",),
        witnesses=("wss://witness.example:443/websocket",),
        seeds=("5bd3c8f2ea70f5e2b8b6b93f5be6b4e2d1c0a9f8@peer.example:26656",),
        faucet="https://faucet.example",
    ),
)
BOOK = OfferBook(
    "guide-1",
    12,
    tuple(
        sorted(
            (
                BookEntry(PROVIDER_ID, EARNER, 0, 4, PRICES, 4, 788_675),
                BookEntry(STANDBY_ID, STANDBY_OWNER, 0, 4, RESERVE, 2, 900_000),
                BookEntry(FULL_ID, STANDBY_OWNER, 0, 4, RowPrices(1, 1, 1, 1), 2, 900_000),
            ),
            key=lambda entry: entry.provider,
        )
    ),
)
HOLDERS = HolderBook(
    "guide-1",
    12,
    tuple(
        sorted(
            (
                HolderEntry(PROVIDER_ID, EARNER, 14_000, 4, 0, 4, 10, 1),
                HolderEntry(STANDBY_ID, STANDBY_OWNER, 9_000, 3, 1, 4, 12, 0),
                HolderEntry(FULL_ID, STANDBY_OWNER, 0, 0, 0, 4, 0, 1),
            ),
            key=lambda entry: entry.provider,
        )
    ),
)
"""Who serves, who loads another slice than it offers, and who never said anything of itself."""
HEAD = OfferBookHead("guide-1", 12, book_hash(BOOK), 3, 1, 11, holders_hash(HOLDERS), 3)
RULES = rules_of(MANIFEST, NETWORK_PARAMS)
ROUTE = make_route(
    rank(BOOK, RULES),
    account=ACCOUNT,
    session_key=SESSION_KEY.public_key,
    manifest_hash=manifest_hash(MANIFEST),
    max_prices=RESERVE,
    exclusions=(),
    load_of=lambda entry: 2 if entry.provider == FULL_ID else 1,
)
assert ROUTE is not None
SESSION_ID = session_id_of(ACCOUNT, SESSION_KEY.public_key)
SLICED_BOOK = OfferBook(
    "guide-1",
    13,
    tuple(
        BookEntry(
            bytes([number]) * 20,
            owner,
            first,
            end,
            RowPrices(price, 10 * price, 10 * price, price),
            2,
            900_000,
        )
        for number, owner, first, end, price in (
            (1, EARNER, 0, 1, 90),
            (2, STANDBY_OWNER, 1, 3, 190),
            (3, EARNER, 3, 4, 100),
            (4, EARNER, 1, 3, 200),
            (5, STANDBY_OWNER, 0, 1, 80),
            (6, STANDBY_OWNER, 0, 4, 900),
            (7, EARNER, 2, 4, 1),
            (8, STANDBY_OWNER, 0, 1, 95),
        )
    ),
)
"""Three stages are cheaper than the whole, the cheapest first one is full, the last one has no standby."""
SLICED_ROUTE = make_route(
    rank(SLICED_BOOK, RULES),
    account=ACCOUNT,
    session_key=SLICED_KEY.public_key,
    manifest_hash=manifest_hash(MANIFEST),
    max_prices=RESERVE,
    exclusions=(),
    load_of=lambda entry: 2 if entry.provider == bytes([5]) * 20 else 0,
)
assert SLICED_ROUTE is not None
SLICED_SESSION_ID = session_id_of(ACCOUNT, SLICED_KEY.public_key)
ROWS = RowCounts(57, 120, 9, 0)
LEG = VoucherLeg(PROVIDER_ID, leg_payees(ROUTE.stages[0].stage, 1), ROWS, cost_of_rows(PRICES, ROWS))
VOUCHER = sign_voucher(SESSION_KEY, Voucher(CHAIN_ID, SESSION_ID, route_hash(ROUTE), 3, (LEG,), b"\x33" * 32))
ACK = sign_ack(
    SERVICE,
    WindowAck(CHAIN_ID, SESSION_ID, PROVIDER_ID, 3, b"\x33" * 32, b"\x44" * 32, LEG.cumulative_udllm),
)
OTHER_ACK = sign_ack(
    SERVICE,
    WindowAck(CHAIN_ID, SESSION_ID, PROVIDER_ID, 3, b"\x33" * 32, b"\x55" * 32, LEG.cumulative_udllm),
)
ACTIONS: tuple[Record, ...] = (
    Transfer(EARNER, 1_500_000),
    GrantChatKey(b"\x66" * 32, 2_000_000),
    RegisterModel(MANIFEST),
    RegisterProvider(
        address_of(OPERATOR.public_key),
        SERVICE.public_key,
        b"\x88" * 32,
        ("ws://127.0.0.1:9000", "wss://node.example:443"),
        "eu",
        100_000_000,
    ),
    UpdateProvider(PROVIDER_ID, b"\x99" * 32, b"", ("ws://127.0.0.1:9001",)),
    BondProvider(PROVIDER_ID, 5),
    UnbondProvider(PROVIDER_ID, 6),
    SetOffer(PROVIDER_ID, "guide-1", 0, 4, PRICES, 4),
    WithdrawOffer(PROVIDER_ID, "guide-1"),
    Heartbeat(PROVIDER_ID),
    ReportContradiction(ACK, OTHER_ACK),
    SetHolding(PROVIDER_ID, "guide-1", 14_000, 3, 1, 4),
    WithdrawHolding(PROVIDER_ID, "guide-1"),
    OpenSession("guide-1", SESSION_KEY.public_key, RESERVE, (STANDBY_ID,), 1_000_000),
    TopUpSession(SESSION_ID, 7),
    ClaimVoucher(VOUCHER),
    CloseSession(SESSION_ID, VOUCHER, (ACK,), (Rating(PROVIDER_ID, 950),)),
    Stake(OPERATOR.public_key, 1_000_000_000, prove_key(OPERATOR, CHAIN_ID, ACCOUNT)),
    Unstake(address_of(OPERATOR.public_key), 500_000_000),
)
TRANSACTION = sign_transaction(
    CLIENT,
    make_body(
        CHAIN_ID, ACCOUNT, CLIENT.public_key, 8, ACTIONS, fee_udllm=9_000, timeout_height=77, memo="für dich"
    ),
)
STORED: tuple[tuple[bytes, Record], ...] = (
    (state_keys.CHAIN, Chain(CHAIN_ID, GENESIS.genesis_time_ms, "dllm")),
    (state_keys.APP_VERSION, AppVersion(3)),
    (state_keys.PARAMS, NETWORK_PARAMS),
    (state_keys.SUPPLY, Supply(12_000_000_000, 2, 1)),
    (state_keys.COMMUNITY_POOL, Pool(100)),
    (state_keys.FEE_POOL, Pool(9_000)),
    (state_keys.account(ACCOUNT), Account(4_999_000_000, 9)),
    (state_keys.chat_key(ACCOUNT), ChatKey(b"\x66" * 32, 2_000_000)),
    (state_keys.MODELS, ModelSet(("guide-1",))),
    (state_keys.model("guide-1"), ModelRecord(EARNER, MANIFEST, 1_000_000_000, 2)),
    (
        state_keys.provider(PROVIDER_ID),
        Provider(
            EARNER,
            address_of(OPERATOR.public_key),
            SERVICE.public_key,
            b"\x88" * 32,
            ("ws://127.0.0.1:9000",),
            "eu",
            100_000_000,
            (Unbonding(6, 1_701_814_400_000),),
            12,
            0,
            (RetiredKey(b"\x77" * 32, 1_701_814_300_000),),
        ),
    ),
    (state_keys.providers_of(EARNER), ProviderSet((PROVIDER_ID,))),
    (state_keys.offer("guide-1", PROVIDER_ID), Offer(PROVIDER_ID, "guide-1", 0, 4, PRICES, 4, 1)),
    (state_keys.holding("guide-1", PROVIDER_ID), Holding(PROVIDER_ID, "guide-1", 14_000, 4, 0, 4, 10)),
    (state_keys.live_holders("guide-1"), ProviderSet((PROVIDER_ID,))),
    (state_keys.holder_list("guide-1", 12), HOLDERS),
    (state_keys.live_offers("guide-1"), ProviderSet((PROVIDER_ID,))),
    (state_keys.offers_of(PROVIDER_ID), ModelSet(("guide-1",))),
    (
        state_keys.latest_offer_book("guide-1"),
        HEAD,
    ),
    (
        state_keys.offer_book("guide-1", 12),
        replace(HEAD, stale=0),
    ),
    (state_keys.offer_list("guide-1", 12), BOOK),
    (state_keys.offer_list("guide-1", 13), SLICED_BOOK),
    (state_keys.route(SESSION_ID), ROUTE),
    (state_keys.route(SLICED_SESSION_ID), SLICED_ROUTE),
    (
        state_keys.session(SESSION_ID),
        Session(
            ACCOUNT,
            "guide-1",
            SESSION_KEY.public_key,
            route_hash(ROUTE),
            1_000_000,
            1_477,
            2,
            3,
            (LEG,),
            b"\x33" * 32,
            12,
            1_700_000_060_000,
            100_000,
            1,
        ),
    ),
    (
        state_keys.validator(address_of(OPERATOR.public_key)),
        ValidatorRecord(
            EARNER,
            OPERATOR.public_key,
            1_000_000_000,
            (StakeUnbonding(500_000_000, 1_701_814_400_000, 41),),
            1,
        ),
    ),
    (state_keys.CANDIDATES, CandidateList((Candidate(address_of(OPERATOR.public_key), 1_000_000_000),))),
    (state_keys.VALIDATORS, SeatedValidators((SeatedValidator(OPERATOR.public_key, 1_000),))),
    (state_keys.slashed(PROVIDER_ID, SESSION_ID, 3), Slash(ACCOUNT, 50_000_000)),
    (state_keys.reputation(PROVIDER_ID, "guide-1"), Reputation(62_259, 3_277, 12)),
    (state_keys.rater_quota(PROVIDER_ID, "guide-1", ACCOUNT), RaterQuota(12, 1)),
)


def examples() -> dict[str, object]:
    """Everything in `formats.json`."""
    identities = {
        "account address": ACCOUNT.hex(),
        "account address, bech32": encode_address("dllm", ACCOUNT),
        "provider id": PROVIDER_ID.hex(),
        "vocabulary hash": vocabulary_hash(VOCABULARY).hex(),
        "manifest hash": manifest_hash(MANIFEST).hex(),
        "genesis hash": genesis_hash(GENESIS).hex(),
        "chain id": CHAIN_ID,
        "offer book hash": book_hash(BOOK).hex(),
        "holder book hash": holders_hash(HOLDERS).hex(),
        "session id": SESSION_ID.hex(),
        "route hash": route_hash(ROUTE).hex() if ROUTE else "",
        "transaction hash": transaction_hash(TRANSACTION.encode()).hex(),
        "publisher fingerprint": fingerprint(OPERATOR.public_key),
    }
    return {
        "description": "Ed25519 seeds are 32 times the byte 1 (client), 2 (owner), 3 (operator), 4 (service key), "
        "5 (session key). Bytes are hex.",
        "identities": identities,
        "actions": [{"type": type(one).__name__, "bytes": one.encode().hex()} for one in ACTIONS],
        "transaction": TRANSACTION.encode().hex(),
        "genesis": GENESIS.encode().hex(),
        "signed bundle": BUNDLE.encode().hex(),
        "vocabulary": VOCABULARY.encode().hex(),
        "signed voucher": VOUCHER.encode().hex(),
        "signed ack": ACK.encode().hex(),
        "state": [
            {"key": key.decode(), "type": type(one).__name__, "bytes": one.encode().hex()}
            for key, one in STORED
        ],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(examples(), indent=1, ensure_ascii=False) + "\n", "utf-8")
