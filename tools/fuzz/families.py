"""Checkpoints of families whose layers are of several kinds: recurrent ones, Gemma 4, latent attention.

A file here is a line, which says what is done to the tensors of which sound checkpoint, and a configuration. Sound
ones, small and random, are those of tests/models.
"""

import contextlib
import json
import random
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import beside
import mutate

Rng = random.Random
FAMILIES = (
    *("qwen3-next", "qwen3-5", "qwen3-5-moe", "granite-4-h", "granite-4-h-experts", "nemotron-h", "nemotron-h-latent"),
    *("falcon-h1", "lfm2-bias", "lfm2-moe", "gemma4", "gemma4-some-shared", "gemma4-keys-twice", "gemma4-experts"),
    *("deepseek-v2-lite", "deepseek-v3", "glm4-moe-lite", "youtu", "minicpm3"),
)


@cache
def sound(case: str) -> Path:
    """The checkpoint, in a folder that this process made."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "models"))
    import random_checkpoints

    return random_checkpoints.write(case, beside.folder() / f"family-{case}")


def configurations(_: Path) -> list[bytes]:
    return [(sound(case) / "config.json").read_bytes() for case in FAMILIES]


def read_configuration(path: Path) -> None:
    """As a conversion and an export do."""
    from edgeq.checkpoints.folder import read_json
    from edgeq.errors import EdgeqError
    from edgeq.models import architecture
    from edgeq.models.gguf import write_config
    from edgeq.models.gguf_rope import factor_tensors

    config = read_json(path)
    architecture(config, "config.json").tensors  # noqa: B018
    for write in (lambda given: write_config(given, "config.json", []), factor_tensors):
        with contextlib.suppress(EdgeqError):
            write(config)


def checkpoints(folder: Path) -> list[bytes]:
    pairs = zip(FAMILIES, configurations(folder), strict=True)
    return [_file({"case": case, "tensors": {}}, config) for case, config in pairs]


def _file(about: dict[str, Any], config: bytes) -> bytes:
    return json.dumps(about).encode() + b"\n" + config


def in_checkpoint(rng: Rng, data: bytes) -> bytes:
    """Mostly the configuration, sometimes a tensor: not there, of another name, shape or type."""
    line, config = data.split(b"\n", 1)
    about = json.loads(line)
    if rng.random() < 0.8:
        config = mutate.of_json(rng, config)
    if rng.random() < 0.3:
        header = _header((sound(about["case"]) / "model.safetensors").read_bytes())[0]
        name = rng.choice([name for name in header if name != "__metadata__"])
        shape = header[name]["shape"]
        kinds = [None, {"name": rng.choice(list(header))}, {"name": name + ".bias"}]
        kinds += [{"shape": shape[::-1]}, {"shape": [1, *shape]}, {"shape": [shape[0] // 2 * 2, *shape[1:]]}]
        about["tensors"][name] = rng.choice([*kinds, {"dtype": rng.choice(["BF16", "I32", "F64", "U8"])}])
    return _file(about, config)


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), 8 + length


def _tensors(data: bytes, changes: dict[str, Any]) -> bytes:
    header, begin = _header(data)
    for name, change in changes.items():
        entry = header.pop(name)
        if change is not None:
            header[change.get("name", name)] = entry | {key: change[key] for key in change.keys() & entry.keys()}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[begin:]


def run_checkpoint(path: Path) -> None:
    """As `edgeq convert` and `run` do."""
    from edgeq.conversion.conversion import convert
    from edgeq.loading import load

    line, config = path.read_bytes().split(b"\n", 1)
    about = json.loads(line)
    source, made = path.parent / "checkpoint", path.with_suffix(".eqf")
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    (source / "config.json").write_bytes(config)
    weights = (sound(about["case"]) / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(_tensors(weights, about["tensors"]))
    made.unlink(missing_ok=True)
    convert(source, made, "F32", threads=1, allow_no_tokenizer=True)
    with load(made, context=32, threads=1) as model:
        model.logits([1, 2, 3])
        for _ in model.generate_tokens([1, 2, 3], 2, temperature=0.0):
            pass
