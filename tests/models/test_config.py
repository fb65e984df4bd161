"""What is read from config.json, and how a configuration that cannot be run is refused: in one line, by name."""

import math
from typing import Any

import pytest
import random_checkpoints

from edgeq.errors import CheckpointError, UnsupportedError
from edgeq.models import architecture
from edgeq.ops import Heads

LLAMA = random_checkpoints.CASES["llama"]
MISTRAL = random_checkpoints.CASES["mistral-no-window"]
QWEN2 = random_checkpoints.CASES["qwen2"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"model_type": "rwkv"},
            UnsupportedError,
            "model_type 'rwkv' is not supported; supported are llama, mistral",
        ),
        ({"model_type": None}, UnsupportedError, "model_type None is not supported"),
        ({"hidden_act": "mish"}, UnsupportedError, "hidden_act 'mish' is not supported"),
        ({"rope_scaling": {"rope_type": "mrope"}}, UnsupportedError, "rope scaling 'mrope' is not supported"),
        ({"rope_scaling": "linear"}, CheckpointError, "rope scaling is 'linear', an object is needed"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, CheckpointError, "factor is 0, a positive number"),
        ({"hidden_size": None}, CheckpointError, "hidden_size is None, a positive integer is needed"),
        ({"hidden_size": 64.0}, CheckpointError, "hidden_size is 64.0"),
        ({"num_hidden_layers": True}, CheckpointError, "num_hidden_layers is True"),
        ({"vocab_size": -1}, CheckpointError, "vocab_size is -1"),
        ({"rms_norm_eps": math.nan}, CheckpointError, "rms_norm_eps is nan, a positive number is needed"),
        ({"rope_theta": "10000"}, CheckpointError, "rope_theta is '10000'"),
        ({"num_key_value_heads": 3}, CheckpointError, "4 attention heads cannot share 3 key/value heads evenly"),
        ({"head_dim": 15}, CheckpointError, "head_dim is 15"),
        ({"model_type": "mistral", "sliding_window": "wide"}, CheckpointError, "sliding_window is 'wide'"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": None},
            CheckpointError,
            "max_window_layers is None",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        architecture({**LLAMA, **change}, "m/config.json")
    assert str(caught.value).startswith("m/config.json: ") and "\n" not in str(caught.value)


def config(case: str, **change: Any) -> dict[str, Any]:
    return {**random_checkpoints.CASES[case], **change}


LONG = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 7}


