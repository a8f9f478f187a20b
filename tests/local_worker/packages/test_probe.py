"""A probe is recorded block by block, is what the whole model computes, and is read back for any chunk."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import gguf
import numpy as np
import pytest

from dllm_protocol.errors import DllmError
from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_manifest import PIECE_PROBE, Manifest, Piece, piece_root, probe_of
from dllm_protocol.model_package.chunk import pieces_of_chunk
from dllm_protocol.model_package.errors import LayersRefused, PieceRefused
from dllm_protocol.model_package.probe import PROBE_LOGITS, PROBE_ROWS, probe_tokens
from full_node.state_machine.models.rules import check_manifest
from local_worker.engine.errors import ModelRefused
from local_worker.engine.llama import LlamaModel
from local_worker.engine.messages import Hidden, Logits
from local_worker.engine.rows import Rows
from local_worker.packages import disk
from local_worker.packages.errors import DiskFull, PackageNotFound
from local_worker.packages.package import load_package, piece_path, verify_piece
from local_worker.packages.packing import pack
from local_worker.packages.probe_piece import Probe, read_probe, require_short_side
from tests.local_worker.packages.chains import TERMS, load, packed, workshop
from tests.local_worker.packages.test_packing import MEASURED, left_in, python
from tests.local_worker.packages.tiny_models import SHAPES, VOCABULARY, Shape, write_model

Packed = tuple[Path, Path, Manifest]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Packed]:
    """A model's file, its package with a probe, and the manifest; each made once."""
    made: dict[str, Packed] = {}

    def get(name: str) -> Packed:
        if name not in made:
            folder = tmp_path_factory.mktemp("probe")
            model = write_model(folder / "model.gguf", SHAPES[name])
            made[name] = (model, folder / "package", packed(model, folder / "package", with_probe=True))
        return made[name]

    return get


def read(made: Packed, first: int, end: int) -> Probe:
    probe = read_probe(made[1], made[2], first, end, context_rows=256)
    assert probe is not None
    return probe


def answer(model: LlamaModel, inputs: Hidden) -> Logits:
    model.truncate(0, 0)
    return np.array(model.decode([Rows(0, 0, inputs, len(inputs))])[0])


@pytest.mark.parametrize("name", ["llama", "qwen2, tied", "gemma2", "llama, experts"])
def test_a_probe_is_what_the_whole_model_computes(
    packages: Callable[[str], Packed], name: str, tmp_path: Path
) -> None:
    made = packages(name)
    layers = SHAPES[name].layers
    tokens = np.array(probe_tokens(VOCABULARY), np.int32)
    whole = load(made[0])
    logits = answer(whole, tokens)
    whole.close()
    for (ids, values), row in zip(read(made, 0, layers).logits, logits, strict=True):
        assert ids == np.argsort(-row, kind="stable")[:PROBE_LOGITS].tolist()
        assert values == row[ids].tolist()
    with workshop(made[0], tmp_path) as shop:
        for end in range(1, layers):
            leaving = answer(shop.chain((0, end, layers))[0], tokens)
            for probe in (read(made, 0, end), read(made, end - 1, end)):
                assert probe.leaving is not None and probe.leaving.tobytes() == leaving.tobytes()
            entering = read(made, end, layers).entering
            assert entering is not None and entering.tobytes() == leaving.tobytes()


def test_what_goes_in_and_what_comes_out_by_the_chunk(packages: Callable[[str], Packed]) -> None:
    made = packages("llama")
    for first, end in itertools.combinations(range(5), 2):
        probe = read(made, first, end)
        assert (probe.first, probe.end, probe.layers, probe.is_routed) == (first, end, 4, False)
        assert (probe.entering is None, probe.leaving is None) == (first == 0, end == 4)
        assert len(probe.logits) == (PROBE_ROWS if end == 4 else 0)
    assert read(packages("llama, experts"), 1, 2).is_routed
    with pytest.raises(LayersRefused):
        read(made, 2, 2)


def test_a_package_with_a_probe_is_one_that_the_registry_takes(packages: Callable[[str], Packed]) -> None:
    _, package, manifest = packages("llama")
    assert manifest == load_package(package)
    check_manifest(manifest)
    piece = probe_of(manifest)
    assert piece is not None and (manifest.version, manifest.pieces[-1]) == (2, piece)
    assert left_in(package) == ["manifest", "pieces"]
    assert len(list((package / "pieces").iterdir())) == len(manifest.pieces)
    for one in manifest.pieces:
        verify_piece(package, one)
    assert (PIECE_PROBE, 0) not in pieces_of_chunk(4, 0, 4, is_tied=False)
    tensors = {one.name for one in gguf.GGUFReader(piece_path(package, piece)).tensors}
    assert tensors == {*(f"probe.hidden.{n}" for n in (1, 2, 3)), "probe.logits", "probe.logit_ids"}


