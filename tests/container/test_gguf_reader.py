"""Damaged and hostile GGUF files: one clear line each."""

import struct
from pathlib import Path

import pytest

from edgeq.container.gguf_reader import open_gguf
from edgeq.container.gguf_values import (
    ARRAY,
    BOOL,
    F32,
    I32,
    STRING,
    U8,
    U32,
    U64,
    Typed,
    is_gguf,
    render_metadata,
    render_string,
)
from edgeq.container.gguf_writer import GgufSpec, GgufWriter
from edgeq.errors import FormatError, NotFoundError, OutputError, UnsupportedError

VALUES = {
    "general.architecture": Typed(STRING, "llama"),
    "numbers": Typed(ARRAY, [1, -2], I32),
    "texts": Typed(ARRAY, ["", "ünïcode"], STRING),
    "flags": Typed(ARRAY, [True, False], BOOL),
    "half": Typed(F32, 0.5),
}


def tensor(name: str = "t", dims=(32, 2), kind: int = 8, offset: int = 0) -> bytes:
    return render_string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def model(
    metadata: bytes | None = None,
    keys: int = len(VALUES),
    tensors: tuple[bytes, ...] = (tensor(),),
    count: int | None = None,
    version: int = 3,
    data: int = 128,
) -> bytes:
    """A small file, wrong in what the caller says."""
    metadata = render_metadata(VALUES) if metadata is None else metadata
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors) if count is None else count, keys)
    head += metadata + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def _with_types(file):
    return [(key, value, VALUES[key]) for key, value in file.metadata.items()]


def test_a_sound_file(tmp_path: Path):
    for version in (2, 3):
        (tmp_path / "m.gguf").write_bytes(model(version=version))
        with open_gguf(tmp_path / "m.gguf") as file:
            read = {key: list(value) if typed.kind == ARRAY else value for key, value, typed in _with_types(file)}
            assert read == {key: typed.value for key, typed in VALUES.items()}
            assert file.metadata["numbers"].typecode == "i", "numbers take the bytes that they take in the file"
            assert file.tensors["t"].shape == (2, 32) and file.tensors["t"].type.name == "Q8_0"
            assert file.data("t").shape == (2, 34)
    assert is_gguf(tmp_path / "m.gguf") and not is_gguf(tmp_path) and not is_gguf(tmp_path / "none")


def nested(depth: int) -> bytes:
    return struct.pack("<IQ", ARRAY, 1) * depth + struct.pack("<IQ", U8, 0)