@pytest.mark.parametrize(
    ("case", "change", "error", "message"),
    [
        ("gemma", {"use_bidirectional_attention": True}, UnsupportedError, "use_bidirectional_attention True is not"),
        ("gemma2", {"attn_logit_softcapping": -1}, CheckpointError, "attn_logit_softcapping is -1, a positive number"),
        ("gemma2", {"layer_types": ["full_attention"]}, CheckpointError, "layer_types is .*, a list of 3 is needed"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 3}, UnsupportedError, "layers of type 'chunked_attention'"),
        ("gemma2", {"layer_types": [["full_attention"]] * 3}, UnsupportedError, "layers of type"),
        ("phi3", {"rope_scaling": LONG}, CheckpointError, "long_factor is .*, a list of 8 positive numbers is needed"),
        ("phi3", {"partial_rotary_factor": 0.7}, CheckpointError, "11 of 16 values per head are rotated"),
        ("smollm3", {"no_rope_layers": [1]}, CheckpointError, "no_rope_layers is .*, a list of 4 is needed"),
        ("phi", {"qk_layernorm": True}, UnsupportedError, "qk_layernorm True is not supported"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, UnsupportedError, "scale_attn_by_inverse_layer_idx True"),
        ("gpt2", {"scale_attn_weights": False}, UnsupportedError, "scale_attn_weights False"),
        ("gpt-neox", {"hidden_act": "mish"}, UnsupportedError, "hidden_act 'mish' is not supported"),
        ("olmoe", {"clip_qkv": 8.0}, UnsupportedError, "clip_qkv 8.0 is not supported"),
        ("mixtral", {"hidden_act": "gelu"}, UnsupportedError, "hidden_act 'gelu' is not supported"),
        ("mixtral", {"num_experts_per_tok": 6}, CheckpointError, "num_experts_per_tok is 6, there are 5 experts"),
        ("qwen3-moe", {"mlp_only_layers": 3}, CheckpointError, "mlp_only_layers is 3, a list of layers is needed"),
        ("qwen3-moe", {"moe_intermediate_size": None}, CheckpointError, "moe_intermediate_size is None"),
        ("mamba", {"hidden_size": 36}, UnsupportedError, "has 72 channels: a multiple of 16 is needed"),
        ("mamba", {"hidden_act": "gelu"}, UnsupportedError, "hidden_act 'gelu' is not supported"),
        ("mamba", {"conv_kernel": 1}, UnsupportedError, "the convolution has 1 position"),
        ("falcon-mamba", {"time_step_rank": 0}, CheckpointError, "time_step_rank is 0, a positive integer"),
        ("llama4", {"layer_types": ["sliding_attention"] * 4}, UnsupportedError, "layers of type 'sliding_attention'"),
        ("llama4", {"moe_layers": 3}, CheckpointError, "moe_layers is 3, a list of layers is needed"),
        ("llama4", {"num_experts_per_tok": 6}, CheckpointError, "num_experts_per_tok is 6, there are 5 experts"),
        ("llama4", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, UnsupportedError, "makes heads longer"),
        (
            "llama4",
            {"layer_types": ["chunked_attention"] * 4, "attention_chunk_size": None},
            CheckpointError,
            "attention_chunk_size is null, and there are layers of chunks",
        ),
        ("recurrent-gemma", {"block_types": ["mamba"]}, CheckpointError, "block_types is .*, a list of recurrent and"),
        ("recurrent-gemma", {"lru_width": 96}, CheckpointError, "lru_width is 96, which 5 heads cannot share evenly"),
        ("recurrent-gemma", {"lru_width": 120}, UnsupportedError, "a head has 24 recurrent channels, a multiple of 16"),
        ("recurrent-gemma", {"conv1d_width": 1}, UnsupportedError, "the convolution has 1 position"),
        ("kimi-linear", {"linear_attn_config": [1]}, CheckpointError, "linear_attn_config is .*, an object is needed"),
        (
            "kimi-linear",
            {"linear_attn_config": {"full_attn_layers": [0]}},
            CheckpointError,
            "full_attn_layers is .*, a list of layers from 1 on is needed",
        ),
        ("kimi-linear-newer", {"linear_head_dim": 24}, UnsupportedError, "linear_head_dim is 24, a multiple of 16"),
        ("kimi-linear-newer", {"linear_conv_kernel_dim": 1}, UnsupportedError, "at least 2 is needed"),
        ("kimi-linear", {"moe_layer_freq": 2}, UnsupportedError, "moe_layer_freq 2 is not supported"),
        ("zamba2", {"hidden_size": 72}, UnsupportedError, "hidden_size is 72, a multiple of 16 is needed"),
        ("zamba2", {"tie_word_embeddings": False}, UnsupportedError, "tie_word_embeddings False is not supported"),
        ("zamba2", {"layers_block_type": ["attention"] * 4}, UnsupportedError, "layers of type 'attention'"),
        ("jamba", {"attn_layer_offset": 3}, CheckpointError, "attn_layer_offset is 3, an integer from 0 to 2"),
        ("jamba", {"num_experts_per_tok": 6}, CheckpointError, "num_experts_per_tok is 6, there are 5 experts"),
        ("lfm2", {"layer_types": ["mamba"] * 4}, UnsupportedError, "layers of type 'mamba' are not supported"),
        ("lfm2", {"layer_types": ["conv"]}, CheckpointError, "layer_types is .*, a list of 4 is needed"),
        ("lfm2", {"hidden_size": 72}, UnsupportedError, "hidden_size is 72, a multiple of 16 is needed"),
        ("gemma3", {"model_type": "gemma3"}, CheckpointError, "text_config is None, an object is needed"),
        (
            "gemma3",
            {"model_type": "gemma3", "text_config": {"model_type": []}},
            UnsupportedError,
            r"model_type \[\] is not",
        ),
        ("llama", {"rope_scaling": {"type": "yarn"}, "rope_theta": 1}, CheckpointError, "rope_theta is 1.0"),
        (
            "llama",
            {"rope_scaling": {"type": "longrope"}, "max_position_embeddings": 1},
            CheckpointError,
            "original_max_position_embeddings is 1",
        ),
    ],
)
def test_what_a_family_cannot_have_is_refused(
    case: str, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        architecture(config(case, **change), "m/config.json")
    assert str(caught.value).startswith("m/config.json: ") and "\n" not in str(caught.value)


def test_the_mlp_of_lfm2() -> None:
    """Two thirds of what is given, times a factor, rounded up; older checkpoints give it under another name."""
    assert architecture(config("lfm2")).tensors["blk.0.ffn_up.weight"].shape == (128, 64)
    assert architecture(config("lfm2", block_ff_dim=300)).tensors["blk.0.ffn_up.weight"].shape == (224, 64)
    assert architecture(config("lfm2-bias")).tensors["blk.0.ffn_up.weight"].shape == (150, 64)
    older = config("lfm2", layer_types=None, full_attn_idxs=[1])
    assert architecture(older).tensors == architecture(config("lfm2")).tensors


def test_rope_grows_with_the_session() -> None:
    """Longrope and dynamic have other frequencies in sessions for more positions than they were trained for."""
    short = architecture(config("phi3-longrope-short")).rope
    assert short.for_context(128) != short.for_context(144)
    assert short.for_context(144).inverse_frequencies[-1] == pytest.approx(short.inverse_frequencies[-1] * 2.5 / 16)
    dynamic = architecture(config("llama-rope-dynamic")).rope
    assert dynamic.for_context(256).inverse_frequencies == dynamic.inverse_frequencies
    grown = dynamic.for_context(512).inverse_frequencies
    assert grown[0] == dynamic.inverse_frequencies[0]
    theta = 10000.0 * (4.0 * 512 / 256 - 3.0) ** (16 / 14)
    assert grown[5] == pytest.approx(theta ** (-10 / 16))


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        (LLAMA, [None, None]),
        ({**LLAMA, "sliding_window": 8}, [None, None]),
        (MISTRAL, [None, None]),
        ({**MISTRAL, "sliding_window": 8}, [8, 8]),
        ({key: value for key, value in MISTRAL.items() if key != "sliding_window"}, [4096, 4096]),
        ({**QWEN2, "sliding_window": 8, "max_window_layers": 0}, [None, None]),
        ({**QWEN2, "sliding_window": None, "max_window_layers": None}, [None, None]),
        ({**QWEN2, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, [None, 8]),
        ({**QWEN2, "use_sliding_window": True, "sliding_window": 8}, [None, None]),
    ],
)
def test_windows(config: dict[str, Any], windows: list[int | None]) -> None:
    """As transformers reads them, defaults included: 4096 for Mistral, layers from 28 on for Qwen2."""
    model = architecture(config)
    assert model.windows == windows


