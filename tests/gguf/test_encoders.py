"""Encoders as GGUF files and back: tensors, vocabulary, pooling."""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import random_checkpoints
import sentence_encoder

import edgeq
from edgeq.container.reader import open_file
from edgeq.errors import TokenizerError, UnsupportedError
from edgeq.gguf.exporter import export_gguf
from edgeq.gguf.importer import import_gguf
from edgeq.runtime.session import Session

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
import make_jina_golden

TEXTS = ["abc. de", "é f", "", "x?"]


def exported(folder: Path, kind: str = "F32", **files) -> Path:
    edgeq.convert(sentence_encoder.write(folder / "checkpoint", **files), folder / "m.eqf", kind)
    export_gguf(folder / "m.eqf", folder / "m.gguf")
    return folder / "m.gguf"


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_the_same_vectors(kind: str, tmp_path: Path):
    import_gguf(exported(tmp_path, kind), tmp_path / "back.eqf")
    with edgeq.load(tmp_path / "m.eqf", threads=1) as model, edgeq.load(tmp_path / "back.eqf", threads=2) as back:
        assert back.file.metadata["config"]["model_type"] == "bert"
        assert [back.embedder.tokens(text) for text in TEXTS] == [model.embedder.tokens(text) for text in TEXTS]
        np.testing.assert_array_equal(back.embed(TEXTS, normalize=False), model.embed(TEXTS, normalize=False))
    export_gguf(tmp_path / "back.eqf", tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


@pytest.mark.parametrize(("mode", "number"), [("mean_tokens", 1), ("cls_token", 2), ("lasttoken", 3)])
def test_pooling(mode: str, number: int, tmp_path: Path):
    path = exported(tmp_path, pooling={f"pooling_mode_{mode}": True})
    fields = gguf.GGUFReader(path).fields
    assert fields["bert.pooling_type"].contents() == number
    assert fields["bert.attention.causal"].contents() is False
    import_gguf(path, tmp_path / "back.eqf")
    with edgeq.load(tmp_path / "m.eqf") as model, edgeq.load(tmp_path / "back.eqf") as back:
        assert back.embedder.settings.pooling == model.embedder.settings.pooling


def test_settings_that_gguf_has_no_key_for_are_told(tmp_path: Path):
    edgeq.convert(sentence_encoder.write(tmp_path / "c", {"pooling_mode_max_tokens": True}), tmp_path / "m.eqf", "F32")
    notes = export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf").notes
    assert [note.partition(":")[0] for note in notes] == [
        "GGUF has no max pooling",
        "GGUF cannot say that vectors get the length 1",
        "GGUF cannot say that texts are cut to 12 tokens",
    ]
    assert "bert.pooling_type" not in gguf.GGUFReader(tmp_path / "m.gguf").fields
    edgeq.convert(sentence_encoder.write(tmp_path / "d", modules=None, most=None), tmp_path / "n.eqf", "F32")
    assert export_gguf(tmp_path / "n.eqf", tmp_path / "n.gguf").notes == []


def test_a_vocabulary_with_capitals_is_refused(tmp_path: Path):
    folder = sentence_encoder.write(tmp_path / "c")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    edgeq.convert(folder, tmp_path / "m.eqf", "F32")
    with pytest.raises(TokenizerError, match=r"m\.eqf: tokenizer\.json keeps capitals or accents"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")


def test_another_activation_is_refused(tmp_path: Path):
    folder = sentence_encoder.write(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    edgeq.convert(folder, tmp_path / "m.eqf", "F32")
    with pytest.raises(UnsupportedError, match="hidden_act is relu, GGUF's bert has gelu"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")


@pytest.mark.parametrize("case", ["bert-rank", "bert-classes"])
def test_the_same_scores(case: str, tmp_path: Path):
    folder = sentence_encoder.write_reranker(tmp_path / "c", case)
    edgeq.convert(folder, tmp_path / "m.eqf", "F32")
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    labels = ["LABEL_0"] if case == "bert-rank" else ["good", "bad", "neither"]
    assert fields["bert.pooling_type"].contents() == 4
    assert fields["bert.classifier.output_labels"].contents() == labels
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    pairs = [("ab", text) for text in TEXTS]
    with edgeq.load(tmp_path / "m.eqf", threads=1) as model, edgeq.load(tmp_path / "back.eqf", threads=1) as back:
        assert back.classifying.labels == tuple(labels)
        np.testing.assert_array_equal(back.classifying(pairs), model.classifying(pairs))
    export_gguf(tmp_path / "back.eqf", tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


def test_a_classifier_without_a_pooler(tmp_path: Path):
    """As llama.cpp's converter leaves it out: its readers multiply the first state by the last matrix alone."""
    edgeq.convert(sentence_encoder.write_reranker(tmp_path / "c"), tmp_path / "m.eqf", "F32")
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    whole = gguf.GGUFReader(tmp_path / "m.gguf")
    writer = gguf.GGUFWriter(tmp_path / "n.gguf", "bert")
    for name, field in whole.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "bert.pooling_type"):
            kind = field.types[0]
            sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub)
    for tensor in whole.tensors:
        if tensor.name not in ("cls.weight", "cls.bias"):
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    import_gguf(tmp_path / "n.gguf", tmp_path / "back.eqf")
    output = next(tensor.data for tensor in whole.tensors if tensor.name == "cls.output.weight")
    bias = next(tensor.data for tensor in whole.tensors if tensor.name == "cls.output.bias")
    with edgeq.load(tmp_path / "back.eqf", threads=1) as model:
        state = model.embed(["abc"], pooling="cls", normalize=False)[0]
        np.testing.assert_allclose(model.classifying(["abc"])[0], output @ state + bias, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("modernbert", "modern-bert"),
        ("modernbert-rank", "modern-bert"),
        ("nomic-bert", "nomic-bert"),
        ("jina-bert-v2", "jina-bert-v2"),
        ("jina-bert-v2-code", "jina-bert-v2"),
        ("jina-embeddings-v3", "jina-bert-v3"),
        ("eurobert", "eurobert"),
        ("roberta", "bert"),
    ],
)
def test_the_same_states(case: str, name: str, tmp_path: Path):
    folder, prompt = random_checkpoints.write(case, tmp_path / "c"), random_checkpoints.make(case)[2]
    if case.startswith("modernbert"):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"layer_types": None, "global_attn_every_n_layers": 2}))
    edgeq.convert(folder, tmp_path / "m.eqf", "Q8_0", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert reader.fields["general.architecture"].contents() == name
    if case.startswith("modernbert"):
        assert reader.fields["modern-bert.rope.freq_base_swa"].contents() == 10000.0
        assert reader.fields["modern-bert.rope.freq_base"].contents() == 160000.0
        assert reader.fields["modern-bert.attention.sliding_window"].contents() == 16
    types = [tensor.shape[1] for tensor in reader.tensors if tensor.name == "token_types.weight"]
    count = reader.fields.get("tokenizer.ggml.token_type_count")
    assert types == ([count.contents()] if count else []), "llama.cpp asks for it"
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf", allow_no_tokenizer=True)
    found = []
    for path in (tmp_path / "m.eqf", tmp_path / "back.eqf"):
        with open_file(path) as file, Session(file, context=64, threads=1) as session:
            found.append(session.eval(prompt, all_logits=True))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("case", make_jina_golden.CASES)
def test_a_file_that_llama_cpp_reads(case: str, tmp_path: Path):
    """The one whose states are golden, written without edgeq."""
    folder = random_checkpoints.write(case, tmp_path / "c")
    edgeq.convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    import_gguf(make_jina_golden.write(tmp_path / "m.gguf", case), tmp_path / "back.eqf")
    with edgeq.load(tmp_path / "back.eqf", threads=1) as model, open_file(tmp_path / "m.eqf") as file:
        assert model.embedder.settings.pooling == "mean" and len(model.embedder.tokens("abc. de")[0]) == 8
        for name in file.tensors:
            np.testing.assert_array_equal(model.file.data(name), file.data(name))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("modernbert", "the order of its local and global layers cannot be exported"),
        ("modernbert-classes", "norm_bias is True, GGUF's modern-bert has False"),
        ("nomic-bert-rank", "GGUF's nomic-bert has no classifier as this model's"),
        ("eurobert-llama3", "rope scaling 'llama3' cannot be exported: GGUF's eurobert has none"),
        ("qwen3-rank", "GGUF's qwen3 has no classifier as this model's"),
    ],
)
def test_encoders_that_gguf_cannot_say(case: str, message: str, tmp_path: Path):
    folder = random_checkpoints.write(case.removesuffix("-llama3"), tmp_path / "c")
    if case.endswith("-llama3"):
        config = json.loads((folder / "config.json").read_text())
        scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        scaling["original_max_position_embeddings"] = 16
        (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": scaling}))
    if case == "modernbert":
        config = json.loads((folder / "config.json").read_text())
        kinds = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
        (folder / "config.json").write_text(json.dumps(config | {"layer_types": kinds}))
    edgeq.convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    with pytest.raises(UnsupportedError, match=message):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")


def test_embeddinggemma_and_its_matrices(tmp_path: Path):
    folder, prompt = random_checkpoints.write("embeddinggemma", tmp_path / "c"), random_checkpoints.make("bert")[2]
    config = json.loads((folder / "config.json").read_text())
    usual = {"rope_local_base_freq": 10000.0, "sliding_window_pattern": 6, "query_pre_attn_scalar": config["head_dim"]}
    (folder / "config.json").write_text(json.dumps({**config, **usual}))
    (folder / "modules.json").write_text(json.dumps(sentence_encoder.MODULES))
    sentence_encoder.with_dense(folder)
    edgeq.convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    with pytest.raises(UnsupportedError, match="GGUF's gemma-embedding has no place for the module '2_Dense'"):
        export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")  # which has a bias
    for place in (2, 3):
        path = folder / f"{place}_Dense" / "config.json"
        plain = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
        path.write_text(json.dumps({**json.loads(path.read_text()), **plain}))
    edgeq.convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["gemma-embedding.attention.sliding_window"].contents() == config["sliding_window"]
    assert fields["gemma-embedding.dense_3_feat_out"].contents() == 24
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf", allow_no_tokenizer=True)
    found = []
    for path in (tmp_path / "m.eqf", tmp_path / "back.eqf"):
        with open_file(path) as file, Session(file, context=64, threads=1) as session:
            found.append(session.eval(prompt, all_logits=True))
            assert [module.matrix.rows for module in session.model.dense] == [40, 24]
    np.testing.assert_array_equal(*found)
