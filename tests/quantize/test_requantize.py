"""Models that are quantized already, encoded again."""

from pathlib import Path

import numpy as np
import pytest

from edgeq.blocks.reference import decode, encode
from edgeq.container.reader import File, open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.errors import UnsupportedError, UsageError
from edgeq.gguf.exporter import export_gguf
from edgeq.quantize.kept import ENCODED, EXACT
from edgeq.quantize.pipeline import convert
from edgeq.quantize.requantize import requantize


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, tiny_model: Path) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "q8.eqf"
    convert(tiny_model, path, "Q8_0", threads=1)
    return path


def weights(file: File, name: str) -> np.ndarray:
    return decode(file.data(name), *file.tensors[name].shape, file.tensors[name].type)


def test_it_is_what_a_conversion_gives_but_for_the_weights(quantized: Path, tiny_model: Path, tmp_path: Path):
    heard = []
    again = tmp_path / "again.eqf"
    report = requantize(quantized, again, "Q4_K_M", 1, lambda *values: heard.append(values[3:]))
    convert(tiny_model, tmp_path / "first.eqf", "Q4_K_M", threads=1)
    with open_file(quantized) as source, open_file(again) as file, open_file(tmp_path / "first.eqf") as first:
        file.verify()
        assert {t.name: (t.shape, t.type) for t in file.tensors.values()} == {
            t.name: (t.shape, t.type) for t in first.tensors.values()
        }
        assert file.metadata["config"] == first.metadata["config"]
        assert {name: file.asset(name) for name in file.assets} == {name: first.asset(name) for name in first.assets}
        provenance = file.metadata["provenance"]
        assert provenance["source"] == "tiny_model" and provenance["recipe"] == "Q4_K_M"
        assert "Q8_0: 43 tensors encoded again" in provenance["quantized"]
        for name, info in file.tensors.items():
            if len(info.shape) == 2:
                expected = encode(weights(source, name), info.type)
                assert np.array_equal(file.data(name), expected), name
            else:
                assert np.array_equal(file.data(name), source.data(name)), name
    assert heard[-1][0] == heard[-1][1] == sum(4 * np.prod(t.shape) for t in report.tensors)
    (line,) = report.quantized
    assert line.startswith("Q8_0: 43 tensors encoded again (") and "adds to what Q8_0 has lost already" in line
    assert all(0 < tensor.error < 0.1 for tensor in report.tensors if tensor.kept)


def test_what_it_requires_of_a_reader_stays(quantized: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("edgeq.container.header.FEATURES", frozenset({"rotated-weights"}))
    monkeypatch.setattr("edgeq.container.writer.FEATURES", frozenset({"rotated-weights"}))
    with (
        open_file(quantized) as source,
        Writer(
            tmp_path / "rotated.eqf",
            [TensorSpec(t.name, t.shape, t.type) for t in source.tensors.values()],
            source.metadata,
            {name: source.asset(name) for name in source.assets},
            ["rotated-weights"],
        ) as writer,
    ):
        for name in source.tensors:
            writer.write(name, source.data(name))
    requantize(tmp_path / "rotated.eqf", tmp_path / "again.eqf", "Q8_0", 1)
    with open_file(tmp_path / "again.eqf") as file:
        assert file.requires == ("rotated-weights",)
    with pytest.raises(UnsupportedError, match=r"rotated\.eqf: requires rotated-weights, which GGUF has no word for: "):
        export_gguf(tmp_path / "rotated.eqf", tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_what_has_the_type_already_is_copied(quantized: Path, tmp_path: Path):
    report = requantize(quantized, tmp_path / "m.eqf", "Q8_0", 1)
    assert {tensor.kept.how for tensor in report.tensors if tensor.kept} == {EXACT}
    with open_file(quantized) as source, open_file(tmp_path / "m.eqf") as file:
        assert all(np.array_equal(file.data(name), source.data(name)) for name in source.tensors)


def test_what_was_not_quantized_is_no_loss(tiny_model: Path, tmp_path: Path):
    convert(tiny_model, tmp_path / "f16.eqf", "F16", threads=1)
    report = requantize(tmp_path / "f16.eqf", tmp_path / "m.eqf", "Q4_0", 1)
    assert report.quantized == [] and report.recipe == "Q4_0"


def small(path: Path, matrix: np.ndarray, kind: str) -> None:
    """A file with the bundled model's configuration whose only tensor is `matrix`, experts' or one."""
    specs = [TensorSpec("blk.0.ffn_up_exps.weight", matrix.shape, kind)]
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 32, "rms_norm_eps": 1e-5}
    config |= {"max_position_embeddings": 32}
    with Writer(path, specs, {"architecture": "llama", "config": config}, {}) as writer:
        for one in matrix.reshape(-1, *matrix.shape[-2:]):
            writer.write(specs[0].name, encode(one, kind))


def test_experts_one_after_the_other_and_short_panels(tmp_path: Path):
    experts = np.random.default_rng(1).normal(0, 1, (3, 21, 64)).astype(np.float32)
    small(tmp_path / "m.eqf", experts, "Q8_0")
    report = requantize(tmp_path / "m.eqf", tmp_path / "again.eqf", "Q5_0", 1)
    assert report.tensors[0].kept.how == ENCODED
    with open_file(tmp_path / "m.eqf") as source, open_file(tmp_path / "again.eqf") as file:
        (name,) = file.tensors
        data, before = file.data(name).reshape(3, -1), source.data(name).reshape(3, -1)
        for i in range(3):
            assert np.array_equal(data[i], encode(decode(before[i], 21, 64, "Q8_0"), "Q5_0"))


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (
            2.0**20,
            "F16",
            r"^model\.gguf: tensor 'blk.0.ffn_up_exps.weight' holds 1\.04858e\+06, which F16 cannot hold: take BF16",
        ),
        (np.nan, "F32", "holds nan, which F32 cannot hold: take another file"),
    ],
)
def test_weights_that_the_type_cannot_hold(tmp_path: Path, value: float, kind: str, message: str):
    matrix = np.zeros((16, 64), np.float32)
    matrix[3, 5] = value
    small(tmp_path / "m.eqf", matrix, "BF16")
    with pytest.raises(UnsupportedError, match=message):
        requantize(tmp_path / "m.eqf", tmp_path / "again.eqf", kind, 1, called="model.gguf")
    assert not (tmp_path / "again.eqf").exists()


def test_an_unknown_type_is_refused_before_anything_is_read(tmp_path: Path):
    with pytest.raises(UsageError, match="unknown type 'Q9'"):
        requantize(tmp_path / "none.eqf", tmp_path / "m.eqf", "Q9")
