"""`.eqf` files as GGUF files: round trips, and checkpoints as llama.cpp's converter would write them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

import random_checkpoints  # noqa: E402
from architecture_cases import CASES  # noqa: E402
from gguf_cases import REFUSED, changed  # noqa: E402
from gguf_models import LAYERS, write  # noqa: E402  (it needs gguf)
from token_vectors import read_vectors  # noqa: E402

import edgeq  # noqa: E402
from edgeq.blocks.reference import decode  # noqa: E402
from edgeq.container.gguf_reader import open_gguf  # noqa: E402
from edgeq.container.gguf_values import render_metadata  # noqa: E402
from edgeq.container.gguf_writer import GgufSpec, GgufWriter  # noqa: E402
from edgeq.container.reader import open_file  # noqa: E402
from edgeq.conversion.conversion import convert  # noqa: E402
from edgeq.errors import EdgeqError, FormatError, UnsupportedError, UsageError  # noqa: E402
from edgeq.gguf.export_metadata import typed  # noqa: E402
from edgeq.gguf.export_plan import AS_Q8_0  # noqa: E402
from edgeq.gguf.exporter import export_gguf  # noqa: E402
from edgeq.gguf.importer import import_gguf  # noqa: E402
from edgeq.models import architecture  # noqa: E402
from edgeq.models.gguf import UNTIED, read_config, write_config  # noqa: E402
from edgeq.models.gguf_architectures import ARCHITECTURES  # noqa: E402
from edgeq.models.gguf_places import places  # noqa: E402
from edgeq.models.gguf_rope import llama3_factors, rope_factors  # noqa: E402
from edgeq.models.mixers import Attention  # noqa: E402
from edgeq.quantize.static_scales import set_scales  # noqa: E402
from edgeq.text.gguf_tokenizer import tokenizer_assets  # noqa: E402
from edgeq.text.gguf_vocabulary import tokenizer_metadata  # noqa: E402
from edgeq.text.tokenizer import load_tokenizer  # noqa: E402

MIXED = {"attn_q": "Q4_K", "attn_k": "Q5_K", "attn_v": "Q6_K", "ffn_up": "Q4_0", "ffn_down": "Q8_0", "output": "F16"}
SMALL = {
    "attn_q": "Q2_K",
    "attn_k": "Q3_K",
    "attn_v": "TQ2_0",
    "ffn_up": "IQ4_XS",
    "ffn_down": "IQ4_NL",
    "output": "MXFP4",
}
SIMPLE = {"attn_q": "Q4_1", "attn_k": "Q5_0", "attn_v": "Q5_1", "ffn_up": "Q4_1", "ffn_down": "Q5_0", "output": "Q5_1"}


CODEBOOKS = {"attn_q": "IQ1_S", "attn_k": "IQ2_XXS", "attn_v": "IQ2_XS", "ffn_up": "IQ2_S", "ffn_gate": "IQ1_M"}
CODEBOOKS |= {"ffn_down": "IQ3_S", "output": "IQ3_XXS", "token_embd": "NVFP4"}


@pytest.mark.parametrize(
    "kinds",
    [MIXED | {"token_embd": "BF16"}, SMALL, CODEBOOKS, SIMPLE | {"token_embd": "Q5_1"}, "F32"],
    ids=["mixed", "small", "codebooks", "simple", "F32"],
)
def test_a_round_trip_gives_the_same_file(kinds, tmp_path: Path):
    """Every tensor's bytes, all metadata, known or not, their order and their alignment."""
    write(tmp_path / "m.gguf", kinds, **{"general.alignment": (64, gguf.GGUFValueType.UINT32)})
    raw = (tmp_path / "m.gguf").read_bytes()
    with open_gguf(tmp_path / "m.gguf") as file:
        assert file.alignment == 64
    import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
    export_gguf(tmp_path / "m.eqf", tmp_path / "back.gguf")
    back = (tmp_path / "back.gguf").read_bytes()
    with open_gguf(tmp_path / "m.gguf") as a, open_gguf(tmp_path / "back.gguf") as b:
        assert a.metadata_bytes == b.metadata_bytes and list(a.tensors) == list(b.tensors)
        assert all(a.tensors[name].type == b.tensors[name].type for name in a.tensors)
        assert all(np.array_equal(a.data(name), b.data(name)) for name in a.tensors)
        start = min(tensor.offset for tensor in b.tensors.values())
        assert start % 64 == 0
    if kinds == "F32":  # no tensor needs padding, whose place writers choose
        assert raw == back


