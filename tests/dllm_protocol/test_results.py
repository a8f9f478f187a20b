"""Results of transactions: what is hashed and what is not."""

from __future__ import annotations

from hashlib import sha256

from dllm_protocol.consensus_params import ConsensusParams, HashedParams
from dllm_protocol.results import Event, ExecTxResult, last_results_hash


def test_four_fields_are_hashed() -> None:
    full = ExecTxResult(5, b"\x01", "log", "info", 300, -1, (Event("e"),), "space")
    assert full.encode_hashed().hex() == "0805" + "120101" + "28ac02" + "30ffffffffffffffffff01"
    bare = ExecTxResult(code=5, data=b"\x01", gas_wanted=300, gas_used=-1)
    assert last_results_hash([full]) == last_results_hash([bare])
    assert ExecTxResult().encode_hashed() == b""


def test_no_results_hash_to_the_hash_of_nothing() -> None:
    assert last_results_hash([]) == sha256(b"").digest()
    assert last_results_hash([ExecTxResult()]) == sha256(b"\x00").digest()


def test_cometbft_s_default_parameters_hash_to_the_well_known_value() -> None:
    known = "048091BC7DDC283F77BFBF91D73C44DA58C3DF8A9CBC867405D8B7F3DAADA22F"
    assert HashedParams().hash().hex().upper() == known
    assert ConsensusParams().hash().hex().upper() == known
    assert HashedParams(block_max_bytes=1).hash().hex().upper() != known
    assert ConsensusParams().to_json()["block"] == {"max_bytes": "22020096", "max_gas": "-1"}
