"""Two small random Gemma 4 that see, which every machine makes alike from a seed, as seeing_model.py, whose images
these are, too. "small" is as those for small devices: a second embedding, keys of earlier layers, matrices with bounds.
"large" is as the others: rows of an image see one another in layers with a window, values of global layers are their
keys, means of states are standardized."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from seeing_model import QUESTION, SIZES, picture, random_weights
from small_tokenizers import END_OF_TEXT, IM_END, byte_level_assets

from edgeq.models import architecture, images

BEGIN, IMAGE, END, TURN, END_OF_TURN, VIDEO = 263, 264, 265, 266, 267, 268
NAMES = {
    BEGIN: "<|image>",
    IMAGE: "<|image|>",
    END: "<image|>",
    TURN: "<|turn>",
    END_OF_TURN: "<turn|>",
    VIDEO: "<|video|>",
    269: "<|audio>",
    270: "<|audio|>",
    271: "<audio|>",
}
ROWS = 70  # of an image, at most: more than the window
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|turn>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<|image|>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}<turn|>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
)
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_TEXT: dict[str, Any] = {
    "model_type": "gemma4_text",
    "hidden_size": 72,
    "hidden_activation": "gelu_pytorch_tanh",
    "intermediate_size": 100,
    "num_attention_heads": 4,
    "head_dim": 24,
    "vocab_size": 280,
    "vocab_size_per_layer_input": 280,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 12.0,
    "attention_bias": False,
    "enable_moe_block": False,
    "tie_word_embeddings": True,
    "rope_parameters": {
        _GLOBAL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
        _LOCAL: {"rope_type": "default", "rope_theta": 10000.0},
    },
    "bos_token_id": 260,
    "eos_token_id": END_OF_TURN,
    "pad_token_id": 0,
}
_VISION: dict[str, Any] = {
    "model_type": "gemma4_vision",
    "hidden_size": 52,
    "intermediate_size": 68,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 20,  # which are more values than the states have
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 100.0, "rope_type": "axial"},
    "use_clipped_linears": False,
    "standardize": False,
}
_OUTER: dict[str, Any] = {
    "model_type": "gemma4",
    "architectures": ["Gemma4ForConditionalGeneration"],
    "vision_soft_tokens_per_image": ROWS,
    "boi_token_id": BEGIN,
    "image_token_id": IMAGE,
    "eoi_token_id": END,
    "video_token_id": VIDEO,
    "boa_token_id": 269,
    "audio_token_id": 270,
    "eoa_token_index": 271,
    "audio_config": None,
    "tie_word_embeddings": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "small": {
        **_OUTER,
        "text_config": {
            **_TEXT,
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "layer_types": [_LOCAL, _GLOBAL] * 2,
            "per_layer_config": {"1": {"head_dim": 32}, "3": {"head_dim": 32}},
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "sliding_window": 24,
            "hidden_size_per_layer_input": 32,
            "attention_k_eq_v": False,
            "use_bidirectional_attention": None,
        },
        "vision_config": {
            **_VISION,
            "patch_size": 4,
            "pooling_kernel_size": 3,
            "position_embedding_size": 230,
            "use_clipped_linears": True,
        },
    },
    "large": {
        **_OUTER,
        "text_config": {
            **_TEXT,
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "layer_types": [_LOCAL, _GLOBAL] * 2,
            "per_layer_config": {str(i): {"head_dim": 48, "num_key_value_heads": 1} for i in (1, 3)},
            "num_kv_shared_layers": 0,
            "use_double_wide_mlp": False,
            "sliding_window": 24,
            "hidden_size_per_layer_input": 0,
            "attention_k_eq_v": True,
            "use_bidirectional_attention": "vision",
        },
        "vision_config": {
            **_VISION,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "patch_size": 7,
            "pooling_kernel_size": 2,
            "position_embedding_size": 140,
            "standardize": True,
        },
    },
}


def processor(which: str) -> dict[str, Any]:
    """What processor_config.json says of images."""
    vision = CONFIGS[which]["vision_config"]
    return {
        "image_processor_type": "Gemma4ImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": False,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
        "max_soft_tokens": ROWS,
        "patch_size": vision["patch_size"],
        "pooling_kernel_size": vision["pooling_kernel_size"],
        "resample": 3,
        "rescale_factor": 1 / 255,
    }


def weights(which: str) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor under its name in a checkpoint."""
    random, config = np.random.RandomState(13), CONFIGS[which]
    seen = images(config)
    assert seen is not None
    found = random_weights(architecture(config).tensors, random) | random_weights(seen.tensors, random)
    for name, values in found.items():
        if name.endswith("layer_scalar"):
            found[name] = np.float32(1.0) + np.float32(0.15) * values
        elif name.endswith(("_min", "_max")):  # about as large as what they bound, some without an end
            bound = 0.4 + np.abs(values) if random.randint(8) else np.inf
            found[name] = np.array(-bound if name.endswith("_min") else bound, np.float32)
        elif "embed_tokens" in name:
            found[name] = np.float32(0.1) * values
            found[name][[END_OF_TEXT, IM_END, *NAMES]] *= np.float32(0.1)  # so that no answer ends soon, nor has images
        elif name.endswith(("embedding_projection.weight", "input_proj.weight")):
            found[name] = np.float32(2.0 / np.sqrt(values.shape[1])) * values
    return {_renamed(name): values for name, values in found.items()}


def _renamed(name: str) -> str:
    seen = name.startswith(("model.vision_tower.", "model.embed_vision."))
    return name if seen else name.replace("model.", "model.language_model.", 1)


def assets(which: str) -> dict[str, bytes]:
    """The checkpoint's small files, but for config.json."""
    kinds = {"boi": BEGIN, "image": IMAGE, "eoi": END, "boa": 269, "audio": 270, "eoa": 271}
    found = byte_level_assets(
        eos_token=NAMES[END_OF_TURN],
        bos_token="<|im_start|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        extra_special_tokens={f"{kind}_token": NAMES[i] for kind, i in kinds.items()},
    )
    tokenizer = json.loads(found["tokenizer.json"])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": i, "content": name, **plain} for i, name in sorted(NAMES.items())]
    found["tokenizer.json"] = json.dumps(tokenizer).encode()
    said = {"processor_class": "Gemma4Processor", "image_processor": processor(which)}
    return {**found, "processor_config.json": json.dumps(said).encode()}


def write(folder: Path, which: str) -> Path:
    """The checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIGS[which], "torch_dtype": "float32"}))
    for name, content in assets(which).items():
        (folder / name).write_bytes(content)
    safetensors.numpy.save_file(weights(which), folder / "model.safetensors", {"format": "pt"})
    return folder


def digest() -> str:
    """Fingerprint of everything here."""
    state = hashlib.sha256(json.dumps([CONFIGS, [processor(which) for which in CONFIGS], TEMPLATE, QUESTION]).encode())
    for which in CONFIGS:
        for name, values in weights(which).items():
            state.update(name.encode() + values.tobytes())
    for name in SIZES:
        state.update(picture(name).tobytes())
    return state.hexdigest()
