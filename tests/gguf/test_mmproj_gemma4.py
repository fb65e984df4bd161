"""Gemma 4 of GGUF with what it sees with: the same as through safetensors, tensor by tensor and in a chat."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmproj_files
import numpy as np
import pytest
import seeing_gemma4
from seeing_gemma4 import CONFIGS, TEMPLATE
from seeing_model import QUESTION, picture

import edgeq
from edgeq.container.reader import open_file
from edgeq.errors import FormatError, UnsupportedError
from edgeq.gguf.exporter import export_gguf
from edgeq.gguf.importer import import_gguf
from edgeq.quantize.pipeline import convert

NAMES = {
    "model.vision_tower.encoder.layers.": "v.blk.",
    "model.vision_tower.patch_embedder.input_proj": "v.patch_embd",
    "model.vision_tower.patch_embedder.position_embedding_table": "v.position_embd.weight",
    "model.vision_tower.std_": "v.std_",
    "model.embed_vision.embedding_projection": "mm.input_projection",
    "input_layernorm": "ln1",
    "post_attention_layernorm": "attn_post_norm",
    "pre_feedforward_layernorm": "ln2",
    "post_feedforward_layernorm": "ffn_post_norm",
    ".linear": "",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_out",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
}


@pytest.fixture(scope="module", autouse=True)
def sizes_that_gguf_has() -> Iterator[None]:
    """No key says how many rows an image may become: 280, as of all that Google made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seeing_gemma4, "ROWS", 280)
        for config in CONFIGS.values():
            patch.setitem(config, "vision_soft_tokens_per_image", 280)
            patch.setitem(config["vision_config"], "position_embedding_size", 850)
            patch.setitem(config["text_config"], "max_position_embeddings", 1024)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("mmproj")
    for which in CONFIGS:
        convert(seeing_gemma4.write(found / which, which), found / f"{which}.eqf", "F32")
        export_gguf(found / f"{which}.eqf", found / f"{which}.gguf")
    return found


def write(path: Path, which: str, change: Any = None, kind: type = np.float32) -> Path:
    """As llama.cpp's converter does it; `change` may change keys and tensors before."""
    vision, tensors = CONFIGS[which]["vision_config"], {}
    for name, values in seeing_gemma4.weights(which).items():
        if name.startswith(("model.vision_tower.", "model.embed_vision.")):
            for theirs, here in NAMES.items():
                name = name.replace(theirs, here)
            if name == "v.patch_embd.weight":
                size = vision["patch_size"]
                values = np.ascontiguousarray(values.reshape(-1, size, size, 3).transpose(0, 3, 1, 2))
            own = kind if values.ndim > 1 and "position" not in name else np.float32
            tensors[name] = values.reshape(values.shape or 1).astype(own)
    keys: dict[str, Any] = {
        "clip.has_vision_encoder": True,
        "clip.has_audio_encoder": True,
        "clip.vision.projector_type": "gemma4v",
        "clip.audio.projector_type": "gemma4a",
        "clip.vision.projection_dim": 72,
        "clip.vision.image_size": 224,
        "clip.vision.patch_size": vision["patch_size"],
        "clip.vision.embedding_length": vision["hidden_size"],
        "clip.vision.feed_forward_length": vision["intermediate_size"],
        "clip.vision.block_count": vision["num_hidden_layers"],
        "clip.vision.attention.head_count": vision["num_attention_heads"],
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_mean": [0.0, 0.0, 0.0],
        "clip.vision.image_std": [1.0, 1.0, 1.0],
    }
    if vision["pooling_kernel_size"] != 3:
        keys["clip.vision.projector.scale_factor"] = vision["pooling_kernel_size"]
    for name in ("a.blk.0.attn_q.weight", "mm.a.input_projection.weight"):  # what it hears with
        tensors[name] = np.zeros((4, 32), np.float32)
    if change:
        change(keys, tensors)
    return mmproj_files.write(path, keys, tensors)