def test_defaults() -> None:
    """A configuration of Llama 1's time."""
    old = ("num_key_value_heads", "rope_theta", "attention_bias", "mlp_bias", "tie_word_embeddings", "rms_norm_eps")
    model = architecture({key: value for key, value in LLAMA.items() if key not in old})
    assert (model.heads.num_key_value_heads, model.heads.head_dim, model.norm_eps) == (4, 16, 1e-6)
    assert model.rope.inverse_frequencies[1] == pytest.approx(10000 ** (-2 / 16))
    assert "output.weight" in model.tensors and "blk.0.attn_q.bias" not in model.tensors


def test_rope_of_both_spellings() -> None:
    scaling = {"type": "linear", "factor": 2.0}
    old = architecture({**LLAMA, "rope_theta": 500.0, "rope_scaling": scaling})
    new = architecture({**LLAMA, "rope_theta": None, "rope_parameters": {**scaling, "rope_theta": 500.0}})
    plain = architecture({**LLAMA, "rope_theta": 500.0})
    assert old.rope == new.rope
    assert old.rope.inverse_frequencies == tuple(f / 2 for f in plain.rope.inverse_frequencies)


LINEAR = {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}, "rope_scaling": LINEAR}, (700.0, 4.0)),
        ({"rope_theta": 500.0, "rope_parameters": {"rope_theta": 700.0}, "rope_scaling": LINEAR}, (500.0, 4.0)),
        ({"rope_theta": 500.0, "rope_parameters": {"rope_theta": 700.0}}, (700.0, 1.0)),
        ({"rope_parameters": {"rope_theta": 700.0}, "rope_scaling": {**LINEAR, "rope_theta": 600.0}}, (600.0, 4.0)),
        ({"rope_parameters": {**LINEAR, "rope_theta": 700.0}, "rope_scaling": {"type": "default"}}, (700.0, 1.0)),
        ({"rope_parameters": {**LINEAR, "rope_theta": 700.0}, "rope_scaling": {}}, (700.0, 4.0)),
        ({"rope_parameters": {**LINEAR, "rope_theta": 700.0}, "rope_scaling": None}, (700.0, 4.0)),
        ({"rope_theta": 500.0, "rope_scaling": {"rope_type": None, "type": "linear", "factor": 4.0}}, (500.0, 4.0)),
        ({"rope_theta": 500.0, "rope_parameters": {"full_attention": None}, "rope_scaling": LINEAR}, (500.0, 4.0)),
    ],
)
def test_rope_of_both_at_once(given: dict[str, Any], meant: tuple[float, float]) -> None:
    """A scaling beside `rope_parameters` applies; what it does not say of theta, these do."""
    theta, factor = meant
    plain = {**LLAMA, "rope_theta": theta, "rope_scaling": {"type": "linear", "factor": factor}}
    assert architecture({**LLAMA, "rope_theta": None, **given}).rope == architecture(plain).rope


