"""Encoders' last states, and scores of rerankers and classifiers, against transformers', on random checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import random_checkpoints
from encoder_cases import CLASSIFIERS, ENCODERS, FIRST, WITHOUT_CLASS

from edgeq.container.reader import open_file
from edgeq.engine.classifying import Classifying
from edgeq.errors import CheckpointError, UnsupportedError, UsageError
from edgeq.models import architecture
from edgeq.quantize.pipeline import convert
from edgeq.runtime.session import Session

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "encoders.npz")
JINA = np.load(Path(__file__).resolve().parents[1] / "golden" / "jina.npz")
NEWER = [case for case in ENCODERS if case not in FIRST]


def converted(case: str, folder: Path, kind: str = "F32") -> Path:
    convert(random_checkpoints.write(case, folder), folder / "m.eqf", kind, allow_no_tokenizer=True)
    return folder / "m.eqf"


def states(path: Path, prompt: list[int], threads: int = 2) -> np.ndarray:
    with open_file(path) as file, Session(file, context=70, threads=threads, states=True) as session:
        return session.eval(prompt, all_logits=True)


def scores(path: Path, case: str, typed: bool = True) -> np.ndarray:
    with open_file(path) as file, Session(file, threads=2) as session:
        types = random_checkpoints.types(case) if typed else None
        return Classifying(file, session, None).of_tokens(random_checkpoints.make(case)[2], types)


def test_every_case_is_golden() -> None:
    assert {name for name in GOLDEN if " " not in name and name != "texts"} == {*NEWER, *CLASSIFIERS}, (
        "run tools/make_encoder_golden.py"
    )
    for case in (*NEWER, *CLASSIFIERS):
        assert GOLDEN[f"{case} digest"] == random_checkpoints.digest(case), "run tools/make_encoder_golden.py"


@pytest.mark.parametrize("case", NEWER)
def test_states_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    found = states(converted(case, tmp_path), random_checkpoints.make(case)[2])
    assert found.shape == GOLDEN[case].shape
    assert np.abs(found - GOLDEN[case]).max() <= 1e-3


def older_gte(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As its makers name and join its tensors."""
    found, joined = {}, {}
    for name, values in weights.items():
        layer, _, own = name.removeprefix("layers.").partition(".")
        own, ending = own.rsplit(".", 1) if name.startswith("layers.") else (name, "")
        part = own.rsplit(".", 1)[-1]
        if part in ("q_proj", "k_proj", "v_proj"):
            joined.setdefault(f"encoder.layer.{layer}.attention.qkv_proj.{ending}", {})["qkv".index(part[0])] = values
        elif part in ("up_proj", "gate_proj"):
            joined.setdefault(f"encoder.layer.{layer}.mlp.up_gate_proj.{ending}", {})["ug".index(part[0])] = values
        elif ending:
            own = own.replace("self_attn", "attention").replace("post_attention_layernorm", "attn_ln")
            found[f"encoder.layer.{layer}.{own.replace('post_mlp_layernorm', 'mlp_ln')}.{ending}"] = values
        else:
            found[name] = values
    return found | {name: np.concatenate([parts[i] for i in sorted(parts)]) for name, parts in joined.items()}