def test_a_package_without_a_probe_is_the_same_but_for_it(
    packages: Callable[[str], Packed], tmp_path: Path
) -> None:
    model, _, with_probe = packages("llama")
    without = packed(model, tmp_path / "package", with_probe=False)
    assert without == replace(with_probe, version=1, pieces=with_probe.pieces[:-1])
    assert read_probe(tmp_path / "package", without, 0, 2, context_rows=256) is None


def test_progress_is_told_for_every_block(packages: Callable[[str], Packed], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    pack(packages("llama")[0], tmp_path / "package", TERMS, lambda *one: seen.append(one))
    assert seen[7:] == [(f"probe of block {n}", n + 1, 4) for n in range(4)]


def test_a_model_of_one_block_has_logits_only(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf", Shape("one", "llama", layers=1))
    made = (model, tmp_path / "package", packed(model, tmp_path / "package", with_probe=True))
    probe = read(made, 0, 1)
    assert (probe.entering, probe.leaving, len(probe.logits)) == (None, None, PROBE_ROWS)


def test_a_model_with_sides_has_a_probe_for_each(tmp_path: Path) -> None:
    def middle(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_orig_ctx_len(256)
        writer.add_rope_scaling_attn_factors(1.19)
        writer.add_sliding_window(32)

    shape = replace(SHAPES["phi3, long"], more=middle, layers=2)
    model = write_model(tmp_path / "model.gguf", shape)
    manifest = packed(model, tmp_path / "package", with_probe=True)
    sides = [
        read_probe(tmp_path / "package", manifest, 0, 1, context_rows=context_rows)
        for context_rows in (100, 256, 257, 8192)
    ]
    rows = [one.leaving.tobytes() for one in sides if one is not None and one.leaving is not None]
    assert len(rows) == 4
    assert rows[0] == rows[1] != rows[2] == rows[3]
    for context_rows in (100, 256):
        require_short_side(tmp_path / "package", manifest, 0, 1, context_rows=context_rows)
    with pytest.raises(LayersRefused, match=r"257 rows .* up to 256") as refused:
        require_short_side(tmp_path / "package", manifest, 0, 1, context_rows=257)
    assert "--context 256" in refused.value.hint
    require_short_side(tmp_path / "package", manifest, 0, 2, context_rows=8192)  # whoever has all may choose


# --- what goes wrong


def test_a_block_that_llama_cpp_does_not_run(tmp_path: Path) -> None:
    """Its numbers are more than hidden states may have: the packer's engine refuses to hand them on."""
    model = tmp_path / "model.gguf"
    data = bytearray(write_model(model, SHAPES["llama"]).read_bytes())
    with model.open("rb") as stream:
        head = read_head(stream.read, len(data))
    tensor = next(one for one in head.tensors if one.name == "blk.1.ffn_down.weight")
    start = head.data_start + tensor.offset
    values = np.frombuffer(bytes(data[start : start + tensor.size_bytes]), np.float32) * np.float32(1e20)
    data[start : start + tensor.size_bytes] = values.tobytes()
    model.write_bytes(data)
    with pytest.raises(ModelRefused, match=r"llama\.cpp does not run block 1 of the model") as caught:
        packed(model, tmp_path / "package", with_probe=True)
    assert "--no-probe" in caught.value.hint
    assert left_in(tmp_path) == []
    packed(model, tmp_path / "package", with_probe=False)


def test_room_for_a_block_is_asked_for_before_anything_is_written(
    tmp_path: Path, packages: Callable[[str], Packed], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, manifest = packages("llama")
    needed = sum(piece.size_bytes for piece in manifest.pieces)
    usage = disk.shutil.disk_usage(tmp_path)._replace(free=needed + disk.SPARE_BYTES)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFull):
        pack(model, tmp_path / "package", TERMS, lambda *_: pytest.fail("a piece was begun"))
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda path: path.unlink(), PackageNotFound, "piece probe cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"), PieceRefused, "piece probe has root"),
        (lambda path: path.write_bytes(path.read_bytes()[:-32]), PieceRefused, "piece probe has .* bytes"),
    ],
)
def test_a_damaged_probe_is_told(
    tmp_path: Path,
    packages: Callable[[str], Packed],
    change: Callable[[Path], object],
    error: type[DllmError],
    words: str,
) -> None:
    _, package, manifest = packages("llama")
    mine = tmp_path / "mine"
    (mine / "pieces").mkdir(parents=True)
    for piece in manifest.pieces:
        (mine / "pieces" / piece.root.hex()).hardlink_to(piece_path(package, piece))
    path = piece_path(mine, manifest.pieces[-1])
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    change(path)
    with pytest.raises(error, match=words):
        read_probe(mine, manifest, 0, 2, context_rows=256)


