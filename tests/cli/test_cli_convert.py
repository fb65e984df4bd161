"""`edgeq convert` with a calibration: what is refused, what is said of the loss."""

import re
from dataclasses import replace

import pytest

import edgeq as package
from edgeq.cli.convert import show_report
from edgeq.quantize.converted import Converted, Report
from edgeq.quantize.loss_probe import Loss

REPORT = Report("m.eqf", "Q2_K", "llama", 1000, 1.0, tensors=[Converted("a.weight", (16, 32), "Q2_K", 200)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-size", "large"], "'large' is no size: give one as 700MB or 1.5GiB"),
        (["--target-size", "5XB"], "'5XB' is no size"),
        (["--target-size", "1MB", "--target-bpw", 4], "exclude one another: give one"),
        (["--max-kld", -1], "a divergence must be above 0"),
        (["--smooth", "2"], "a smoothing of 2.0 cannot work: give one from 0 to 1"),
        (["--method", "gptq"], "unknown method 'gptq': known are feedback, importance"),
        (["--tensor-type", "ffn_down"], "'ffn_down' is no rule: give one as ffn_down=Q6_K"),
        (["--no-calibration", "--target-bpw", 4], "--no-calibration contradicts options that need one"),
        (["--calibration", "none.calib"], "none.calib: "),
        (["--calibration", "none.calib", "--no-calibration"], "--no-calibration contradicts"),
    ],
)
def test_what_cannot_work_is_refused_at_once(edgeq, tiny_model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = edgeq("convert", tiny_model, *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("edgeq: ") and message in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("loss", "loud"),
    [
        (Loss(0.03, 0.001, 0.9, 1.02), ""),
        (Loss(1.8, 0.1, 0.4, 7.9), "WARNING: Q2_K costs this model a lot: take Q3_K_S"),
        (Loss(0.1, 0.1, 0.79, 1.02), "WARNING: Q2_K costs this model a lot: take Q3_K_S"),
    ],
)
def test_a_large_loss_is_said_aloud(capsys, loss: Loss, loud: str):
    show_report(replace(REPORT, loss=loss, predicted=0.5))
    out, err = capsys.readouterr()
    assert f"divergence {loss.divergence:.4f} +- {loss.error:.4f}, predicted 0.5000" in out
    assert loud in err and (loud or not err)


def test_of_a_plan_no_name_is_given_to_go_to(capsys):
    show_report(replace(REPORT, recipe="planned", loss=Loss(1.8, 0.1, 0.4, 7.9)))
    assert "WARNING: planned costs this model a lot: take a larger type" in capsys.readouterr().err
    show_report(REPORT)
    assert "loss" not in capsys.readouterr().out


def test_rubbish_is_not_written_in_silence(edgeq, tiny_model, tmp_path, monkeypatch):
    """Few bits without a calibration are said aloud, with what would hold; Q4_K_M is not, calibrated or not."""
    monkeypatch.chdir(tmp_path)
    loud = edgeq("convert", tiny_model, "-o", "m.eqf", "--type", "TQ2_0", "--no-calibration")
    assert loud.code == 0 and "TQ2_0 without a calibration costs this model a lot: calibrate it, or take Q" in loud.err
    assert "the same likeliest token at" in loud.out and [path.name for path in tmp_path.iterdir()] == ["m.eqf"]
    quiet = edgeq("convert", tiny_model, "-o", "m.eqf", "--type", "Q4_K_M", "--no-calibration")
    assert (quiet.code, quiet.err) == (0, "") and "loss" not in quiet.out
    package.calibrate(tiny_model, "m.calib", tokens=640, length=32)
    calibrated = edgeq("convert", tiny_model, "-o", "m.eqf", "--type", "Q4_K_M", "--calibration", "m.calib")
    assert calibrated.code == 0 and "WARNING" not in calibrated.err and "the same likeliest token at" in calibrated.out


def test_a_small_model_is_calibrated_unasked(edgeq, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgeq.cli.calibrate.can_move_lines", lambda: True)
    monkeypatch.setattr("edgeq.cli.progress.can_move_lines", lambda: True)
    result = edgeq("convert", tiny_model, "-o", "m.eqf", "--type", "Q4_0", "--tensor-type", "ffn_down=Q8_0")
    assert re.search(r"\r.*: [0-9]+ of [0-9]+ tokens, 0:[0-9]{2} left", result.err), "how far it is"
    assert result.code == 0, result.err
    assert "calibrating with the texts that come with edgeq" in result.err
    assert "loss on text that it was not quantized for: divergence 0.0" in result.out and "6 Q8_0" in result.out
    assert [path.name for path in tmp_path.iterdir()] == ["m.eqf"]
