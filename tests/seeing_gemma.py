"""A small random Gemma 3 that sees, which every machine makes alike from a seed: as seeing_model.py, whose images these
are, too."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from seeing_model import QUESTION, SIZES, picture, random_weights
from small_tokenizers import byte_level_assets

from edgeq.models import architecture, images

BEGIN, IMAGE, END, TURN, END_OF_TURN = 263, 264, 265, 266, 267
NAMES = {
    BEGIN: "<start_of_image>",
    IMAGE: "<image_soft_token>",
    END: "<end_of_image>",
    TURN: "<start_of_turn>",
    END_OF_TURN: "<end_of_turn>",
}
ROWS = 16  # of an image: more than the window, and a square of means
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
CONFIG: dict[str, Any] = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "mm_tokens_per_image": ROWS,
    "boi_token_index": BEGIN,
    "image_token_index": IMAGE,
    "eoi_token_index": END,
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 72,
        "intermediate_size": 100,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "query_pre_attn_scalar": 20,
        "sliding_window": 10,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "vocab_size": 280,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 260,
        "eos_token_id": END_OF_TURN,
        "pad_token_id": 259,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 60,
        "intermediate_size": 68,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 58,  # of which two pixels fill no patch
        "patch_size": 7,
        "vision_use_head": False,
    },
}
PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "Gemma3ImageProcessor",
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_pan_and_scan": None,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.45, 0.4],
    "image_std": [0.5, 0.25, 0.3],
    "image_seq_length": ROWS,
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 58, "width": 58},
}


# What stands in the checkpoints of Google, and of transformers from 5 on, for what names begin with here
HUB = {
    "model.layers.": "language_model.model.layers.",
    "model.embed_tokens.": "language_model.model.embed_tokens.",
    "model.norm.": "language_model.model.norm.",
    "model.vision_tower.": "vision_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}
LATER = {
    "model.layers.": "model.language_model.layers.",
    "model.embed_tokens.": "model.language_model.embed_tokens.",
    "model.norm.": "model.language_model.norm.",
    "model.vision_tower.vision_model.": "model.vision_tower.",
}


def weights(names: dict[str, str] = HUB) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor under its name in a checkpoint."""
    random, seen = np.random.RandomState(11), images(CONFIG)
    assert seen is not None
    found = random_weights(architecture(CONFIG).tensors, random) | random_weights(seen.tensors, random)
    found["model.embed_tokens.weight"] *= np.float32(0.1)  # or each token is followed by itself
    return {_renamed(name, names): values for name, values in found.items()}


def _renamed(name: str, names: dict[str, str]) -> str:
    before = next((each for each in names if name.startswith(each)), "")
    return names.get(before, "") + name[len(before) :]


def assets() -> dict[str, bytes]:
    """The checkpoint's small files, but for config.json."""
    named = {"boi_token": NAMES[BEGIN], "image_token": NAMES[IMAGE], "eoi_token": NAMES[END]}
    found = byte_level_assets(
        eos_token=NAMES[END_OF_TURN],
        bos_token="<|im_start|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        extra_special_tokens=named,
    )
    tokenizer = json.loads(found["tokenizer.json"])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": i, "content": name, **plain} for i, name in sorted(NAMES.items())]
    found["tokenizer.json"] = json.dumps(tokenizer).encode()
    return {**found, "preprocessor_config.json": json.dumps(PREPROCESSOR).encode()}


def write(folder: Path, names: dict[str, str] = HUB) -> Path:
    """The checkpoint, its tensors by such names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": "float32"}))
    for name, content in assets().items():
        (folder / name).write_bytes(content)
    safetensors.numpy.save_file(weights(names), folder / "model.safetensors", {"format": "pt"})
    return folder


def digest() -> str:
    """Fingerprint of everything here."""
    state = hashlib.sha256(json.dumps([CONFIG, PREPROCESSOR, TEMPLATE, QUESTION]).encode())
    for name, values in weights().items():
        state.update(name.encode() + values.tobytes())
    for name in SIZES:
        state.update(picture(name).tobytes())
    return state.hexdigest()
