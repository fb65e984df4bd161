"""Every feature of the supported architectures against transformers' logits, on random checkpoints; of those that it
has no class of, against llama.cpp's."""

import json
from pathlib import Path

import numpy as np
import pytest
import random_checkpoints
from architecture_cases import CASES
from safetensors.numpy import load_file, save_file

from edgeq.container.reader import open_file
from edgeq.errors import CheckpointError, ContextError, UnsupportedError
from edgeq.models import architecture
from edgeq.models.image_tower import FAMILIES
from edgeq.quantize.pipeline import convert
from edgeq.runtime.session import Session

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DIGESTS = json.loads((GOLDEN / "manifest.json").read_text())["architectures"]


def logits(folder: Path, prompt: list[int]) -> np.ndarray:
    path = folder / "m.eqf"
    convert(folder, path, "F32", allow_no_tokenizer=True)
    with open_file(path) as file, Session(file, context=len(prompt), threads=2) as session:
        return session.eval(prompt, all_logits=True)


def test_every_case_has_golden_logits() -> None:
    assert DIGESTS.keys() == random_checkpoints.CASES.keys(), "run tools/make_golden.py"


@pytest.mark.parametrize("case", random_checkpoints.CASES)
def test_logits_and_greedy_text_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    assert random_checkpoints.digest(case) == DIGESTS[case], "another checkpoint: run tools/make_golden.py"
    prompt, golden = random_checkpoints.make(case)[2], random_checkpoints.golden()
    expected, follows = golden[case], golden[f"{case} greedy"].tolist()
    path = tmp_path / "m.eqf"
    convert(random_checkpoints.write(case, tmp_path), path, "F32", allow_no_tokenizer=True)
    with open_file(path) as file, Session(file, context=len(prompt) + len(follows), threads=2) as session:
        found = session.eval(prompt, all_logits=True)
        text = [int(found[-1].argmax())]
        while len(text) < len(follows):
            text.append(int(session.eval([text[-1]])[-1].argmax()))
    assert text[: len(follows)] == follows
    assert found.shape == expected.shape == (random_checkpoints.POSITIONS, expected.shape[1])
    assert np.abs(found - expected).max() <= 1e-3
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


@pytest.mark.parametrize(
    "case", [case for case in random_checkpoints.CASES if "rope" not in case and "smollm3" not in case]
)
def test_quantized_shapes(case: str, tmp_path: Path) -> None:
    """Eight bits follow the same path as all quantized types, over ragged rows, or fall back to F16; and however a
    prompt is split, its logits are the same bits.

    SmolLM3's layers without rotary embedding are left out: with random weights they make of each rounding a lot.
    """
    prompt = random_checkpoints.make(case)[2]
    path = tmp_path / "m.eqf"
    convert(random_checkpoints.write(case, tmp_path), path, "Q8_0", allow_no_tokenizer=True)
    with open_file(path) as file, Session(file, context=len(prompt), threads=2) as session:
        found = session.eval(prompt, all_logits=True)
        session.rewind(0)
        parts = [session.eval(prompt[:37], all_logits=True), *(session.eval([token]) for token in prompt[37:])]
    np.testing.assert_array_equal(np.concatenate(parts), found)
    expected = random_checkpoints.golden()[case]
    # Few experts per token, normalized: they make more of a rounding
    favoured = ("gpt-oss", "ernie4-5-moe", "qwen3-5-moe", "qwen3-next", "glm4-moe", "dots1", "deepseek-v3", "phimoe")
    favoured += ("exaone-moe", "smallthinker", "sarvam-mla")
    # and so do four layers of Mamba, whose values are products of several that are rounded
    more, grouped = case.startswith((*favoured, "jamba", "zamba2")), case == "deepseek-v3" or case.startswith("ling")
    most = 0.3 if grouped else 0.2 if more else 0.1  # where groups of experts are chosen, even more
    assert np.sqrt(np.mean((found - expected) ** 2)) <= most * expected.std()