HOSTILE = [
    (b"", FormatError, "is empty"),
    (b"GG", FormatError, "is not a GGUF file"),
    (b"\x89EQF\r\n\x1a\n", FormatError, "is an .eqf file already"),
    (b"PK\x03\x04" + bytes(40), FormatError, "its first bytes are 50 4b 03 04"),
    (b"GGUF\x03", FormatError, "is truncated inside its version"),
    (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), UnsupportedError, "is a big-endian GGUF file"),
    (model(version=1), UnsupportedError, "is GGUF version 1, readable are 2 and 3"),
    (model(version=4), UnsupportedError, "is GGUF version 4"),
    (model(count=1 << 60), FormatError, "claims 1152921504606846976 tensors, more than"),
    (model(keys=1 << 40), FormatError, "claims 1099511627776 metadata keys"),
    (model(render_string("k")[:-1] + b"\xff" * 7, 1), FormatError, "is truncated|unknown value type|metadata"),
    (model(struct.pack("<Q", 1 << 62), 1), FormatError, "is truncated inside a metadata key"),
    (model(render_string("k") + struct.pack("<I", 13), 1), FormatError, "unknown value type 13 in metadata 'k'"),
    (
        model(render_string("k") + struct.pack("<IIQ", ARRAY, STRING, 1 << 50), 1),
        FormatError,
        "claims 1125899906842624 elements of metadata 'k'",
    ),
    (
        model(render_string("k") + struct.pack("<IIQ", ARRAY, STRING, 2) + render_string("a") + b"\xff" * 8, 1),
        FormatError,
        "is truncated inside metadata 'k'",
    ),
    (
        model(render_string("k") + struct.pack("<IIQ", ARRAY, 99, 1), 1),
        FormatError,
        "array of the unknown value type 99",
    ),
    (model(render_string("k") + struct.pack("<I", ARRAY) + nested(40), 1), FormatError, "nests arrays too deep"),
    (model(render_metadata(VALUES) * 2, 2 * len(VALUES)), FormatError, "metadata key 'general.architecture' twice"),
    (model(render_metadata({"general.alignment": Typed(U32, 0)}), 1), FormatError, "general.alignment 0, a power of"),
    (model(render_metadata({"general.alignment": Typed(U64, 48)}), 1), FormatError, "general.alignment 48, a power"),
    (model(render_metadata({"general.alignment": Typed(STRING, "x")}), 1), FormatError, "general.alignment x"),
    (model(tensors=(tensor(), tensor())), FormatError, "has tensor 't' twice"),
    (model(tensors=(tensor(), tensor("u", offset=32))), FormatError, "tensors 't' and 'u' overlap"),
    (model(tensors=(tensor(offset=16),)), FormatError, "starts at 16, not a multiple of 32"),
    (model(tensors=(tensor(offset=96),)), FormatError, "is truncated: tensor 't' ends at byte"),
    (model(tensors=(tensor(offset=(1 << 64) - 32),)), FormatError, "is truncated: tensor 't' ends at byte"),
    (model(tensors=(tensor(dims=(1 << 30, 1 << 30)),)), FormatError, "is truncated: tensor 't' ends at byte"),
    (model(tensors=(tensor(dims=(0, 2)),)), FormatError, r"has the shape \[2, 0\]"),
    (model(tensors=(tensor(dims=(1 << 63, 2)),)), FormatError, "dimensions from 1 to 2"),
    (model(tensors=(tensor(dims=()),)), FormatError, "has 0 dimensions"),
    (model(tensors=(tensor(dims=(1,) * 5),)), FormatError, "has 5 dimensions"),
    (model(tensors=(tensor(dims=(33, 2)),)), FormatError, "Q8_0 needs rows of a multiple of 32 weights, not 33"),
    (model(tensors=(tensor(kind=31),)), UnsupportedError, "type 31, which llama.cpp dropped"),
    (
        model(render_metadata({"general.architecture": Typed(STRING, "bitnet-b1.58")}), 1, (tensor(kind=36),)),
        UnsupportedError,
        r"type 36, bitnet\.cpp's I2_S, whose order of weights the file does not tell: take TQ2_0",
    ),
    (model(tensors=(tensor(kind=77),)), UnsupportedError, "type 77, which this version does not know"),
    (model(render_metadata({"split.count": Typed(U32, 3)}), 1), FormatError, "is one of 3 files of a split model, but"),
    (model(render_metadata({"split.count": Typed(STRING, "3")}), 1), FormatError, "has split.count 3, a number"),
    (model(render_metadata({"split.count": Typed(I32, -1)}), 1), FormatError, "has split.count -1, a number"),
]


@pytest.mark.parametrize("name", ["m.gguf", "m-00001-of-00002.gguf"])
@pytest.mark.parametrize("count", [None, 0, 1])
def test_a_file_that_is_not_split_is_whole_whatever_its_name(count: int | None, name: str, tmp_path: Path):
    """Merging split files leaves their count as 0."""
    split = {} if count is None else {"split.no": Typed(U32, 0), "split.count": Typed(U32, count)}
    (tmp_path / name).write_bytes(model(render_metadata(split), len(split)))
    with open_gguf(tmp_path / name) as file:
        assert list(file.tensors) == ["t"] and len(file.files) == 1
        assert file.keys == 0, "nothing of it is kept"


def test_a_part_of_another_model_is_refused(tmp_path: Path):
    for number, told in ((1, 0), (2, 0)):
        split = {"split.no": Typed(U32, told), "split.count": Typed(U32, 2)}
        (tmp_path / f"m-0000{number}-of-00002.gguf").write_bytes(model(render_metadata(split), 2))
    with pytest.raises(FormatError, match=r"m-00002-of-00002\.gguf: is not the part of a split model"):
        open_gguf(tmp_path / "m-00001-of-00002.gguf")


