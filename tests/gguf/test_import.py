"""GGUF files as `.eqf` files: every weight as the gguf package decodes it."""

import re
from pathlib import Path

import numpy as np
import pytest

from edgeq.blocks.gguf_types import GGUF_TYPES
from edgeq.blocks.reference import decode
from edgeq.container.reader import open_file
from edgeq.decode.sampling_defaults import sampling_defaults
from edgeq.errors import EdgeqError
from edgeq.gguf.exporter import export_gguf
from edgeq.gguf.import_plan import EXACT, WIDENED
from edgeq.gguf.importer import import_gguf
from edgeq.gguf.row_order import halves, neighbours
from edgeq.text.tokenizer import load_tokenizer

gguf = pytest.importorskip("gguf")

import gguf_models  # noqa: E402
import gguf_oracle  # noqa: E402
from gguf_models import HEADS, KV_HEADS, shapes, write  # noqa: E402  (it needs gguf)

HELD = [t.name for t in GGUF_TYPES.values() if t.held]


def weights(file, name: str) -> np.ndarray:
    info = file.tensors[name]
    if len(info.shape) == 1:
        return file.data(name).view(np.float32)
    return decode(file.data(name), *info.shape, info.type)


def oracle(tensors: dict[str, np.ndarray], name: str, kind: str) -> np.ndarray:
    """The weights as Hugging Face orders them."""
    data = tensors[name]
    if data.dtype == np.uint8:
        data = gguf_oracle.dequantize(data, kind)
    heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.split(".")[-2])
    return halves(data.astype(np.float32), heads) if heads else data.astype(np.float32)


@pytest.mark.parametrize("kind", HELD)
def test_weights_of_every_type(kind: str, tmp_path: Path):
    tensors = write(tmp_path / "m.gguf", kind)
    report = import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf", threads=2)
    how = {t.how for t in report.tensors if len(t.shape) == 2}
    known = next(t for t in GGUF_TYPES.values() if t.name == kind)
    assert how == {EXACT if known.native else WIDENED}
    with open_file(tmp_path / "m.eqf") as file:
        file.verify()
        assert {t.type for t in file.tensors.values() if len(t.shape) == 2} == {known.held}
        for name, shape in shapes().items():
            expected = oracle(tensors, name, kind)
            assert expected.shape == shape == file.tensors[name].shape
            assert np.array_equal(weights(file, name).view(np.uint32), expected.view(np.uint32)), name


