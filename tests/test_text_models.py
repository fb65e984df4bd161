"""The page of transformers' model types says what runs."""

import importlib.util
import sys
from pathlib import Path

import pytest

from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.models import SUPPORTED, architecture

TOOL = Path(__file__).resolve().parents[1] / "tools" / "text_models.py"
_spec = importlib.util.spec_from_file_location("text_models", TOOL)
assert _spec and _spec.loader
text_models = importlib.util.module_from_spec(_spec)
sys.modules["text_models"] = text_models
_spec.loader.exec_module(text_models)


def test_the_page_is_up_to_date() -> None:
    page = text_models.PAGE.read_text()
    assert page == text_models.render(*text_models.read(page)), "run tools/text_models.py --write"


def test_what_the_page_says_runs_does() -> None:
    """And nothing else does: a model type that is not known is refused by that name, others for what they lack."""
    _, said = text_models.read(text_models.PAGE.read_text())
    running = {name for name, how in said.items() if how in (text_models.RUNS, text_models.AS_ENCODER)}
    assert running == said.keys() & {*SUPPORTED} and len(said) > 300 and len(running) > 50
    for name in said:
        with pytest.raises(EdgeqError) as error:
            architecture({"model_type": name})
        unknown = isinstance(error.value, UnsupportedError) and f"model_type {name!r} is not supported" in str(
            error.value
        )
        assert unknown == (name not in running), name


def test_a_page_is_read_as_it_was_written() -> None:
    needs = {"llama": "", "bert": "", "rwkv": "recurrent layers", "ctrl": "MLA", "xlnet": "MLA"}
    version, said = text_models.read(text_models.render("1.2", needs))
    assert version == "1.2" and said == needs | {"llama": text_models.RUNS, "bert": text_models.AS_ENCODER}
    with pytest.raises(SystemExit, match="does not run any more"):
        text_models.render("1.2", {"rwkv": text_models.RUNS})
