"""GGUF in, out, and encoded again; what each verb refuses."""

import json
import struct
from pathlib import Path

import pytest

import edgeq as package
from edgeq.container.gguf_values import STRING, U32, Typed, render_metadata


def test_a_model_goes_out_to_gguf_and_comes_back(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert edgeq("convert", tiny_model, "--type", "Q8_0", "-o", "m.eqf").code == 0
    exported = edgeq("export", "m.eqf")
    assert exported.code == 0 and exported.out.startswith("m.gguf: llama, 43 Q8_0, 13 F32")
    imported = edgeq("import", "m.gguf", "-o", "back.eqf")
    assert imported.code == 0 and "43 Q8_0: exact\n" in imported.out and "13 F32: exact\n" in imported.out
    texts = [
        edgeq("run", name, "Once upon a time", "--raw", "-n", "8", "--temp", "0").out for name in ("m.eqf", "back.eqf")
    ]
    assert texts[0] == texts[1] != ""


def test_rows_that_gguf_cannot_hold_are_said(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert edgeq("convert", tiny_model, "--type", "Q4_K_M", "-o", "m.eqf").code == 0
    refused = edgeq("export", "m.eqf")
    assert refused.code == 2 and "--fallback encodes it again" in refused.err
    assert "42 more like it: encoded again as Q8_0" in edgeq("export", "m.eqf", "--fallback").out


def test_a_gguf_file_is_run_as_it_is(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert edgeq("convert", tiny_model, "--type", "Q8_0", "-o", "m.eqf").code == 0
    assert edgeq("export", "m.eqf").code == 0
    monkeypatch.setattr("edgeq.system.environment.cache_folder", lambda: tmp_path / "cache")
    first, again = (edgeq("doctor", "m.gguf", "--no-speed") for _ in range(2))
    assert first.code == 0 and "importing m.gguf" in first.err and "once, as " in first.err
    assert again.err == "" and "runs here   yes" in again.out


def test_a_checkpoint_is_converted_to_gguf(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    """Rows of 192 and 640 are none for GGUF's k-quants: they get other types at once, not a second encoding."""
    monkeypatch.chdir(tmp_path)
    result = edgeq("convert", tiny_model, "-o", "m.gguf")
    assert result.code == 0, result.err
    assert "GGUF cannot hold rows of 192 in Q4_K: Q5_0\n" in result.out
    assert "m.gguf: llama, 3.20 M parameters, Q4_K_M (38 Q5_0, 13 F32, 5 Q8_0), 2.40 MiB, 6.143 bits" in result.out
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert edgeq("import", "m.gguf").out.startswith("    5 Q8_0: exact\n")


def test_a_gguf_file_is_encoded_again(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert edgeq("convert", tiny_model, "--type", "Q8_0", "-o", "m.gguf").code == 0
    result = edgeq("convert", "m.gguf", "--type", "q4_0")
    assert result.code == 0, result.err
    assert "Q8_0: 43 tensors encoded again (42 Q4_0, 1 Q6_K, RMS error" in result.out
    assert "Q4_0 was asked for; this adds to what Q8_0 has lost already\n" in result.out
    assert result.out.splitlines()[-1].startswith("m-Q4_0.eqf: llama, 3.20 M parameters, Q4_0 (")
    shown = json.loads(edgeq("show", "m-Q4_0.eqf", "--json").out)
    assert shown["provenance"]["source"] == "m.gguf" and shown["types"]["Q4_0"]["tensors"] == 42
    assert edgeq("convert", "m.gguf", "--type", "Q4_0", "-o", "n.gguf").code == 0
    metadata = [json.loads(edgeq("show", name, "--json").out)["metadata"] for name in ("m.gguf", "n.gguf")]
    assert metadata[0] == metadata[1]
    texts = [edgeq("run", name, "Once upon a time", "-n", "8", "--temp", "0").out for name in ("m-Q4_0.eqf", "n.gguf")]
    assert all(text.strip() for text in texts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-Q4_0.eqf", "m.gguf", "n.gguf"]


def test_what_a_gguf_file_said_of_its_types_is_not_kept(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    """`general.file_type` and what `quantize.` says would be wrong; all else stays."""
    monkeypatch.chdir(tmp_path)
    own = {"general.file_type": Typed(U32, 7), "quantize.imatrix.file": Typed(STRING, "x"), "a.b": Typed(STRING, "c")}

    own["pad"] = Typed(STRING, "p" * ((-len(render_metadata(own)) - 23) % 32))  # tensors stay aligned
    assert edgeq("convert", tiny_model, "--type", "Q8_0", "-o", "m.gguf").code == 0
    data = Path("m.gguf").read_bytes()
    *start, keys = struct.unpack("<4sIQQ", data[:24])
    grown = struct.pack("<4sIQQ", *start, keys + len(own)) + render_metadata(own) + data[24:]
    Path("m.gguf").write_bytes(grown)
    assert edgeq("verify", "m.gguf").code == 0
    assert edgeq("convert", "m.gguf", "--type", "Q4_0", "-o", "n.gguf").code == 0
    before, after = (json.loads(edgeq("show", name, "--json").out)["metadata"] for name in ("m.gguf", "n.gguf"))
    assert before.items() - after.items() == {("general.file_type", 7), ("quantize.imatrix.file", "x")}
    assert after.items() <= before.items() and after["a.b"] == "c"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "m.gguf"], "m.gguf: is a GGUF file: `edgeq import` takes it as it is, --type encodes it again"),
        (["convert", "m.eqf"], "m.eqf: is an .eqf file already: it runs as it is, --type encodes it again"),
        (["convert", "m.eqf", "--type", "Q9"], "unknown type 'Q9': "),
        (["convert", "m.eqf", "--type", "Q4_0", "-o", "m.eqf"], "m.eqf: is the model itself: give another name"),
        (["convert", "m.gguf", "--type", "Q4_0", "-o", "m.gguf"], "m.gguf: is the model itself: give another name"),
        (["convert", "m.gguf", "--type", "Q4_0", "-o", "none/x.eqf"], "none/x.eqf: the folder "),
        (["convert", "m.gguf", "--type", "Q4_0", "-o", "none/x.gguf"], "none/x.gguf: the folder "),
        (["convert", "m.eqf", "--type", "Q4_0", "-o", "x.safetensors"], "x.safetensors: what is written is an .eqf or"),
        (["convert", "none.gguf", "--type", "Q4_0"], "none.gguf: no such file"),
        (["convert", "none.eqf"], "none.eqf: no such file"),
        (["show", "none.gguf"], "none.gguf: no such file"),
        (["verify", "none.gguf"], "none.gguf: no such file"),
        (["import", "m.eqf"], "m.eqf: is an .eqf file already: it runs as it is"),
        (["import", "m.gguf", "-o", "x.gguf"], "x.gguf: an import writes an .eqf file: name it so"),
        (["import", "."], ".: is a folder: give a .gguf file; `edgeq convert` takes checkpoints"),
        (["export", "m.gguf"], "m.gguf: is a GGUF file already; `edgeq convert --type TYPE -o FILE.gguf` encodes it"),
        (["export", "m.eqf", "-o", "x.eqf"], "x.eqf: an export writes a .gguf file: name it so"),
    ],
)
def test_each_verb_says_which_one_is_meant(edgeq, small_files, arguments, message, monkeypatch):
    monkeypatch.chdir(small_files)
    result = edgeq(*arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"edgeq: {message}")
    assert sorted(path.name for path in small_files.iterdir()) == ["m.eqf", "m.gguf"]


@pytest.fixture(scope="module")
def small_files(tmp_path_factory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("files")
    package.convert(tiny_model, folder / "m.eqf", "F16")
    package.convert(tiny_model, folder / "m.gguf", "F16")
    return folder


def test_a_checkpoint_is_exported_through_the_cache(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgeq.system.environment.cache_folder", lambda: tmp_path / "cache")
    result = edgeq("export", f"{tiny_model}:F16")
    assert result.code == 0 and result.out.startswith("tiny_model-F16.gguf: llama, 43 F16, 13 F32")
    assert "once, as " in result.err
