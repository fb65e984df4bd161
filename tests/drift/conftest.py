"""A file of the bundled model that says what it read of some stories, and tokens of others and of code."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import open_file
from edgeq.drift.look import LENGTH
from edgeq.quantize.calibration import Calibration, Corpus
from edgeq.quantize.extract import extract, finished
from edgeq.quantize.pipeline import convert
from edgeq.text.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Told:
    """Prompts are token ids; those of stories follow the calibrated ones in no order, none of them was calibrated."""

    plain: Path
    path: Path
    calibration: Calibration
    stories: list[list[int]]
    code: list[list[int]]


@pytest.fixture(scope="session")
def told(tiny_model: Path, shared_data: Path, tmp_path_factory) -> Told:
    text = (shared_data / "text" / "tinystories" / "tinystories_val.txt").read_text("utf-8")[:400_000]
    folder = tmp_path_factory.mktemp("drift")
    convert(tiny_model, folder / "plain.eqf", "Q8_0")
    with open_file(folder / "plain.eqf") as file:
        tokenizer = load_tokenizer({name: file.asset(name) for name in file.assets}, "tiny", 2048)
        stories = [tokenizer.encode(one.strip()) for one in text.split("<|endoftext|>")[1:-1]]
        np.random.default_rng(0).shuffle(stories)
        # Of others' libraries: it stays the same
        vendored = Path(__file__).parents[2] / "edgeq" / "serve" / "page" / "vendor"
        source = "\n".join(path.read_text("utf-8") for path in sorted(vendored.glob("*.js")))
        code = [tokenizer.encode(source[at : at + 200]) for at in range(0, 40_000, 200)]
        sequences = tuple(np.array(one, np.int32) for one in stories[:40] if len(one) > LENGTH)
        calibration = Calibration(
            "stories.calib",
            {},
            None,
            sequences,
            np.arange(len(sequences), dtype=np.int32) % 2,
            (Corpus("some", 1), Corpus("others", 1)),
        )
        seen = extract(file, calibration, 2)
        assert seen is not None
        finished(file, folder / "told.eqf", seen)
    usable = [one for one in stories[40:] if len(one) > 2 * LENGTH]
    return Told(folder / "plain.eqf", folder / "told.eqf", calibration, usable, code)
