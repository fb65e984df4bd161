"""Texts in files: what another process goes on from has the same bits; what is damaged or another's is refused."""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import File, open_file
from edgeq.errors import ChecksumError, ContextError, EdgeqError, FormatError, OutputError, UsageError
from edgeq.quantize.pipeline import convert
from edgeq.runtime import saved
from edgeq.runtime.program import Part, Program

CASES = [("tiny", "f16"), ("tiny", "q8_0"), ("tiny", "f32"), ("gemma3", "f16"), ("lfm2-bias", "q8_0")]
RECURRENT = [("qwen3-5", "f16"), ("mamba", "f16"), ("rwkv7", "f16")]
LENGTH = 300


def program_of(file: File, kv: str = "f16", context: int = 400) -> Program:
    return Program(file, context=context, threads=1, kv=kv, budget=1 << 27)


def text(vocab: int, length: int = LENGTH) -> list[int]:
    return np.random.RandomState(1).randint(0, vocab, length).tolist()


def evaluated(program: Program, tokens: list[int]):
    sequence = program.sequence()
    program.step([Part(sequence, np.array(tokens), [])])
    return sequence


@pytest.mark.parametrize(("case", "kv"), [*CASES, *RECURRENT])
def test_a_loaded_text_goes_on_with_the_same_bits(
    case: str, kv: str, opened: Callable[[str], File], tmp_path: Path
) -> None:
    file, path = opened(case), tmp_path / "a.eqp"
    program = program_of(file, kv)
    tokens = text(program.model.vocab_size)
    sequence = evaluated(program, tokens)
    saved.save(path, program, tokens, sequence, {"system": "Hi — there"})
    expected = program.step([Part(sequence, np.array([5, 6]), [0, 1])])[0]
    program.close()
    other = program_of(file, kv)
    found, sequence, about = saved.load(path, other)
    assert (found, sequence.position, about) == (tokens, LENGTH, {"system": "Hi — there"})
    np.testing.assert_array_equal(other.step([Part(sequence, np.array([5, 6]), [0, 1])])[0], expected)
    other.close()


@pytest.mark.parametrize(("case", "kv"), CASES)
def test_nothing_else_is_in_the_file(case: str, kv: str, opened: Callable[[str], File], tmp_path: Path) -> None:
    """Neither what pages held before, nor what of the text was forgotten."""
    program = program_of(opened(case), kv)
    tokens, paths = text(program.model.vocab_size), [tmp_path / "a.eqp", tmp_path / "b.eqp"]
    sequence = evaluated(program, tokens[:LENGTH])
    saved.save(paths[0], program, tokens, sequence, {})
    program.step([Part(sequence, np.array(tokens[:80]), [])])
    assert sequence.trim(LENGTH) == LENGTH
    saved.save(paths[1], program, tokens, sequence, {})
    assert paths[0].read_bytes() == paths[1].read_bytes()
    program.close()


def test_another_process_has_it(opened: Callable[[str], File], tmp_path: Path) -> None:
    """With another number of threads."""
    code = """if True:
        import sys, numpy as np
        from edgeq.container.reader import open_file
        from edgeq.runtime import saved
        from edgeq.runtime.program import Part, Program
        program = Program(open_file(sys.argv[1]), context=400, threads=2, kv="f16")
        tokens, sequence, _ = saved.load(sys.argv[2], program)
        sys.stdout.buffer.write(program.step([Part(sequence, np.array([5]), [0])])[0].tobytes())
    """
    program, path = program_of(opened("tiny")), tmp_path / "a.eqp"
    tokens = text(2048)
    sequence = evaluated(program, tokens)
    saved.save(path, program, tokens, sequence, {})
    expected = program.step([Part(sequence, np.array([5]), [0])])[0]
    program.close()
    command = [sys.executable, "-c", code, str(opened("tiny").path), str(path)]
    result = subprocess.run(command, capture_output=True, check=True)
    assert result.stdout == expected.tobytes()


@pytest.fixture
def made(opened: Callable[[str], File], tmp_path: Path) -> Iterator[tuple[Program, Path]]:
    program, path = program_of(opened("tiny")), tmp_path / "a.eqp"
    tokens = text(2048, 40)
    saved.save(path, program, tokens, evaluated(program, tokens), {})
    yield program, path
    program.close()


