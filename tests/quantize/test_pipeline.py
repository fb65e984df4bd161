"""Conversion of small checkpoints, and every way in which one can be refused."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeq.blocks import reference
from edgeq.checkpoints import open_checkpoint
from edgeq.container.reader import open_file
from edgeq.errors import CheckpointError, EdgeqError, OutputError, TokenizerError, UnsupportedError, UsageError
from edgeq.quantize import jobs
from edgeq.quantize.pipeline import Encoded, convert, convert_open
from edgeq.quantize.recipes import RECIPES

REPOSITORY = Path(__file__).resolve().parents[2]
Q = "model.layers.1.self_attn.q_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = REPOSITORY / "tools" / "make_random_checkpoint.py"
    spec = importlib.util.spec_from_file_location("make_random_checkpoint", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkpoint(tool: ModuleType, tmp_path: Path) -> Path:
    tool.make(tmp_path / "tiny", "llama-tiny-test", dtype="f32")
    return tmp_path / "tiny"


def change(folder: Path, edit: Any) -> None:
    """Edit the dict of the checkpoint's tensors."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe(checkpoint: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "m.eqf"
    report = convert(checkpoint, out, name, threads=1)
    weights = load_file(checkpoint / "model.safetensors")
    with open_file(out) as f:
        f.verify()
        assert report.nbytes == f.nbytes == out.stat().st_size
        assert f.metadata["architecture"] == "llama" and f.metadata["provenance"]["recipe"] == name
        assert f.metadata["provenance"]["source"] == "tiny"
        assert f.metadata["config"] == json.loads((checkpoint / "config.json").read_text())
        assert {a: f.asset(a) for a in f.assets} == {
            p.name: p.read_bytes() for p in checkpoint.iterdir() if p.suffix == ".json"
        }
        assert len(f.tensors) == len(weights) == len(report.tensors)
        assert (f.data("output_norm.weight").view(np.float32) == weights[NORM].reshape(-1)).all()
        info = f.tensors["blk.1.attn_q.weight"]
        wanted = RECIPES[name].type_for("blk.1.attn_q.weight", weights[Q].shape, 2, tied=True)
        assert info.type == wanted.type and info.shape == weights[Q].shape
        expected = reference.encode(weights[Q], info.type)
        assert np.array_equal(f.data("blk.1.attn_q.weight"), expected)
    assert report.bits_per_weight == pytest.approx(8 * sum(t.nbytes for t in report.tensors) / report.weights)


def test_what_is_encoded_already_is_written_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    weights, name = load_file(checkpoint / "model.safetensors"), "blk.1.attn_q.weight"
    panels = reference.encode(2 * weights[Q], "Q5_0")
    with open_checkpoint(checkpoint) as opened:
        encoded = {name: Encoded("Q5_0", panels)}
        report = convert_open(opened, tmp_path / "m.eqf", "Q8_0", encoded=encoded)
    assert {t.type for t in report.tensors if len(t.shape) > 1 and t.name != name} == {"Q8_0"}
    convert(checkpoint, tmp_path / "other.eqf", "Q8_0")
    with open_file(tmp_path / "m.eqf") as f, open_file(tmp_path / "other.eqf") as other:
        f.verify()
        assert f.tensors[name].type == "Q5_0" and np.array_equal(f.data(name), panels)
        rest = f.tensors.keys() - {name}
        assert {one: f.tensors[one].crc32 for one in rest} == {one: other.tensors[one].crc32 for one in rest}


def test_chunks_and_threads_do_not_change_the_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(checkpoint, tmp_path / "a.eqf", threads=1)
    monkeypatch.setattr(jobs, "CHUNK_BYTES", 4 * 64 * 40)  # two panels of 64 columns
    seen: list[tuple[str, int, int, int, int]] = []
    convert(checkpoint, tmp_path / "b.eqf", threads=3, progress=lambda *now: seen.append(now))
    assert (tmp_path / "a.eqf").read_bytes() == (tmp_path / "b.eqf").read_bytes()
    total = sum(4 * w.size for w in load_file(checkpoint / "model.safetensors").values())
    assert seen[-1][1:] == (20, 21, total, total)
    assert len(seen) > 40 and all(a[3] < b[3] for a, b in itertools.pairwise(seen))


def test_sources_of_the_same_weights_give_the_same_file(tool: ModuleType, tmp_path: Path) -> None:
    for name, shards in (("one", 1), ("three", 3)):
        tool.make(tmp_path / name / "tiny", "llama-tiny-test", shards=shards)
        convert(tmp_path / name / "tiny", tmp_path / f"{name}.eqf", "Q8_0", threads=1)
    assert (tmp_path / "one.eqf").read_bytes() == (tmp_path / "three.eqf").read_bytes()


