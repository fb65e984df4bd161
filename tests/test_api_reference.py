"""edgeq/docs/api.md is what signatures and docstrings say."""

import dataclasses
import importlib
from functools import cached_property
from pathlib import Path
from typing import TypedDict, Unpack

import pytest

import edgeq

REPOSITORY = Path(__file__).resolve().parents[1]


class Options(TypedDict, total=False):
    seed: int | None


class Example:
    """An example."""

    __module__ = "edgeq.example"

    def method(self, x: "list[Path]", *, y: str = "a", **options: Unpack[Options]) -> None:
        """What it does."""

    @cached_property
    def value(self) -> int:
        """A number."""
        return 1

    def _hidden(self) -> None:
        """Not told."""


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    return importlib.import_module("api_reference")


def test_it_is_up_to_date(tool):
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run tools/api_reference.py --write"


def test_every_public_name_and_member_is_there(tool):
    page = tool.page()
    for name in edgeq.__all__:
        assert name.startswith("_") or f"`{name}`" in page
    members = {name for name in vars(edgeq.Model) if not name.startswith("_")}
    assert members and all(f"### `Model.{name}`" in page for name in members)


def test_members(tool):
    text = "\n".join(tool.members(Example))
    assert "method(x: list[Path], *, y: str = 'a', **options: Unpack[Options]) -> None" in text
    assert "`**options` takes `seed: int | None`." in text
    assert "value: int" in text and "A number." in text and "hidden" not in text


def test_long_signatures_and_dataclasses(tool):
    made = dataclasses.make_dataclass("Made", [(f"a_long_name_{i}", int, 0) for i in range(6)])
    lines = tool.signature("Made", made).splitlines()
    assert lines[0] == "Made(" and lines[1] == "    a_long_name_0: int = 0," and lines[-1] == ") -> None"