def test_halves_and_neighbours():
    rows = np.arange(8)[:, None]
    assert halves(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert (neighbours(halves(rows, 2), 2) == rows).all()


def test_configuration_and_tokenizer(tmp_path: Path):
    write(tmp_path / "m.gguf", "Q8_0", tied=True)
    import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
    with open_file(tmp_path / "m.eqf") as file:
        config = file.metadata["config"]
        assert config["tie_word_embeddings"] and config["rms_norm_eps"] == 1e-5 and config["vocab_size"] == 48
        assert config["rope_theta"] == 50000.0 and (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
        assert file.metadata["provenance"]["source"] == "m.gguf"
        assert {"tokenizer.model", "tokenizer_config.json", "metadata.gguf"} <= file.assets.keys()


def test_the_sampling_that_a_file_asks_for_is_kept(tmp_path: Path):
    types = gguf.GGUFValueType
    asked = {"general.sampling.temp": (0.6, types.FLOAT32), "general.sampling.top_k": (20, types.INT32)}
    write(tmp_path / "m.gguf", "Q8_0", **asked)
    import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
    with open_file(tmp_path / "m.eqf") as file:
        assets = {name: file.asset(name) for name in file.assets}
    assert sampling_defaults(assets) == {"temperature": 0.6, "top_k": 20}
    assert load_tokenizer(assets).eos_ids == {2}
    export_gguf(tmp_path / "m.eqf", tmp_path / "back.gguf")
    back = gguf.GGUFReader(tmp_path / "back.gguf").fields
    assert {key: back[key].contents() for key in asked} == {
        "general.sampling.temp": pytest.approx(0.6),
        "general.sampling.top_k": 20,
    }


def test_an_imported_model_runs(tmp_path: Path):
    import edgeq

    write(tmp_path / "m.gguf", "F32")
    import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
    with edgeq.load(tmp_path / "m.eqf") as model:
        assert model.tokenizer.encode("ab") == [1, 6, 5]
        assert "".join(model.generate("ab", max_tokens=4, temperature=0))
        assert model.chat_template.render([{"content": "hi"}]) == "hi"


def split(path: Path, count: int) -> list[Path]:
    """The model as `count` files, as llama-gguf-split would write them."""
    reader = gguf.GGUFReader(path)
    paths = []
    for number in range(count):
        paths.append(path.with_name(f"s-{number + 1:05d}-of-{count:05d}.gguf"))
        writer = gguf.GGUFWriter(paths[-1], "llama")
        if number == 0:
            for field in reader.fields.values():
                if not field.name.startswith("GGUF.") and field.name != "general.architecture":
                    sub = field.types[1] if len(field.types) == 2 else None
                    if field.name != "someone.else":
                        writer.add_key_value(field.name, field.contents(), field.types[0], sub)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        for i, tensor in enumerate(reader.tensors):
            if i * count // len(reader.tensors) == number:
                writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def test_split_files(tmp_path: Path):
    write(tmp_path / "m.gguf", "Q4_0")
    import_gguf(tmp_path / "m.gguf", tmp_path / "whole.eqf")
    paths = split(tmp_path / "m.gguf", 3)
    for path in (paths[0], paths[2]):
        import_gguf(path, tmp_path / "split.eqf")
        with open_file(tmp_path / "whole.eqf") as whole, open_file(tmp_path / "split.eqf") as parts:
            assert {n: t.crc32 for n, t in whole.tensors.items()} == {n: t.crc32 for n, t in parts.tensors.items()}
    paths[1].unlink()
    with pytest.raises(EdgeqError, match=re.escape("s-00002-of-00003.gguf is missing: put all 3 files")):
        import_gguf(paths[0], tmp_path / "split.eqf")


U32, F32, TEXT, F64 = 4, 6, 8, 12  # gguf.GGUFValueType


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"llama.expert_count": (8, U32)}, r"m\.gguf: has no llama\.expert_used_count"),
        ({"llama.attention.sliding_window": (8, U32)}, r"m\.gguf: llama\.attention\.sliding_window is not supported"),
        ({"llama.rope.scaling.type": ("magic", TEXT)}, "scaling.type 'magic' is not supported"),
        ({"llama.rope.dimension_count": (16, U32)}, "a part of each head is rotated, which is not supported for llama"),
        ({"llama.rope.dimension_count": (65, U32)}, "65 of 64 values per head are rotated"),
        (
            {"llama.feed_forward_length": (100, U32)},
            r"tensor blk\.0\.ffn_gate\.weight is \[512, 256\], .* \[100, 256\]",
        ),
        ({"llama.block_count": (3, U32)}, r"has no tensor blk\.2\.attn_q\.weight"),
        ({"llama.block_count": (1, U32)}, r"tensor 'blk\.1\.\S+' belongs to no layer: block_count is 1"),
        ({"llama.rope.freq_base": (1e300, F64)}, "rope_theta is 1e\\+300, a positive number is needed"),
        ({"llama.block_count": (0, U32)}, r"llama\.block_count is 0"),
        ({"llama.embedding_length": ("wide", TEXT)}, "embedding_length is 'wide', a number is needed"),
        (
            {"general.architecture": ("unheard-of", TEXT)},
            "architecture 'unheard-of' cannot be imported; known are llama",
        ),
        ({"tokenizer.ggml.model": ("t5", TEXT)}, "the tokenizer is of the kind 't5'"),
        ({"llama.pooling_type": (4, U32)}, r"m\.gguf: scores pairs of texts \(pooling_type 4\), .*: take a model"),
        ({"llama.pooling_type": (9, U32)}, r"m\.gguf: has pooling_type 9, which is not supported"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(metadata, message, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", _replacing)
    kinds = {key: (value, gguf.GGUFValueType(kind)) for key, (value, kind) in metadata.items()}
    write(tmp_path / "m.gguf", "Q8_0", **kinds)
    with pytest.raises(EdgeqError, match=message) as caught:
        import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.eqf").exists()


def test_an_odd_name_of_what_is_not_used_does_not_block_a_file(tmp_path, monkeypatch):
    odd = {f"odd/\x1b[2J name {i}": (32,) for i in range(30)}
    monkeypatch.setattr(gguf_models, "shapes", lambda tied, before=gguf_models.shapes: before(tied) | odd)
    write(tmp_path / "m.gguf", "Q8_0")
    report = import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
    left_out = [note for note in report.notes if "left out" in note]
    assert len(left_out) == 21 and left_out[-1].startswith("10 more tensors are left out")
    with open_file(tmp_path / "m.eqf") as file:
        assert not [name for name in file.tensors if "odd" in name]


def _replacing(writer, key, value, kind, sub_type=None):
    """add_key_value that takes a key a second time."""
    writer.kv_data[0][key] = gguf.GGUFValue(value=value, type=kind, sub_type=sub_type)


def test_a_tokenizer_that_cannot_run_may_be_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", _replacing)
    write(tmp_path / "m.gguf", "Q8_0", **{"tokenizer.ggml.model": ("t5", gguf.GGUFValueType.STRING)})
    report = import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf", allow_no_tokenizer=True)
    assert "the tokenizer is left out" in report.notes[0]
    with pytest.raises(EdgeqError, match="is the GGUF file itself"):
        import_gguf(tmp_path / "m.gguf", tmp_path / "m.gguf")
