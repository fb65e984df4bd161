"""A small random model that sees, as SmolVLM does, which every machine makes alike from a seed, and images for it.

Needs NumPy and edgeq's models: tools/make_image_golden.py makes the same ones for transformers.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from small_tokenizers import byte_level_assets

from edgeq.models import architecture, images
from edgeq.models.tensors import Tensor

END, IMAGE, AROUND, WHOLE = 262, 263, 264, 265
NAMES = {END: "<end_of_utterance>", IMAGE: "<image>", AROUND: "<fake_token_around_image>", WHOLE: "<global-img>"}
PLACES = {f"<row_{i // 4 + 1}_col_{i % 4 + 1}>": 266 + i for i in range(16)}
VOCABULARY = 288

TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
CONFIG: dict[str, Any] = {
    "model_type": "smolvlm",
    "architectures": ["SmolVLMForConditionalGeneration"],
    "image_token_id": IMAGE,
    "scale_factor": 2,
    "tie_word_embeddings": False,
    "pad_token_id": 259,
    "text_config": {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 260,
        "eos_token_id": END,
        "pad_token_id": 259,
    },
    "vision_config": {
        "model_type": "smolvlm_vision",
        "hidden_size": 48,  # no multiple of 32: these matrices become F16 where others become Q8_0
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
}
PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "SmolVLMImageProcessor",
    "do_convert_rgb": True,
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.45, 0.4],
    "image_std": [0.5, 0.25, 0.3],
    "max_image_size": {"longest_edge": 32},
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": 96},
}
QUESTION = "hello world"
# Name of a picture -> height, width
SIZES = {"wide": (50, 120), "tall": (97, 40), "square": (64, 64), "narrow": (7, 90)}


def picture(name: str) -> npt.NDArray[np.uint8]:
    """u8 [height, width, 3]."""
    return drawn(*SIZES[name])


def drawn(height: int, width: int) -> npt.NDArray[np.uint8]:
    """u8 [height, width, 3]: stripes and squares, and some noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.RandomState(height * width).randint(0, 64, (height, width))
    planes = (3 * x % 256, 255 * ((x // 5 + y // 3) % 2), 2 * y % 192 + noise)
    return np.stack(planes, axis=2).astype(np.uint8)


def weights() -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor under its Hugging Face name."""
    random = np.random.RandomState(7)
    seen = images(CONFIG)
    assert seen is not None
    text = random_weights(architecture(CONFIG).tensors, random)
    text = {name.replace("model.", "model.text_model.", 1): values for name, values in text.items()}
    return text | random_weights(seen.tensors, random)


def random_weights(tensors: Mapping[str, Tensor], random: np.random.RandomState) -> dict[str, npt.NDArray[np.float32]]:
    """Of every tensor of a checkpoint that these are made of, by the names that they have there."""
    found = {}
    for name in sorted(tensors):
        for part in tensors[name].parts:
            source, values = part.source, 2.0 * random.random_sample(part.shape) - 1.0
            if "norm" in source:
                values = 0.3 * values + (0.0 if source.endswith(".bias") else 1.0 - tensors[name].add)
            elif source.endswith(".bias"):
                values *= 0.5
            elif "embed" not in source or "patch_embedding" in source:
                values *= (4.0 if source.endswith(("q_proj.weight", "k_proj.weight")) else 2.0) / np.sqrt(
                    np.prod(part.shape[:1] if part.transposed else part.shape[1:])
                )
            found[source] = values.astype(np.float32)
    return found


def assets() -> dict[str, bytes]:
    """The checkpoint's small files, but for config.json."""
    found = byte_level_assets(eos_token=NAMES[END], bos_token="<|im_start|>", chat_template=TEMPLATE)
    tokenizer = json.loads(found["tokenizer.json"])
    tokenizer["added_tokens"] = [one for one in tokenizer["added_tokens"] if one["id"] < END]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    named = {**NAMES, **{i: name for name, i in PLACES.items()}}
    tokenizer["added_tokens"] += [{"id": i, "content": name, **plain} for i, name in sorted(named.items())]
    found["tokenizer.json"] = json.dumps(tokenizer).encode()
    return {**found, "preprocessor_config.json": json.dumps(PREPROCESSOR).encode()}


def write(folder: Path, **preprocessor: Any) -> Path:
    """The checkpoint; `preprocessor` are other settings of how images are prepared."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": "float32"}))
    for name, content in assets().items():
        (folder / name).write_bytes(content)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, **preprocessor}))
    safetensors.numpy.save_file(weights(), folder / "model.safetensors", {"format": "pt"})
    return folder


def digest() -> str:
    """Fingerprint of everything here."""
    state = hashlib.sha256(json.dumps([CONFIG, PREPROCESSOR, TEMPLATE, QUESTION]).encode())
    for name, values in weights().items():
        state.update(name.encode() + values.tobytes())
    for name in SIZES:
        state.update(picture(name).tobytes())
    return state.hexdigest()
