"""bench/judge.py and bench/probe.py: what is asked of llama.cpp, what is kept, and what counts as right."""

import importlib
import os
import re
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

import edgeq
from edgeq.blocks.reference import decode
from edgeq.container.reader import open_file
from edgeq.errors import NotFoundError, UsageError
from edgeq.gguf.exporter import export_gguf

BENCH = edgeq.__path__[0] + "/../bench"
SAID = """\
====== Perplexity statistics ======
Mean PPL(Q)                   :  19.956917 ±   1.274225
Mean PPL(base)                :  25.606309 ±   1.661357
Cor(ln(PPL(Q)), ln(PPL(base))):  96.92%
Mean ln(PPL(Q)/PPL(base))     :  -0.249263 ±   0.016011
Mean PPL(Q)/PPL(base)         :   0.779375 ±   0.012479
Mean PPL(Q)-PPL(base)         :  -5.649393 ±   0.529462

====== KL divergence statistics ======
Mean    KLD:   0.276131 ±   0.005544
Maximum KLD:   3.381951
99.9%   KLD:   2.699941
99.0%   KLD:   1.280373
95.0%   KLD:   0.660548
90.0%   KLD:   0.522585
Median  KLD:   0.228120
10.0%   KLD:   0.046387
 5.0%   KLD:   0.018735
Minimum KLD:  -0.000104

====== Token probability statistics ======
Mean    Δp:  3.554 ± 0.218 %
Maximum Δp: 77.425%
RMS Δp    : 10.487 ± 0.371 %
Same top p: 73.480 ± 0.978 %
"""
# Stands for llama-perplexity, llama-imatrix and llama-quantize: notes what it is asked, writes what that should make
PROGRAM = """\
#!/bin/sh
echo "$(basename "$0") $*" >> "$(dirname "$0")/asked"
case "$(basename "$0") $*" in
*--kl-divergence\\ *) cat "$(dirname "$0")/said";;
llama-quantize*--imatrix*) cp "$3" "$4";;
llama-quantize*) cp "$1" "$2";;
*) for last; do :; done; echo made > "$last";;
esac
"""


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    names = ("judge", "llama_tools", "decoded", "probe", "table_file")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture
def llama(tmp_path):
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "said").write_text(SAID, encoding="utf-8")
    for name in ("llama-perplexity", "llama-imatrix", "llama-quantize"):
        (folder / name).write_text(PROGRAM)
        (folder / name).chmod(0o755)
    return folder


def test_statistics_are_read_with_their_errors(scripts):
    found = scripts.llama_tools.statistics(SAID)
    assert (found["kl"], found["kl_error"], found["kl_99"], found["kl_999"]) == (0.276131, 0.005544, 1.280373, 2.699941)
    assert (found["perplexity"], found["ppl_ratio"], found["ppl_ratio_error"]) == (19.956917, 0.779375, 0.012479)
    assert (found["same_top"], found["same_top_error"], found["rms_delta_p"]) == (73.48, 0.978, 10.487)


def test_output_without_a_statistic_is_refused(scripts):
    with pytest.raises(UsageError, match="says nothing of kl_99"):
        scripts.llama_tools.statistics(SAID.replace("99.0%   KLD", "98.0%   KLD"))


def test_a_failing_or_missing_program_is_one_line(scripts, llama):
    (llama / "llama-imatrix").write_text("#!/bin/sh\necho first >&2; echo out of cheese >&2; exit 3\n")
    tools = scripts.llama_tools.LlamaTools(llama, 1)
    with pytest.raises(UsageError, match=r"^llama-imatrix failed with code 3: out of cheese$"):
        tools.run("llama-imatrix")
    with pytest.raises(NotFoundError, match="no such program"):
        tools.run("llama-nothing")


