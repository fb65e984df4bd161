"""`edgeq models` and `edgeq pull`, verbs that there are not, and faults of the program's own."""

import json
import os
import shutil
from pathlib import Path

import pytest

from edgeq.store import recommended


@pytest.fixture(autouse=True)
def cache(empty_cache):
    return empty_cache / "models"


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "stories")
    return tmp_path / "stories"


def test_pull_list_and_remove(edgeq, checkpoint, cache):
    assert edgeq("models") == (
        0,
        f"no models in {cache}: `edgeq models --recommended` lists some worth a try\n",
        "",
    )
    code, out, err = edgeq("pull", checkpoint, f"{checkpoint}:Q8_0")
    assert code == 0 and [line.partition(": ready, ")[0] for line in out.splitlines()] == [
        str(checkpoint),
        f"{checkpoint}:Q8_0",
    ]
    assert err.startswith(f"edgeq: converting {checkpoint} once, as {cache}")
    head, *rows = edgeq("models").out.splitlines()
    assert head.split() == ["NAME", "SIZE", "TYPE", "USED", "SOURCE"]
    assert {row.split()[0] for row in rows} == {"stories", "stories-Q8_0"}
    assert all(row.endswith(f"now   {checkpoint}") for row in rows)
    facts = json.loads(edgeq("models", "--json").out)
    assert {one["recipe"] for one in facts} == {"Q4_K_M", "Q8_0"} and all(Path(one["path"]).exists() for one in facts)
    assert edgeq("run", "stories", "Once upon a", "--raw", "-n", 1, "--temp", 0).out == " time\n"
    code, out, err = edgeq("models", "rm", "stories-Q8_0", "storeis")
    assert (code, out) == (2, "") and "storeis: no such file, and no model of that name: did you mean stories" in err
    assert edgeq("models", "rm", "stories-q8").code == 2
    assert edgeq("models", "rm", "stories-Q8_0").out.startswith("stories-Q8_0: removed, ")
    assert len(json.loads(edgeq("models", "--json").out)) == 1


def test_prune(edgeq, checkpoint):
    edgeq("pull", checkpoint)
    assert edgeq("models", "prune").out == "nothing to remove: what would be made now is what is there\n"
    os.utime(checkpoint / "config.json", (1, 1))
    assert edgeq("models").out.endswith("(its source has changed, or edgeq has: edgeq models prune)\n")
    code, out, _ = edgeq("models", "--prune")
    assert (
        code == 0
        and out.startswith("stories: removed, ")
        and out.endswith("MiB: its source has changed, or edgeq has\n")
    )
    assert json.loads(edgeq("models", "--json").out) == []
    edgeq("pull", checkpoint)
    shutil.rmtree(checkpoint)
    assert edgeq("models").out.endswith("(its source is gone)\n")
    edgeq("models", "prune")
    assert len(json.loads(edgeq("models", "--json").out)) == 1, "all that is left of it"


def test_recommended(edgeq, monkeypatch):
    row = recommended.find("qwen2.5:0.5b")
    monkeypatch.setattr("edgeq.runtime.fit.available_memory", lambda: row.memory)
    out = edgeq("models", "--recommended").out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["qwen2.5:0.5b"].split()[-2:] == ["yes", "Qwen/Qwen2.5-0.5B-Instruct"]
    assert " no " in lines["qwen2.5:7b"] and "accept its licence" in lines["llama3.2:1b"]
    facts = json.loads(edgeq("models", "--recommended", "--json").out)
    assert [one["name"] for one in facts if one["fits"]] == [one.name for one in recommended.fitting(row.memory)]


@pytest.mark.parametrize(
    ("verb", "hint"),
    [
        ("caht", ": did you mean chat?"),
        ("Run", ": did you mean run?"),
        ("LS", ": did you mean models?"),
        ("xyzzy", ""),
        ("ps", ": models run in the process that asked for them; a server tells of its own at /api/ps"),
    ],
)
def test_verbs_that_there_are_not(edgeq, verb, hint):
    assert edgeq(verb, "m.eqf") == (2, "", f"edgeq: there is no verb '{verb}'{hint} (see edgeq --help)\n")


def test_a_verb_whose_model_is_its_argument_says_so(edgeq):
    code, out, err = edgeq("embed", "-m", "m.eqf", "a")
    assert (code, out) == (2, "")
    assert err == "edgeq: there is no option -m here: the model is the argument itself (see edgeq embed --help)\n"


def test_a_fault_of_the_program_is_one_line(edgeq, monkeypatch):
    def fail(*arguments, **options):
        raise IndexError("list index\nout of range")

    monkeypatch.setattr("edgeq.loading.load", fail)
    code, out, err = edgeq("run", "m.eqf", "a")
    assert (code, out, err.count("\n")) == (70, "", 1)
    assert err.startswith("edgeq: IndexError: list index out of range (cli/test_cli_models.py:")
    assert "please report it" in err and "EDGEQ_DEBUG=1" in err
    monkeypatch.setenv("EDGEQ_DEBUG", "1")
    err = edgeq("run", "m.eqf", "a").err
    assert err.startswith("Traceback (most recent call last)") and "please report it" in err