def test_the_rotated_part_of_both_at_once() -> None:
    parameters = {"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 10000.0}

    def rotated(**given: Any) -> int:
        return len(architecture({**LLAMA, "rope_parameters": parameters, **given}).rope.inverse_frequencies)

    assert rotated() == rotated(rope_scaling=LINEAR) == rotated(partial_rotary_factor=0.25) == 4
    assert rotated(rope_scaling={**LINEAR, "partial_rotary_factor": 0.25}) == 2
    assert rotated(rope_scaling=LINEAR, partial_rotary_factor=0.25) == 2


def test_a_longrope_beside_rope_parameters() -> None:
    """Phi-3's scaling has a name of its own there too."""
    phi = random_checkpoints.CASES["phi3-longrope-short"]
    scaling = phi.get("rope_scaling") or phi["rope_parameters"]
    given = {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {**scaling, "rope_type": "su"}}
    assert architecture({**phi, **given}).rope == architecture(phi).rope


def test_rope_of_local_layers() -> None:
    """Only the global layers of Gemma 3 are scaled, and each kind has a theta of its own."""
    kinds = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_type": "default"}}
    gemma = {**random_checkpoints.CASES["gemma3"], "rope_scaling": LINEAR, "rope_local_base_freq": 500.0}
    one = architecture({**gemma, "rope_theta": 1e6, "rope_parameters": None})
    both = architecture({**gemma, "rope_theta": None, "rope_parameters": kinds})
    ropes = [[layer.mixer.rope for layer in model.layers] for model in (one, both)]
    assert ropes[0] == ropes[1]
    half = len(both.rope.inverse_frequencies)
    assert both.rope.inverse_frequencies[1] == pytest.approx(1e6 ** (-1 / half) / 4)
    assert both.layers[0].mixer.rope.inverse_frequencies[1] == pytest.approx(500.0 ** (-1 / half))


def test_llama3_scaling() -> None:
    """Short wavelengths as they were, long ones divided by the factor, and between them a blend."""
    plain = architecture(LLAMA).rope.inverse_frequencies
    scaled = architecture(random_checkpoints.CASES["llama-rope-llama3"]).rope.inverse_frequencies
    ratios = [s / p for s, p in zip(scaled, plain, strict=True)]
    assert ratios[0] == pytest.approx(1) and ratios[-1] == pytest.approx(1 / 8)
    assert any(1 / 8 + 1e-6 < ratio < 1 - 1e-6 for ratio in ratios)
    assert ratios == sorted(ratios, reverse=True)


def test_tensor_names() -> None:
    """The file's names are GGUF's, the checkpoint's Hugging Face's."""
    model = architecture({**LLAMA, "num_hidden_layers": 12})
    sources = {name: tensor.parts[0].source for name, tensor in model.tensors.items()}
    assert sources["blk.11.attn_output.weight"] == "model.layers.11.self_attn.o_proj.weight"
    assert sources["blk.0.ffn_down.weight"] == "model.layers.0.mlp.down_proj.weight"
    assert sources["output.weight"] == "lm_head.weight"
    assert "output.weight" not in architecture(QWEN2).tensors
    assert architecture(QWEN2).tensors["blk.1.attn_k.bias"].parts[0].source == "model.layers.1.self_attn.k_proj.bias"


@pytest.mark.parametrize("case", random_checkpoints.CASES)
def test_a_checkpoint_has_what_is_expected(case: str) -> None:
    """Every row of the checkpoint's tensors is needed, and needed once; but OPT has no token at its first positions."""
    model = architecture(random_checkpoints.CASES[case])
    rows: dict[str, list[int]] = {}
    for tensor in model.tensors.values():
        for part in tensor.parts:
            run = part.run or part.rows
            places = [part.first + i // run * part.step + i % run for i in range(part.rows)]
            if part.turned is not None:  # its columns are rows there
                places = list(range(part.turned, part.turned + tensor.shape[1]))
            start = 0 if part.plane is None else part.plane * part.shape[2 if part.transposed else 1]
            rows.setdefault(part.source, []).extend(start + place for place in places)
    shapes = random_checkpoints.shapes(random_checkpoints.CASES[case])
    assert rows.keys() == shapes.keys()
    parts = {part.source: part for tensor in model.tensors.values() for part in tensor.parts}
    for name, places in rows.items():
        assert parts[name].shape == shapes[name]
        part, shape = parts[name], shapes[name] or (1,)
        first = 0 if part.plane is None else 1
        rows_of_one = shape[first + 1] if part.transposed else shape[first]
        axes = shape if part.flat else (*shape[:first], rows_of_one)
        unused = 2 if "embed_positions" in name else 0
        assert sorted(places) == list(range(unused, math.prod(axes))), name


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("mamba2", {"head_dim": 16}, "4 Mamba heads of 16 values in 2 groups do not make up 128"),
        ("mamba2", {"time_step_limit": [0.0, 0.1]}, r"time_step_limit \[0.0, 0.1\] is not supported"),
        ("bamba", {"attn_layer_indices": [3]}, r"attn_layer_indices is \[3\], a list of numbers below 3 is needed"),
        ("bamba", {"attn_layer_indices": 1}, "attn_layer_indices is 1, a list"),
    ],
)
def test_layers_of_mamba_s_kin_that_do_not_fit(case: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises((CheckpointError, UnsupportedError), match=message):
        architecture(random_checkpoints.CASES[case] | change)


def test_bamba_rotates_half_of_each_head() -> None:
    """Whatever stands beside the rotary embedding's parameters, as transformers has it; what is among them counts."""
    config = random_checkpoints.CASES["bamba"]
    assert architecture(config | {"partial_rotary_factor": 1.0}) == architecture(config)
    whole = architecture(config | {"rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 1.0}})
    assert [len(model.rope.inverse_frequencies) for model in (architecture(config), whole)] == [4, 8]


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("lfm3", {"layer_types": ["conv"] * 4}, "layer_types has no layer of attention"),
        ("lfm3", {"layer_types": ["conv", "mamba"] * 2}, "layers of type 'mamba' are not supported"),
        ("gpt-neo", {"attention_types": [[["global"], 3]]}, r"attention_types is .*, kinds of 4 layers are needed"),
        ("gpt-neo", {"attention_types": [[["global", "sparse"], 2]]}, "attention_types is"),
        ("gpt-neo", {"attention_types": 7}, "attention_types is 7"),
        ("hunyuan-moe", {"moe_topk": [2]}, r"moe_topk is \[2\], a number for each layer is needed"),
        ("hunyuan-moe", {"moe_intermediate_size": [44, 48]}, r"moe_intermediate_size is \[44, 48\], supported is 44"),
        ("hunyuan-moe", {"num_shared_expert": 2}, "num_shared_expert is 2, supported is 1"),
        ("hunyuan-moe", {"moe_topk": 9}, "num_experts_per_tok is 9, there are 6 experts"),
        ("minimax-m2", {"scoring_func": "softmax"}, "scoring_func 'softmax' is not supported"),
        ("minimax-m2", {"shared_intermediate_size": 64}, "shared_intermediate_size 64 is not supported"),
        ("exaone-moe", {"mlp_layer_types": ["dense", "routed"] * 2}, "layers of type 'routed' are not supported"),
        ("cohere2-moe", {"expert_selection_fn": "topk"}, "expert_selection_fn 'topk' is not supported"),
        ("cohere2-moe", {"shared_expert_combination_strategy": "max"}, "shared_expert_combination_strategy 'max'"),
        ("cohere2-moe", {"first_k_dense_replace": -1}, "first_k_dense_replace is -1"),
        ("cohere2-moe", {"mlp_layer_types": ["x"] * 5}, "layers of type 'x' are not supported"),
        ("cohere2-moe", {"num_experts_per_tok": 9}, "num_experts_per_tok is 9, there are 6 experts"),
        ("cohere2-moe", {"partial_rotary_factor": 0.5}, "partial_rotary_factor below 1"),
        ("jais2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor below 1"),
        ("vaultgemma", {"partial_rotary_factor": 0.5}, "partial_rotary_factor below 1"),
        ("smallthinker", {"moe_layer_layout": [1, 0, 1, 1, 1]}, "layers without experts are not supported"),
        ("smallthinker", {"rope_layout": [1, 0]}, r"rope_layout is \[1, 0\], a list of 5 is needed"),
        ("smallthinker", {"sliding_window_layout": 1}, "sliding_window_layout is 1, a list of 5 is needed"),
        ("smallthinker", {"sliding_window_size": None}, "sliding_window is null, and there are local layers"),
        ("smallthinker", {"moe_enable_early_router": False}, "moe_enable_early_router False is not supported"),
        ("smallthinker", {"moe_enable_secondary_experts": True}, "moe_enable_secondary_experts True is not supported"),
        ("smallthinker", {"moe_num_active_primary_experts": 8}, "is 8, there are 7 experts"),
        ("rwkv7", {"head_dim": 40}, "head_dim is 40, which does not divide the hidden size, 192"),
        ("rwkv7", {"head_dim": 24}, "head_dim is 24: a multiple of 16 is needed"),
        ("rwkv7", {"value_dim": [192, 384, 192]}, r"value_dim \[192, 384, 192\] is not supported"),
        ("rwkv7", {"value_dim": 384}, "value_dim 384 is not supported"),
        ("rwkv7", {"attn": {"layers": [0]}}, r"attn .* is not supported"),
        ("rwkv7", {"hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
        ("rwkv7", {"norm_first": False}, "norm_first False is not supported"),
    ],
)
def test_what_further_families_do_not_have(case: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises((CheckpointError, UnsupportedError), match=message):
        architecture(random_checkpoints.CASES[case] | change)


def test_cohere_s_first_layers_are_counted_apart_whatever_has_experts() -> None:
    """As transformers makes `layer_types` where it is not given: from `first_k_dense_replace`."""
    config = {**random_checkpoints.CASES["cohere2-moe"], "num_hidden_layers": 6, "first_k_dense_replace": 2}
    config = {key: value for key, value in config.items() if key != "layer_types"}
    model = architecture(config | {"mlp_layer_types": ["dense"] + ["sparse"] * 5})
    assert [window is not None for window in model.windows] == [False, False, True, True, True, False]


@pytest.mark.parametrize("kind", [["mrope"], 7, "mropes"])
def test_a_shared_rotation_of_no_known_kind(kind: object) -> None:
    scaling = {"rope_type": kind, "mrope_section": [2, 3, 3]}
    text = random_checkpoints.CASES["llama"] | {"rope_scaling": scaling, "model_type": "glm4v_text"}
    with pytest.raises(UnsupportedError, match=r"rope scaling .* is not supported; supported are"):
        architecture({"model_type": "glm4v", "text_config": text})


def test_sizes_that_a_larger_model_leaves_out_are_its_class_s() -> None:
    """As LLaVA's and Idefics 2's files are written."""
    text = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "vocab_size": 32064}
    found = architecture({"model_type": "vipllava", "text_config": text}).size
    assert (found.hidden_size, found.intermediate_size, found.num_hidden_layers) == (4096, 11008, 32)
    assert found.vocab_size == 32064
    text = {"model_type": "mistral", "vocab_size": 32003}
    found = architecture({"model_type": "idefics2", "text_config": text}).size
    assert (found.hidden_size, found.intermediate_size) == (4096, 14336)
    for kind in ({}, {"model_type": "qwen2_vl_text"}, {"model_type": "qwen2"}):  # whose class has other ones
        with pytest.raises(CheckpointError, match="hidden_size is None"):
            architecture({"model_type": "qwen2_vl", "text_config": {"vocab_size": 32003, **kind}})


def test_a_mixture_that_sees_says_less_than_the_text_model() -> None:
    """Qwen3-VL's class normalizes the weights of experts, and shares the hidden size among heads."""
    config = random_checkpoints.CASES["qwen3-moe"]
    text = {key: config[key] for key in config if key not in ("norm_topk_prob", "head_dim")}
    whole = {"model_type": "qwen3_vl_moe", "text_config": {**text, "model_type": "qwen3_vl_moe_text"}}
    found = architecture(whole)
    assert found.heads.head_dim == text["hidden_size"] // text["num_attention_heads"] != 128
    assert [layer.ffn.normalized for layer in found.layers] == [True] * len(found.layers)


def test_code_world_model_has_a_scaling_where_nothing_is_said() -> None:
    """Llama 3's, by 16; theta beside it does not count, as in transformers."""
    config = {key: value for key, value in random_checkpoints.CASES["cwm"].items() if key != "rope_parameters"}
    model = architecture(config | {"rope_theta": 5.0})
    assert model.rope == architecture(config).rope
    assert model.rope.inverse_frequencies[-1] == pytest.approx(1e6 ** (-22 / 24) / 16)


@pytest.mark.parametrize(
    ("outer", "layers", "heads", "vocabulary"),
    [
        ("glm4v", 40, Heads(32, 2, 128), 151552),
        ("glm_ocr", 16, Heads(16, 8, 64), 59392),
        ("paddleocr_vl", 18, Heads(16, 2, 128), 103424),
        ("hunyuan_vl", 32, Heads(32, 32, 128), 290943),
        ("granite4_vision", 32, Heads(32, 32, 128, scale=1.0), 32000),
        ("granite_docling", 28, Heads(16, 4, 64, scale=0.015625), 133800),
        ("emu3", 32, Heads(32, 8, 128), 184622),
        ("mllama", 32, Heads(32, 8, 128), 128256),
    ],
)
def test_a_text_model_that_says_nothing_of_its_sizes(outer: str, layers: int, heads: Heads, vocabulary: int) -> None:
    """It has those of its class in transformers."""
    found = architecture({"model_type": outer, "text_config": {}})
    assert (found.num_hidden_layers, found.heads, found.vocab_size) == (layers, heads, vocabulary)
