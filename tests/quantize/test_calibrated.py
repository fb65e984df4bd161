"""Requests: what cannot work, sizes that are kept, plans that are followed, losses that are told."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sentence_encoder

from edgeq.container.reader import File, open_file
from edgeq.conversion.conversion import convert
from edgeq.errors import EdgeqError, UsageError
from edgeq.quantize import type_plan
from edgeq.quantize.calibrated import Request, split
from edgeq.quantize.calibration import Calibration
from edgeq.quantize.collect import Passage, calibrate
from edgeq.quantize.type_plan import Plan
from edgeq.runtime.program import default_context, fit_of
from edgeq.runtime.session import Session

SEQUENCES, TOKENS = 9, 48


@pytest.fixture(scope="module")
def floats(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[File]:
    path = tmp_path_factory.mktemp("floats") / "tiny.eqf"
    convert(tiny_model, path, "BF16")
    with open_file(path) as file:
        yield file


@pytest.fixture(scope="module")
def calibration(floats: File) -> Calibration:
    """Of what the model itself writes, by chance."""
    rng, passages = np.random.default_rng(5), []
    with Session(floats, context=64) as session:
        for _ in range(SEQUENCES):
            session.rewind(0)
            tokens = [1]
            while len(tokens) < TOKENS:
                logits = session.eval(tokens[-1:])[0].astype(np.float64)
                tokens.append(int(np.argmax(logits + rng.gumbel(size=len(logits)))))
            passages.append(Passage("own", tokens))
    return calibrate(floats, passages, threads=1)


@pytest.fixture(scope="module")
def importances(calibration: Calibration) -> Calibration:
    """As of a file of llama.cpp's."""
    return Calibration("imatrix.gguf", calibration.matrices)


