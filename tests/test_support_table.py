"""The documented tables of what is supported are those of the code."""

import importlib
import json
from collections import Counter
from pathlib import Path

import pytest

from edgeq.blocks.gguf_types import BY_NAME
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.models import SUPPORTED
from edgeq.models.wrapped import WRAPPED

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    return importlib.import_module("support_table")


def test_the_page_is_up_to_date(tool):
    text = tool.PAGE.read_text(encoding="utf-8")
    assert tool.with_tables(text) == text, "run tools/support_table.py --write"


def test_every_type_and_architecture_is_there(tool):
    blocks, architectures = tool.block_table(), tool.architecture_table()
    cells = {name for line in blocks.splitlines() for name in line.split("|")[1].strip().split(", ")}
    assert cells >= BLOCK_TYPES.keys() | BY_NAME.keys()
    cells = {name.split(" (")[0] for line in architectures.splitlines() for name in line.split("|")[1].split(", ")}
    assert {cell.strip() for cell in cells} >= set(SUPPORTED)


def test_cells_say_what_the_tables_say(tool):
    assert tool.block_cells("Q4_K") == ("every bit", "every bit", "yes", "all")
    assert tool.block_cells("TQ2_0")[0] in ("every bit", "every weight, as Q4_0")
    assert tool.block_cells("I64") == ("refused by name", "", "", "")
    assert tool.architecture_cells("llama", Counter(llama=1)) == (
        "from and to",
        "logits and greedy text, the same of real models",
    )


def test_every_architecture_is_tested(tool):
    """Those around a text model have the tests of that one."""
    tested = {config["model_type"] for config in (*tool.CASES.values(), *tool.ENCODERS.values())} | {*tool.elsewhere()}
    assert tested == set(SUPPORTED) - WRAPPED.keys()
    manifest = json.loads((REPOSITORY / "tests" / "golden" / "manifest.json").read_text())
    assert {model["model_type"] for model in manifest["models"].values()} <= set(SUPPORTED)


def test_a_page_without_markers_is_refused(tool):
    with pytest.raises(SystemExit, match="lacks the lines"):
        tool.with_tables("# nothing\n")