@pytest.mark.parametrize(
    ("case", "key", "other"),
    [
        ("llama-rope-linear", "rope_scaling", None),
        ("llama-rope-llama3", "rope_scaling", None),
        ("llama", "rope_theta", 500000.0),
        ("mistral-window", "sliding_window", 32),
        ("mistral-window", "sliding_window", None),
        ("qwen2-window-from-layer-1", "max_window_layers", 3),
        ("qwen2-window-from-layer-1", "max_window_layers", 0),
        ("qwen2-window-from-layer-1", "use_sliding_window", False),
        ("llama-rope-dynamic-beyond", "rope_scaling", None),
        ("llama-rope-yarn", "rope_scaling", None),
        ("llama-rope-yarn-mscale", "rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("gemma", "hidden_activation", "relu"),
        ("gemma2", "attn_logit_softcapping", None),
        ("gemma2", "final_logit_softcapping", None),
        ("gemma2", "query_pre_attn_scalar", 24),
        ("gemma2", "sliding_window", 64),
        ("gemma3", "sliding_window_pattern", 2),
        ("gemma3", "rope_local_base_freq", 10000.0),
        ("gemma3", "rope_scaling", None),
        ("gemma3-rope-by-layer", "layer_types", ["sliding_attention"] * 4),
        ("gemma3n", "activation_sparsity_pattern", [0.0] * 6),
        ("gemma3n", "altup_active_idx", 0),
        ("gemma3n", "altup_correct_scale", False),
        ("phi3-longrope-long", "original_max_position_embeddings", 64),
        ("smollm3", "no_rope_layer_interval", 2),
        ("smollm3-window", "sliding_window", 32),
        ("granite", "embedding_multiplier", 1.0),
        ("granite", "attention_multiplier", 0.25),
        ("granite", "residual_multiplier", 1.0),
        ("granite", "logits_scaling", 1.0),
        ("stablelm", "partial_rotary_factor", 0.5),
        ("starcoder2", "sliding_window", None),
        ("gpt2", "activation_function", "relu"),
        ("gpt-neox", "rotary_pct", 0.5),
        ("gpt-neox", "rotary_emb_base", 10000),
        ("gpt-neox", "use_parallel_residual", False),
        ("bitnet", "hidden_act", "silu"),
        ("mixtral", "num_experts_per_tok", 1),
        ("gpt-oss", "swiglu_limit", 3.0),
        ("gpt-oss", "swiglu_alpha", 1.0),
        ("gpt-oss", "sliding_window", 32),
        ("gpt-oss", "layer_types", ["full_attention"] * 3),
        ("qwen3-moe", "norm_topk_prob", False),
        ("smallthinker", "sliding_window_size", 24),
        ("smallthinker", "rope_layout", [1, 1, 1, 1, 1]),
        ("smallthinker", "moe_primary_router_apply_softmax", True),
        ("smallthinker", "moe_num_active_primary_experts", 2),
        ("rwkv7", "norm_eps", 0.5),
    ],
)
def test_features_are_seen(case: str, key: str, other: object, tmp_path: Path) -> None:
    """A feature left out would fail above: it changes the logits by far more than the tolerance."""
    folder = random_checkpoints.write(case, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: other}))
    found = logits(folder, random_checkpoints.make(case)[2])
    assert np.abs(found - random_checkpoints.golden()[case]).max() > 0.05


@pytest.mark.parametrize(("context", "same"), [(61, True), (62, False)])
def test_a_rotary_embedding_grows_with_what_is_asked_for(context: int, same: bool, tmp_path: Path) -> None:
    """Beyond the positions of the training, however many more the session has room for."""
    found = []
    for case, scaling in (("grown", {"rope_type": "dynamic", "factor": 4.0}), ("plain", None)):
        folder = random_checkpoints.write("llama-rope-dynamic", tmp_path / case)
        config = json.loads((folder / "config.json").read_text())
        changed = {**config, "rope_scaling": scaling, "max_position_embeddings": 61}
        (folder / "config.json").write_text(json.dumps(changed))
        convert(folder, folder / "m.eqf", "F32", allow_no_tokenizer=True)
        with open_file(folder / "m.eqf") as file, Session(file, context=context, threads=1) as session:
            found.append(session.eval(random_checkpoints.make("llama-rope-dynamic")[2][:61]))
    assert np.array_equal(*found) == same