def told(path: Path) -> tuple[list[int], str]:
    parts = [{"type": "image", "image": picture("wide")}, {"type": "text", "text": QUESTION}]
    talk = [{"role": "user", "content": parts}]
    with edgeq.load(path, threads=2, chat_template=TEMPLATE) as model:
        return model.chat_tokens(talk), model.chat(talk, 8, temperature=0).text


@pytest.mark.parametrize("which", CONFIGS)
def test_the_same_as_through_safetensors(folder: Path, tmp_path: Path, which: str) -> None:
    import_gguf(folder / f"{which}.gguf", tmp_path / "m.eqf", mmproj=write(tmp_path / "mmproj.gguf", which))
    with open_file(tmp_path / "m.eqf") as found, open_file(folder / f"{which}.eqf") as expected:
        assert found.tensors.keys() - expected.tensors.keys() == {"rope_freqs.weight"}  # of the text model
        for name in expected.tensors:
            np.testing.assert_array_equal(found.data(name), expected.data(name), err_msg=name)
        see = [one.metadata["config"]["text_config"]["use_bidirectional_attention"] for one in (found, expected)]
        assert see[0] == see[1]
    assert told(tmp_path / "m.eqf") == told(folder / f"{which}.eqf")


def test_halves(folder: Path, tmp_path: Path) -> None:
    mmproj = write(tmp_path / "mmproj.gguf", "small", kind=np.float16)
    import_gguf(folder / "small.gguf", tmp_path / "m.eqf", mmproj=mmproj)
    with open_file(tmp_path / "m.eqf") as file:
        types = {name: info.type for name, info in file.tensors.items() if name.startswith(("v.", "mm."))}
    assert (
        types["v.patch_embd.weight"] == types["mm.input_projection.weight"] == types["v.blk.1.attn_q.weight"] == "F16"
    )
    assert types["v.position_embd_y.weight"] == types["v.blk.2.ffn_up.output_min"] == "F32"
    assert told(tmp_path / "m.eqf")[1]


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        (lambda keys, _: keys.update({"clip.vision.projector_type": "gemma4uv"}), UnsupportedError, "'gemma4uv'"),
        (lambda keys, _: keys.update({"clip.use_silu": True}), UnsupportedError, "clip.use_gelu None"),
        (lambda keys, _: keys.update({"clip.use_gelu": False}), UnsupportedError, "clip.use_gelu False"),
        (lambda keys, _: keys.update({"clip.vision.image_mean": [0.5] * 3}), UnsupportedError, "image_mean"),
        (lambda _, own: own.pop("v.position_embd.weight"), FormatError, "has no tensor v.position_embd.weight"),
        (
            lambda _, own: own.update({"v.position_embd.weight": own["v.position_embd.weight"][:1]}),
            FormatError,
            r"v.position_embd.weight is \[1, 850, 52\], which does not fit",
        ),
        (
            lambda _, own: own.update({"v.position_embd.weight": own["v.position_embd.weight"][:, :839]}),
            UnsupportedError,
            "images may be 840 patches wide",
        ),
        (lambda _, own: own.pop("v.blk.1.attn_k.input_min"), FormatError, "has no tensor v.blk.1.attn_k.input_min"),
        (lambda _, own: own.pop("v.blk.0.attn_k.weight"), FormatError, "has no tensor v.blk.0.attn_k.weight"),
        (lambda _, own: own.update({"v.std_bias": np.zeros(52, np.float32)}), FormatError, "no tensor v.std_scale"),
        (lambda _, own: own.update({"v.pre_ln.weight": np.zeros(52, np.float32)}), UnsupportedError, "has v.pre_ln"),
    ],
)
def test_what_cannot_be_is_refused(folder, tmp_path, change, error, what) -> None:
    mmproj = write(tmp_path / "mmproj.gguf", "small", change)
    with pytest.raises(error, match=what) as raised:
        import_gguf(folder / "small.gguf", tmp_path / "m.eqf", mmproj=mmproj)
    assert "mmproj.gguf" in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "m.eqf").exists()