def test_a_request_that_cannot_work_is_refused(calibration: Calibration, importances: Calibration) -> None:
    with pytest.raises(UsageError, match="unknown method 'gptq': known are feedback, importance"):
        Request(calibration, "gptq")
    for options in ({"method": "feedback"}, {"bits": 4.0}):
        with pytest.raises(UsageError, match=r"imatrix\.gguf: holds no text to run: make one with"):
            Request(importances, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="exclude one another"):
        Request(calibration, nbytes=1e6, bits=4.0)
    with pytest.raises(UsageError, match="must be above 0"):
        Request(calibration, divergence=-1.0)
    assert Request(importances).how == "importance" and Request(calibration).how == "feedback"


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40, 100])
def test_some_of_the_text_is_kept_back(count: int) -> None:
    sequences = [np.array([i], np.int32) for i in range(count)]
    used, held = split(sequences)
    assert len(held) == min(count // 8, 4) and len(used) + len(held) == count
    assert sorted(int(one[0]) for one in (*used, *held)) == list(range(count))


def test_importance_is_enough_for_a_file_of_llama_cpp_s(
    tiny_model: Path, importances: Calibration, tmp_path: Path
) -> None:
    plain = convert(tiny_model, tmp_path / "plain.eqf", "Q4_0")
    weighed = convert(tiny_model, tmp_path / "weighed.eqf", "Q4_0", request=Request(importances))
    assert weighed.loss is None and plain.nbytes - 4096 < weighed.nbytes < plain.nbytes + 4096
    with open_file(plain.path) as a, open_file(weighed.path) as b:
        assert not np.array_equal(a.data("blk.0.ffn_down.weight"), b.data("blk.0.ffn_down.weight"))
        assert b.metadata["provenance"]["calibration"]["method"] == "importance"


def test_a_size_is_kept_and_its_plan_followed_again(tiny_model: Path, calibration: Calibration, tmp_path: Path) -> None:
    told: list[str] = []
    request = Request(calibration, nbytes=1.7e6, save_plan=tmp_path / "plan.toml")
    report = convert(tiny_model, tmp_path / "made.eqf", announce=told.append, request=request)
    assert 1.7e6 * 0.98 < report.nbytes <= 1.7e6 and report.recipe == "planned"
    assert report.loss is not None and report.loss.divergence > 0 and report.predicted > 0
    assert any(line.startswith("plan: ") for line in told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.eqf", "plan.toml"], "nothing is left beside"
    rules = (("ffn_down", "Q6_K"), ("blk.0.ffn_down", "Q8_0"))
    again = Request(calibration, plan=tmp_path / "plan.toml", rules=rules)
    followed = convert(tiny_model, tmp_path / "again.eqf", request=again)
    types, others = ({tensor.name: tensor.type for tensor in one.tensors} for one in (report, followed))
    assert others["blk.0.ffn_down.weight"] == "Q8_0" and others["blk.1.ffn_down.weight"] == "Q6_K"
    assert {n for n in types if types[n] != others[n]} <= {n for n in types if "ffn_down" in n}


@pytest.mark.parametrize(
    ("aim", "message"),
    [
        ({"nbytes": 1e6}, r"takes at least 1\.\d MB, more than 1\.0: ask for more"),
        ({"divergence": 1e-9}, r"a divergence of 1e-09 is less than that of any type here"),
    ],
)
def test_what_no_types_reach_is_refused_by_the_model_s_name(
    tiny_model: Path, calibration: Calibration, tmp_path: Path, aim: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=f"tiny_model: {message}"):
        convert(tiny_model, tmp_path / "made.eqf", request=Request(calibration, **aim))  # type: ignore[arg-type]


@pytest.mark.parametrize("aim", [{"nbytes": 1e5}, {"bits": 2.0}])
def test_what_is_far_too_small_is_refused_before_much_is_measured(
    tiny_model: Path, calibration: Calibration, tmp_path: Path, aim: dict[str, float]
) -> None:
    told: list[str] = []
    with pytest.raises(UsageError, match=r"tiny_model: takes at least [01]\.\d MB, more than [01]\.\d: ask for more"):
        convert(tiny_model, tmp_path / "m.eqf", announce=told.append, request=Request(calibration, **aim))  # type: ignore[arg-type]
    assert not [line for line in told if "sensitive" in line]


def test_the_smallest_type_of_rows_that_few_types_hold() -> None:
    assert type_plan.smallest((16, 20), "F16") == type_plan.smallest((16, 20), "F16", gguf=True) == "F16"
    assert type_plan.smallest((16, 96), "Q4_0") == "Q2_K" != type_plan.smallest((16, 96), "Q4_0", gguf=True)


def test_a_file_fits_a_machine_and_leaves_room_for_a_conversation(
    tiny_model: Path, floats: File, calibration: Calibration, tmp_path: Path
) -> None:
    need = fit_of(floats, 4, "f16").estimate(default_context(fit_of(floats, 4).model))
    beside = need.total - need.weights
    report = convert(tiny_model, tmp_path / "made.eqf", request=Request(calibration, memory=beside + 1.7e6))
    assert 1.7e6 * 0.97 < report.nbytes <= 1.7e6
    with open_file(report.path) as file:
        made = fit_of(file, 4, "f16").estimate(default_context(fit_of(file, 4).model))
    assert made.total <= beside + 1.7e6
    with pytest.raises(UsageError, match=r"MB beside its weights, of .* it fits no such machine"):
        convert(tiny_model, tmp_path / "other.eqf", request=Request(calibration, memory=beside))


def test_what_was_stopped_begins_where_it_was(tiny_model: Path, calibration: Calibration, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("layer 2"):
            raise Stop

    request, told = Request(calibration), list[str]()
    with pytest.raises(Stop):
        convert(tiny_model, tmp_path / "made.eqf", "Q4_0", announce=stop, request=request)
    assert [path.name for path in tmp_path.iterdir()] == [".made.eqf.unfinished"]
    convert(tiny_model, tmp_path / "made.eqf", "Q4_0", announce=told.append, request=request)
    assert any(line.startswith("goes on after layer 2") for line in told)
    whole = convert(tiny_model, tmp_path / "whole.eqf", "Q4_0", request=request)
    assert (tmp_path / "made.eqf").read_bytes() == Path(whole.path).read_bytes()


def test_a_calibration_of_another_model_is_refused(tiny_model: Path, calibration: Calibration, tmp_path: Path) -> None:
    assert calibration.subject is not None
    other = Calibration("other.calib", {}, calibration.subject.__class__("llama", 2, 64, 512), calibration.sequences)
    with pytest.raises(EdgeqError, match=r"other\.calib"):
        convert(tiny_model, tmp_path / "made.eqf", "Q4_0", request=Request(other))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("types = 3", "is no plan"),
        ("[types]", "is no plan: 'divergence'"),
        ('divergence = 1.0\n[types]\n"a" = "Q9_K"', "unknown block type 'Q9_K'"),
        ("=", "is no plan"),
        ("x = " + "[" * 3000, "is nested too deep"),
        ("divergence = " + "9" * 400 + "\n[types]", "is no plan: int too large"),
        ("# " + "x" * (4 << 20), "has more than 4 MiB"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "plan.toml").write_text(content)
    with pytest.raises(UsageError, match=message):
        type_plan.load(tmp_path / "plan.toml")


def test_a_plan_comes_back_and_rules_change_it(tmp_path: Path) -> None:
    made = Plan({"blk.0.a.weight": "Q4_K", "blk.1.a.weight": "Q2_K"}, 0.25)
    type_plan.save(made, tmp_path / "plan.toml")
    assert type_plan.load(tmp_path / "plan.toml") == made
    assert type_plan.override(made.types, [("blk", "q6_k"), (r"1\.a", "F16")]) == {
        "blk.0.a.weight": "Q6_K",
        "blk.1.a.weight": "F16",
    }
    for rule, message in ((("(", "Q4_K"), "no regular expression"), (("x", "Q4_K"), "found in no matrix"),
                          (("a", "Q9"), "unknown block type")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            type_plan.override(made.types, [rule])


def test_a_model_without_a_head_is_quantized_and_has_no_divergence(tmp_path: Path) -> None:
    sentence_encoder.write(tmp_path / "encoder")
    convert(tmp_path / "encoder", tmp_path / "floats.eqf", "F32")
    rng = np.random.default_rng(1)
    with open_file(tmp_path / "floats.eqf") as file:
        vocabulary = file.tensors["token_embd.weight"].shape[0]
        texts = [Passage("ids", rng.integers(0, vocabulary, 24).tolist()) for _ in range(9)]
        known = calibrate(file, texts, threads=1)
    made = convert(tmp_path / "encoder", tmp_path / "made.eqf", "Q4_0", request=Request(known))
    assert made.loss is None and any(tensor.type == "Q4_0" for tensor in made.tensors)
    with pytest.raises(UsageError, match="writes no text"):
        convert(tmp_path / "encoder", tmp_path / "made.eqf", request=Request(known, bits=5.0))
