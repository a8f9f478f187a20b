"""A receipt holds to the last byte, offline, and says whether its header is one that we verified."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_chat.cli.receipt import verify
from dllm_chat.paths import find_paths, write_private
from dllm_chat.session.networks import BUNDLE
from dllm_chat.session.receipts import ReceiptRefused, check_receipt, cost_between
from dllm_protocol.bundle import NetworkBundle, sign_bundle
from dllm_protocol.errors import MalformedBytes, VerificationFailed
from dllm_protocol.receipt import BADGE_NETWORK
from dllm_protocol.units import format_dllm
from dllm_protocol.voucher import sign_ack
from tests.dllm_chat.cli.conftest import Ran
from tests.dllm_chat.cli.receipt_maker import Made, make_receipt, resigned
from tests.dllm_protocol.test_bundle import make_bundle
from tests.full_node.state_machine.world import provider_id, signer

Dllm = Callable[..., Ran]


@pytest.fixture(scope="module")
def made() -> Made:
    return make_receipt()


@pytest.fixture
def file(made: Made, tmp_path: Path) -> Path:
    path = tmp_path / "one.receipt"
    path.write_bytes(made.receipt.encode())
    return path


def test_a_receipt_of_a_verified_header_is_anchored(
    dllm: Dllm, made: Made, file: Path, tmp_home: Path
) -> None:
    made.trust(tmp_home, 2)
    ran = dllm("receipt", "verify", file, "--json")
    assert ran.code == 0
    assert (ran.data["verdict"], ran.data["anchored"], ran.data["consistent"]) == ("anchored", True, True)
    assert ran.data["header"] == {"height": 2, "hash": made.header.hash().hex().upper()}
    assert ran.data["cost_udllm"] == made.receipt.body.cost_udllm > 0
    assert sum(one["paid_udllm"] for one in ran.data["owners"]) == (
        made.receipt.body.voucher_after.voucher.payments_udllm
    )


def test_the_header_above_anchors_it_by_its_hash(dllm: Dllm, made: Made, file: Path, tmp_home: Path) -> None:
    made.trust(tmp_home, 3)
    assert dllm("receipt", "verify", file, "--json").data["anchored"] is True


def test_without_a_verified_header_it_is_consistent_and_says_that_it_is_not_anchored(
    dllm: Dllm, file: Path, made: Made, tmp_home: Path
) -> None:
    ran = dllm("receipt", "verify", file, "--json")
    assert (ran.code, ran.data["verdict"], ran.data["anchored"]) == (0, "consistent but not anchored", False)
    made.trust(tmp_home, 1)
    said = dllm("receipt", "verify", file)
    assert (said.code, "consistent but not anchored" in said.out) == (0, True)


def test_another_header_at_that_height_is_a_forgery(
    dllm: Dllm, made: Made, file: Path, tmp_home: Path
) -> None:
    fork = make_receipt()
    for height in (4, 3, 2):
        fork.chain.blocks.pop(height, None)
    fork.chain.add([b"another transaction"])
    fork.trust(tmp_home, 2)
    ran = dllm("receipt", "verify", file, "--json")
    assert (ran.code, ran.error["code"]) == (8, "E_RECEIPT")
    assert made.header.hash().hex() in ran.error["message"]


def test_every_changed_byte_is_refused(made: Made, tmp_home: Path, tmp_path: Path) -> None:
    whole = made.receipt.encode()
    path = tmp_path / "changed.receipt"
    made.trust(tmp_home, 2)
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises((VerificationFailed, MalformedBytes)) as refused:
            asyncio.run(verify(str(path)))  # type: ignore[arg-type]  # an async command, typed as either kind
        assert refused.value.exit_code == 8, position


@pytest.mark.parametrize("length", [0, 1, 63, -1])
def test_a_cut_receipt_is_refused(dllm: Dllm, made: Made, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.receipt"
    path.write_bytes(made.receipt.encode()[:length])
    ran = dllm("receipt", "verify", path, "--json")
    assert (ran.code, ran.error["code"]) == (8, "E_RECEIPT")


@pytest.mark.parametrize("garbage", [b"\x00" * 100, b"%PDF-1.7\n", b"\xff" * 5000, b"{}"])
def test_garbage_is_refused(dllm: Dllm, tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(garbage)
    assert dllm("receipt", "verify", path, "--json").code == 8


def test_more_bytes_than_were_written_are_refused(dllm: Dllm, made: Made, tmp_path: Path) -> None:
    path = tmp_path / "long.receipt"
    path.write_bytes(made.receipt.encode() + b"\x00")
    assert dllm("receipt", "verify", path, "--json").code == 8


def test_a_missing_file_is_code_6(dllm: Dllm, tmp_path: Path) -> None:
    for name in (tmp_path / "none.receipt", tmp_path, Path("none"), Path("last")):
        assert dllm("receipt", "verify", name, "--json").code == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cost_udllm": 1}, "cost"),
        ({"proof_height": 7}, "height"),
        ({"chain_id": "another-00000000"}, "chain"),
    ],
)
def test_a_lie_of_the_asker_is_refused_although_its_key_signed(
    dllm: Dllm, made: Made, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    path = tmp_path / "lie.receipt"
    path.write_bytes(resigned(made, **changes).encode())
    ran = dllm("receipt", "verify", path, "--json")
    assert ran.code == 8
    assert words in ran.error["message"]


def test_an_answer_costs_nothing_where_the_vouchers_after_it_come_to_less(made: Made) -> None:
    # A leg that failed is taken back to what it acknowledged; a cost is never below nothing.
    body = made.receipt.body
    assert body.voucher_before is not None
    before, after = body.voucher_before.voucher, body.voucher_after.voucher
    assert cost_between(before, after, 100_000) == body.cost_udllm
    assert cost_between(after, before, 100_000) == 0
    turned = resigned(
        made, voucher_before=body.voucher_after, voucher_after=body.voucher_before, cost_udllm=0
    )
    with pytest.raises(ReceiptRefused, match="voucher 2 before the answer"):
        check_receipt(turned)


def test_an_ack_of_another_amount_is_refused(made: Made) -> None:
    (signed,) = made.receipt.body.acks
    served = made.receipt.body.served[0].provider
    owner = next(name for name in ("bob", "carol") if provider_id(name) == served)
    other = sign_ack(signer(f"{owner}'s service"), replace(signed.ack, cumulative_udllm=1))
    with pytest.raises(ReceiptRefused, match="ack's amount"):
        check_receipt(resigned(made, acks=(other,)))


def test_listed_receipts_are_found_by_name_and_damaged_ones_are_named(
    dllm: Dllm, made: Made, tmp_home: Path
) -> None:
    folder = tmp_home / "data" / "receipts"
    folder.mkdir(parents=True)
    (folder / "abc-000002.receipt").write_bytes(made.receipt.encode())
    (folder / "bad-000001.receipt").write_bytes(b"\x01")
    found = {one["name"]: one for one in dllm("receipt", "list", "--json").data["receipts"]}
    assert found["abc-000002"]["cost_udllm"] == made.receipt.body.cost_udllm
    assert "damaged" in found["bad-000001"]["problem"]
    assert dllm("receipt", "verify", "abc-000002", "--json").code == 0
    shown = dllm("receipt", "show", "abc-000002", "--json").data
    assert shown["tokens"] == {"prompt": 12, "completion": 60}
    assert shown["providers"][0]["address"].startswith("localprov1")


def test_people_read_amounts_in_dllm_and_a_leg_a_line(dllm: Dllm, made: Made, file: Path) -> None:
    data = dllm("receipt", "show", file, "--json").data
    shown = dllm("receipt", "show", file).out
    lines = {line.partition("  ")[0]: line for line in shown.splitlines()}
    assert lines["cost"].endswith(f"{format_dllm(data['cost_udllm'])} DLLM + 0.000065 fees")
    (provider,), (leg,) = data["providers"], data["legs"]
    assert lines["providers"].endswith(f"{provider['address']} layers 0:4")
    assert lines["legs"].endswith(
        f"{leg['provider']} stage: 160 kept rows, {format_dllm(leg['owed_udllm'])} DLLM to {leg['owner']}"
    )
    assert "note" not in lines and "udllm" not in shown
    verified = dllm("receipt", "verify", file).out
    assert "udllm" not in verified and f"{format_dllm(leg['owed_udllm'])} DLLM" in verified


def test_a_receipt_without_transactions_has_no_line_for_them(dllm: Dllm, made: Made, tmp_path: Path) -> None:
    path = tmp_path / "second.receipt"
    path.write_bytes(resigned(made, transactions=(), note="later").encode())
    shown = dllm("receipt", "show", path).out
    assert "transactions" not in shown and "note " in shown
    assert dllm("receipt", "show", path, "--json").data["transactions"] == []


def test_a_network_receipt_shows_network_addresses(dllm: Dllm, made: Made, tmp_path: Path) -> None:
    path = tmp_path / "network.receipt"
    path.write_bytes(resigned(made, badge=BADGE_NETWORK).encode())
    data = dllm("receipt", "verify", path, "--json").data
    assert data["badge"] == "NETWORK"
    assert data["providers"][0]["address"].startswith("dllmprov1")


def test_a_receipt_of_a_joined_network_shows_its_addresses(dllm: Dllm, made: Made, tmp_path: Path) -> None:
    receipt = resigned(made, badge=BADGE_NETWORK)
    genesis = replace(make_bundle().genesis, address_prefix="tdllm")
    bundle = NetworkBundle(1, genesis, 1, bytes(32), ("ws://127.0.0.1:1/websocket",), (), (), "")
    kept = find_paths().networks / receipt.body.chain_id / BUNDLE
    write_private(kept, sign_bundle(signer("publisher"), bundle).encode())
    path = tmp_path / "network.receipt"
    path.write_bytes(receipt.encode())
    data = dllm("receipt", "verify", path, "--json").data
    assert data["providers"][0]["address"].startswith("tdllmprov1")
    assert data["owners"][0]["owner"].startswith("tdllm1")
