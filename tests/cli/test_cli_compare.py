"""`edgeq compare`: the table, JSON and the page of all ways to quantize the bundled model."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from edgeq.cli.compare import lines
from edgeq.conversion.comparing import Candidate, Comparison
from edgeq.quantize.loss_probe import Loss
from edgeq.system import environment

CUT = ("--tokens", 640, "--ctx-size", 32)


def candidate(name: str, nbytes: int, bits: float, divergence: float, method="plain", simulated=False) -> Candidate:
    return Candidate(name, method, simulated, nbytes, bits, Loss(divergence, 0.01, 0.9, 1.1), 0.125, 2.5)


COMPARISON = Comparison(
    "models/tiny",
    4 << 20,
    200,
    [
        candidate("Q2_K", 1 << 20, 2.9, 0.5),
        candidate("Q2_K", 1 << 20, 2.9, 0.2, "feedback"),
        candidate("INT4_ROW", 3 << 19, 4.2, 0.1, simulated=True),
        candidate("Q4_0", 2 << 20, 4.6, 0.3),
        candidate("Q8_0", 3 << 20, 8.5, 0.001),
    ],
    ["Q4_K_M plain: <too wide>"],
    complete=False,
)


def test_the_table_marks_what_is_worth_having():
    assert list(lines(COMPARISON)) == [
        "models/tiny: 4.00 MiB as it is; loss at 200 positions of text kept back",
        "   type      method         file  bits/weight      KL divergence  same top, %  perplexity  error, %    s",
        "   Q2_K      plain      1.00 MiB        2.900  0.50000 ± 0.01000         90.0     x 1.100     12.50  2.5",
        "*  Q2_K      feedback   1.00 MiB        2.900  0.20000 ± 0.01000         90.0     x 1.100     12.50  2.5",
        "   INT4_ROW  simulated  1.50 MiB        4.200  0.10000 ± 0.01000         90.0     x 1.100     12.50  2.5",
        "   Q4_0      plain      2.00 MiB        4.600  0.30000 ± 0.01000         90.0     x 1.100     12.50  2.5",
        "*  Q8_0      plain      3.00 MiB        8.500  0.00100 ± 0.01000         90.0     x 1.100     12.50  2.5",
        "* worth having: no file that is no larger loses less",
        "at most 3 bits per weight: Q2_K feedback, divergence 0.2000",
        "at most 9 bits per weight: Q8_0 plain, divergence 0.0010",
        "simulated: edgeq has no such blocks; weights were rounded so, and bytes counted",
        "note: Q4_K_M plain: <too wide>",
        "ended early: not all was tried",
    ]


def test_a_model_is_compared(edgeq, tiny_model, tmp_path):
    page = tmp_path / "page.html"
    options = ("--types", "Q2_K, q8_0,int8_row", "--methods", "plain", "--html", page, *CUT)
    result = edgeq("compare", tiny_model, *options)
    assert result.code == 0, result.err
    rows = [line.split() for line in result.out.splitlines()[2:5]]
    assert [row[:3] for row in rows] == [
        ["*", "Q2_K", "plain"],
        ["INT8_ROW", "simulated", "3.27"],
        ["*", "Q8_0", "plain"],
    ]
    assert [line.split(": ")[1] for line in result.err.splitlines()] == ["1 of 3", "2 of 3", "3 of 3"]
    assert "Ways to quantize tiny_model" in page.read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_json_has_all_of_it(edgeq, tiny_model):
    result = edgeq("compare", tiny_model, "--types", "Q2_K,Q4_0", "--methods", "plain", "--json", *CUT)
    found = json.loads(result.out)
    assert found["complete"] is True and found["positions"] > 20
    one, other = found["candidates"]
    assert (one["type"], one["front"], other["type"]) == ("Q2_K", True, "Q4_0")
    assert one["nbytes"] < other["nbytes"] and one["loss"]["divergence"] > other["loss"]["divergence"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--types", "Q9_K"], "unknown type 'Q9_K'"),
        (["--types", "Q4_0", "--methods", "magic"], "unknown method 'magic'"),
        (["--text", "none.txt"], "none.txt: cannot be read"),
        (["--calibration", "none.calib"], "none.calib: "),
        (["--calibration", "none.calib", "--text", "a.txt"], "give --text or --calibration"),
        (["--html", "no/page.html"], "does not exist"),
    ],
)
def test_what_cannot_work_is_refused_at_once(edgeq, tiny_model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = edgeq("compare", tiny_model, *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT of another process there")
def test_ctrl_c_shows_what_is_known(tiny_model):
    arguments = ["compare", str(tiny_model), "--types", "Q4_0,Q2_K,Q8_0", "--methods", "plain", *map(str, CUT)]
    slow = (
        "import sys, time; from edgeq.conversion import comparing; from edgeq.cli import main\n"
        "made = comparing._Workshop.candidate\n"
        "def slower(self, kind, method):\n"
        "    time.sleep(60 if kind == 'Q2_K' else 0); return made(self, kind, method)\n"
        f"comparing._Workshop.candidate = slower; sys.exit(main({arguments!r}))"
    )
    command = [sys.executable, "-c", slow]
    process = subprocess.Popen(command, env=environment.of_child(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert b"1 of 3: Q4_0 plain" in process.stderr.readline()
    time.sleep(0.1)  # until the next one sleeps
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    shown = out.decode().splitlines()
    assert (
        len([line for line in shown if line.startswith("*  Q4_0")]) == 1
        and shown[-1] == "ended early: not all was tried"
    )
