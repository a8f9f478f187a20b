"""Responses, byte for byte against the wire format."""

from __future__ import annotations

from dllm_protocol.protobuf import read_fields
from dllm_protocol.results import Event, EventAttribute, ExecTxResult
from full_node.consensus.abci import responses
from full_node.consensus.abci.responses import ProposalStatus, encode_response
from full_node.consensus.abci.types import ValidatorPower
from full_node.state.snapshots import ApplyResult, OfferResult, Snapshot


def test_flush_echo_and_a_fault_are_as_cometbft_knows_them() -> None:
    assert encode_response(responses.Flush()).hex() == "021a00"
    assert encode_response(responses.Echo("hi")).hex() == "0612040a026869"
    assert encode_response(responses.Fault("no")).hex() == "060a040a026e6f"


def test_a_finalised_block_has_results_updates_parameters_and_root_in_order() -> None:
    event = Event("fee", (EventAttribute("account", "ab"), EventAttribute("quiet", "x", index=False)))
    answer = responses.FinalizeBlock(
        results=(ExecTxResult(code=3, log="no", gas_wanted=7, gas_used=7, codespace="dllm"), ExecTxResult()),
        app_hash=b"r" * 32,
        events=(event,),
        validator_updates=(ValidatorPower(b"k" * 32, 0),),
        app_version=2,
    )
    fields = [(number, value) for number, _, value in read_fields(answer.encode())]
    assert [number for number, _ in fields] == [1, 2, 2, 3, 4, 5]
    assert fields[0][1] == bytes.fromhex("0a03666565") + bytes.fromhex(
        "120f0a076163636f756e741202616218 01".replace(" ", "")
    ) + bytes.fromhex("120a0a0571756965741201 78".replace(" ", ""))
    assert fields[1][1] == bytes.fromhex("0803") + b"\x1a\x02no" + bytes.fromhex("28073007") + b"\x42\x04dllm"
    assert fields[2][1] == b""
    assert fields[3][1] == b"\x0a\x22\x0a\x20" + b"k" * 32
    assert fields[4][1] == bytes.fromhex("22020802")
    assert fields[5][1] == b"r" * 32


def test_a_query_answer_carries_its_proof_operation() -> None:
    answer = responses.Query(key=b"k", value=b"v", proof_type="ics23:jmt", proof=b"p", height=9)
    assert answer.encode().hex() == (
        "32016b" + "3a0176" + "42130a110a0969637332333a6a6d7412016b1a0170".replace(" ", "") + "4809"
    )


def test_snapshot_answers_have_abcis_numbers() -> None:
    snapshot = Snapshot(5, 1, 2, b"h", b"m")
    assert responses.ListSnapshots((snapshot,)).encode().hex() == "0a0c080510011802220168 2a016d".replace(
        " ", ""
    )
    assert responses.OfferSnapshot(OfferResult.REJECT_FORMAT).encode().hex() == "0804"
    again = responses.ApplySnapshotChunk(ApplyResult.RETRY, (1, 300), ("peer",))
    assert again.encode().hex() == "08031203" + "01ac02" + "1a0470656572"


def test_judgements_are_never_unknown() -> None:
    for status in ProposalStatus:
        assert responses.ProcessProposal(status).encode() == bytes((8, status))
        assert responses.VerifyVoteExtension(status).encode() == bytes((8, status))
    assert responses.ExtendVote().encode() == b""
    assert responses.Commit(0).encode() == b""
    assert responses.Commit(12).encode().hex() == "180c"
