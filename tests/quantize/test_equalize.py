"""Equalizing: what may be scaled, that the model stays what it is, and that it then loses less."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_checkpoints import make, write

from edgeq.blocks.reference import decode
from edgeq.container.changed import ChangedFile
from edgeq.container.reader import File, open_file
from edgeq.errors import UsageError
from edgeq.models import architecture
from edgeq.quantize.calibrated import Request
from edgeq.quantize.collect import Passage, calibrate
from edgeq.quantize.equalize import Fold, equalized, folds, smoothed
from edgeq.quantize.factors import factored
from edgeq.quantize.loss_probe import Probe
from edgeq.quantize.pipeline import convert
from edgeq.quantize.requantize import requantize
from edgeq.runtime.session import Session

RNG = np.random.default_rng(11)


def opened(case: str, folder: Path, kind: str = "F32") -> File:
    convert(write(case, folder), folder / "m.eqf", kind, allow_no_tokenizer=True)
    return open_file(folder / "m.eqf")


def folds_of(file: File) -> list[Fold]:
    return folds(architecture(file.metadata["config"], file.path), {n: i.shape for n, i in file.tensors.items()})


def scaled(file: File, without: str = "-") -> File:
    """With each column that may be scaled by something of its own."""

    def power(name: str) -> np.ndarray:
        return np.exp(4 * RNG.standard_normal(file.tensors[name].shape[1])).astype(np.float32)

    matrices = {name for name, info in file.tensors.items() if len(info.shape) > 1 and without not in name}
    return equalized(file, architecture(file.metadata["config"], file.path), power, matrices)


def logits(file: File, case: str) -> np.ndarray:
    prompt = make(case)[2]
    with Session(file, context=len(prompt), threads=1) as session:
        return session.eval(prompt, all_logits=True)


def changed(file: File, before: File) -> set[str]:
    return {name for name in file.tensors if not np.array_equal(file.data(name), before.data(name))}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("llama", {"attn_norm": "attn_q attn_k attn_v", "ffn_norm": "ffn_gate ffn_up", "ffn_up": "ffn_down"}),
        ("gpt2", {"attn_norm": "attn_q attn_k attn_v", "ffn_norm": "ffn_up"}),  # gelu comes before down
        ("falcon", {"attn_norm": "attn_q attn_k attn_v ffn_up"}),
        ("olmo2", {"ffn_up": "ffn_down"}),  # what is added is normed, what reads is not
        ("gemma3", {"attn_norm": "attn_q attn_k attn_v", "ffn_norm": "ffn_gate ffn_up", "ffn_up": "ffn_down"}),
        ("mixtral", {"attn_norm": "attn_q attn_k attn_v"}),  # a router and experts read the other one
    ],
)
def test_what_can_be_scaled(case: str, expected: dict[str, str], tmp_path: Path) -> None:
    with opened(case, tmp_path) as file:
        found = {}
        for fold in folds_of(file):
            first, readers = fold.makers[0].split("."), [name.split(".") for name in fold.readers]
            if first[1] == "0":
                assert all(one[1] == "0" for one in readers)
                found[first[2]] = " ".join(sorted((one[2] for one in readers), key=expected[first[2]].index))
        assert found == expected


@pytest.mark.parametrize("case", ["llama", "gpt2", "falcon", "olmo2", "gemma3", "mixtral", "phi3", "qwen2", "youtu"])
def test_the_model_stays_what_it_is(case: str, tmp_path: Path) -> None:
    with opened(case, tmp_path) as file:
        other, expected = scaled(file), logits(file, case)
        assert changed(other, file) == {name for fold in folds_of(file) for name in (*fold.readers, *fold.makers)}
        np.testing.assert_allclose(logits(other, case), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["llama", "gpt2", "falcon", "olmo2", "gemma3", "mixtral"])
def test_smoothing_leaves_the_model_what_it_is(case: str, tmp_path: Path) -> None:
    with opened(case, tmp_path) as file:

        def maxima(name: str) -> np.ndarray:
            return np.exp(3 * RNG.standard_normal(file.tensors[name].shape[1])).astype(np.float32)

        model, expected = architecture(file.metadata["config"], file.path), logits(file, case)
        other = smoothed(file, model, maxima, set(file.tensors))
        assert changed(other, file) == {name for fold in folds_of(file) for name in (*fold.readers, *fold.makers)}
        np.testing.assert_allclose(logits(other, case), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_smoothing_scales_are_those_of_the_paper(alpha: float, tmp_path: Path) -> None:
    with opened("llama", tmp_path) as file:
        name, up = "blk.0.ffn_down.weight", "blk.0.ffn_up.weight"
        seen = np.exp(RNG.standard_normal(file.tensors[name].shape[1])).astype(np.float32)
        model = architecture(file.metadata["config"], file.path)
        other = smoothed(file, model, lambda one: seen if one == name else None, set(file.tensors), alpha)
        assert changed(other, file) == {name, up}
        weights, after = (decode(one.data(name), *file.tensors[name].shape, "F32") for one in (file, other))
        scale = seen**alpha / np.abs(weights).max(0) ** (1 - alpha)
        np.testing.assert_allclose(
            after / weights, np.tile(scale / np.exp(np.log(scale).mean()), (len(weights), 1)), 1e-5
        )
        with pytest.raises(UsageError, match=r"a smoothing of 1\.5 cannot work"):
            smoothed(file, model, lambda one: seen, set(file.tensors), 1.5)


def test_a_model_without_a_place_to_fold_is_refused_by_name(tmp_path: Path) -> None:
    with opened("bert", tmp_path) as file:
        model = architecture(file.metadata["config"], file.path)
        assert folds_of(file) == []
        with pytest.raises(UsageError, match="bert has no norm or projection before its matrices"):
            smoothed(file, model, lambda name: None, set(file.tensors))


def test_other_types_become_floats_and_changes_come_on_top(tmp_path: Path) -> None:
    with opened("llama", tmp_path, "BF16") as file:
        other = scaled(file)
        assert other.tensors["blk.0.ffn_up.weight"].type == "F32"
        assert other.tensors["blk.0.ffn_up.weight"].crc32 != file.tensors["blk.0.ffn_up.weight"].crc32
        np.testing.assert_allclose(logits(other, "llama"), logits(file, "llama"), atol=5e-3)
        name = "blk.0.ffn_down.weight"
        own = ChangedFile(other, {name: ("BF16", file.data(name))})
        assert changed(own, other) == {name}


def test_nothing_is_scaled_where_a_matrix_is_to_stay(tmp_path: Path) -> None:
    with opened("llama", tmp_path) as file:
        other = scaled(file, without="ffn_up")
        assert {name.split(".")[2] for name in changed(other, file)} == {"attn_norm", "attn_q", "attn_k", "attn_v"}
        assert equalized(file, architecture(file.metadata["config"], ""), lambda name: None, set(file.tensors)) is file


def test_it_loses_less_where_few_columns_are_strong(tmp_path: Path) -> None:
    with opened("llama", tmp_path) as file:
        name = "blk.0.ffn_down.weight"
        rows, columns = file.tensors[name].shape
        power = np.exp(2 * RNG.standard_normal(columns)).astype(np.float32)
        x = RNG.standard_normal((4000, columns)) * np.sqrt(power)
        other = equalized(
            file,
            architecture(file.metadata["config"], ""),
            lambda one: power if one == name else None,
            set(file.tensors),
        )
        losses = []
        for one in (file, other):
            weights = decode(one.data(name), rows, columns, "F32")
            read = x * (decode(file.data(name), rows, columns, "F32")[0] / weights[0])
            gram = read.T @ read / len(x)
            error = decode(factored(gram, 16).quantize(weights, "Q3_K"), rows, columns, "Q3_K") - weights
            losses.append(float(np.sum((error @ gram) * error)))
        assert losses[1] < 0.9 * losses[0]


def test_calibrated_files_are_of_the_equal_model(tiny_model: Path, tmp_path: Path) -> None:
    convert(tiny_model, tmp_path / "floats.eqf", "BF16")
    with open_file(tmp_path / "floats.eqf") as file:
        passages = [Passage("some", RNG.integers(0, 2048, 48).tolist()) for _ in range(2)]
        calibration = calibrate(file, passages, threads=1)
        for method, equal in (("feedback", False), ("importance", True)):
            out = tmp_path / f"{method}.eqf"
            requantize(tmp_path / "floats.eqf", out, "Q4_K", 1, calibration=calibration, method=method)
            with open_file(out) as made:
                for name in ("blk.0.attn_norm.weight", "blk.5.ffn_norm.weight"):
                    assert np.array_equal(made.data(name), file.data(name)) == equal
                assert np.array_equal(made.data("output_norm.weight"), file.data("output_norm.weight"))
                loss = Probe(file, [np.array(passages[0].tokens, np.int32)]).loss(made)
                assert loss.divergence < 0.1


def test_smoothing_is_asked_for_by_its_exponent(tmp_path: Path) -> None:
    """0.65 is what rows with one scale get anyway; other types get it in place of what equalizes."""
    passages = [Passage("some", RNG.integers(0, 48, 40).tolist()) for _ in range(2)]
    with opened("llama", tmp_path) as file:
        calibration = calibrate(file, passages, threads=1)

    def made(kind: str, smooth: float | None) -> tuple[list[int], Any]:
        out = tmp_path / "made.eqf"
        requantize(tmp_path / "m.eqf", out, kind, 1, calibration=calibration, smooth=smooth)
        with open_file(out) as file:
            how = file.metadata["provenance"]["calibration"].get("smoothing")
            return [info.crc32 for info in file.tensors.values()], how

    usual, asked = made("I8_R", None), made("I8_R", 0.65)
    assert usual[0] == asked[0] and (usual[1], asked[1]) == (None, 0.65)
    found = [made("Q8_0", smooth)[0] for smooth in (None, 0.5, 0.8)]
    assert all(one != other for one, other in itertools.combinations(found, 2))
    with pytest.raises(UsageError, match=r"a smoothing of 1\.5 cannot work"):
        Request(calibration, smooth=1.5)
    with pytest.raises(UsageError, match="smoothing is a part of feedback, which importance is not"):
        Request(calibration, "importance", smooth=0.5)
    without = replace(calibration, matrices={n: replace(m, sketch=None) for n, m in calibration.matrices.items()})
    with pytest.raises(UsageError, match="knows no channels' maxima"):
        requantize(tmp_path / "m.eqf", tmp_path / "x.eqf", "Q8_0", 1, calibration=without, smooth=0.5)
