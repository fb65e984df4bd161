"""What a model compiles after it was loaded is told of, too."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import seeing_model
from seeing_model import QUESTION, picture

import edgeq
from edgeq.evaluate.layer_errors import layer_errors
from edgeq.evaluate.texts import Chunk
from edgeq.quantize.pipeline import convert
from edgeq.toolchain import library


def test_every_session_tells_what_it_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that see, embed and compare layers are made when they are asked for first."""
    convert(seeing_model.write(tmp_path / "m"), tmp_path / "m.eqf", "F32")
    prepare, heard = library.prepare, list[Callable[[str], None] | None]()

    def preparing(names: Iterable[str], announce: Callable[[str], None] | None = None) -> dict[str, Any]:
        heard.append(announce)
        return prepare(names, announce)

    monkeypatch.setattr(library, "prepare", preparing)
    lines = list[str]()
    tell = lines.append
    parts = [{"type": "image", "image": picture("narrow")}, {"type": "text", "text": QUESTION}]
    with edgeq.load(tmp_path / "m.eqf", threads=2, announce=tell) as model:
        model.chat([{"role": "user", "content": parts}], 1, temperature=0).text  # noqa: B018
        assert len(heard) == 3, "the text model, what sees, and what projects"
        model.embed(["a"])
        layer_errors(model, model, [Chunk((1, 2, 3, 4))])
    assert len(heard) == 6 and heard == [tell] * len(heard)