def test_ragged_rows_are_reported(shared_data: Path, tmp_path: Path) -> None:
    """stories260K has rows of 172 weights, no multiple of 32."""
    report = convert(shared_data / "models" / "stories260K", tmp_path / "m.eqf", "q4_k", threads=1)
    ragged = [t for t in report.fallbacks if "172" in (t.fallback or "")]
    assert {t.name for t in ragged} == {f"blk.{i}.ffn_down.weight" for i in range(5)}
    assert {t.type for t in ragged} == {"F16"}


def test_tied_head_gets_the_heads_type(shared_data: Path, tmp_path: Path) -> None:
    report = convert(shared_data / "models" / "babyllama105", tmp_path / "m.eqf", "Q4_K_M", threads=1)
    assert {t.name: t.type for t in report.tensors}["token_embd.weight"] == "Q6_K"


def test_past_f16_becomes_f32(checkpoint: Path, tmp_path: Path) -> None:
    change(checkpoint, lambda t: t[Q].__setitem__((3, 5), 70000.0))
    report = convert(checkpoint, tmp_path / "m.eqf", "F16", threads=1)
    assert [(t.name, t.type) for t in report.fallbacks] == [("blk.1.attn_q.weight", "F32")]
    with open_file(tmp_path / "m.eqf") as f:
        found = reference.decode(f.data("blk.1.attn_q.weight"), 64, 64, "F32")
    assert found[3, 5] == 70000.0


