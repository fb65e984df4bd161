"""What advisories and published reports of other readers of models tell of: here each file is refused in one line, or
read as what it is. Rows are made anew from what the reports say; `name` is where each is found."""

import io
import json
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgeq.checkpoints import safetensors_index, torch_index
from edgeq.checkpoints.checkpoint import open_checkpoint
from edgeq.checkpoints.files import Files
from edgeq.container.gguf_reader import open_gguf
from edgeq.errors import EdgeqError, TemplateError
from edgeq.gguf.importer import import_gguf
from edgeq.text.chat import ChatTemplate

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE / "checkpoints"), str(HERE.parent / "tools" / "fuzz")]
import mutate_gguf  # noqa: E402
import seeds  # noqa: E402
import torch_files  # noqa: E402

HUB = "huggingface.co/"


class Row(NamedTuple):
    """`read` is given a file of this content; the refusal matches `message`, None where it is no refusal."""

    name: str
    content: Callable[[], bytes]
    message: str | None


def read(rows: list[Row], name: str, tmp_path: Path, reader: Callable[[Path], object], file: str) -> None:
    (row,) = (row for row in rows if row.name == name)
    path = tmp_path / file
    path.write_bytes(row.content())
    if row.message is None:
        reader(path)
        return
    with pytest.raises(EdgeqError, match=row.message) as caught:
        reader(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1024
    assert sorted(one.name for one in tmp_path.iterdir()) == [file], "nothing is written"


# ---- GGUF ----


def gguf(values: dict[str, tuple[int, Any]] | None = None, *tensors: tuple[str, list[int], int, int]) -> bytes:
    """A file of these values and tensors (name, dimensions, type, offset), with 64 bytes of data."""
    given = {"general.architecture": (mutate_gguf.gguf.STRING, b"llama"), **(values or {})}
    entries = [[name.encode(), dims, kind, offset] for name, dims, kind, offset in tensors]
    return mutate_gguf.gguf_text([(key.encode(), value) for key, value in given.items()], entries, bytes(64))


@cache
def whole(words: bool) -> tuple[Any, Any, bytes]:
    """The parts of a sound model, with a tokenizer of words or of sentences."""
    with tempfile.TemporaryDirectory() as folder:
        return mutate_gguf.gguf_parts(seeds.gguf(Path(folder), words).read_bytes())


def model(words: bool, changed: dict[str, tuple[int, Any]]) -> bytes:
    """That with other values."""
    values, entries, data = whole(words)
    return mutate_gguf.gguf_text([(key, changed.get(key.decode(), value)) for key, value in values], entries, data)


def sentences(key: str) -> list[Any]:
    """The items of an array of its tokenizer."""
    return dict(whole(False)[0])[f"tokenizer.ggml.{key}".encode()][1][1]  # type: ignore[no-any-return]


def counted(tensors: int, values: int, rest: bytes = b"") -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, tensors, values) + rest


