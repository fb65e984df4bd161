"""A small random LFM2-VL, which every machine makes alike from a seed, as seeing_model.py, and images for it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from seeing_model import QUESTION, drawn, random_weights
from small_tokenizers import byte_level_assets

from edgeq.models import architecture, images

IMAGE = 263
NAMES = {IMAGE: "<image>", 264: "<|image_start|>", 265: "<|image_end|>", 266: "<|img_thumbnail|>"}
NAMES |= {267 + i: f"<|img_row_{i // 6 + 1}_col_{i % 6 + 1}|>" for i in range(36)}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PATCH, JOINED = 6, 2
CONFIG: dict[str, Any] = {
    "model_type": "lfm2_vl",
    "architectures": ["Lfm2VlForConditionalGeneration"],
    "image_token_id": IMAGE,
    "downsample_factor": JOINED,
    "projector_hidden_act": "gelu",
    "projector_hidden_size": 76,  # no multiple of 16
    "projector_bias": True,
    "projector_use_layernorm": True,
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "lfm2",
        "hidden_size": 64,
        "intermediate_size": 150,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 304,
        "max_position_embeddings": 512,
        "norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "conv_L_cache": 3,
        "conv_bias": False,
        "block_auto_adjust_ff_dim": True,
        "block_ffn_dim_multiplier": 1.0,
        "block_multiple_of": 32,
        "layer_types": ["conv", "full_attention", "conv", "full_attention"],
        "bos_token_id": 260,
        "eos_token_id": 261,
        "pad_token_id": 259,
    },
    "vision_config": {
        "model_type": "siglip2_vision_model",
        "hidden_size": 60,
        "intermediate_size": 68,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "patch_size": PATCH,
        "num_patches": 25,  # positions of 5 x 5: tiles have more rows and fewer, columns too
        "vision_use_head": False,
    },
}
PLAIN = {"projector_use_layernorm": False, "projector_bias": False, "projector_hidden_act": "relu"}  # another projector
PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "Lfm2VlImageProcessor",
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "downsample_factor": JOINED,
    "encoder_patch_size": PATCH,
    "image_mean": [0.5, 0.45, 0.4],
    "image_std": [0.5, 0.25, 0.3],
    "max_image_tokens": 20,
    "max_pixels_tolerance": 1.5,
    "max_tiles": 6,
    "min_image_tokens": 7,
    "min_tiles": 2,
    "resample": 2,
    "rescale_factor": 1 / 255,
    "tile_size": 48,
    "use_thumbnail": True,
}
WHOLE = {"do_image_splitting": False, "max_image_tokens": 11}  # other settings
SHAPES = [(7, 7), (14, 9), (1, 30), (20, 2), (5, 7), (8, 8)]  # rows and columns of patches
# Name of a picture -> height, width
SIZES = {
    "wide": (50, 120),  # tiles
    "tall": (97, 40),  # one, scaled down
    "square": (64, 64),
    "narrow": (7, 90),  # one, scaled up
    "upright": (180, 50),  # tiles
    "tied": (80, 100),  # tiles of the larger of two grids that are equally near
    "tied too": (64, 80),  # of the smaller
    "as it is": (48, 60),
}


def picture(name: str) -> npt.NDArray[np.uint8]:
    """u8 [height, width, 3]."""
    return drawn(*SIZES[name])


# What stands in a checkpoint that transformers saves for what names begin with here
SAVED = {
    "model.vision_tower.vision_model.": "model.vision_tower.",
    "model.multi": "model.multi",
    "model.": "model.language_model.",
}


def weights(names: dict[str, str] = SAVED, **changed: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor under its name in a checkpoint."""
    random, seen = np.random.RandomState(13), images({**CONFIG, **changed})
    assert seen is not None
    found = random_weights(architecture(CONFIG).tensors, random) | random_weights(seen.tensors, random)
    found["model.embed_tokens.weight"] *= np.float32(0.1)  # or each token is followed by itself
    return {_renamed(name, names): values for name, values in found.items()}


def _renamed(name: str, names: dict[str, str]) -> str:
    before = next((each for each in names if name.startswith(each)), "")
    return names.get(before, "") + name[len(before) :]


def assets(**processor: Any) -> dict[str, bytes]:
    """The checkpoint's small files, but for config.json; `processor` are other settings of how images are prepared."""
    found = byte_level_assets(
        eos_token="<|im_end|>", bos_token="<|im_start|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    tokenizer = json.loads(found["tokenizer.json"])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": i, "content": name, **plain} for i, name in sorted(NAMES.items())]
    found["tokenizer.json"] = json.dumps(tokenizer).encode()
    settings = {"image_processor": {**PREPROCESSOR, **processor}, "processor_class": "Lfm2VlProcessor"}
    return {**found, "processor_config.json": json.dumps(settings).encode()}


def write(folder: Path, processor: dict[str, Any] | None = None, **changed: Any) -> Path:
    """The checkpoint, of a configuration that may be `changed`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changed, "torch_dtype": "float32"}))
    for name, content in assets(**(processor or {})).items():
        (folder / name).write_bytes(content)
    safetensors.numpy.save_file(weights(**changed), folder / "model.safetensors", {"format": "pt"})
    return folder


def digest() -> str:
    """Fingerprint of everything here."""
    state = hashlib.sha256(json.dumps([CONFIG, PLAIN, PREPROCESSOR, WHOLE, SHAPES, TEMPLATE, QUESTION]).encode())
    for name, values in weights().items():
        state.update(name.encode() + values.tobytes())
    for name in SIZES:
        state.update(picture(name).tobytes())
    return state.hexdigest()