def forged(made: Packed, folder: Path, change: Callable[[bytearray, dict[str, int]], None]) -> Packed:
    """The same package with other numbers in its probe, and a manifest that names them."""
    _, package, manifest = made
    data = bytearray(piece_path(package, manifest.pieces[-1]).read_bytes())
    head = read_head(BytesIO(data).read, len(data))
    change(data, {one.name: head.data_start + one.offset for one in head.tensors})
    piece = Piece(PIECE_PROBE, 0, len(data), piece_root([bytes(data)]))
    forged_manifest = replace(manifest, pieces=(*manifest.pieces[:-1], piece))
    (folder / "pieces").mkdir(parents=True)
    for one in manifest.pieces[:-1]:
        (folder / "pieces" / one.root.hex()).hardlink_to(piece_path(package, one))
    piece_path(folder, piece).write_bytes(data)
    return made[0], folder, forged_manifest


def _put(name: str, values: np.ndarray) -> Callable[[bytearray, dict[str, int]], None]:
    def change(data: bytearray, places: dict[str, int]) -> None:
        data[places[name] : places[name] + values.nbytes] = values.tobytes()

    return change


@pytest.mark.parametrize(
    ("change", "first", "end", "words"),
    [
        (_put("probe.hidden.1", np.array([np.nan], np.float32)), 1, 2, r"probe\.hidden\.1 has what is no number"),
        (_put("probe.hidden.2", np.array([1e16], np.float32)), 1, 2, r"probe\.hidden\.2 has what is no number"),
        (_put("probe.logits", np.array([-1e6], np.float32)), 3, 4, "descending"),
        (_put("probe.logits", np.array([np.inf], np.float32)), 3, 4, "descending"),
        (_put("probe.logit_ids", np.array([-1], np.int32)), 3, 4, "descending"),
        (_put("probe.logit_ids", np.array([3, 3], np.int32)), 3, 4, "twice"),
    ],
)  # fmt: skip
def test_a_probe_with_numbers_that_none_has_is_refused(
    tmp_path: Path,
    packages: Callable[[str], Packed],
    change: Callable[[bytearray, dict[str, int]], None],
    first: int,
    end: int,
    words: str,
) -> None:
    made = forged(packages("llama"), tmp_path / "forged", change)
    with pytest.raises(PieceRefused, match=words):
        read(made, first, end)


def test_a_probe_of_another_model_is_refused(tmp_path: Path, packages: Callable[[str], Packed]) -> None:
    _, package, manifest = packages("llama")
    _, other_package, other = packages("llama, experts")
    pieces = (*manifest.pieces[:-1], other.pieces[-1])
    (tmp_path / "pieces").mkdir()
    for piece, source in [(manifest.pieces[0], package), (other.pieces[-1], other_package)]:
        piece_path(tmp_path, piece).hardlink_to(piece_path(source, piece))
    with pytest.raises(PieceRefused, match="the probe has 3 layers, the manifest 4"):
        read_probe(tmp_path, replace(manifest, pieces=pieces), 0, 2, context_rows=256)


# --- memory


def test_recording_does_not_hold_the_model(tmp_path: Path) -> None:
    """Twelve blocks of 4 MB take what two blocks take: the packer holds rows, never weights."""
    peaks = []
    for layers in (2, 12):
        shape = Shape("wide", "llama", layers=layers, n_ff=10_000, n_embd=32)
        model = write_model(tmp_path / f"{layers}.gguf", shape)
        source = MEASURED.replace(
            "packed(Path(sys.argv[1]), Path(sys.argv[2]))",
            "packed(Path(sys.argv[1]), Path(sys.argv[2]), with_probe=True)",
        )
        assert "with_probe" in source
        ran = python(source, model, tmp_path / f"{layers}.package")
        assert ran.returncode == 0, ran.stderr
        peaks.append(int(ran.stdout))
        assert probe_of(load_package(tmp_path / f"{layers}.package")) is not None
    small, large = peaks
    assert (tmp_path / "12.gguf").stat().st_size > (tmp_path / "2.gguf").stat().st_size + (36 << 20)
    assert large < min(small + (12 << 20), 300 << 20), peaks