@pytest.mark.parametrize(("content", "error", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files_are_refused_in_one_line(content, error, message, tmp_path: Path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        open_gguf(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))


def test_every_truncation_is_noticed(tmp_path: Path):
    whole = model()[: -(128 - 68)]
    path = tmp_path / "cut.gguf"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises((FormatError, UnsupportedError)):
            open_gguf(path)


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(FormatError, match="is a folder"):
        open_gguf(tmp_path)
    with pytest.raises(NotFoundError, match=r"missing\.gguf: no such file"):
        open_gguf(tmp_path / "missing.gguf")


def test_the_writer_writes_whole_files_only(tmp_path: Path):
    spec, path = GgufSpec("t", (2, 32), "Q8_0"), tmp_path / "m.gguf"
    with pytest.raises(ValueError, match="not complete"), GgufWriter(path, b"", 0, [spec]) as writer:
        writer.write(bytes(67))
    with pytest.raises(ValueError, match="more bytes"), GgufWriter(path, b"", 0, [spec]) as writer:
        writer.write(bytes(69))
    with pytest.raises(OutputError, match="does not exist"), GgufWriter(path / "m.gguf", b"", 0, [spec]):
        pass
    with pytest.raises(OutputError, match="is not a regular file"), GgufWriter(tmp_path, b"", 0, [spec]):
        pass
    assert list(tmp_path.iterdir()) == []
    with GgufWriter(path, b"", 0, [spec]) as writer:
        writer.write(bytes(range(34)))
        writer.write(bytes(range(34)))
    with open_gguf(path) as file:
        assert file.data("t").tolist() == [list(range(34))] * 2


def wide(alignment: int, *tensors: bytes, told: bool = True, data: int = 512) -> bytes:
    """A file whose tensors lie at multiples of `alignment`, which it says or not."""
    metadata = render_metadata({"general.alignment": Typed(U32, alignment)} if told else {})
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), int(told)) + metadata + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + bytes(data)


