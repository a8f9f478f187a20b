"""Packing: what comes out, what may stop it, and what that leaves behind."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_protocol.chat_templates import UnknownTemplate
from dllm_protocol.errors import UsageRefused
from dllm_protocol.gguf.errors import ModelFileDamaged, ModelFileTruncated, NotAModelFile
from dllm_protocol.gguf.head import Tensor, encode_head
from dllm_protocol.gguf.kinds import F32
from dllm_protocol.gguf.reading import read_head
from dllm_protocol.model_manifest import PIECE_BLOCK, PieceRoot, piece_root
from dllm_protocol.model_package.errors import ArchitectureRefused, ModelShapeRefused
from dllm_protocol.vocabulary import vocabulary_hash
from full_node.state_machine.models.rules import check_manifest
from local_worker.engine.errors import ModelRefused
from local_worker.engine.vocabulary_of import vocabulary_of
from local_worker.packages import disk
from local_worker.packages.errors import DiskFull, ModelChanged, OutputRefused
from local_worker.packages.package import load_package, piece_path, verify_piece
from local_worker.packages.packing import ManifestTerms, pack
from local_worker.vocabulary import canonical_vocabulary
from tests.fuzz.models import small_file
from tests.local_worker.packages.chains import TERMS, packed, quiet
from tests.local_worker.packages.splitting import split
from tests.local_worker.packages.tiny_models import SHAPES, VOCABULARY, write_model

SLACK_BYTES = 24 << 20
"""What one process may need more than another of the same work: allocators keep what they once had."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("packing") / "model.gguf", SHAPES["llama"])


def left_in(folder: Path) -> list[str]:
    """Names of what is in a folder beside models."""
    return sorted(one.name for one in folder.iterdir() if one.suffix != ".gguf")


async def test_a_package_says_what_the_model_is(tmp_path: Path, model: Path) -> None:
    package = tmp_path / "package"
    seen: list[tuple[str, int, int]] = []
    terms = ManifestTerms("tiny-1", TERMS.reserve_prices, None, "Apache-2.0")
    made = await asyncio.to_thread(
        lambda: pack(model, package, terms, lambda *one: seen.append(one), with_probe=False)
    )
    assert made == load_package(package)
    assert (made.name, made.architecture, made.layers, made.context_rows) == ("tiny-1", "llama", 4, 512)
    assert (made.chat_template, made.licence) == ("chatml", "Apache-2.0")
    words = canonical_vocabulary(await vocabulary_of(model, tmp_path / "log"))
    assert made.vocabulary_hash == vocabulary_hash(words)
    names = ["header", "embedding", "block 0", "block 1", "block 2", "block 3", "output"]
    assert seen == [(name, number, 7) for number, name in enumerate(names, start=1)]
    assert sorted(one.name for one in (package / "pieces").iterdir()) == sorted(
        piece.root.hex() for piece in made.pieces
    )
    for piece in made.pieces:
        verify_piece(package, piece)
        assert piece_root([piece_path(package, piece).read_bytes()]) == piece.root
    assert left_in(package) == ["manifest", "pieces"]
    check_manifest(made)  # the registry takes it
    assert package.stat().st_mode & 0o777 == 0o700


def test_every_weight_is_in_exactly_one_piece(tmp_path: Path, model: Path) -> None:
    manifest = packed(model, tmp_path / "package")
    found: dict[str, bytes] = {}
    for piece in manifest.pieces:
        path = piece_path(tmp_path / "package", piece)
        found |= {name: data for name, data in weights_of(path).items() if name not in found}
    assert found == weights_of(model)


def weights_of(path: Path) -> dict[str, bytes]:
    data = path.read_bytes()
    with path.open("rb") as stream:
        head = read_head(stream.read, len(data))
    return {one.name: data[head.data_start + one.offset :][: one.size_bytes] for one in head.tensors}


def test_pieces_do_not_depend_on_how_the_file_was_split(tmp_path: Path, model: Path) -> None:
    one = packed(model, tmp_path / "one")
    parts = split(model, tmp_path, 3)
    two = packed(parts[1], tmp_path / "two")
    assert one.pieces == two.pieces
    assert one == two


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda parts: parts[2].unlink(), UsageRefused, "cannot be read: No such file"),
        (lambda parts: parts[1].write_bytes(parts[2].read_bytes()), ModelShapeRefused, "is not part 2"),
        (lambda parts: parts[1].write_bytes(parts[1].read_bytes()[:-64]), ModelFileTruncated, "the tensors end"),
        (
            lambda parts: [one.rename(one.with_name(one.name.replace("of-00003", "of-00004"))) for one in parts[:1]],
            UsageRefused,
            "cannot be read",
        ),
    ],
)  # fmt: skip
def test_parts_that_do_not_belong_together(
    tmp_path: Path, model: Path, change: Callable[[list[Path]], object], error: type[Exception], words: str
) -> None:
    parts = split(model, tmp_path, 3)
    change(parts)
    with pytest.raises(error, match=words):
        packed(parts[0], tmp_path / "package")
    assert left_in(tmp_path) == []