@pytest.mark.parametrize("prefix", ["", "new."])
def test_names_of_the_makers_of_gte(prefix: str, tmp_path: Path) -> None:
    config, weights, prompt = random_checkpoints.make("gte")
    named = {f"{prefix}{name}": values for name, values in older_gte(weights).items()}
    assert f"{prefix}encoder.layer.0.attention.qkv_proj.bias" in named and not named.keys() & weights.keys() - {
        name for name in weights if name.startswith("embeddings.")
    }
    path = random_checkpoints.write_weights(config, named, tmp_path)
    convert(path, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    np.testing.assert_array_equal(states(tmp_path / "m.eqf", prompt), states(converted("gte", tmp_path / "c"), prompt))


@pytest.mark.parametrize("prefix", ["gte.", "new."])
def test_names_in_rerankers_of_the_makers_of_gte(prefix: str, tmp_path: Path) -> None:
    config, weights, _ = random_checkpoints.make("gte-rank")
    older = older_gte(weights).items()
    named = {name if name.startswith("classifier.") else f"{prefix}{name}": values for name, values in older}
    assert f"{prefix}pooler.dense.weight" in named
    convert(
        random_checkpoints.write_weights(config, named, tmp_path), tmp_path / "m.eqf", "F32", allow_no_tokenizer=True
    )
    usual = converted("gte-rank", tmp_path / "c")
    np.testing.assert_array_equal(scores(tmp_path / "m.eqf", "gte-rank"), scores(usual, "gte-rank"))


def written_jina(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As transformers writes its tensors, which is what its makers call and join them."""
    names = {"post_attention_layernorm": "norm1", "post_mlp_layernorm": "norm2", "self_attn.o_proj": "mixer.out_proj"}
    names |= {"embeddings.LayerNorm": "emb_ln", "layers.": "encoder.layers."}
    found: dict[str, np.ndarray] = {}
    for name, values in weights.items():
        for own, theirs in names.items():
            name = name.replace(own, theirs)
        if "self_attn.q_proj" in name:
            others = (weights[name.removeprefix("encoder.").replace("q_proj", f"{part}_proj")] for part in "kv")
            found[name.replace("self_attn.q_proj", "mixer.Wqkv")] = np.concatenate([values, *others])
        elif "self_attn" not in name:
            found[name] = values
    return found


@pytest.mark.parametrize("prefix", ["", "roberta."])
def test_names_that_transformers_writes_of_jina(prefix: str, tmp_path: Path) -> None:
    config, weights, prompt = random_checkpoints.make("jina-embeddings-v3")
    named = {f"{prefix}{name}": values for name, values in written_jina(weights).items()}
    assert {f"{prefix}emb_ln.bias", f"{prefix}encoder.layers.0.mixer.Wqkv.bias"} < named.keys()
    assert len(named) == len(weights) - 4 * config["num_hidden_layers"]
    path = random_checkpoints.write_weights(config, named, tmp_path)
    convert(path, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    usual = converted("jina-embeddings-v3", tmp_path / "c")
    np.testing.assert_array_equal(states(tmp_path / "m.eqf", prompt), states(usual, prompt))


def test_names_that_transformers_writes_of_ultrabert(tmp_path: Path) -> None:
    config, weights, prompt = random_checkpoints.make("ultrabert")
    named = {f"ultrabert.{name.removeprefix('model.')}": values for name, values in weights.items()}
    path = random_checkpoints.write_weights(config, named, tmp_path)
    convert(path, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    usual = states(converted("ultrabert", tmp_path / "c"), prompt)
    np.testing.assert_array_equal(states(tmp_path / "m.eqf", prompt), usual)


def test_older_configurations_of_ultrabert() -> None:
    """Those of the published checkpoint have a window and a theta for each layer."""
    newer = {
        key: value for key, value in ENCODERS["ultrabert"].items() if key not in ("rope_parameters", "layer_types")
    }
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    thetas = {"full_attention": {"rope_theta": 90000.0}, "sliding_attention": {"rope_theta": 5000.0}}
    wanted = architecture({**newer, "layer_types": kinds, "rope_parameters": thetas, "sliding_window": 9})
    older = {"attention_windows": [0, 9, 9, 0], "rope_theta": [90000.0, 5000.0, 5000.0, 90000.0]}
    for given in ({}, {"layer_types": None}, {"rope_parameters": None}):
        assert architecture({**newer, **older, **given}) == wanted  # whatever sliding_window says
    usual = architecture({**newer, "attention_windows": [0, 9, 9, 0]})
    assert usual == architecture({**newer, "layer_types": kinds, "sliding_window": 9})
    with pytest.raises(CheckpointError, match="attention_windows is 9, a list of 4"):
        architecture({**newer, "attention_windows": 9})
    with pytest.raises(CheckpointError, match="rope_theta is 'x', a positive number"):
        architecture({**newer, **older, "rope_theta": [1.0, "x"]})


@pytest.mark.parametrize("heads", [6, 3])
@pytest.mark.parametrize("case", WITHOUT_CLASS)
def test_states_of_jina_are_those_of_llama_cpp(case: str, heads: int, tmp_path: Path) -> None:
    """Whose GELU is a table of f16; with other heads they fall with distance otherwise."""
    assert JINA[f"{case} digest"] == random_checkpoints.digest(case), "run tools/make_jina_golden.py"
    path = converted(case, tmp_path)
    with open_file(path) as file:
        file.metadata["config"]["num_attention_heads"] = heads
        with Session(file, context=70, threads=2, states=True) as session:
            found = session.eval(random_checkpoints.make(case)[2], all_logits=True)
    assert (np.abs(found - JINA[case]).max() <= 0.01) == (heads == 6)


def test_jinas_model_of_code_is_known_by_its_code() -> None:
    config = {key: value for key, value in WITHOUT_CLASS["jina-bert-v2-code"].items() if key != "qk_post_norm"}
    assert architecture(config) != architecture(WITHOUT_CLASS["jina-bert-v2-code"])
    config["auto_map"] = {"AutoModel": "jinaai/jina-bert-v2-qk-post-norm--modeling_bert.JinaBertModel"}
    assert architecture(config) == architecture(WITHOUT_CLASS["jina-bert-v2-code"])


@pytest.mark.parametrize("case", NEWER)
def test_quantized_encoders(case: str, tmp_path: Path) -> None:
    """Near the exact states, and the same bits with any number of threads."""
    path, prompt, expected = converted(case, tmp_path, "Q8_0"), random_checkpoints.make(case)[2], GOLDEN[case]
    found = states(path, prompt)
    assert np.sqrt(np.mean((found - expected) ** 2)) <= 0.2 * expected.std()
    np.testing.assert_array_equal(states(path, prompt, threads=3), found)


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_scores_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    found = scores(converted(case, tmp_path), case)
    assert found.shape == GOLDEN[case].shape
    assert np.abs(found - GOLDEN[case]).max() <= 1e-3


@pytest.mark.parametrize("case", ["bert-rank", "nomic-bert-rank"])
def test_types_of_tokens_are_seen(case: str, tmp_path: Path) -> None:
    found = scores(converted(case, tmp_path), case, typed=False)
    assert np.abs(found - GOLDEN[case]).max() > 0.01


def test_the_head_stays_exact_where_matrices_are_quantized(tmp_path: Path) -> None:
    with open_file(converted("bert-classes", tmp_path, "Q4_K_M")) as file:
        kinds = {name: info.type for name, info in file.tensors.items()}
    assert kinds["cls.weight"] == kinds["cls.output.weight"] == "F32" != kinds["blk.0.attn_q.weight"]


def test_types_that_there_are_not(tmp_path: Path) -> None:
    with open_file(converted("bert-rank", tmp_path)) as file, Session(file, threads=1) as session:
        for types in ([0, 0, 2], [0, 0, -1], [0, 1]):
            with pytest.raises(UsageError, match="types must be one per token, each between 0 and 1"):
                session.eval([3, 4, 5], types=types)


@pytest.mark.parametrize(
    ("key", "other"),
    [("local_attention", 18), ("layer_types", ["full_attention"] * 4), ("hidden_activation", "relu")],
)
def test_features_of_modernbert_are_seen(key: str, other: object, tmp_path: Path) -> None:
    path = converted("modernbert", tmp_path)
    with open_file(path) as file:
        file.metadata["config"][key] = other
        with Session(file, context=70, threads=1) as session:
            found = session.eval(random_checkpoints.make("modernbert")[2], all_logits=True)
    assert np.abs(found - GOLDEN["modernbert"]).max() > 0.01


def test_quantized_relative_positions(tmp_path: Path) -> None:
    """Heads of 32 values are wide enough for tables of Q8_0; the same bits with any number of threads."""
    folder, prompt = random_checkpoints.write("deberta-v2", tmp_path), random_checkpoints.make("deberta-v2")[2]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 2}))
    found = {}
    for kind in ("F32", "Q8_0"):
        convert(folder, tmp_path / f"{kind}.eqf", kind, allow_no_tokenizer=True)
        found[kind] = states(tmp_path / f"{kind}.eqf", prompt)
    with open_file(tmp_path / "Q8_0.eqf") as file:
        assert file.tensors["blk.0.attn_pos_k.weight"].type == "Q8_0"
    assert np.sqrt(np.mean((found["Q8_0"] - found["F32"]) ** 2)) <= 0.1 * found["F32"].std()
    np.testing.assert_array_equal(states(tmp_path / "Q8_0.eqf", prompt, threads=3), found["Q8_0"])


@pytest.mark.parametrize(
    "change",
    [{"position_buckets": -1, "max_relative_positions": 16}, {"max_relative_positions": 40}, {"norm_rel_ebd": "none"}],
)
def test_features_of_deberta_are_seen(change: dict[str, object], tmp_path: Path) -> None:
    folder = random_checkpoints.write("deberta-v2", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    found = states(tmp_path / "m.eqf", random_checkpoints.make("deberta-v2")[2])
    assert np.abs(found - GOLDEN["deberta-v2"]).max() > 0.01


@pytest.mark.parametrize(
    ("case", "change", "error", "message"),
    [
        ("jina-bert-v2", {"feed_forward_type": "reglu"}, UnsupportedError, "feed_forward_type 'reglu'"),
        (
            "jina-bert-v2",
            {"architectures": ["JinaBertForSequenceClassification"]},
            UnsupportedError,
            "the head of Jina's first rerankers is not supported",
        ),
        ("deberta-v2", {"conv_kernel_size": 3}, UnsupportedError, "conv_kernel_size 3"),
        ("deberta-v2", {"embedding_size": 32}, UnsupportedError, "embedding_size 32"),
        ("deberta-v2", {"relative_attention": False}, UnsupportedError, "relative_attention False with pos_att_type"),
        ("deberta-v2", {"pos_att_type": ["c2p"]}, UnsupportedError, r"pos_att_type \['c2p'\] is not supported"),
        ("deberta-v2", {"position_buckets": 12}, UnsupportedError, "12 relative positions"),
        ("deberta-v2", {"position_buckets": 160}, CheckpointError, "position_buckets 160 cannot tell 70 positions"),
        ("deberta-v2-rank", {"pooler_hidden_size": 32}, UnsupportedError, "pooler_hidden_size 32"),
        ("bert-rank", {"id2label": {"0": "a", "2": "b"}}, CheckpointError, "id2label is .*, an object of a name"),
        ("bert-rank", {"id2label": ["a"]}, CheckpointError, "id2label is .*, an object of a name"),
        ("modernbert-rank", {"classifier_pooling": "max"}, UnsupportedError, "classifier_pooling 'max'"),
        ("eurobert-late", {"classifier_pooling": "cls"}, UnsupportedError, "classifier_pooling 'cls' is not supported"),
        ("nomic-bert-rank", {"moe_every_n_layers": 2}, UnsupportedError, "moe_every_n_layers 2"),
        ("nomic-bert-rank", {"rotary_scaling_factor": 2}, UnsupportedError, "rotary_scaling_factor 2"),
        ("nomic-bert-rank", {"partial_rotary_factor": 0.5}, UnsupportedError, "partial_rotary_factor below 1"),
    ],
)
def test_configurations_that_are_refused(case, change, error, message) -> None:
    with pytest.raises(error, match=message):
        architecture({**(ENCODERS | CLASSIFIERS | WITHOUT_CLASS)[case], **change}, "c")


def test_labels_that_are_not_named() -> None:
    config = {key: value for key, value in CLASSIFIERS["bert-rank"].items() if key != "id2label"}
    assert architecture(config).classifier.labels == ("LABEL_0", "LABEL_1")
    assert architecture({**config, "num_labels": 1}).classifier.labels == ("LABEL_0",)