def test_a_type_that_another_holds_comes_back(tmp_path: Path):
    write(tmp_path / "m.gguf", "TQ1_0")
    import_gguf(tmp_path / "m.gguf", tmp_path / "m.eqf")
    report = export_gguf(tmp_path / "m.eqf", tmp_path / "back.gguf")
    assert {t.type for t in report.tensors if len(t.shape) == 2} == {"TQ1_0"}
    back = gguf.GGUFReader(tmp_path / "back.gguf")
    for a, b in zip(gguf.GGUFReader(tmp_path / "m.gguf").tensors, back.tensors, strict=True):
        assert np.array_equal(a.data, b.data)


def test_a_checkpoint_there_and_back(tiny_model: Path, tmp_path: Path):
    convert(tiny_model, tmp_path / "m.eqf", "Q8_0")
    report = export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    assert report.architecture == "llama" and report.notes == []
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    with open_file(tmp_path / "m.eqf") as a, open_file(tmp_path / "back.eqf") as b:
        assert {n: (t.type, t.crc32) for n, t in a.tensors.items()} == {
            n: (t.type, t.crc32) for n, t in b.tensors.items()
        }
        one, other = (load_tokenizer({name: f.asset(name) for name in f.assets}) for f in (a, b))
        text = "Once upon a time, the 3 bears said: “hello”  <|endoftext|>\n"
        assert one.encode(text) == other.encode(text)
        assert (one.bos_id, one.eos_ids) == (other.bos_id, other.eos_ids)
        own, theirs = a.metadata["config"], b.metadata["config"]
        assert all(own.get(key, value) == value for key, value in theirs.items() if key != "head_dim")


