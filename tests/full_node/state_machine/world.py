"""A small chain in memory for tests: funded people, a model, providers, and blocks on demand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from dllm_protocol import state_keys
from dllm_protocol.actions import CloseSession, OpenSession, Rating, RegisterProvider, SetOffer
from dllm_protocol.address import address_of, provider_id_of
from dllm_protocol.assignment import leg_entries, leg_payees, session_id_of
from dllm_protocol.encoding import Record
from dllm_protocol.errors import TransactionRefused
from dllm_protocol.genesis import (
    GENESIS_VERSION,
    Genesis,
    GenesisAccount,
    GenesisModel,
    GenesisValidator,
    chain_id_of,
)
from dllm_protocol.holder_book import HolderBook
from dllm_protocol.model_manifest import (
    MANIFEST_VERSION,
    PIECE_BLOCK,
    PIECE_EMBEDDING,
    PIECE_FILE,
    PIECE_HEADER,
    PIECE_OUTPUT,
    Manifest,
    Piece,
)
from dllm_protocol.offer_book import OfferBook
from dllm_protocol.params import NETWORK_PARAMS, Params
from dllm_protocol.pricing import RowCounts, RowPrices, cost_of_rows
from dllm_protocol.records import Account, OfferBookHead, Pool, Provider, Route, SeatedValidators, Session
from dllm_protocol.results import ExecTxResult
from dllm_protocol.signing import SeedSigner
from dllm_protocol.transaction import Transaction, make_body, sign_transaction
from dllm_protocol.validator_set import Validator, ValidatorSet
from dllm_protocol.voucher import (
    FINAL_N,
    SignedAck,
    SignedVoucher,
    Voucher,
    VoucherLeg,
    WindowAck,
    sign_ack,
    sign_voucher,
)
from full_node.state_machine.application import Application, BlockOutcome, CheckResult
from full_node.state_machine.context import BlockContext, Misbehaviour
from full_node.state_machine.invariants import check_supply
from full_node.state_machine.state import Overlay, read

GENESIS_TIME_MS = 1_700_000_000_000
FUNDS_UDLLM = 10_000_000_000
STAKE_UDLLM = NETWORK_PARAMS.min_stake_udllm
MODEL = "guide-1"
LAYERS = 4
RESERVE = RowPrices(4_000, 40_000, 40_000, 4_000)
PRICES = RowPrices(1_000, 10_000, 10_000, 1_000)
FEE_UDLLM = 5_000
PARAMS: Params = replace(NETWORK_PARAMS, close_grace_ms=60_000, epoch_ms=10_000, unbonding_ms=2_000_000_000)
R = TypeVar("R", bound=Record)
PEOPLE = ("alice", "bob", "carol", "dave", "erin")


def signer(name: str) -> SeedSigner:
    """The key of a person, of a worker's operator, service or session: by name."""
    return SeedSigner(name.encode().ljust(32, b"."))


def address(name: str) -> bytes:
    """The address of a name's key."""
    return address_of(signer(name).public_key)


def provider_id(owner: str) -> bytes:
    """The provider that `World.provide` registers for an owner."""
    return provider_id_of(address(owner), address(f"{owner}'s operator"))


def make_manifest(name: str = MODEL, *, chunked: bool = False) -> Manifest:
    """A model in one file, or in pieces that can be served in slices."""
    kinds = [
        (PIECE_HEADER, 0),
        (PIECE_EMBEDDING, 0),
        *((PIECE_BLOCK, n) for n in range(LAYERS)),
        (PIECE_OUTPUT, 0),
    ]
    if not chunked:
        kinds = [(PIECE_FILE, 0)]
    return Manifest(
        version=MANIFEST_VERSION,
        name=name,
        architecture="llama",
        layers=LAYERS,
        context_rows=2048,
        vocabulary_hash=b"v" * 32,
        chat_template="plain",
        licence="Apache-2.0",
        reserve_prices=RESERVE,
        pieces=tuple(Piece(kind, index, 1_000_000, b"r" * 32) for kind, index in kinds),
    )


def make_genesis(params: Params = PARAMS, *, chunked: bool = False) -> Genesis:
    """Five funded people, one model of erin's, one validator of a staker's who owns nothing else."""
    accounts = sorted(address(name) for name in (*PEOPLE, "staker"))
    return Genesis(
        version=GENESIS_VERSION,
        name="test",
        genesis_time_ms=GENESIS_TIME_MS,
        address_prefix="local",
        params=params,
        accounts=tuple(
            GenesisAccount(one, STAKE_UDLLM if one == address("staker") else FUNDS_UDLLM) for one in accounts
        ),
        models=(GenesisModel(address("erin"), make_manifest(chunked=chunked)),),
        validators=(GenesisValidator(signer("validator").public_key, address("staker"), STAKE_UDLLM),),
        nonce=bytes(32),
    )


