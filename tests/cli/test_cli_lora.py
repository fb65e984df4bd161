"""`--lora` of the verbs: what is said of adapters that do not fit, and that those that do reach the model."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "someone/tiny"}
GREEDY = ("--temperature", 0, "-n", 8)


@pytest.fixture(scope="module")
def tiny(tiny_model, tmp_path_factory):
    """The bundled model in F32."""
    from edgeq.quantize.pipeline import convert

    path = tmp_path_factory.mktemp("tiny") / "tiny.eqf"
    convert(tiny_model, path, "F32")
    return path


@pytest.fixture
def adapter(tiny_model, tmp_path):
    """One that changes what the model says."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    width = json.loads((tiny_model / "config.json").read_text())["hidden_size"]
    random = np.random.default_rng(1)
    tensors = {}
    for layer in range(3):
        name = f"base_model.model.model.layers.{layer}.self_attn.o_proj.lora_"
        tensors[f"{name}A.weight"] = random.normal(0, 0.5, (2, width)).astype(np.float32)
        tensors[f"{name}B.weight"] = random.normal(0, 0.5, (width, 2)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_at_run_time_and_merged_it_says_the_same(edgeq, tiny, tiny_model, adapter, tmp_path):
    plain, adapted = (edgeq("run", tiny, "Once upon a time", *GREEDY, *more).out for more in ((), ("--lora", adapter)))
    assert plain != adapted
    assert edgeq("run", tiny, "Once upon a time", *GREEDY, "--lora", f"{adapter}:0").out == plain
    merged = tmp_path / "merged.eqf"
    result = edgeq("convert", tiny_model, "-o", merged, "--type", "F32", "--lora", adapter)
    assert result.code == 0, result.err
    assert edgeq("run", merged, "Once upon a time", *GREEDY).out == adapted
    assert "adapter x 1" in edgeq("show", merged).out


def test_a_calibrated_conversion_sees_the_merged_weights(edgeq, tiny_model, adapter, tmp_path, monkeypatch):
    """What is calibrated unasked, and what is quantized, is the checkpoint with the adapter."""
    from edgeq.conversion import calibrating

    seen = []

    def stop(source, *_, **__):
        from edgeq.checkpoints import open_checkpoint
        from edgeq.errors import UsageError

        with open_checkpoint(source) as checkpoint:
            seen.append(checkpoint.merged)
        raise UsageError("seen")

    monkeypatch.setattr(calibrating, "calibrate", stop)
    result = edgeq("convert", tiny_model, "-o", tmp_path / "m.eqf", "--lora", f"{adapter}:0.5")
    assert (result.code, seen) == (2, [("adapter x 0.5",)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lora", "nothing:2"), "nothing: no such file or folder: give that of an adapter, PATH or PATH:SCALE"),
        (("--lora", "MODEL"), "is no adapter: give a folder that PEFT has saved, or a GGUF file"),
        (("--lora", "ADAPTER:nan"), "the scale of .* is nan: give a number, as 0.5"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "convert"])
def test_bad_adapters_are_one_line(edgeq, tiny, tiny_model, adapter, tmp_path, verb, arguments, message):
    arguments = [str(one).replace("MODEL", str(tiny)).replace("ADAPTER", str(adapter)) for one in arguments]
    rest = [tiny, "Once"] if verb == "run" else [tiny_model, "-o", tmp_path / "m.eqf", "--type", "F32"]
    result = edgeq(verb, *rest, *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert re.search(message, result.err)
    assert not (tmp_path / "m.eqf").exists()


def test_an_adapter_is_no_model(edgeq, adapter):
    result = edgeq("run", adapter, "Once")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "is an adapter, not a model: give the model, and this with --lora" in result.err


def test_an_adapter_is_shown(edgeq, adapter, tiny_model):
    width = json.loads((tiny_model / "config.json").read_text())["hidden_size"]
    facts = json.loads(edgeq("show", adapter, "--json", "--tensors").out)
    assert (facts["format"], facts["base"], facts["ranks"], facts["scales"]) == ("adapter", "someone/tiny", [2], [1.0])
    assert (facts["matrices"], facts["parameters"]) == (3, 3 * 4 * width)
    assert facts["tensors"][0]["shape"] == [width, width]
    lines = edgeq("show", adapter).out.splitlines()
    expected = ["adapter   LoRA of someone/tiny", "matrices  3, 2.30 K parameters", "rank      2, scale 1"]
    assert lines[1:] == expected