def test_a_checkpoint_without_merges_and_with_several_ends(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_model, folder)
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(document))
    asked = {"eos_token_id": [0, 100, 200], "temperature": 0.5, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(asked))
    convert(folder, tmp_path / "m.eqf", "Q8_0")
    assert export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf").notes == []
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.merges"].contents() == []
    assert [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot", "eom")] == [0, 100, 200]
    assert fields["general.sampling.temp"].contents() == 0.5
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    with open_file(tmp_path / "m.eqf") as a, open_file(tmp_path / "back.eqf") as b:
        one, other = (load_tokenizer({name: f.asset(name) for name in f.assets}) for f in (a, b))
    assert one.eos_ids == other.eos_ids >= {0, 100, 200}
    assert one.encode("The 3 bears<|endoftext|>") == other.encode("The 3 bears<|endoftext|>")


def test_rows_that_gguf_cannot_hold(tiny_model: Path, tmp_path: Path):
    convert(tiny_model, tmp_path / "m.eqf", "Q4_K_M")
    with pytest.raises(UnsupportedError, match="needs rows of a multiple of 256, not 192: --fallback"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
    report = export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf", fallback=AS_Q8_0)
    assert any(t.again and t.type == "Q8_0" for t in report.tensors)
    with pytest.raises(UsageError, match="is the model itself"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.eqf")


def test_own_types_become_q8_0(tiny_model: Path, tmp_path: Path):
    convert(tiny_model, tmp_path / "m.eqf", "NF4")
    with pytest.raises(UnsupportedError, match="--fallback encodes it again"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    report = export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf", fallback=AS_Q8_0)
    assert {t.type for t in report.tensors if t.again} == {"Q8_0"}


CONFIG = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "vocab_size": 48,
}


def test_one_scale_per_row_becomes_one_per_block(tiny_model: Path, tmp_path: Path):
    """I8_R, which GGUF has not, is encoded again as Q8_0, whose weights are nearly the same."""
    convert(tiny_model, tmp_path / "m.eqf", "I8_R", allow_no_tokenizer=True)
    with pytest.raises(UnsupportedError, match="GGUF has no type I8_R: --fallback encodes it again"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    set_scales(tmp_path / "m.eqf", tmp_path / "s.eqf", {"blk.0.attn_q.weight": 0.1})
    report = export_gguf(tmp_path / "s.eqf", tmp_path / "m.gguf", fallback=AS_Q8_0)
    assert "GGUF has no word for scales of activations: readers take each token's own" in report.notes
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    with open_file(tmp_path / "m.eqf") as file:
        for name in ("token_embd.weight", "blk.0.attn_v.weight", "blk.0.ffn_up.weight"):
            info = file.tensors[name]
            weights = decode(file.data(name), *info.shape, info.type)
            theirs = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type).reshape(info.shape)
            assert tensors[name].tensor_type.name == "Q8_0"
            assert np.abs(theirs - weights).max() < 0.01 * np.abs(weights).max()


def config_back(config: dict) -> dict:
    notes: list[str] = []
    metadata = {"general.architecture": "llama"} | write_config(config, "m", notes)
    factors = rope_factors(config)
    shapes = {"token_embd.weight": (48, 256)} | ({"rope_freqs.weight": (32,)} if factors else {})
    return read_config(metadata, shapes, lambda name: np.array(factors, np.float32).tolist(), "m")


def test_rope_scalings_come_back():
    llama3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama3["original_max_position_embeddings"] = 8192
    assert config_back(CONFIG | {"rope_scaling": llama3})["rope_scaling"] == llama3
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "beta_fast": 8.0}
    assert config_back(CONFIG | {"rope_scaling": yarn})["rope_scaling"] == yarn
    linear = {"rope_type": "linear", "factor": 4.0}
    assert config_back(CONFIG | {"rope_scaling": linear})["rope_scaling"] == linear
    assert "rope_scaling" not in config_back(CONFIG)
    # The divisors of the first and last frequencies: those of long wavelengths only
    factors = llama3_factors(llama3, 500000.0, 64)
    assert factors[0] == 1.0 and abs(factors[-1] - 32.0) < 1e-9
    other = [1.0 + i / 4 for i in range(32)]
    longrope = {"rope_type": "longrope", "attention_factor": 1.0, "short_factor": other, "long_factor": other}
    longrope |= {"factor": 1.0, "original_max_position_embeddings": 131072}
    assert config_back(CONFIG | {"rope_scaling": longrope})["rope_scaling"] == longrope
    shapes, metadata = {"token_embd.weight": (48, 256), "rope_freqs.weight": (32,)}, write_config(CONFIG, "m", [])
    ones = read_config({"general.architecture": "llama"} | metadata, shapes, lambda name: [1.0] * 32, "m")
    assert ones["rope_scaling"] is None and architecture(ones).rope == architecture(CONFIG).rope
    with pytest.raises(FormatError, match="is no list of 32 divisors"):
        shapes = {"token_embd.weight": (48, 256), "rope_freqs.weight": (2,)}
        metadata = {"general.architecture": "llama"} | write_config(CONFIG, "m", [])
        read_config(metadata, shapes, lambda name: [1.0, 2.0], "m")


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED])
def test_architectures_there_and_back(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same logits from what was converted and from what went through GGUF, and the same GGUF file again."""
    monkeypatch.setitem(CASES, case, changed(case))
    _, _, prompt = random_checkpoints.make(case)
    folder = random_checkpoints.write(case, tmp_path / case)
    convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    export_gguf(tmp_path / "back.eqf", tmp_path / "again.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "again.gguf").read_bytes()
    logits = []
    for name in ("m.eqf", "back.eqf"):
        with edgeq.load(tmp_path / name) as model:
            logits.append(model.logits(prompt))
    # whose divisors or factors went through f32
    if case in ("llama-rope-llama3", "hunyuan", "hunyuan-moe", "gemma3") or "longrope" in case:
        assert np.abs(logits[0] - logits[1]).max() < 1e-3
    else:
        assert np.array_equal(*logits)


@pytest.mark.parametrize("name", sorted(UNTIED))
def test_a_head_that_is_the_embedding_where_readers_ask_for_one(name: str):
    """llama.cpp does not load such a file."""
    kinds = {ARCHITECTURES[name].model_type}
    case = next(case for case in CASES if case not in REFUSED and CASES[case]["model_type"] in kinds)
    write_config(changed(case) | {"tie_word_embeddings": False}, "m", [])
    with pytest.raises(UnsupportedError, match=f"m: its head is the embedding, and readers of GGUF's {name} ask"):
        write_config(changed(case) | {"tie_word_embeddings": True}, "m", [])


PARTLY = ["phi3-longrope-short", "stablelm", "phi", "gpt-neox", "glm", "glm4", "nemotron", "glm4-moe", "ling"]
PARTLY += ["qwen3-5", "qwen3-5-moe", "qwen3-next"]


@pytest.mark.parametrize("case", PARTLY)
def test_heads_that_are_rotated_whole_come_back(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of families that rotate a part of each head where nothing is said."""
    config, whole = changed(case), {"partial_rotary_factor": 1.0}
    parameters = config.get("rope_parameters")
    own = {"rope_parameters": parameters | whole} if parameters else {}
    monkeypatch.setitem(CASES, case, config | whole | own | {"rotary_pct": 1.0, "rope_scaling": None})
    folder = random_checkpoints.write(case, tmp_path / case)
    convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    with open_file(tmp_path / "m.eqf") as file, open_file(tmp_path / "back.eqf") as back:
        usual, found = (architecture(one.metadata["config"]).rope for one in (file, back))
    assert 2 * len(found.inverse_frequencies) == architecture(CASES[case]).heads.head_dim
    assert found == usual


QUANTIZED = ["gpt2", "phi3", "falcon-newer", "granitemoe", "qwen2-moe", "lfm2", "gpt-oss", "qwen3-next"]
QUANTIZED += ["deepseek-v2-lite", "gemma3n-older", "mamba", "mamba2", "jamba"]


@pytest.mark.parametrize("case", QUANTIZED)
def test_quantized_architectures_there_and_back(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fused, stacked, renamed and re-ordered rows of blocks."""
    monkeypatch.setitem(CASES, case, changed(case))
    convert(random_checkpoints.write(case, tmp_path / case), tmp_path / "m.eqf", "Q8_0", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    export_gguf(tmp_path / "back.eqf", tmp_path / "again.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "again.gguf").read_bytes()
    with open_file(tmp_path / "m.eqf") as a, open_file(tmp_path / "back.eqf") as b:
        assert {n: (t.type, t.crc32) for n, t in a.tensors.items()} == {
            n: (t.type, t.crc32) for n, t in b.tensors.items()
        }


def test_every_architecture_is_tested():
    types = {CASES[case]["model_type"] for case in CASES if case not in REFUSED}
    types |= {"bert", "modernbert", "nomic_bert", "jina_bert_v2", "jina_embeddings_v3", "eurobert"}  # test_encoders.py
    assert {entry.model_type for entry in ARCHITECTURES.values()} <= types


def test_a_fused_tensor_of_several_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """GGUF's Phi-3 has q, k and v in one tensor, of one type."""
    wide = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4}
    monkeypatch.setitem(CASES, "phi3", changed("phi3") | wide)
    convert(random_checkpoints.write("phi3", tmp_path / "c"), tmp_path / "m.eqf", "Q4_K_M", allow_no_tokenizer=True)
    with pytest.raises(UnsupportedError, match=r"attn_q\.weight and .* these are Q4_K, Q4_K, Q6_K: --fallback"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    report = export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf", fallback=AS_Q8_0)
    types = {(t.type, t.again) for t in report.tensors if "attn_qkv" in t.name}
    assert types == {("Q4_K", False), ("Q6_K", True)}
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    with open_file(tmp_path / "m.eqf") as a, open_file(tmp_path / "back.eqf") as b:
        name = "blk.0.attn_v.weight"
        assert a.tensors[name].crc32 == b.tensors[name].crc32 and a.tensors[name].type == "Q6_K"


def test_heads_of_layers_that_are_no_numbers():
    lfm2 = {"general.architecture": "lfm2"} | write_config(CASES["lfm2"], "m", [])
    shapes = {"token_embd.weight": (48, 64)}
    assert read_config(lfm2, shapes, list, "m")["layer_types"] == CASES["lfm2"]["layer_types"]
    for heads in (["two", "two"], [0, 0, 0, 0], []):
        with pytest.raises(EdgeqError, match="m: "):
            architecture(read_config(lfm2 | {"lfm2.attention.head_count_kv": heads}, shapes, list, "m"), "m")


def test_places_of_tensors():
    falcon, names = ARCHITECTURES["falcon"], ["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.bias"]
    assert [place.name for place in places(names, falcon, ())] == [
        *("blk.0.attn_norm_2.weight", "blk.0.attn_norm.weight", "output_norm.bias")
    ]
    assert [place.name for place in places(names[:1], falcon, ())] == ["blk.0.attn_norm.weight"]
    experts = [f"blk.1.ffn_{part}_exps.weight" for part in ("gate", "up", "down")]
    fused = places(experts, ARCHITECTURES["qwen3moe"], ["ffn_gate_up_exps"])
    assert [(place.name, len(place.parts)) for place in fused] == [
        ("blk.1.ffn_gate_up_exps.weight", 2),
        ("blk.1.ffn_down_exps.weight", 1),
    ]


def test_experts_whose_gate_and_up_are_one_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As newer converters may write them: taken apart matrix by matrix, and put together again."""
    entry = replace(ARCHITECTURES["qwen3moe"], fused=("ffn_gate_up_exps",))
    monkeypatch.setitem(ARCHITECTURES, "qwen3moe", entry)
    convert(random_checkpoints.write("qwen3-moe", tmp_path / "c"), tmp_path / "m.eqf", "Q8_0", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as file:
        assert file.tensors["blk.0.ffn_gate_up_exps.weight"].shape == (8, 64, 64)
    monkeypatch.setitem(ARCHITECTURES, "qwen3moe", replace(entry, fused=()))
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    export_gguf(tmp_path / "back.eqf", tmp_path / "again.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "again.gguf").read_bytes()
    with open_file(tmp_path / "m.eqf") as a, open_file(tmp_path / "back.eqf") as b:
        assert {n: t.crc32 for n, t in a.tensors.items()} == {n: t.crc32 for n, t in b.tensors.items()}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("blk.0.ffn_norm.weight", "beside the tensor that holds it"),
        ("blk.0.attn_output.bias", "which falcon is not computed with here"),
    ],
)
def test_a_tensor_too_many_is_refused(extra: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """GGUF's attn_norm of a Falcon with two norms is our ffn_norm."""
    monkeypatch.setitem(CASES, "falcon-newer", changed("falcon-newer"))
    folder = random_checkpoints.write("falcon-newer", tmp_path / "c")
    convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as file:
        specs = [GgufSpec(t.name, t.shape, t.type.name) for t in file.tensors.values()]
        width = file.tensors["output_norm.weight"].shape
        more = [*specs, GgufSpec(extra, width, "F32")]
        with GgufWriter(tmp_path / "more.gguf", file.metadata_bytes, file.keys, more) as writer:
            for spec in specs:
                writer.write(file.data(spec.name))
            writer.write(np.ones(width, np.float32))
    with pytest.raises(EdgeqError, match=message):
        import_gguf(tmp_path / "more.gguf", tmp_path / "back.eqf")


def test_a_tensor_per_expert_is_refused(tmp_path: Path):
    convert(random_checkpoints.write("mixtral", tmp_path / "c"), tmp_path / "m.eqf", "Q8_0", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as file:
        tensors = []
        for t in file.tensors.values():
            each = [(t.name, t.shape, file.data(t.name))]
            if len(t.shape) == 3:
                data = file.data(t.name).reshape(t.shape[0], -1)
                names = [t.name.replace("_exps.", f".{i}.") for i in range(len(data))]
                each = [(name, t.shape[1:], expert) for name, expert in zip(names, data, strict=True)]
            tensors += [(GgufSpec(name, shape, t.type.name), data) for name, shape, data in each]
        specs = [spec for spec, _ in tensors]
        with GgufWriter(tmp_path / "old.gguf", file.metadata_bytes, file.keys, specs) as writer:
            for _, data in tensors:
                writer.write(np.ascontiguousarray(data))
    with pytest.raises(UnsupportedError, match=r"has a tensor per expert, like blk\.0\.ffn_gate\.0\.weight, an old"):
        import_gguf(tmp_path / "old.gguf", tmp_path / "back.eqf")


def test_minicpm3_s_keys_are_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of F16 each is there as it was; blocks along rows are none along columns."""
    monkeypatch.setitem(CASES, "minicpm3", changed("minicpm3"))
    folder = random_checkpoints.write("minicpm3", tmp_path / "c")
    for recipe, types in (("F16", {"F16"}), ("Q8_0", {"F16", "Q8_0"})):
        convert(folder, tmp_path / "m.eqf", recipe, allow_no_tokenizer=True)
        if recipe != "F16":
            with pytest.raises(UnsupportedError, match=r"attn_k_b\.weight and .* the first turned: --fallback"):
                export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
        report = export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf", fallback=AS_Q8_0)
        assert {(t.type, t.again) for t in report.tensors if "attn_kv_b" in t.name} == {("F16", recipe != "F16")}
        import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
        with open_file(tmp_path / "back.eqf") as file:
            assert {tensor.type for tensor in file.tensors.values() if len(tensor.shape) > 1} == types
        for name in ("blk.1.attn_k_b.weight", "blk.1.attn_v_b.weight"):
            expected, found = (weights_in(tmp_path / f"{one}.eqf", name) for one in ("m", "back"))
            np.testing.assert_array_equal(found, expected.astype(np.float16))


def weights_in(path: Path, name: str) -> np.ndarray:
    """f32 [rows, columns] of a matrix of an .eqf file."""
    with open_file(path) as file:
        info = file.tensors[name]
        return decode(file.data(name), *info.shape, info.type)


def older(case: str, newer: Path, path: Path, kind: str) -> Path:
    """`newer` as a GGUF file of before 2025-04: keys and values of a layer's heads in one tensor, of such blocks."""
    config, weights, _ = random_checkpoints.make(case)
    heads, own, value = (config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim"))
    with open_gguf(newer) as file:
        metadata = {key: value for key, value in file.metadata.items() if not key.endswith("_mla")}
        metadata["deepseek2.attention.head_count_kv"] = heads
        metadata["deepseek2.attention.key_length"] = own + config["qk_rope_head_dim"]
        metadata["deepseek2.attention.value_length"] = value
        tensors = []
        for t in file.tensors.values():
            if "attn_v_b" in t.name:
                continue
            spec, data = GgufSpec(t.name, t.shape, t.type.name), file.data(t.name)
            if "attn_k_b" in t.name:
                layer = weights[f"model.layers.{t.name.split('.')[1]}.self_attn.kv_b_proj.weight"]
                spec = GgufSpec(t.name.replace("attn_k_b", "attn_kv_b"), layer.shape, kind)
                data = gguf.quants.quantize(layer, gguf.GGMLQuantizationType[kind])
            tensors.append((spec, data))
        given = {key: typed(value) for key, value in metadata.items()}
        with GgufWriter(path, render_metadata(given), len(given), [spec for spec, _ in tensors]) as writer:
            for _, data in tensors:
                writer.write(np.ascontiguousarray(data))
    return path


@pytest.mark.parametrize(("case", "kind"), [("deepseek-v2-lite", "F32"), ("glm4-moe-lite", "F16"), ("youtu", "Q8_0")])
def test_older_files_of_latent_attention(case: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Keys and values are taken apart, and an export writes the newer layout."""
    monkeypatch.setitem(CASES, case, changed(case))
    convert(random_checkpoints.write(case, tmp_path / "c"), tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    report = import_gguf(older(case, tmp_path / "m.gguf", tmp_path / "old.gguf", kind), tmp_path / "back.eqf")
    found = (
        {t.type for t in report.tensors if "attn_k_b" in t.name},
        {t.type for t in report.tensors if "v_b" in t.name},
    )
    assert found == ({"F16" if kind == "Q8_0" else kind}, {kind})
    export_gguf(tmp_path / "back.eqf", tmp_path / "again.gguf")
    import_gguf(tmp_path / "again.gguf", tmp_path / "again.eqf")
    config, _, prompt = random_checkpoints.make(case)
    heads, own, latent = (config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "kv_lora_rank"))
    with open_gguf(tmp_path / "old.gguf") as file:
        there = gguf.quants.dequantize(file.data("blk.1.attn_kv_b.weight"), gguf.GGMLQuantizationType[kind])
    keys, values = np.split(there.reshape(heads, -1, latent), [own], axis=1)
    turned = keys.transpose(0, 2, 1).reshape(-1, own)
    expected = turned.astype(np.float16) if kind == "Q8_0" else turned
    np.testing.assert_array_equal(weights_in(tmp_path / "back.eqf", "blk.1.attn_k_b.weight"), expected)
    np.testing.assert_array_equal(
        weights_in(tmp_path / "back.eqf", "blk.1.attn_v_b.weight"), values.reshape(-1, latent)
    )
    logits = []
    for name in ("m.eqf", "back.eqf", "again.eqf"):
        with edgeq.load(tmp_path / name) as model:
            logits.append(model.logits(prompt))
    assert np.array_equal(logits[1], logits[2])
    assert kind != "F32" or np.array_equal(*logits[:2])


def test_the_language_model_of_gemma_3_with_eyes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(CASES, "gemma3", changed("gemma3"))
    folder = random_checkpoints.write("gemma3", tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    config["query_pre_attn_scalar"] = config["head_dim"]  # another one goes into the norm of queries
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": config}))
    convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    assert export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf").architecture == "gemma3"
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    with open_file(tmp_path / "m.eqf") as a, open_file(tmp_path / "back.eqf") as b:
        assert {n: t.crc32 for n, t in a.tensors.items()} == {n: t.crc32 for n, t in b.tensors.items()}


@pytest.mark.parametrize("case", sorted(REFUSED - {"mistral-window"}))
def test_configurations_that_gguf_does_not_have(case: str):
    with pytest.raises(UnsupportedError, match="m: "):
        write_config(CASES[case], "m", [])


def test_rotary_embeddings_by_kind_of_layer():
    """As transformers 5 saves Gemma 3: GGUF's readers turn local layers by 10000 whatever there is."""
    config = {key: value for key, value in CASES["gemma3-rope-by-layer"].items() if key != "layer_types"}
    kinds = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500000.0}}
    usual = config | {"rope_parameters": kinds | {"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}}
    values = write_config(usual, "m", [])
    assert values["gemma3.rope.freq_base"] == 500000.0 and values["gemma3.rope.scaling.factor"] == 8.0
    other = config | {"rope_parameters": kinds | {"sliding_attention": {"rope_type": "default", "rope_theta": 3000.0}}}
    with pytest.raises(UnsupportedError, match="m: rope parameters by kind of layer cannot be exported"):
        write_config(other, "m", [])


def test_a_scaling_inside_a_larger_model_goes_along(tmp_path: Path):
    """Llama 3's divisors are a tensor, whatever stands around the language model."""
    source = random_checkpoints.write("llama-rope-llama3", tmp_path / "c")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({"model_type": "perception_lm", "text_config": config}))
    convert(source, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as file:
        assert "rope_freqs.weight" in file.tensors


@pytest.mark.parametrize("case", ["llama", "qwen2", "qwen3", "granite", "olmo2", "lfm2", "gemma"])
def test_another_activation_is_not_passed_over(case: str):
    """Readers of these architectures take one, whatever the file says."""
    key = "hidden_activation" if case.startswith("gemma") else "hidden_act"
    write_config(CASES[case], "m", [])
    with pytest.raises(UnsupportedError, match=r"m: .*relu"):
        write_config(CASES[case] | {key: "relu"}, "m", [])


def test_windows_of_cohere_s_experts_are_read_as_llama_cpp_does():
    """A list, or a number of layers of which the first is global, by itself 4. RMSNorm counts where both are there."""
    values = {"general.architecture": "cohere2moe"} | write_config(CASES["cohere2-moe"], "m", [])
    pattern = "cohere2moe.attention.sliding_window_pattern"
    layers = values["cohere2moe.block_count"]
    for given, every in (({}, 4), ({pattern: 3}, 3), ({pattern: 0}, 0)):
        own = {key: value for key, value in values.items() if key != pattern} | given
        kinds = read_config(own, {"token_embd.weight": (48, 64)}, list, "m")["layer_types"]
        assert [kind == "full_attention" for kind in kinds] == [every > 0 and i % every == 0 for i in range(layers)]
    norms = {"cohere2moe.attention.layer_norm_rms_epsilon": 1e-6}
    assert read_config(values | norms, {"token_embd.weight": (48, 64)}, list, "m")["rms_norm_eps"] == 1e-6


WHOLE = {"attention_chunk_size": None, "no_rope_layers": [1] * 5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (WHOLE, "chunks of 8192 in all but every fourth layer"),
        ({"attention_chunk_size": 24}, "chunks of 8192 in all but every fourth layer"),
        ({"no_rope_layer_interval": 2}, "chunks of 8192 in all but every fourth layer"),
        ({"attn_scale": 0.3}, "attn_scale 0.1 and floor_scale 8192"),
        ({"attn_temperature_tuning": False}, "attn_scale 0.1 and floor_scale 8192"),
        ({"moe_layers": [0, 2]}, "experts in the last of every interleave_moe_layer_step layers"),
        ({"moe_layers": []}, "experts in the last of every interleave_moe_layer_step layers"),
        ({"interleave_moe_layer_step": None, "moe_layers": [1, 3]}, "experts in the last of every"),
        ({"use_qk_norm": False}, "norms heads unless it has 128 experts"),
    ],
)
def test_what_gguf_cannot_say_of_llama_4(change: dict, message: str):
    """Its readers stumble where there are no chunks, and know the other sizes by themselves."""
    with pytest.raises(UnsupportedError, match=f"m: GGUF's llama4 .*{message}"):
        write_config(CASES["llama4-whole"] | change, "m", [])


def test_chunks_of_llama_4_that_readers_do_not_take():
    values = {"general.architecture": "llama4"} | write_config(CASES["llama4-whole"], "m", [])
    shapes = {"token_embd.weight": (48, 72)}
    for key, value in (("sliding_window", 0), ("sliding_window", 24), ("sliding_window_pattern", 3)):
        with pytest.raises(UnsupportedError, match=r"m: chunks of .* are not supported"):
            read_config(values | {f"llama4.attention.{key}": value}, shapes, list, "m")


def test_a_granite_4_that_calls_itself_hybrid():
    """Where no layer is Mamba's, whatever the file says of that."""
    shapes = {"token_embd.weight": (48, 64)}
    for name, case in (("granite", "granite-4-no-rope"), ("granitehybrid", "granite-4")):
        config = CASES[case] | {"tie_word_embeddings": True}
        values = {key.replace("granite.", f"{name}.", 1): value for key, value in write_config(config, "m", []).items()}
        values["general.architecture"] = name
        assert architecture(read_config(values, shapes, list, "m")) == architecture(config)
    with pytest.raises(EdgeqError, match="m: mamba_n_heads is 0"):  # a Mamba layer of which nothing is said
        architecture(read_config(values | {"granitehybrid.attention.head_count_kv": [0, 2]}, shapes, list, "m"), "m")


def test_norms_within_mamba_layers_share_the_epsilon():
    """As GGUF's readers know but one: said where another was."""
    notes: list[str] = []
    values = {"general.architecture": "mamba"} | write_config(CASES["falcon-mamba"], "m", notes)
    assert notes == ["GGUF has one epsilon for all norms: readers take 1e-05 within Mamba layers, not 0.001"]
    back = read_config(values, {"token_embd.weight": (48, 64)}, list, "m")
    assert (back["model_type"], back["mixer_rms_eps"]) == ("falcon_mamba", 1e-5)
    with pytest.raises(UnsupportedError, match=r"m: ssm\.inner_size is 192, which is supported as 128 only"):
        read_config(values | {"mamba.ssm.inner_size": 192}, {"token_embd.weight": (48, 64)}, list, "m")


@pytest.mark.parametrize("kept", [[0, 2, 0, 0], [2, 0, 2, 0], [0, 0, 0, 0], [2, 2, 2, 2]])
def test_layers_of_jamba_are_told_by_their_heads(kept: list[int]):
    values = {"general.architecture": "jamba"} | write_config(CASES["jamba"], "m", [])
    shapes = {"token_embd.weight": (48, 64), "blk.1.ffn_gate_inp.weight": (5, 64), "output.weight": (48, 64)}
    model = architecture(read_config(values | {"jamba.attention.head_count_kv": kept}, shapes, list, "m"))
    assert [isinstance(layer.mixer, Attention) for layer in model.layers] == [heads > 0 for heads in kept]
    assert [name for name in model.tensors if "gate_inp" in name] == ["blk.1.ffn_gate_inp.weight"]
    with pytest.raises(UnsupportedError, match="m: layers of attention, or of experts, are not one of so many"):
        read_config(values | {"jamba.attention.head_count_kv": [2, 2, 0, 2]}, shapes, list, "m")


def test_what_gguf_cannot_say():
    notes: list[str] = []
    values = write_config(
        CONFIG | {"model_type": "mistral", "num_key_value_heads": 4, "sliding_window": 4096}, "m", notes
    )
    assert values["llama.context_length"] == 4096 and "no sliding window" in notes[0]
    with pytest.raises(UnsupportedError, match="rope scaling 'dynamic' cannot be exported"):
        write_config(CONFIG | {"rope_scaling": {"type": "dynamic"}}, "m", notes)
    with pytest.raises(UnsupportedError, match="use_sliding_window is True, GGUF's qwen2 has False"):
        write_config(CONFIG | {"model_type": "qwen2", "use_sliding_window": True}, "m", notes)


@pytest.mark.parametrize(
    ("folder", "vectors", "size", "model"),
    [
        ("gpt2", "gpt-2", 50257, ("gpt2", "gpt-2")),
        ("qwen2.5", "qwen2", 151936, ("gpt2", "qwen2")),
        ("smollm2", "starcoder", 49152, ("gpt2", "starcoder")),
        ("phi-3", "phi-3", 32064, ("llama", "default")),
        ("open_llama_3b", None, 32000, ("llama", "default")),
    ],
)
def test_tokenizers_there_and_back(shared_data: Path, folder: str, vectors: str | None, size: int, model):
    """A tokenizer exported and imported again gives the ids of the original, and llama.cpp's where these are known."""
    assets = {p.name: p.read_bytes() for p in (shared_data / "tokenizers" / folder).iterdir()}
    metadata = tokenizer_metadata(assets, size, "m")
    assert (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]) == model
    original, back = load_tokenizer(assets), load_tokenizer(tokenizer_assets(metadata, "m"))
    cases = read_vectors(shared_data / "ggml-vocab", vectors or "llama-spm")
    assert len(cases) == 47
    for text, ids in cases:
        expected = ids if vectors and folder != "smollm2" else original.encode(text, add_special=False)
        assert back.encode(text, add_special=False) == expected, repr(text)
        assert back.encode(text) == original.encode(text), repr(text)
    assert original.bos_id in (back.bos_id, None) and back.eos_ids >= original.eos_ids


def test_a_tokenizer_that_gguf_cannot_hold(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    document = json.loads((folder / "tokenizer.json").read_text())
    document["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Whitespace"}, document["pre_tokenizer"]],
    }
    (folder / "tokenizer.json").write_text(json.dumps(document))
    convert(folder, tmp_path / "m.eqf", "Q8_0")
    with pytest.raises(EdgeqError, match="cuts words as no pre-tokenizer of GGUF does"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    report = export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf", allow_no_tokenizer=True)
    assert "the tokenizer is left out" in report.notes[0]
    assert "no tokenizer" in import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf").notes[0]


def test_norms_of_heads_are_rows_there(tmp_path: Path):
    """StableLM 2 12B's, of query heads and of key heads: llama.cpp's shapes."""
    convert(
        random_checkpoints.write("stablelm-normed-heads", tmp_path), tmp_path / "m.eqf", "F32", allow_no_tokenizer=True
    )
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    with open_gguf(tmp_path / "m.gguf") as file:
        found = [file.tensors[f"blk.1.attn_{part}_norm.weight"].shape for part in "qk"]
    assert found == [(4, 24), (2, 24)]