def refused(error: type[EdgeqError], checkpoint: Path, out: Path, type: str = "Q8_0") -> str:
    before = set(out.parent.iterdir()) if out.parent.is_dir() else set()
    with pytest.raises(error) as caught:
        convert(checkpoint, out, type, threads=1)
    if out.parent.is_dir():
        assert set(out.parent.iterdir()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type", ["Q8_0", "F16", "F32"])
def test_non_finite_weight_is_named(checkpoint: Path, tmp_path: Path, value: float, type: str) -> None:
    change(checkpoint, lambda t: t[Q].__setitem__((33, 5), value))
    message = refused(CheckpointError, checkpoint, tmp_path / "m.eqf", type)
    assert Q in message and "[33, 5]" in message and str(value) in message


def test_non_finite_position_counts_from_the_tensors_start(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "CHUNK_BYTES", 1)
    change(checkpoint, lambda t: t[Q].__setitem__((33, 5), np.nan))
    assert "[33, 5]" in refused(CheckpointError, checkpoint, tmp_path / "m.eqf")
    change(checkpoint, lambda t: (t[Q].__setitem__((33, 5), 0), t[NORM].__setitem__(40, np.nan)))
    message = refused(CheckpointError, checkpoint, tmp_path / "m.eqf")
    assert NORM in message and "[40]" in message


def moved(checkpoint: Path, out: Path, type: str, lines: list[str] | None = None) -> list[tuple[str, str, str | None]]:
    """(tensor, its type, the reason) of those that the type asked for cannot hold."""
    report = convert(checkpoint, out, type, threads=1, announce=(lines if lines is not None else []).append)
    narrow = "no multiple of 256"  # what all attention of four bits has here
    return [(t.name, t.type, t.fallback) for t in report.fallbacks if narrow not in str(t.fallback)]


def test_weight_too_large_for_the_type(checkpoint: Path, tmp_path: Path) -> None:
    change(checkpoint, lambda t: t[Q].__setitem__((3, 5), -1e6))
    out, lines = tmp_path / "m.eqf", list[str]()
    reason = "a weight is past F16's range (65504): BF16 instead of Q5_K"
    assert moved(checkpoint, out, "Q4_K_M", lines) == [("blk.1.attn_q.weight", "BF16", reason)]
    again = "a tensor has weights that the type cannot hold: converting again, with another one for these"
    assert lines[-1] == again
    with open_file(out) as f:
        found = reference.decode(f.data("blk.1.attn_q.weight"), 64, 64, "BF16")
    assert found[3, 5] == pytest.approx(-1e6, rel=2**-8)
    assert moved(checkpoint, out, "BF16") == []
    change(checkpoint, lambda t: t[Q].__setitem__((3, 5), 3.4e38))
    for type in ("BF16", "Q4_K_M"):
        assert [one[:2] for one in moved(checkpoint, out, type)] == [("blk.1.attn_q.weight", "F32")]


V = "blk.0.attn_v.weight"


@pytest.mark.parametrize(
    ("type", "kept", "lost", "to"),
    [
        ("Q8_0", 12, 16, "BF16"),
        ("Q4_0", 20, 23, "BF16"),
        ("Q5_1", 17, 20, "BF16"),
        ("IQ4_NL", 15, 19, "BF16"),
        ("Q6_K", 17, 21, "BF16"),
        ("Q4_K_S", 19, 23, "BF16"),
        ("Q5_K_S", 18, 22, "BF16"),
        ("F16", 14, 18, "F32"),
        ("NF4", 60, None, ""),
        ("MXFP4", 60, None, ""),
        ("BF16", 100, None, ""),
    ],
)
def test_weights_too_small_for_the_scales(
    checkpoint: Path, tmp_path: Path, type: str, kept: int, lost: int | None, to: str
) -> None:
    """Gaussian weights of standard deviation 2^-kept stay, those of 2^-lost err by half as much again as usual."""
    name = "model.layers.0.self_attn.v_proj.weight"
    weights = np.random.default_rng(3).standard_normal((32, 64), np.float32)
    change(checkpoint, lambda t: t.update({name: np.ldexp(weights, -kept)}))
    assert moved(checkpoint, tmp_path / "m.eqf", type) == []
    if lost is None:
        return
    change(checkpoint, lambda t: t.update({name: np.ldexp(weights, -lost)}))
    [(tensor, found, reason)] = moved(checkpoint, tmp_path / "m.eqf", type)
    assert (tensor, found) == (V, to) and (reason or "").startswith("its weights are too small for ")
    with open_file(tmp_path / "m.eqf") as f:
        here = reference.decode(f.data(V), 32, 64, to)
    assert np.abs(np.ldexp(here, lost) - weights).max() < 2**-6, "the file has them as they were"


def test_small_weights_that_matter_little(checkpoint: Path, tmp_path: Path) -> None:
    """Some tiny rows, or blocks, among others of a usual size are no reason for another type; nor are zeros."""
    name = "model.layers.0.self_attn.v_proj.weight"

    def shrink(tensors: dict[str, np.ndarray]) -> None:
        tensors[name][::3] *= 2.0**-20
        tensors[name][1::3, 32:] *= 2.0**-20
        tensors[Q][:] = 0
        tensors["model.embed_tokens.weight"][5:200] *= 2.0**-30

    change(checkpoint, shrink)
    for type in ("Q8_0", "Q4_K_M", "F16"):
        assert moved(checkpoint, tmp_path / "m.eqf", type) == []


def test_bf16_weights_that_f16_cannot_hold_stay_as_they_are(tool: ModuleType, tmp_path: Path) -> None:
    tool.make(tmp_path / "tiny", "llama-tiny-test", dtype="bf16")
    path = tmp_path / "tiny" / "model.safetensors"
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    begin = json.loads(data[8:start])[Q]["data_offsets"][0]
    data[start + begin : start + begin + 2] = (0x4800).to_bytes(2, "little")  # 2^17
    path.write_bytes(data)
    reason = "a weight is past F16's range (65504): BF16 instead of F16"
    assert moved(tmp_path / "tiny", tmp_path / "m.eqf", "F16") == [("blk.1.attn_q.weight", "BF16", reason)]
    with open_file(tmp_path / "m.eqf") as f:
        assert reference.decode(f.data("blk.1.attn_q.weight"), 64, 64, "BF16")[0, 0] == 2.0**17


def test_missing_and_misshapen_tensors(checkpoint: Path, tmp_path: Path) -> None:
    change(checkpoint, lambda t: t.update({Q: t[Q][:32].copy()}))
    message = refused(CheckpointError, checkpoint, tmp_path / "m.eqf")
    assert Q in message and "[32, 64]" in message and "[64, 64]" in message
    change(checkpoint, lambda t: t.pop(Q))
    message = refused(CheckpointError, checkpoint, tmp_path / "m.eqf")
    assert f"has no tensor {Q!r}: the checkpoint is incomplete, or its config.json belongs to another model" in message
    change(checkpoint, lambda t: t.pop("lm_head.weight"))
    assert f"{Q!r} (and 1 more)" in refused(CheckpointError, checkpoint, tmp_path / "m.eqf")
    change_config(checkpoint, attention_bias=True, num_hidden_layers=1)
    assert "'model.layers.0.self_attn.q_proj.bias'" in refused(CheckpointError, checkpoint, tmp_path / "m.eqf")


def test_layers_that_config_json_does_not_know(checkpoint: Path, tmp_path: Path) -> None:
    change_config(checkpoint, num_hidden_layers=1)
    message = refused(CheckpointError, checkpoint, tmp_path / "m.eqf")
    assert "'model.layers.1." in message and "config.json has num_hidden_layers 1" in message


def test_integer_tensor(checkpoint: Path, tmp_path: Path) -> None:
    change(checkpoint, lambda t: t.update({Q: t[Q].astype(np.int8)}))
    message = refused(CheckpointError, checkpoint, tmp_path / "m.eqf")
    assert Q in message and "I8" in message


def test_unneeded_tensors_are_skipped(checkpoint: Path, tmp_path: Path) -> None:
    change(checkpoint, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}))
    report = convert(checkpoint, tmp_path / "m.eqf", threads=1)
    assert report.skipped == ["model.layers.0.self_attn.rotary_emb.inv_freq"]
    assert report.unused == [], "it follows from config.json"