def test_what_is_written_as_the_format_says(made: tuple[Program, Path]) -> None:
    """Read by the words of formats/prefix.md alone."""
    program, path = made
    content = path.read_bytes()
    magic, version, length, crc = struct.unpack_from("<8sIQI", content)
    header = content[24 : 24 + length]
    assert (magic, version, crc) == (b"\x89EQP\r\n\x1a\n", 1, zlib.crc32(header))
    document = json.loads(header)
    assert document["file_bytes"] == len(content) and document["kv"] == "f16" and document["about"] == {}
    at = document["tokens"]["offset"]
    ids = content[at : at + 4 * 40]
    assert at % 64 == 0 and np.frombuffer(ids, "<u4").tolist() == text(2048, 40)
    assert document["tokens"]["crc32"] == f"{zlib.crc32(ids):08x}"
    (state,) = document["states"]
    assert (state["window"], state["page_positions"], len(state["pages"])) == (None, 256, 1)
    page = state["pages"][0]
    data = content[page["offset"] : page["offset"] + state["page_bytes"]]
    assert page["number"] == 0 and page["crc32"] == f"{zlib.crc32(data):08x}"
    heads = program.model.heads
    values = np.frombuffer(data[: state["page_bytes"] // program.model.num_hidden_layers], np.float16)
    keys = values[: heads.num_key_value_heads * heads.head_dim * 256].reshape(heads.num_key_value_heads, 16, -1, 16)
    assert (keys[:, :2] != 0).any(axis=2).all() and (keys[:, 2, :, :8] != 0).any(axis=1).all()
    assert not keys[:, 2, :, 8:].any() and not keys[:, 3:].any()


def test_every_damaged_byte_is_noticed(made: tuple[Program, Path]) -> None:
    """Of the header and tokens each; of pages some. Zero bytes between parts do not count."""
    program, path = made
    content = path.read_bytes()
    length = struct.unpack_from("<Q", content, 12)[0]
    document = json.loads(content[24 : 24 + length])
    first = document["tokens"]["offset"]
    places = [*range(0, 24 + length, 7), *range(first, first + 160, 7)]
    begin = document["states"][0]["pages"][0]["offset"]
    places += [begin, begin + 1000, len(content) - 1]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"damaged|version|not an \.eqp"):
            saved.load(path, program)
    for end in (0, 5, 30, first + 3, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(FormatError):
            saved.load(path, program)
    path.write_bytes(content + b"x")
    with pytest.raises(FormatError, match="bytes instead of"):
        saved.load(path, program)


def rewritten(path: Path, change: Callable[[dict], None]) -> None:
    """The file with another header, as if it were meant."""
    content = path.read_bytes()
    length = struct.unpack_from("<Q", content, 12)[0]
    document = json.loads(content[24 : 24 + length])
    change(document)
    header = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)[:length]
    path.write_bytes(content[:12] + struct.pack("<QI", length, zlib.crc32(header)) + header + content[24 + length :])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda d: d.update(states=[]), UsageError),
        (lambda d: d["states"][0].update(pages=[]), FormatError),
        (lambda d: d["states"][0]["pages"][0].update(offset=-1), FormatError),
        (lambda d: d["states"][0]["pages"][0].update(offset=1 << 60), FormatError),
        (lambda d: d["states"][0]["pages"][0].update(number=-1), FormatError),
        (lambda d: d.update(name="") or d["states"][0]["pages"][0].update(number=0.0), FormatError),
        (lambda d: d["tokens"].update(count=1 << 40), FormatError),
        (lambda d: d["tokens"].update(count="x"), FormatError),
        (lambda d: d.update(tokens=5), FormatError),
        (lambda d: d.update(about=[]), FormatError),
        (lambda d: d.update(kv="f32"), UsageError),
    ],
)
def test_a_header_that_lies(made: tuple[Program, Path], change: Callable[[dict], None], error: type) -> None:
    program, path = made
    rewritten(path, change)
    with pytest.raises(error):
        saved.load(path, program)
    assert program.pool.used == 0


def test_what_does_not_fit_is_refused(
    made: tuple[Program, Path], opened: Callable[[str], File], tmp_path: Path, tiny_model: Path
) -> None:
    path = made[1]
    convert(tiny_model, tmp_path / "other.eqf", "Q4_0")
    with open_file(tmp_path / "other.eqf") as file:
        program = program_of(file)
        with pytest.raises(UsageError, match=r"was made with another model \(m.eqf\)"):
            saved.load(path, program)
        program.close()
    for options, error, message in (
        ({"kv": "q8_0"}, UsageError, "its keys and values are f16: load with --kv f16"),
        ({"context": 32}, UsageError, "was made for another context"),
    ):
        program = program_of(opened("tiny"), **options)
        with pytest.raises(error, match=message):
            saved.load(path, program)
        program.close()
    long = program_of(opened("tiny"), context=400)
    tokens = text(2048, 390)
    saved.save(path, long, tokens, evaluated(long, tokens), {})
    long.close()
    short = program_of(opened("tiny"), context=300)
    with pytest.raises(ContextError, match="has 390 tokens, the context 300"):
        saved.load(path, short)
    with pytest.raises(FormatError, match="no such file"):
        saved.load(tmp_path / "none.eqp", short)
    with pytest.raises(OutputError):
        saved.save(tmp_path / "none" / "a.eqp", short, [1], evaluated(short, [1]), {})
    short.close()
    assert issubclass(ChecksumError, EdgeqError)
