"""What stands where a file should: pipes, devices, folders, names that none can have; and JSON that costs."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgeq
from edgeq.adapters.reading import read_adapter
from edgeq.checkpoints import open_checkpoint
from edgeq.cli.show import describe
from edgeq.container.gguf_reader import open_gguf
from edgeq.container.header import is_eqf
from edgeq.container.prefix_file import PrefixFile
from edgeq.container.reader import open_file
from edgeq.errors import EdgeqError
from edgeq.gguf.importer import import_gguf
from edgeq.models import architecture
from edgeq.quantize.imatrix import read_calibration
from edgeq.quantize.pipeline import convert
from edgeq.system.json_input import parse_json

sys.path.append(str(Path(__file__).resolve().parent / "models"))
import random_checkpoints

READERS: dict[str, Callable[[Path], Any]] = {
    "m.eqf": open_file,
    "m.gguf": open_gguf,
    "model.safetensors": open_checkpoint,
    "pytorch_model.bin": open_checkpoint,
    "m.calib": read_calibration,
    "m.eqp": PrefixFile,
    "run.eqf": edgeq.load,
    "show.gguf": describe,
    "show.eqf": describe,
    "import.gguf": lambda path: import_gguf(path, path.with_suffix(".eqf")),
    "adapter.gguf": read_adapter,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path):
    os.mkfifo(tmp_path / name)
    began = time.monotonic()
    with pytest.raises(EdgeqError):
        READERS[name](tmp_path / name)
    assert time.monotonic() - began < 30 and not is_eqf(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_among_a_checkpoints_files(tiny_model: Path, tmp_path: Path):
    for name in os.listdir(tiny_model):
        os.symlink(tiny_model / name, tmp_path / name)
    for name in ("tokenizer.json", "config.json", "model.safetensors"):
        os.unlink(tmp_path / name)
        os.mkfifo(tmp_path / name)
        if name != "tokenizer.json":  # one that is no file is not there
            with pytest.raises(EdgeqError):
                open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["\0", "a\0b.eqf", "\ud800", "/dev/null/m.eqf", "x" * 5000, "a/" * 3000 + "m.gguf"])
def test_names_that_no_file_can_have(name: str):
    for read in (open_file, open_gguf, edgeq.load):
        with pytest.raises(EdgeqError) as caught:
            read(name)
        assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


def test_json_is_bounded():
    assert parse_json(b'{"a": [1, 2.5, -3, "x", null, true], "b": {}}') == json.loads(
        '{"a": [1, 2.5, -3, "x", null, true], "b": {}}'
    )
    with pytest.raises(ValueError, match="it has more than 1048576 values"):
        parse_json(b"[" + b"[]," * (1 << 20) + b"0]")
    with pytest.raises(ValueError, match="it is too deep"):
        parse_json(b"[" * 100_000 + b"]" * 100_000)


@pytest.mark.parametrize("digits", ["9223372036854775807", "-9223372036854775808", "18446744073709551615", "-1", "12"])
def test_integers_of_64_bits_stay_what_they_are(digits: str):
    found = parse_json(digits.encode())
    assert type(found) is int and found == int(digits)


@pytest.mark.parametrize("digits", ["18446744073709551616", "-9223372036854775809", "1" + "0" * 400, "-" + "9" * 9000])
def test_larger_ones_come_as_floats(digits: str):
    found = parse_json(digits.encode())
    most = sys.float_info.max
    assert type(found) is float and found == max(-most, min(float(digits), most))


def test_a_configuration_with_numbers_that_json_has_not_is_converted(tmp_path: Path):
    """As released ones of Mamba's kin have them; what is written can be read by anything."""
    folder, out = random_checkpoints.write("granite-4-h", tmp_path / "checkpoint"), tmp_path / "m.eqf"
    config = json.loads((folder / "config.json").read_text())
    numbers = '{"time_step_limit": [0.0, Infinity], "other": [NaN, -1e999, 1e3],'
    (folder / "config.json").write_text(numbers + json.dumps(config)[1:])
    convert(folder, out, "Q8_0", allow_no_tokenizer=True)
    with open_file(out) as file:
        found = file.metadata["config"]
        assert found["time_step_limit"] == [0.0, {"__float__": "Infinity"}]
        assert found["other"] == [{"__float__": "NaN"}, {"__float__": "-Infinity"}, 1000.0]
        architecture(found, file.path)