def test_what_is_half_made_is_not_used(scripts, tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError

    with pytest.raises(OSError):
        scripts.llama_tools.once(tmp_path / "file", fail)
    assert scripts.llama_tools.once(tmp_path / "file", lambda path: path.write_text("whole")).read_text() == "whole"


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_decoded_weights_are_the_file_s(scripts, tiny_model, tmp_path, kind):
    """Q4_K in rows of 192, which GGUF has not."""
    source = tmp_path / "tiny.eqf"
    edgeq.convert(tiny_model, source, kind)
    found = scripts.judge.as_gguf(source, tmp_path, blocks=False)
    written = {t.name: t for t in gguf.GGUFReader(found).tensors}
    with open_file(source) as file:
        assert written.keys() == file.tensors.keys()
        for info in file.tensors.values():
            weights = np.array(written[info.name].data)
            assert weights.dtype == np.float32
            if "attn_q.weight" in info.name or "attn_k.weight" in info.name:
                weights = weights.reshape(info.shape[0] // 32, 16, 2, -1).swapaxes(1, 2).reshape(info.shape)
            data = file.data(info.name)
            ours = data.view(np.float32) if len(info.shape) == 1 else decode(data, *info.shape, info.type)
            assert np.array_equal(weights.reshape(ours.shape), ours), info.name


def test_gguf_is_decoded_to_the_same_weights_as_the_eqf_file(scripts, tiny_model, tmp_path):
    edgeq.convert(tiny_model, tmp_path / "tiny.eqf", "Q8_0")
    export_gguf(tmp_path / "tiny.eqf", tmp_path / "tiny.gguf")
    found = []
    for name in ("tiny.eqf", "tiny.gguf"):
        (tmp_path / f"of-{name}").mkdir()
        reader = gguf.GGUFReader(scripts.judge.as_gguf(tmp_path / name, tmp_path / f"of-{name}", blocks=False))
        found.append({t.name: np.array(t.data) for t in reader.tensors})
        assert all(values.dtype == np.float32 for values in found[-1].values())
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    assert scripts.judge.as_gguf(tmp_path / "tiny.gguf", tmp_path, blocks=True) == tmp_path / "tiny.gguf"


def test_files_and_peers_are_judged_once(scripts, llama, tiny_model, tmp_path, monkeypatch, capsys):
    held, other, results = tmp_path / "held.txt", tmp_path / "other.txt", tmp_path / "results.csv"
    held.write_text("held out")
    other.write_text("calibration")
    edgeq.convert(tiny_model, tmp_path / "mine.eqf", "Q4_0")
    arguments = ["judge.py", str(tiny_model), "--text", str(held), "--llama", str(llama), "--work", str(tmp_path / "w")]
    arguments += ["--files", str(tmp_path / "mine.eqf"), "--peer", "Q4_K_M", "--calibration", str(other)]
    monkeypatch.setattr("sys.argv", [*arguments, "--results", str(results)])
    scripts.judge.main()
    asked = (llama / "asked").read_text().splitlines()
    programs = [line.split()[0].removeprefix("llama-") for line in asked]
    assert programs == ["imatrix", "quantize", "perplexity", "perplexity", "perplexity"]
    assert "--chunks 64" in asked[0] and re.search(r"--imatrix \S+ \S+ \S+ Q4_K_M 2$", asked[1])
    assert "--chunks 24" in asked[2] and asked[2].count("--kl-divergence") == 1
    rows = {row["file"]: row for row in scripts.table_file.read(results)}
    assert rows.keys() == {"llama.cpp Q4_K_M with imatrix", "mine.eqf"}
    assert rows["mine.eqf"]["kl"] == "0.276131" and rows["mine.eqf"]["weights"] == "decoded"
    assert rows["llama.cpp Q4_K_M with imatrix"]["calibration"] == "other.txt, 64 x 512"
    assert 4.5 < float(rows["mine.eqf"]["bits_per_weight"]) < 5.5 and "mine.eqf" in capsys.readouterr().out
    scripts.judge.main()
    assert (llama / "asked").read_text().splitlines() == asked
    assert not [name for name in os.listdir(tmp_path / "w") if name.startswith(("unfinished", "tmp"))]
    (llama / "said").write_text("", encoding="utf-8")
    edgeq.convert(tiny_model, tmp_path / "mine.eqf", "Q8_0")  # other contents: to be judged again
    with pytest.raises(UsageError, match="says nothing"):
        scripts.judge.main()


def test_a_file_is_compared_with_the_peer_at_its_size(scripts):
    peers = [{"tensor_bytes": "100", "kl": "0.4"}, {"tensor_bytes": "200", "kl": "0.1"}]
    compare = scripts.judge.beside_peer
    assert compare({"tensor_bytes": "100", "kl": "0.2"}, peers) == pytest.approx(0.5)
    assert compare({"tensor_bytes": "150", "kl": "0.1"}, peers) == pytest.approx(0.5)  # the peer's would be 0.2
    assert compare({"tensor_bytes": "200.8", "kl": "0.1"}, peers) == pytest.approx(1)
    assert compare({"tensor_bytes": "99", "kl": "0.4"}, peers) is None
    assert compare({"tensor_bytes": "150", "kl": "0.1"}, []) is None


def test_the_probe_s_prompts_have_rules_that_work(scripts):
    tasks = scripts.probe.tasks_of(scripts.probe.PROMPTS)
    assert len(tasks) == len({task.id for task in tasks}) == len({task.prompt for task in tasks}) == 50
    assert {task.rule for task in tasks} == set(scripts.probe.RULES)
    for task in tasks:
        if task.rule == "pattern":
            re.compile(task.answer)
        else:
            assert task.right(task.answer) and not task.right("") and not task.right("no idea 7777")


@pytest.mark.parametrize(
    ("rule", "answer", "text", "right"),
    [
        ("number", "5", "2 + 3 = 5.", True),
        ("number", "5", "5 apples and 2 pears make 7", False),
        ("number", "1000", "It is 1,000", True),
        ("number", "5", "2 + 3 = 5, which is less than 7", True),
        ("number", "7", "2 + 3 = 5, which is less than 7", False),
        ("word", "Paris", '"The capital is paris." It has 20 districts', True),
        ("word", "Paris", "The capital is Rome. No, Paris", False),
        ("word", "cat", "A concatenation", False),
        ("pattern", r"OK.*end", "OK\nend", True),
        ("pattern", r"OK\.?", "OK, I will", False),
    ],
)
def test_what_counts_as_right(scripts, rule, answer, text, right):
    assert scripts.probe.Task("t", "", rule, answer).right(text) is right


def test_flips_are_told_both_ways(scripts):
    tasks = [scripts.probe.Task(f"t{i}", "", "number", "1") for i in range(4)]
    row, flipped = scripts.probe.compared("m", "f", tasks, ["1", "1", "2", "1"], ["1", "2", "1", "one: 1"])
    assert (row.right, row.lost, row.gained, row.changed, flipped) == (3, "t1", "t2", 3, [1, 2])
    assert scripts.probe.mcnemar(0, 0) == 1 and scripts.probe.mcnemar(3, 3) == 1
    assert scripts.probe.mcnemar(0, 6) == scripts.probe.mcnemar(6, 0) == 2 / 64


def test_a_line_that_is_no_task_is_named(scripts, tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"id": "a", "prompt": "p", "rule": "number", "answer": "1"}\n{"id": "b"}\n')
    with pytest.raises(UsageError, match="line 2 needs id"):
        scripts.probe.tasks_of(path)