# Every kind of llama.cpp's tests/test-gguf.cpp, by its name there: what must be opened is None
KINDS: dict[str, tuple[bytes, str | None]] = {
    "HEADER_BAD_MAGIC": (b"LMAO" + model()[4:], "is not a GGUF file"),
    "HEADER_BAD_VERSION_0": (model(version=0), "GGUF version 0"),
    "HEADER_BAD_VERSION_1": (model(version=1), "GGUF version 1"),
    "HEADER_BAD_VERSION_FUTURE": (model(version=4), "GGUF version 4"),
    "HEADER_BAD_N_TENSORS": (model(count=(1 << 64) - 1), "claims 18446744073709551615 tensors"),
    "HEADER_BAD_N_KV": (model(keys=(1 << 64) - 1), "claims 18446744073709551615 metadata keys"),
    "HEADER_EMPTY": (struct.pack("<4sIQQ", b"GGUF", 3, 0, 0), None),
    "KV_BAD_KEY_SIZE": (model(struct.pack("<Q", (1 << 64) - 1) + bytes(40), 1), "inside a metadata key"),
    "KV_EMPTY_KEY": (model(render_metadata({"": Typed(U32, 1)}), 1), "has a metadata key without a name"),
    "KV_BAD_TYPE": (model(render_string("k") + struct.pack("<II", 0x7FFFFFFF, 0), 1), "unknown value type 2147483647"),
    "KV_DUPLICATE_KEY": (model(render_metadata({"k": Typed(U32, 1)}) * 2, 2), "metadata key 'k' twice"),
    "KV_BAD_ALIGN": (wide(32).replace(struct.pack("<II", U32, 32), struct.pack("<II", U32, 13)), "alignment 13"),
    "KV_WRONG_TYPE_ALIGN": (model(render_metadata({"general.alignment": Typed(F32, 32.0)}), 1), "alignment 32.0"),
    "KV_RANDOM_KV": (model(), None),
    "TENSORS_BAD_NAME_SIZE": (model(tensors=(struct.pack("<Q", 1 << 40) + bytes(40),)), "inside a tensor's name"),
    "TENSORS_BAD_N_DIMS": (model(tensors=(tensor(dims=(1,) * 5),)), "has 5 dimensions"),
    "TENSORS_BAD_SHAPE": (model(tensors=(tensor(dims=((1 << 64) - 1, 2)),)), "dimensions from 1 to"),
    "TENSORS_ZERO_DIM": (model(tensors=(tensor(dims=(32, 0)),)), "dimensions from 1 to"),  # llama.cpp opens that
    "TENSORS_NE_TOO_BIG": (model(tensors=(tensor(dims=(1 << 40, 1 << 40)),)), "dimensions from 1 to"),
    "TENSORS_NBYTES_TOO_BIG": (model(tensors=(tensor(dims=(1 << 30,) * 4),)), "is truncated: tensor 't'"),
    "TENSORS_NBYTES_PAD_WRAP": (model(tensors=(tensor(dims=(1 << 30, 1 << 30, 1 << 4)),)), "is truncated: tensor 't'"),
    "TENSORS_BAD_TYPE": (model(tensors=(tensor(kind=0x7FFFFFFF),)), "has type 2147483647"),
    "TENSORS_BAD_OFFSET": (model(tensors=(tensor(offset=(1 << 64) - 1),)), "not a multiple of 32"),
    "TENSORS_DUPLICATE_NAME": (model(tensors=(tensor(), tensor(offset=96))), "has tensor 't' twice"),
    "TENSORS_BAD_ALIGN": (wide(64, tensor(), tensor("u", offset=96)), "starts at 96, not a multiple of 64"),
    "TENSORS_INCONSISTENT_ALIGN": (wide(64, tensor(), tensor("u", offset=32)), "starts at 32, not a multiple of 64"),
    "TENSORS_SUCCESS": (wide(32, tensor(), tensor("u", offset=96), told=False), None),
    "TENSORS_CUSTOM_ALIGN": (wide(64, tensor(), tensor("u", offset=128)), None),
    "DATA_NOT_ENOUGH_DATA": (model(data=67), "is truncated: tensor 't'"),
    "DATA_BAD_ALIGN": (wide(16, tensor(offset=8)), "starts at 8, not a multiple of 16"),
    "DATA_INCONSISTENT_ALIGN": (wide(128, tensor(), tensor("u", offset=64)), "starts at 64, not a multiple of 128"),
    "DATA_MEM_SIZE_OVERFLOW": (model(tensors=(tensor(dims=(32, (1 << 31) - 1)),)), "is truncated: tensor 't'"),
    "DATA_SUCCESS": (wide(32, tensor(), told=False), None),
    "DATA_CUSTOM_ALIGN": (wide(256, tensor(), tensor("u", offset=256)), None),
    "DATA_UNPADDED_END": (model(data=68), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_llama_cpp_tests(kind: str, tmp_path: Path):
    content, message = KINDS[kind]
    path = tmp_path / "kind.gguf"
    path.write_bytes(content)
    if message is None:
        open_gguf(path).close()
        return
    with pytest.raises((FormatError, UnsupportedError), match=message):
        open_gguf(path)


def many(kind: int, element: int, number: int, each: bytes) -> bytes:
    return render_string("many") + struct.pack("<IIQ", kind, element, number) + each * number


MANY = {
    "strings": (many(ARRAY, STRING, (1 << 21) + 1, bytes(8)), 1, "more than 2097152 strings in arrays"),
    "arrays": (many(ARRAY, ARRAY, 1 << 16, struct.pack("<IQ", U8, 0)), 1, "more than 65536 arrays"),
    "keys": (bytes(13 * ((1 << 16) + 1)), (1 << 16) + 1, "has 65537 metadata keys, more than the 65536"),
}


@pytest.mark.parametrize("what", MANY)
def test_more_than_any_model_has_is_refused_before_it_costs(what: str, tmp_path: Path):
    metadata, keys, message = MANY[what]
    (tmp_path / "m.gguf").write_bytes(model(metadata, keys))
    with pytest.raises(FormatError, match=message):
        open_gguf(tmp_path / "m.gguf")


def test_more_tensors_than_any_model_has(tmp_path: Path):
    (tmp_path / "m.gguf").write_bytes(model(tensors=(tensor(""),) * ((1 << 16) + 1)))
    with pytest.raises(FormatError, match="has 65537 tensors, more than the 65536"):
        open_gguf(tmp_path / "m.gguf")


def test_arrays_of_numbers_take_their_bytes(tmp_path: Path):
    (tmp_path / "m.gguf").write_bytes(model(many(ARRAY, U8, 1 << 20, b"\7"), 1))
    with open_gguf(tmp_path / "m.gguf") as file:
        found = file.metadata["many"]
        assert len(found) == 1 << 20 and found.itemsize == 1 and found[-1] == 7
