"""tools/make_dithered.py takes weights off their grid by less than half a step, and leaves the rest as it is."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.blocks.reference import decode
from edgeq.blocks.table import block_type
from edgeq.container.reader import open_file
from edgeq.errors import UnsupportedError
from edgeq.models import architecture

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    return importlib.import_module("make_dithered")


def bf16_folder(folder):
    """A BF16 checkpoint's tensors in f32."""
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            bits = np.frombuffer(raw, "<u2", (end - begin) // 2, 8 + length + begin).astype(np.uint32) << 16
            found[name] = bits.view(np.float32).reshape(entry["shape"])
    return found


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_noise_stays_within_half_a_step(tool, tiny_model, tmp_path, kind):
    source = tmp_path / "tiny.eqf"
    edgeq.convert(tiny_model, source, kind)
    with open_file(source) as file:
        assert tool.write_dithered(file, tmp_path / "out", 1) > 2e6
        found = bf16_folder(tmp_path / "out")
        tensors = architecture(file.metadata["config"], source).tensors
        assert len(found) == len(tensors)
        for name, tensor in tensors.items():
            info, values = file.tensors[name], found[tensor.parts[0].source]
            if not block_type(info.type).quantized:
                assert np.array_equal(values, file.data(name).view(np.float32)), name  # they were BF16
                continue
            weights, steps = tool.steps_of(file.data(name), *info.shape, info.type)
            noise = (values - weights) / np.where(steps == 0, 1, steps)
            assert (np.abs(values - weights) <= 0.5 * steps + np.abs(values) / 256 + 1e-12).all(), name
            assert abs(noise.mean()) < 0.02 and 0.26 < noise.std() < 0.32, name  # 0.289 where it is uniform


def test_a_gguf_file_becomes_a_checkpoint_that_converts(tool, tiny_model, tmp_path, monkeypatch):
    source, out = tmp_path / "tiny.gguf", tmp_path / "out"
    edgeq.convert(tiny_model, source, "Q8_0")
    monkeypatch.setattr("sys.argv", ["make_dithered.py", str(source), "--out", str(out)])
    assert tool.main() == 0
    edgeq.convert(out, tmp_path / "again.eqf", "F32")
    originals = bf16_folder(tiny_model)
    for name, values in bf16_folder(out).items():  # rows of q and k lie as they did before GGUF's order
        assert np.corrcoef(values.ravel(), originals[name].ravel())[0, 1] > 0.999, name
    first = (out / "model.safetensors").read_bytes()
    assert tool.main() == 0 and (out / "model.safetensors").read_bytes() == first


def test_plain_weights_are_those_of_the_file(tool, tiny_model, tmp_path):
    edgeq.convert(tiny_model, tmp_path / "tiny.eqf", "Q4_0")
    with open_file(tmp_path / "tiny.eqf") as file:
        tool.write_dithered(file, tmp_path / "out", None)
        info = file.tensors["blk.0.ffn_up.weight"]
        weights = decode(file.data(info.name), *info.shape, info.type)
    found = bf16_folder(tmp_path / "out")["model.layers.0.mlp.up_proj.weight"]
    assert (np.abs(found - weights) <= np.abs(weights) / 256).all()


def test_uneven_values_are_refused(tool):
    with pytest.raises(UnsupportedError, match="not evenly spaced"):
        tool.steps_of(np.zeros(0, np.uint8), 16, 32, "IQ4_NL")