class MemoryReader:
    """A whole state in a dictionary."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def apply(self, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, value in changes:
            if value is None:
                del self.values[key]
            else:
                assert value
                self.values[key] = value


class World:
    """A chain in memory. Every block checks that no token appeared or vanished."""

    def __init__(self, params: Params = PARAMS, *, chunked: bool = False) -> None:
        self.genesis = make_genesis(params, chunked=chunked)
        self.chain_id = chain_id_of(self.genesis)
        self.reader = MemoryReader()
        self.app = Application(self.reader)
        self.height = 0
        self.time_ms = GENESIS_TIME_MS
        self.last: BlockOutcome | None = None
        self.reader.apply(self.app.init_chain(self.genesis).items())
        self.app.note_committed(0, self.time_ms * 1_000_000)
        first = (Validator(one.public_key, one.power) for one in self.genesis.validators)
        self.validators = ValidatorSet.genesis(first)

    # --- sending

    def sign(
        self,
        name: str,
        *actions: Record,
        key: str = "",
        sequence: int | None = None,
        fee_udllm: int = FEE_UDLLM,
        timeout_height: int = 0,
        chain_id: str = "",
    ) -> Transaction:
        """A transaction of a person's account, by its own key or another."""
        body = make_body(
            chain_id or self.chain_id,
            address(name),
            signer(key or name).public_key,
            self.account(name).sequence if sequence is None else sequence,
            actions,
            fee_udllm=fee_udllm,
            timeout_height=timeout_height,
        )
        return sign_transaction(signer(key or name), body)

    def check(self, transaction: Transaction) -> CheckResult:
        """What CheckTx says."""
        return self.app.check_tx(transaction.encode())

    def block(
        self,
        *transactions: Transaction | bytes,
        after_ms: int = 200,
        misbehaviour: tuple[Misbehaviour, ...] = (),
    ) -> BlockOutcome:
        """Make a block of transactions, commit it, and check the supply and the validator set."""
        self.height += 1
        self.time_ms += after_ms
        raws = [one if isinstance(one, bytes) else one.encode() for one in transactions]
        context = BlockContext(self.chain_id, self.height, self.time_ms * 1_000_000, misbehaviour)
        self.last = self.app.finalize_block(context, raws)
        self.reader.apply(self.last.changes.items())
        self.app.note_committed(self.height, self.time_ms * 1_000_000)
        check_supply(self.reader.values.items())
        self._check_validators(self.last)
        return self.last

    def _check_validators(self, outcome: BlockOutcome) -> None:
        """The updates are such that an engine takes them, and they lead to the set that the state says."""
        updates = [Validator(one.public_key, one.power) for one in outcome.validator_updates]
        self.validators = self.validators.with_updates(updates)
        said = self.record(state_keys.VALIDATORS, SeatedValidators).entries
        assert [(one.public_key, one.power) for one in said] == [
            (one.public_key, one.voting_power) for one in self.validators.validators
        ]

    def send(self, name: str, *actions: Record, key: str = "", after_ms: int = 200) -> ExecTxResult:
        """One transaction in a block of its own."""
        return self.block(self.sign(name, *actions, key=key), after_ms=after_ms).results[0]

    def do(self, name: str, *actions: Record, key: str = "", after_ms: int = 200) -> ExecTxResult:
        """As `send`, and it must succeed."""
        result = self.send(name, *actions, key=key, after_ms=after_ms)
        assert result.code == 0, result.log
        return result

    # --- usual beginnings

    def provide(
        self,
        owner: str,
        prices: RowPrices = PRICES,
        *,
        model: str = MODEL,
        capacity_sessions: int = 4,
        layers: tuple[int, int] = (0, LAYERS),
    ) -> bytes:
        """Register an owner's provider, if it has none, and set its offer; return its id."""
        actions: list[Record] = []
        if self.reader.get(state_keys.provider(provider_id(owner))) is None:
            actions.append(self.registration(owner))
        actions.append(SetOffer(provider_id(owner), model, layers[0], layers[1], prices, capacity_sessions))
        self.do(owner, *actions)
        return provider_id(owner)

    def registration(self, owner: str, bond_udllm: int = 0) -> RegisterProvider:
        """What registers an owner's provider."""
        return RegisterProvider(
            operator=address(f"{owner}'s operator"),
            service_key=signer(f"{owner}'s service").public_key,
            sealing_key=b"x" * 32,
            endpoints=("ws://127.0.0.1:9000",),
            region="",
            bond_udllm=bond_udllm or PARAMS.provider_bond_udllm,
        )

    def opening(self, key: str, *, deposit_udllm: int = 1_000_000, **changes: object) -> OpenSession:
        """What opens a session with a session key."""
        action = OpenSession(MODEL, signer(key).public_key, RESERVE, (), deposit_udllm)
        return replace(action, **changes)  # type: ignore[arg-type]  # fields by name, of many types

    def open(self, name: str, key: str = "session 1", **changes: object) -> bytes:
        """Open a session; return its id."""
        result = self.do(name, self.opening(key, **changes))  # type: ignore[arg-type]  # as in opening
        assert result.data == session_id_of(address(name), signer(key).public_key)
        return result.data

    def voucher(
        self, session_id: bytes, n: int, rows: dict[bytes, RowCounts], key: str = "session 1"
    ) -> SignedVoucher:
        """A voucher for rows of the route's legs, right in every way."""
        entries = leg_entries(self.route(session_id))
        legs = tuple(
            VoucherLeg(
                provider,
                leg_payees(*entries[provider]),
                rows[provider],
                cost_of_rows(entries[provider][0].prices, rows[provider]),
            )
            for provider in sorted(rows)
        )
        route_hash = self.session(session_id).route_hash
        transcript = n.to_bytes(32, "big")
        return sign_voucher(signer(key), Voucher(self.chain_id, session_id, route_hash, n, legs, transcript))

    def ack(self, owner: str, voucher: Voucher, outputs: bytes = b"o" * 32) -> SignedAck:
        """An owner's provider's ack of a voucher."""
        provider = provider_id(owner)
        owed = {leg.provider: leg.cumulative_udllm for leg in voucher.legs}
        return sign_ack(
            signer(f"{owner}'s service"),
            WindowAck(
                self.chain_id,
                voucher.session,
                provider,
                voucher.n,
                voucher.transcript,
                outputs,
                owed.get(provider, 0),
            ),
        )

    def agreed(
        self,
        session_id: bytes,
        rows: dict[bytes, RowCounts],
        key: str = "session 1",
        ratings: tuple[Rating, ...] = (),
    ) -> CloseSession:
        """What closes a session at once: the final voucher with everybody's ack of it."""
        final = self.voucher(session_id, FINAL_N, rows, key)
        owners = {provider_id(owner): owner for owner in PEOPLE}
        route = sorted(leg_entries(self.route(session_id)))
        acks = tuple(self.ack(owners[provider], final.voucher) for provider in route)
        return CloseSession(session_id, final, acks, ratings)

    # --- looking

    def account(self, name: str) -> Account:
        """An account, empty if it never was."""
        return read(self.reader, state_keys.account(address(name)), Account) or Account(0, 0)

    def balance(self, name: str) -> int:
        """Spendable udllm."""
        return self.account(name).balance_udllm

    def pool(self, key: bytes = state_keys.COMMUNITY_POOL) -> int:
        """What a pool holds."""
        held = read(self.reader, key, Pool)
        return held.balance_udllm if held else 0

    def provider(self, owner: str) -> Provider:
        """An owner's provider."""
        return self.record(state_keys.provider(provider_id(owner)), Provider)

    def session(self, session_id: bytes) -> Session:
        """A session."""
        return self.record(state_keys.session(session_id), Session)

    def route(self, session_id: bytes) -> Route:
        """A session's route."""
        return self.record(state_keys.route(session_id), Route)

    def head(self, model: str = MODEL) -> OfferBookHead:
        """The newest book's proved record."""
        return self.record(state_keys.latest_offer_book(model), OfferBookHead)

    def book(self, model: str = MODEL) -> OfferBook:
        """The newest book."""
        return self.record(state_keys.offer_list(model, self.head(model).epoch), OfferBook)

    def holders(self, model: str = MODEL) -> HolderBook:
        return self.record(state_keys.holder_list(model, self.head(model).epoch), HolderBook)

    def record(self, key: bytes, record_type: type[R]) -> R:
        """A record that is there."""
        found = read(self.reader, key, record_type)
        assert found is not None, key
        return found

    def overlay(self) -> Overlay:
        """A scratch copy of the state to write on."""
        return Overlay(self.reader)


def kept(count: int) -> RowCounts:
    """So many rows that the client kept."""
    return RowCounts(0, count, 0, 0)


def refused(result: ExecTxResult | CheckResult, refusal: type[TransactionRefused], *words: object) -> None:
    """The transaction failed for this reason, and the log names what disagreed."""
    assert result.code == refusal.abci_code, result
    for word in words:
        shown = word.hex() if isinstance(word, bytes) else str(word)
        assert shown in result.log, (shown, result.log)