def test_a_part_that_was_renamed_to_look_whole(tmp_path: Path, model: Path) -> None:
    alone = split(model, tmp_path, 3)[0].rename(tmp_path / "alone.gguf")
    with pytest.raises(ModelShapeRefused, match="says that its model has 3 files, by its name it has 1"):
        packed(alone, tmp_path / "package")


def test_a_tensor_in_two_parts(tmp_path: Path, model: Path) -> None:
    parts = split(model, tmp_path, 3, doubled="output_norm.weight")
    with pytest.raises(ModelFileDamaged, match=r"output_norm\.weight is in two"):
        packed(parts[0], tmp_path / "package")


@pytest.mark.parametrize("size", [0, 10, 4000, -1])
def test_a_file_that_is_cut(tmp_path: Path, model: Path, size: int) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:size])
    with pytest.raises((NotAModelFile, ModelFileTruncated)):
        packed(cut, tmp_path / "package")
    assert left_in(tmp_path) == []


def test_no_model_at_all(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path, words in (
        (tmp_path / "nothing.gguf", "No such file"),
        (tmp_path, "no ordinary file"),
        (tmp_path / "pipe.gguf", "no ordinary file"),
    ):
        with pytest.raises(UsageRefused, match=words):
            packed(path, tmp_path / "out" / "package")


def test_a_disk_that_does_not_give_the_model_back(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_descriptor: int, _count: int, _at: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", read)
    with pytest.raises(UsageRefused, match=r"model\.gguf cannot be read: Input/output error"):
        packed(model, tmp_path / "package")
    assert left_in(tmp_path) == []


def test_an_architecture_that_cannot_be_cut(tmp_path: Path, model: Path) -> None:
    data = model.read_bytes()
    other = tmp_path / "other.gguf"
    other.write_bytes(data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", 1))
    with pytest.raises(
        ArchitectureRefused, match="'mamba' cannot be cut into chunks: it keeps a recurrent state"
    ):
        packed(other, tmp_path / "package")
    assert left_in(tmp_path) == []


def test_a_vocabulary_that_llama_cpp_does_not_take(tmp_path: Path) -> None:
    """Right to the byte, as far as its head says; what the words mean only a tokenizer knows."""
    (tmp_path / "m.gguf").write_bytes(small_file())
    with pytest.raises(
        ModelRefused, match=r"the model's vocabulary: its header: not loaded: .*tokenizer\.ggml\.model"
    ):
        packed(tmp_path / "m.gguf", tmp_path / "package")
    assert left_in(tmp_path) == []


def test_a_template_that_nobody_knows(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UnknownTemplate):
        pack(model, tmp_path / "package", ManifestTerms("t", TERMS.reserve_prices, "jinja"), quiet)
    assert left_in(tmp_path) == []


def test_what_stands_there_is_not_touched(tmp_path: Path, model: Path) -> None:
    packed(model, tmp_path / "package")
    before = (tmp_path / "package" / "manifest").stat().st_mtime_ns
    with pytest.raises(OutputRefused, match="is there already"):
        packed(model, tmp_path / "package")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputRefused, match="is there already"):
        packed(model, tmp_path / "file")
    assert (tmp_path / "package" / "manifest").stat().st_mtime_ns == before
    assert left_in(tmp_path) == ["file", "package"]


def test_a_model_that_is_written_to_meanwhile(tmp_path: Path, model: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(model.read_bytes())

    def touch(_name: str, number: int, _count: int) -> None:
        if number == 5:
            os.utime(mine, ns=(1, 1))

    with pytest.raises(ModelChanged, match="was written to while it was read"):
        pack(mine, tmp_path / "package", TERMS, touch)
    assert left_in(tmp_path) == []


def test_a_model_that_gets_shorter_meanwhile(tmp_path: Path, model: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(model.read_bytes())
    with pytest.raises(ModelFileTruncated, match="ends inside tensor"):
        pack(mine, tmp_path / "package", TERMS, lambda *_: os.truncate(mine, 60_000))
    assert left_in(tmp_path) == []


# --- crashes

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.fuzz.models import small_file
from tests.local_worker.packages.chains import TERMS
from local_worker.packages.packing import pack
at = int(sys.argv[3])
def progress(name, number, count):
    if number == at:
        os.kill(os.getpid(), signal.SIGKILL)
pack(Path(sys.argv[1]), Path(sys.argv[2]), TERMS, progress)
"""


def python(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", source, *(str(one) for one in arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_a_killed_pack_leaves_nothing_that_looks_whole_and_is_cleared_away(
    tmp_path: Path, model: Path
) -> None:
    package = tmp_path / "package"
    for at in (1, 4, 7):
        assert python(KILLED, model, package, at).returncode == -9
        assert left_in(tmp_path) == [".package.packing"]
        assert not (tmp_path / ".package.packing" / "manifest").exists()
    manifest = packed(model, package)
    assert left_in(tmp_path) == ["package"]
    for piece in manifest.pieces:
        verify_piece(package, piece)


def test_two_packs_into_one_place(tmp_path: Path, model: Path) -> None:
    def second(_name: str, number: int, _count: int) -> None:
        if number == 3:
            with pytest.raises(OutputRefused, match="another pack is filling"):
                packed(model, tmp_path / "package")

    manifest = pack(model, tmp_path / "package", TERMS, second)
    assert load_package(tmp_path / "package") == manifest


# --- room

LIMITED = """
import re, resource, sys
from pathlib import Path
from tests.local_worker.packages.chains import packed
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    packed(Path(sys.argv[1]), Path(sys.argv[2]))
except Exception as error:
    print(error.code, error.message)
"""


def test_a_limit_that_is_reached_while_writing_is_named(tmp_path: Path, model: Path) -> None:
    ran = python(LIMITED, model, tmp_path / "package")
    assert ran.stdout.startswith("E_DISK_FULL no room was left while"), ran.stderr
    assert "File too large" in ran.stdout
    assert left_in(tmp_path) == []


def test_a_full_disk_is_named(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def write(descriptor: int, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > 50_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    real = os.write
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(DiskFull, match="No space left on device") as caught:
        packed(model, tmp_path / "package")
    assert "--out" in caught.value.hint
    assert left_in(tmp_path) == []


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = disk.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(DiskFull, match=r"\d+ bytes are to be written to .*, 100000 are free"):
        pack(model, tmp_path / "package", TERMS, lambda *_: pytest.fail("a piece was begun"))
    assert left_in(tmp_path) == []


# --- memory

MEASURED = """
import re, resource, sys
from pathlib import Path
from tests.local_worker.packages.chains import packed
packed(Path(sys.argv[1]), Path(sys.argv[2]))
if sys.platform == "linux":
    # ru_maxrss begins with what the process that started this one held.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def big_model(path: Path, template: Path, rows: int) -> int:
    """A sparse file of a model with two blocks of ``rows`` rows of 4096 bytes each; returns its size."""
    with template.open("rb") as stream:
        metadata = dict(read_head(stream.read, template.stat().st_size).metadata)
    metadata["llama.block_count"] = metadata["llama.attention.head_count_kv"]
    tensors = [Tensor("token_embd.weight", (32, VOCABULARY), F32), Tensor("output_norm.weight", (32,), F32)]
    for layer in range(2):
        tensors += [Tensor(f"blk.{layer}.attn_norm.weight", (32,), F32)]
        tensors += [Tensor(f"blk.{layer}.ffn_up.weight", (1024, rows), F32)]
    raw, head = encode_head(metadata, tensors)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(head.size_bytes)
    return head.size_bytes


def test_memory_does_not_grow_with_the_model(tmp_path: Path, model: Path) -> None:
    """A file of 256 MB takes what one of 2 MB takes: nothing of a tensor but one portion is ever held."""
    peaks = []
    for rows in (256, 32_768):
        size = big_model(tmp_path / f"{rows}.gguf", model, rows)
        assert size > 2 * rows * 4096
        ran = python(MEASURED, tmp_path / f"{rows}.gguf", tmp_path / f"{rows}.package")
        assert ran.returncode == 0, ran.stderr
        peaks.append(int(ran.stdout))
    small, large = peaks
    assert large < min(small + SLACK_BYTES, 300 << 20), peaks
    manifest = load_package(tmp_path / "32768.package")
    assert max(piece.size_bytes for piece in manifest.pieces if piece.kind == PIECE_BLOCK) > 128 << 20


def test_a_root_is_computed_with_one_hash_a_level() -> None:
    root = PieceRoot()
    for _ in range(1000):
        root.update(bytes(16384 * 3))
    assert len(root._levels) == 12 and root._rest == b""