def test_learned_positions_end(tmp_path: Path) -> None:
    """GPT-2 has no embedding for a position beyond its last."""
    path = tmp_path / "m.eqf"
    convert(random_checkpoints.write("gpt2", tmp_path), path, "F32", allow_no_tokenizer=True)
    with open_file(path) as file:
        with Session(file, context=70, threads=1) as session:
            session.eval([3] * 70)
        with pytest.raises(ContextError, match="embeddings of 70 positions: ask for a context of at most 70"):
            Session(file, context=96, threads=1)


@pytest.mark.parametrize("case", ["llama", "gpt2", "gpt-neox", "falcon"])
def test_names_without_a_prefix(case: str, tmp_path: Path) -> None:
    """As checkpoints of the decoder alone have them."""
    folder = random_checkpoints.write(case, tmp_path)
    usual = architecture(random_checkpoints.CASES[case]).prefixes[0]
    tensors = {name.removeprefix(usual): values for name, values in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    found = logits(folder, random_checkpoints.make(case)[2])
    assert np.abs(found - random_checkpoints.golden()[case]).max() <= 1e-3


def test_codestral_s_names(tmp_path: Path) -> None:
    """Its checkpoint has all tensors inside a `model`, and a limit of steps that JSON has no number for."""
    folder = random_checkpoints.write("mamba2", tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"time_step_limit": [0.0, float("inf")]}
    (folder / "config.json").write_text(json.dumps(config | {"norm_before_gate": True}))
    tensors = {f"model.{name}": values for name, values in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    found = logits(folder, random_checkpoints.make("mamba2")[2])
    assert np.abs(found - random_checkpoints.golden()["mamba2"]).max() <= 1e-3


def test_rwkv7_s_older_names(tmp_path: Path) -> None:
    """Weights of all mixtures in one tensor; heads by their number, and an MLP as wide as is usual."""
    folder = random_checkpoints.write("rwkv7-by-ratio", tmp_path)
    tensors, joined = load_file(folder / "model.safetensors"), {}
    for name, values in tensors.items():
        layer, mixes, part = name.partition(".attn.x_")
        joined.setdefault(f"{layer}.attn.x_x", {})[part] = values if mixes else None
    kept = {name: values for name, values in tensors.items() if ".attn.x_" not in name}
    for name, parts in joined.items():
        if "r" in parts:
            kept[name] = np.concatenate([parts[part].reshape(1, -1) for part in "rwkvag"])
    save_file(kept, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    other = {"head_dim": None, "hidden_ratio": None, "value_dim": 128}
    (folder / "config.json").write_text(json.dumps(config | other))
    found = logits(folder, random_checkpoints.make("rwkv7-by-ratio")[2])
    assert np.abs(found - random_checkpoints.golden()["rwkv7-by-ratio"]).max() <= 1e-3


def test_attention_sinks_are_seen(tmp_path: Path) -> None:
    folder = random_checkpoints.write("gpt-oss", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    lower = {name: values - 9 if name.endswith("sinks") else values for name, values in tensors.items()}
    save_file(lower, folder / "model.safetensors")
    found = logits(folder, random_checkpoints.make("gpt-oss")[2])
    assert np.abs(found - random_checkpoints.golden()["gpt-oss"]).max() > 0.05


@pytest.mark.parametrize("case", ["mixtral", "qwen3-moe", "qwen2-moe", "olmoe"])
def test_experts_in_one_tensor(case: str, tmp_path: Path) -> None:
    """A checkpoint that has all experts in a tensor [experts, 2 * width, hidden] of gate and up, and one of down."""
    folder = random_checkpoints.write(case, tmp_path)
    tensors, stacked = load_file(folder / "model.safetensors"), {}
    names = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
    parts: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for name, values in tensors.items():
        before, found, after = name.partition(".experts.")
        if found:
            number, part, _ = after.split(".")
            parts.setdefault((before.replace("block_sparse_moe", "mlp"), names.get(part, part)), {})[int(number)] = (
                values
            )
        else:
            stacked[name.replace("block_sparse_moe", "mlp")] = values
    for layer in {layer for layer, _ in parts}:
        whole = {kind: np.stack([parts[layer, kind][i] for i in sorted(parts[layer, kind])]) for kind in names.values()}
        both = np.concatenate([whole["gate_proj"], whole["up_proj"]], axis=1)
        stacked |= {f"{layer}.experts.gate_up_proj": both, f"{layer}.experts.down_proj": whole["down_proj"]}
    save_file(stacked, folder / "model.safetensors")
    found = logits(folder, random_checkpoints.make(case)[2])
    assert np.abs(found - random_checkpoints.golden()[case]).max() <= 1e-3


def test_granite_s_experts_under_their_names_in_memory(tmp_path: Path) -> None:
    folder = random_checkpoints.write("granitemoe", tmp_path)
    names = {"input_linear.weight": "experts.gate_up_proj", "output_linear.weight": "experts.down_proj"}
    names["router.layer.weight"] = "router.weight"
    tensors = {}
    for name, values in load_file(folder / "model.safetensors").items():
        before, found, after = name.partition("block_sparse_moe.")
        tensors[before + found + names.get(after, after)] = values
    save_file(tensors, folder / "model.safetensors")
    found = logits(folder, random_checkpoints.make("granitemoe")[2])
    assert np.abs(found - random_checkpoints.golden()["granitemoe"]).max() <= 1e-3


@pytest.mark.parametrize(
    ("outer", "inner", "case", "prefix"),
    [
        ("gemma3", "gemma3_text", "gemma3", "language_model.model."),
        ("gemma3", "gemma3_text", "gemma3", "model.language_model."),
        ("llava", None, "llama", "language_model.model."),
        ("llava_next", "mistral", "mistral-window", "language_model.model."),
        ("mistral3", "mistral", "mistral-no-window", "model.language_model."),
        ("qwen2_5_vl", "qwen2_5_vl_text", "qwen2", "model."),
        ("qwen2_vl", "", "qwen2", "model.language_model."),
        ("qwen3_vl", "qwen3_vl_text", "qwen3", "model.language_model."),
        ("qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3-moe", "model.language_model."),
        ("qwen3_5", "qwen3_5_text", "qwen3-5", "model.language_model."),
        ("qwen3_5_moe", "qwen3_5_moe_text", "qwen3-5-moe", "model.language_model."),
        ("smolvlm", "llama", "llama", "model.text_model."),
        ("lfm2_vl", "lfm2", "lfm2", "model.language_model."),
        ("audioflamingo3", "qwen2", "qwen2", "language_model.model."),
        ("aya_vision", "cohere2", "cohere2", "language_model.model."),
        ("cohere2_vision", "cohere2", "cohere2", "model.language_model."),
        ("deepseek_vl", "llama", "llama", "model.language_model."),
        ("deepseek_vl_hybrid", None, "llama", "model.language_model."),
        ("exaone4_5", "exaone4_5_text", "exaone4", "model.language_model."),
        ("fast_vlm", None, "qwen2", "model.language_model."),
        ("glmasr", "llama", "llama", "language_model.model."),
        ("got_ocr2", None, "qwen2", "language_model.model."),
        ("granite_speech", "granite", "granite", "language_model.model."),
        ("granite_speech_plus", "granite", "granite", "model.language_model."),
        ("idefics2", "mistral", "mistral-no-window", "model.text_model."),
        ("janus", "llama", "llama", "model.language_model."),
        ("lfm3_vl", "lfm3", "lfm3", "model.language_model."),
        ("lighton_ocr", "qwen3", "qwen3", "model.language_model."),
        ("llava_next_video", "llama", "llama", "language_model.model."),
        ("minicpm_ocr", "qwen3_5_text", "qwen3-5", "model.language_model."),
        ("minicpmv4_6", "qwen3_5_text", "qwen3-5", "model.language_model."),
        ("minicpmv4_7", None, "qwen3-5", "model.language_model."),
        ("musicflamingo", "qwen2", "qwen2", "model.language_model."),
        ("ovis2", "qwen2", "qwen2", "model.language_model."),
        ("perception_lm", "llama", "llama", "model.language_model."),
        ("qianfan_ocr", "qwen3", "qwen3", "model.language_model."),
        ("qwen2_audio", "qwen2", "qwen2", "language_model.model."),
        ("qwen3_asr", "qwen3", "qwen3", "model.language_model."),
        ("vibevoice_asr", "qwen2", "qwen2", "model.language_model."),
        ("video_llama_3", "qwen2", "qwen2", "model.language_model."),
        ("video_llava", "llama", "llama", "language_model.model."),
        ("vipllava", "llama", "llama", "language_model.model."),
        ("voxtral", "llama", "llama", "language_model.model."),
        ("llama4", "llama4_text", "llama4", "language_model.model."),
        ("phi4_multimodal", "", "phi3-longrope-short", "model."),
        ("fuyu", "persimmon", "persimmon", "language_model.model."),
        ("glm4v", "glm4v_text", "glm4", "model.language_model."),
        ("glm46v", None, "glm4", "model.language_model."),
        ("glm46v", "glm4v_moe_text", "glm4-moe", "model.language_model."),
        ("glmga", "glm4v_text", "glm4", "model.language_model."),
        ("glm_ocr", "glm_ocr_text", "glm4", "model.language_model."),
        ("glm4v_moe", "glm4v_moe_text", "glm4-moe", "model.language_model."),
        ("paddleocr_vl", "paddleocr_vl_text", "llama", "model.language_model."),
        ("hunyuan_vl", "hunyuan_vl_text", "hunyuan", "model.language_model."),
        ("granite4_vision", "granite4_vision_text", "granite", "model.language_model."),
        ("granite_docling", "granite_docling_text", "granite", "model.text_model."),
        ("emu3", "emu3_text_model", "llama", "model.text_model."),
        ("emu3", None, "llama", "text_model.model."),
        ("qwen2_5_omni", "qwen2_5_omni_text", "qwen2", "thinker.model."),
        ("qwen2_5_omni_thinker", None, "qwen2", "model."),
        ("qwen3_omni_moe", None, "qwen3-moe", "thinker.model."),
        ("qwen3_omni_moe_thinker", "qwen3_omni_moe_text", "qwen3-moe", "model."),
        ("fuyu", None, "persimmon", "model.language_model."),
        ("hyperclovax_vision_v2", "hyperclovax", "hyperclovax", "model.language_model."),
        ("hyperclovax_vision_v2", None, "hyperclovax", "model.language_model.model."),
    ],
)
def test_the_language_model_of_one_with_eyes(
    outer: str, inner: str | None, case: str, prefix: str, tmp_path: Path
) -> None:
    """It is the text model by itself; that it cannot see is told, and what its vision tower has."""
    folder = random_checkpoints.write(case, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    if outer in ("voxtral", "paddleocr_vl"):
        config["head_dim"] = config["hidden_size"] // config["num_attention_heads"]  # 128 where it is not said
    if outer.startswith("qwen") and outer not in ("qwen2_audio", "qwen3_asr"):
        config |= {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    text = {**config, "model_type": inner} if inner else {key: config[key] for key in config if key != "model_type"}
    whole = {**text, "model_type": outer} if inner == "" else {"model_type": outer, "text_config": text}
    if prefix.startswith("thinker."):
        whole = {"model_type": outer, "thinker_config": {"model_type": f"{outer}_thinker", "text_config": text}}
    (folder / "config.json").write_text(json.dumps(whole))
    tensors = load_file(folder / "model.safetensors")
    head = prefix.removesuffix("model.") if prefix.endswith(".model.") else ""
    renamed = {
        name.replace("model.", prefix, 1) if name.startswith("model.") else head + name: values
        for name, values in tensors.items()
    }
    save_file({**renamed, "vision_tower.head.weight": np.ones((2, 2), np.float32)}, folder / "model.safetensors")
    report = convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    assert report.unused == ["vision_tower.head.weight"]
    (note,) = report.notes
    said = f"of this {outer} the language model is converted: it reads text, and nothing else"
    assert note.startswith(said) and (note == said) == (outer not in FAMILIES), "of one that could see, why it does not"
    assert report.architecture == CASES[case]["model_type"]
    found = logits(folder, random_checkpoints.make(case)[2])
    assert np.abs(found - random_checkpoints.golden()[case]).max() <= 1e-3


def test_layers_that_look_at_images_are_passed_over(tmp_path: Path) -> None:
    """Llama 3.2 Vision without images: the layers left are Llama's, under their own numbers."""
    folder = random_checkpoints.write("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    text = {**config, "model_type": "mllama_text_model", "num_hidden_layers": 4, "cross_attention_layers": [1, 3]}
    (folder / "config.json").write_text(json.dumps({"model_type": "mllama", "text_config": text}))
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.replace("layers.1.", "layers.2."): values for name, values in tensors.items()}
    embedding = tensors["model.embed_tokens.weight"]
    tensors["model.embed_tokens.weight"] = np.concatenate([embedding, np.full((8, 64), 9, np.float32)])
    looking = "model.layers.3.cross_attn.q_proj.weight"
    renamed = {f"language_model.{name}": values for name, values in {**tensors, looking: embedding}.items()}
    save_file(renamed, folder / "model.safetensors")
    report = convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    assert report.unused == [f"language_model.{looking}"] and report.architecture == "llama"
    found = logits(folder, random_checkpoints.make("llama")[2])
    assert np.abs(found - random_checkpoints.golden()["llama"]).max() <= 1e-3
    for wrong in (2, [4], ["1"]):
        whole = {"model_type": "mllama", "text_config": {**text, "cross_attention_layers": wrong}}
        with pytest.raises(CheckpointError, match=r"cross_attention_layers is .*, a list of layers is needed"):
            architecture(whole)


def test_phi_4_s_matrices_beside_adapters(tmp_path: Path) -> None:
    """Its first checkpoint has adapters that only images and sounds switch on."""
    folder = random_checkpoints.write("phi3-longrope-short", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "phi4mm", "vision_lora": {"r": 4}}))
    tensors = {
        name.replace("_proj.weight", "_proj.base_layer.weight"): values
        for name, values in load_file(folder / "model.safetensors").items()
    }
    adapter = "model.layers.0.mlp.down_proj.lora_A.vision.weight"
    save_file({**tensors, adapter: np.ones((4, 160), np.float32)}, folder / "model.safetensors")
    report = convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    assert report.unused == [adapter]
    assert report.notes == ["of this phi4mm the language model is converted: it reads text, and nothing else"]
    found = logits(folder, random_checkpoints.make("phi3-longrope-short")[2])
    assert np.abs(found - random_checkpoints.golden()["phi3-longrope-short"]).max() <= 1e-3


def test_bitnet_s_weights_from_training_become_ternary(tmp_path: Path) -> None:
    """The same file as from a checkpoint whose matrices are ternary already, and from one where they are packed."""
    trained, ternary, packed = (random_checkpoints.write("bitnet", tmp_path / name) for name in ("a", "b", "c"))
    config = json.loads((trained / "config.json").read_text())
    quantization = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    (trained / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    offline = {**quantization, "quantization_mode": "offline"}
    (packed / "config.json").write_text(json.dumps({**config, "quantization_config": offline}))
    tensors, stored = load_file(ternary / "model.safetensors"), {}
    for name, weights in tensors.items():
        stored[name] = weights
        if weights.ndim == 2 and ".layers." in name:
            scale = np.float32(np.abs(weights.astype(np.float64)).mean())
            numbers = np.clip(np.rint(weights / scale), -1, 1)
            tensors[name] = numbers * scale
            quarters = (numbers + 1).astype(np.uint8).reshape(4, -1, weights.shape[1])
            stored[name] = np.bitwise_or.reduce(quarters << np.array([0, 2, 4, 6], np.uint8)[:, None, None], axis=0)
            stored[f"{name}_scale"] = scale.reshape(1)
    save_file(tensors, ternary / "model.safetensors")
    save_file(stored, packed / "model.safetensors")
    prompt = random_checkpoints.make("bitnet")[2]
    found, expected = logits(trained, prompt), logits(ternary, prompt)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(logits(packed, prompt), expected)
    report = convert(packed, tmp_path / "kept.eqf", allow_no_tokenizer=True)
    assert {tensor.type for tensor in report.tensors if tensor.kept} == {"TQ2_0"}
    assert np.abs(found - random_checkpoints.golden()["bitnet"]).max() > 0.5
    own_norms = {**quantization, "use_rms_norm": True}
    (trained / "config.json").write_text(json.dumps({**config, "quantization_config": own_norms}))
    with pytest.raises(UnsupportedError, match="convert a checkpoint of autobitlinear layers"):
        logits(trained, prompt)