def test_unused_tensors_are_told(checkpoint: Path, tmp_path: Path) -> None:
    bias, extra = Q.replace("weight", "bias"), "model.layers.0.extra.weight"
    change(checkpoint, lambda t: t.update({bias: np.ones(64, np.float32), extra: np.ones(3, np.float32)}))
    assert sorted(convert(checkpoint, tmp_path / "m.eqf", threads=1).unused) == sorted([bias, extra])


def test_unsupported_models(checkpoint: Path, tmp_path: Path) -> None:
    change_config(checkpoint, quantization_config={"quant_method": "gptq"})
    assert "gptq" in refused(UnsupportedError, checkpoint, tmp_path / "m.eqf")
    change_config(checkpoint, model_type="rwkv")
    assert "rwkv" in refused(UnsupportedError, checkpoint, tmp_path / "m.eqf")


def test_no_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(TokenizerError, checkpoint, tmp_path / "m.eqf")
    convert(checkpoint, tmp_path / "m.eqf", "Q8_0", threads=1, allow_no_tokenizer=True)


def test_assets_can_be_refused(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Any] = []

    def check(assets: Any, source: str, vocab_size: int) -> None:
        seen.append((sorted(assets), source, vocab_size))
        raise TokenizerError("no good")

    with pytest.raises(TokenizerError, match="no good"):
        convert(checkpoint, tmp_path / "m.eqf", threads=1, check_assets=check)
    vocab_size = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
    assert seen == [(sorted(p.name for p in checkpoint.glob("*.json")), str(checkpoint), vocab_size)]
    assert not (tmp_path / "m.eqf").exists()


def test_unknown_type(checkpoint: Path, tmp_path: Path) -> None:
    assert "Q4_K_M" in refused(UsageError, checkpoint, tmp_path / "m.eqf", "Q7")


def test_input_is_never_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "link.eqf").symlink_to(checkpoint / "model.safetensors")
    for out in (checkpoint / "model.safetensors", checkpoint / "tokenizer.json", tmp_path / "link.eqf"):
        before = out.read_bytes()
        assert "checkpoint itself" in refused(UsageError, checkpoint, out)
        assert out.read_bytes() == before


def test_output_folder_missing(checkpoint: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused(OutputError, checkpoint, tmp_path / "none" / "m.eqf")


def test_a_folder_whose_name_reads_as_a_users_home(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.rename(tmp_path / "~nobody-of-this-name")
    convert("~nobody-of-this-name", tmp_path / "m.eqf", "Q8_0", threads=1)
    with open_file(tmp_path / "m.eqf") as f:
        assert f.metadata["provenance"]["source"] == "~nobody-of-this-name"


MEMORY = """
import resource, sys
from edgeq.quantize.pipeline import convert
convert(sys.argv[1], sys.argv[2], "F16", threads=1)
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(sys.argv[3], sys.argv[2], "F16", threads=1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
"""


def test_memory_does_not_grow_with_the_model(tool: ModuleType, checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint of 300 MB in f32 adds a few chunks of 16 MiB to the peak, not its size."""
    shape = {**tool.SHAPES["llama-tiny-test"], "hidden_size": 1024, "intermediate_size": 2560, "vocab_size": 24000}
    tool.SHAPES["wide"] = shape
    tool.make(tmp_path / "wide", "wide")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(checkpoint), str(tmp_path / "m.eqf"), str(tmp_path / "wide")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150, done.stdout