def key(name: str, kind: int, rest: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + rest


F32, Q4_0, STRING, ARRAY, U32 = 0, 2, 8, 9, 4
GGUF = [
    Row("CVE-2024-23605", lambda: counted(0, 1 << 60), "metadata|keys"),
    Row("CVE-2024-21802", lambda: gguf(None, ("a", [1 << 40, 1 << 40], F32, 0)), "'a'"),
    Row("CVE-2025-53630", lambda: gguf(None, ("a", [1 << 61], F32, 0), ("b", [1 << 61], F32, 1 << 63)), "'a'"),
    Row("CVE-2026-27940", lambda: counted((1 << 64) // 368, 0), "tensors"),
    Row("CVE-2026-33298", lambda: gguf(None, ("a", [1 << 30, 1 << 30, 1 << 10], Q4_0, 0)), "'a'"),
    Row(HUB + "neimasilk/llama-cpp-ggml-pad-overflow-poc", lambda: gguf(None, ("a", [(1 << 62) - 1], F32, 0)), "'a'"),
    Row(
        "CVE-2025-49847",
        lambda: counted(0, 1, key("a", STRING, struct.pack("<Q", (1 << 31) + 1))),
        "is truncated|more than",
    ),
    Row("CVE-2024-12055", lambda: counted(0, 1, struct.pack("<Q", 1 << 62) + bytes(64)), "is truncated"),
    Row("CVE-2026-7482", lambda: gguf(None, ("a", [1 << 20], F32, 0)), "'a'"),
    Row("CVE-2026-108955", lambda: gguf(None, ("a", [4], F32, 1 << 40)), "'a'"),
    Row("GO-2025-3557", lambda: counted(0, 1, key("a", ARRAY, struct.pack("<IQ", STRING, 1 << 40))), "a|cut"),
    Row(
        "github.com/ggml-org/ggml/pull/1516",
        lambda: gguf({"general.alignment": (U32, 1 << 30)}, ("a", [4], F32, 0)),
        "power of two",
    ),
    Row(HUB + "AM-Core/gguf-invalid-kv-type-ubsan-poc", lambda: counted(0, 1, key("a", 0x7FFFFFFF, b"")), "type"),
    Row(HUB + "FreeZoneAT/gguf-divzero-poc-huntr", lambda: gguf(None, ("a", [1, 0], F32, 0)), "'a'"),
    Row(HUB + "CuB3y0nd/gguf-py-integer-overflow", lambda: gguf(None, ("a", [0, 1 << 62], F32, 0)), "'a'"),
    Row(HUB + "wonbrand/ctransformers-gguf-parser-input-validation-poc", lambda: gguf(None, ("a", [4], 255, 0)), "'a'"),
    Row(
        HUB + "k4wwak/gguf-alignment-overflow-poc", lambda: counted(1, 0, key("a", 0xFFFFFFFF, bytes(64))), "dimensions"
    ),
    Row("CVE-2024-8063", lambda: model(True, {"llama.block_count": (STRING, b"0")}), "llama.block_count"),
    Row(
        HUB + "sheldonbernstein/llamacpp-gguf-oob-poc",
        lambda: model(False, {"tokenizer.ggml.scores": (ARRAY, (1, [0] * len(sentences("scores"))))}),
        None,
    ),
    Row(
        "github.com/ggml-org/llama.cpp/pull/25969",
        lambda: model(False, {"tokenizer.ggml.tokens": (ARRAY, (STRING, [*sentences("tokens")[:-1], b"<0x-1>"]))}),
        None,
    ),
]


@pytest.mark.parametrize("name", [row.name for row in GGUF])
def test_gguf(name: str, tmp_path: Path) -> None:
    def take(path: Path) -> None:
        with open_gguf(path) as file:
            for tensor in file.tensors:
                file.data(tensor)
        import_gguf(path, path.with_name("made.eqf"), threads=1)

    read(GGUF, name, tmp_path, take, "a.gguf")


# ---- pickles, and the archives that they are in ----


def calls(function: str, pickled: bytes | None = None) -> bytes:
    """An archive whose pickle calls a function, by its name, with a text."""
    module, _, name = function.rpartition(" ")
    call = f"c{module}\n{name}\n".encode() + b"(" + torch_files.text("touch /tmp/called") + b"tR"
    return archived(torch_files.state_dict({"a": call}) if pickled is None else pickled)


def archived(pickled: bytes, member: str = "archive/data.pkl", **more: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(member, pickled)
        archive.writestr("archive/data/0", bytes(16))
        for name, content in more.items():
            archive.writestr(name, content)
    return out.getvalue()


def sound() -> bytes:
    return torch_files.state_dict({"a": torch_files.tensor("0", "FloatStorage", 4, (4,), (1,))})


def changed(data: bytes, at: bytes, offset: int, value: bytes, first: bool = False) -> bytes:
    """Bytes put `offset` behind the last place where `at` is, or the first."""
    place = (data.find(at) if first else data.rfind(at)) + offset
    return data[:place] + value + data[place + len(value) :]


FUNCTIONS = {
    "CVE-2025-1716": "pip main",
    "CVE-2025-71322": "pty spawn",
    "CVE-2025-67748": "pty spawn",
    "CVE-2025-67747": "marshal loads",
    "CVE-2025-10157": "asyncio.unix_events _UnixSubprocessTransport",
    "CVE-2025-71355": "numpy.testing._private.utils runstring",
    "CVE-2025-71339": "numpy.f2py.crackfortran _eval_length",
    "CVE-2025-71365": "numpy.f2py.crackfortran myeval",
    "CVE-2025-71320": "pydoc locate",
    "CVE-2026-3490": "pkgutil resolve_name",
    "CVE-2026-14534": "_posixsubprocess fork_exec",
    "CVE-2026-14535": "site execsitecustomize",
    "CVE-2026-22606": "runpy run_path",
    "CVE-2026-22607": "cProfile run",
    "CVE-2025-71378": "cProfile runctx",
    "CVE-2025-71351": "timeit timeit",
    "CVE-2025-71352": "trace Trace",
    "CVE-2025-71354": "idlelib.debugobj ObjectTreeItem",
    "CVE-2025-71357": "idlelib.pyshell ModifiedInterpreter",
    "CVE-2025-71358": "idlelib.autocomplete AutoComplete",
    "CVE-2025-71361": "idlelib.calltip Calltip",
    "CVE-2024-34997": "joblib.numpy_pickle NumpyArrayWrapper",
    "CVE-2025-14930": "builtins eval",
    "GHSA-37q5-v5qm-c9v8": "posix system",
    HUB + "thesecguy/poc-picklescan-marshal-bypass": "types FunctionType",
    HUB + "xry6/huntr-picklescan-bypass-poc": "inspect getattr_static",
    HUB + "th3-j0k3r/picklescan-importlib-bypass": "importlib import_module",
    HUB + "optimus-fulcria/picklescan-bypass-poc": "codecs open",
    HUB + "realmads/numpy-distutils-pickle-gadget-poc": "numpy.distutils.cpuinfo getoutput",
}
PICKLES = [
    *(
        Row(name, lambda function=function: calls(function), function.split(" ")[1])  # type: ignore[misc]
        for name, function in FUNCTIONS.items()
    ),
    Row(
        "CVE-2025-71325",  # a name that is no GLOBAL's, with its parts from the beginning of the stack
        lambda: calls("", b"\x80\x04\x8c\x02os\x8c\x06system\x93" + torch_files.text("touch /tmp/called") + b"\x85R."),
        "system",
    ),
    Row("CVE-2025-10155", lambda: b"cposix\nsystem\n(S'touch /tmp/called'\ntR.", "is no"),
    Row(
        "CVE-2025-32434",
        lambda: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.cos\nsystem\n",
        "before version 1.6",
    ),
    Row("CVE-2025-10156", lambda: changed(archived(sound()), b"PK\x01\x02", 16, bytes(4), True), "damaged"),
    Row("CVE-2025-1945", lambda: changed(archived(sound()), b"PK\x01\x02", 8, b"\x01", True), "damaged"),
    Row("CVE-2025-1889", lambda: archived(sound(), **{"archive/config.p": b"cos\nsystem\n(S'id'\ntR."}), None),
    Row("CVE-2024-45436", lambda: archived(sound(), **{"../../../tmp/hook.so": b"x"}), None),
    Row("CVE-2026-115905", lambda: archived(sound()).replace(b"archive/data.pkl", b"archive/dat_.pkl", 1), "damaged"),
]


@pytest.mark.parametrize("name", [row.name for row in PICKLES])
def test_pickles(name: str, tmp_path: Path) -> None:
    read(PICKLES, name, tmp_path, lambda path: torch_index.index(str(path)), "pytorch_model.bin")
    assert not Path("/tmp/called").exists()


# ---- safetensors, and names of files ----


def tensors(header: dict[str, Any] | bytes, nbytes: int = 16, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(nbytes)


def entry(dtype: str = "F32", shape: tuple[int, ...] = (4,), place: tuple[int, int] = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": place}


SAFETENSORS = [
    Row(
        HUB + "rez0/safetensors-cpp-integer-overflow-poc",
        lambda: tensors({"a": entry(shape=(4194305, 4194305, 211106198978564))}),
        "'a'",
    ),
    Row(
        HUB + "Damir2024/Malicious-safetensor-poc",
        lambda: tensors({f"a{i}": entry("F32", (0,), (0, 0)) for i in range(300_000)}, 0),
        "values",
    ),
    Row(
        HUB + "01data-ai/safetensors_f002_zero_size_offset_bypass",
        lambda: tensors({"a": entry(shape=(0,), place=(0, 0)), "b": entry(), "c": entry(shape=(0,), place=(8, 8))}),
        "'c'|'b'",
    ),
    Row(HUB + "n4u/fastsafetensors", lambda: tensors({"a": entry("NOTADTYPE")}), "NOTADTYPE"),
    Row(
        "xz.aliyun.com/news/92700",
        lambda: tensors(b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":%s}' % json.dumps(entry()).encode()),
        "'w'|twice",
    ),
    Row("github.com/huggingface/safetensors/attacks", lambda: tensors({"a": entry()}, length=1 << 62), "is no|cut"),
]


@pytest.mark.parametrize("name", [row.name for row in SAFETENSORS])
def test_safetensors(name: str, tmp_path: Path) -> None:
    def take(path: Path) -> None:
        files = Files(safetensors_index.index(str(path)))
        for tensor in files.tensors.values():
            files.float_rows(tensor.name, 0, tensor.shape[0])

    read(SAFETENSORS, name, tmp_path, take, "model.safetensors")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("CVE-2024-37032", "../../../../etc/passwd"),
        ("CVE-2026-103663", "sha256-../../../tmp/a.safetensors"),
        ("CVE-2024-37032 without dots", "/etc/passwd"),
    ],
)
def test_names_that_lead_elsewhere(name: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(seeds.CONFIG))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": place}}))
    with pytest.raises(EdgeqError) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value) and "root:" not in str(caught.value), name


# ---- chat templates ----

TEMPLATES = {
    "CVE-2024-34359": "{% for x in ().__class__.__base__.__subclasses__() %}{{ x()._module.__builtins__ }}{% endfor %}",
    "CVE-2024-2952": "{{ self.__init__.__globals__.__builtins__.__import__('os').popen('touch /tmp/called').read() }}",
    "CVE-2026-5760": "{{ cycler.__init__.__globals__.os.popen('touch /tmp/called').read() }}",
    "CVE-2026-42203": "{{ lipsum.__globals__['os'].popen('touch /tmp/called').read() }}",
    "CVE-2026-2969": "{{ joiner.__init__.__globals__.os.popen('touch /tmp/called').read() }}",
    "CVE-2016-10745": "{{ '<{0.__class__.__mro__}'.format(1) }}",
    "CVE-2019-10906": "{{ '<{a.__class__.__mro__}'.format_map({'a': 1}) }}",
    "CVE-2024-56326": "{% set f = ['<{0.__class__.__mro__}'.format] %}{{ f[0](1) }}",
    "CVE-2025-27516": "{{ ('<{0.__class__.__mro__}'|attr('format'))(1) }}",
    "CVE-2026-115911": "{{ 'a' * 10 ** 10 }}",
    "PYSEC-2026-2013": "{% for a in range(10 ** 9) %}{% for b in range(10 ** 9) %}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates(name: str) -> None:
    template = ChatTemplate(TEMPLATES[name], {})
    try:
        text = template.render([{"role": "user", "content": "a"}])
    except TemplateError as error:
        assert "\n" not in str(error)
    else:
        assert "class" not in text and len(text) < 100, text
    assert not Path("/tmp/called").exists()
