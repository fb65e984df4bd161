"""What `edgeq show` tells of a model, as plain data, in whichever form it comes: nothing is converted for it."""

import os
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.container.gguf_values import is_gguf
from edgeq.errors import EdgeqError, UnsupportedError
from edgeq.system import endings

if TYPE_CHECKING:
    from edgeq.checkpoints import Checkpoint
    from edgeq.container.gguf_reader import GgufFile
    from edgeq.container.reader import File

Facts = dict[str, Any]

LONGEST = 64  # elements of a metadata array that is told whole


def form(model: str | os.PathLike[str]) -> str:
    """What a MODEL is: "gguf", "checkpoint" (a folder or a weight file), or "eqf" for all that the model cache has."""
    if os.path.isdir(model):
        return "checkpoint"
    name = os.fspath(model)
    if is_gguf(model) or name.lower().endswith(".gguf"):
        return "gguf"
    return "checkpoint" if os.path.isfile(model) and name.endswith(endings.CHECKPOINT) else "eqf"


def model_name(model: Path) -> str:
    """What a file that is made of MODEL is called, less its suffix: its own name, with the type it was asked for."""
    name = model.resolve().name if model.is_dir() else model.name
    return name.removesuffix(model.suffix if model.is_file() else "").replace(":", "-")


def of_file(file: "File") -> Facts:
    """Facts of an `.eqf` file. Sizes are bytes."""
    rows = [
        _row(tensor.name, tensor.shape, tensor.type, tensor.nbytes)
        | ({} if tensor.activation_scale is None else {"activation_scale": tensor.activation_scale})
        for tensor in file.tensors.values()
    ]
    return {
        "file": file.path,
        "format": "eqf",
        "bytes": file.nbytes,
        "requires": list(file.requires),
        "architecture": file.metadata.get("architecture"),
        **_of_config(file.metadata.get("config", {})),
        "chat_template": _template({name: file.asset(name) for name in file.assets if "tokenizer." not in name}),
        "provenance": file.metadata.get("provenance", {}),
        "assets": {asset.name: asset.nbytes for asset in file.assets.values()},
        **_of_tensors(rows),
    }


def of_gguf(file: "GgufFile") -> Facts:
    """Facts of a GGUF model, from its own metadata; `problem` says why it cannot be imported, if that is so."""
    metadata = file.metadata
    named = metadata.get("general.architecture")
    name = named if isinstance(named, str) else None
    rows = [_row(tensor.name, tensor.shape, tensor.type.name, tensor.nbytes) for tensor in file.tensors.values()]
    tokens, embedding = metadata.get("tokenizer.ggml.tokens"), file.tensors.get("token_embd.weight")
    return {
        "file": file.path,
        "format": "gguf",
        "bytes": file.nbytes,
        "files": [str(path) for path in file.files],
        "architecture": name,
        "layers": _short(metadata.get(f"{name}.block_count")),
        "context": _short(metadata.get(f"{name}.context_length")),
        "vocabulary": embedding.shape[0] if embedding else len(tokens) if isinstance(tokens, list) else None,
        "chat_template": _gguf_template(metadata),
        "metadata": {key: _short(value) for key, value in metadata.items()},
        "problem": _problem(file),
        **_of_tensors(rows),
    }


def of_calibration(model: str | os.PathLike[str]) -> Facts:
    """Facts of a calibration, or of an importance matrix of llama.cpp."""
    from edgeq.quantize.imatrix import read_calibration
    from edgeq.quantize.outliers import outliers

    found = read_calibration(model)
    corpora = [(one.name, one.tokens, one.perplexity if isfinite(one.perplexity) else None) for one in found.corpora]
    rows = [
        {
            "name": name,
            "columns": one.columns,
            "counts": one.counts.tolist(),
            "rms": float((one.sum_square.sum() / max(one.counts.sum(), 1) / one.columns) ** 0.5),
            "low": one.low if isfinite(one.low) else None,
            "high": one.high if isfinite(one.high) else None,
            "gram": one.gram is not None,
        }
        for name, one in found.matrices.items()
    ]
    return {
        "file": found.source,
        "format": "calibration",
        "bytes": os.path.getsize(model),
        "model": None if found.subject is None else asdict(found.subject),
        "matrices": len(rows),
        "gram": [row["name"] for row in rows if row["gram"]],
        "tokens": found.tokens,
        "sequences": len(found.sequences),
        "corpora": [dict(zip(("name", "tokens", "perplexity"), one, strict=True)) for one in corpora],
        "outliers": [{**asdict(one), "text": str(one)} for one in outliers(found)],
        "tensors": rows,
    }


def is_adapter(model: str | os.PathLike[str]) -> bool:
    """Whether that is a folder that PEFT has saved; a GGUF file tells by its metadata."""
    from edgeq.adapters.given import CONFIG

    return os.path.isfile(os.path.join(model, CONFIG)) and not os.path.isfile(os.path.join(model, "config.json"))


def of_adapter(model: Path) -> Facts:
    """Facts of a LoRA adapter. Sizes are bytes."""
    from edgeq.adapters.given import files_of
    from edgeq.adapters.reading import read_adapter

    found = read_adapter(model)
    rows = [
        {"name": name, "shape": [len(pair.b), pair.a.shape[1]], "rank": len(pair.a), "scale": pair.factor}
        for name, pair in found.pairs.items()
    ]
    return {
        "file": os.fspath(model),
        "format": "adapter",
        "bytes": sum(os.path.getsize(file) for file in files_of(model)),
        "base": found.base or None,
        "architecture": found.architecture or None,
        "ranks": sorted({row["rank"] for row in rows}),
        "scales": sorted({row["scale"] for row in rows}),
        "parameters": sum(pair.a.size + pair.b.size for pair in found.pairs.values()),
        "matrices": len(rows),
        "tensors": rows,
    }


def of_checkpoint(checkpoint: "Checkpoint") -> Facts:
    """Facts of a Hugging Face checkpoint; `problem` says why it cannot be converted, if its config.json tells."""
    from edgeq.models import architecture

    problem = None
    try:
        architecture(checkpoint.config, "config.json")
    except UnsupportedError as error:
        problem = str(error)
    rows = [_row(ref.name, ref.shape, ref.dtype, checkpoint.nbytes(ref.name)) for ref in checkpoint.tensors.values()]
    return {
        "file": checkpoint.source,
        "format": "checkpoint",
        "bytes": sum(Path(file).stat().st_size for file in checkpoint.files),
        "files": list(checkpoint.files),
        "architecture": checkpoint.config.get("model_type"),
        **_of_config(checkpoint.config),
        "chat_template": _template(checkpoint.assets),
        "assets": {name: len(content) for name, content in checkpoint.assets.items()},
        "problem": problem,
        **_of_tensors(rows),
    }


def _row(name: str, shape: tuple[int, ...], kind: str, nbytes: int) -> Facts:
    bits = 8 * nbytes / max(prod(shape), 1)
    return {"name": name, "shape": list(shape), "type": kind, "bytes": nbytes, "bits_per_weight": bits}


def _of_config(config: Mapping[str, Any]) -> Facts:
    """Some architectures have names of their own for these, larger models have them within."""
    text = config.get("text_config")
    config = {**text, **config} if isinstance(text, Mapping) else config

    def first(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    return {
        "layers": first("num_hidden_layers", "n_layer", "n_layers"),
        "context": first("max_position_embeddings", "n_positions"),
        "vocabulary": config.get("vocab_size"),
    }


def _of_tensors(rows: list[Facts]) -> Facts:
    """The tensors, and their sums: in all, and by type, the largest first."""
    types: dict[str, dict[str, float]] = {}
    for row in rows:
        sums = types.setdefault(row["type"], {"tensors": 0, "parameters": 0, "bytes": 0})
        sums["tensors"] += 1
        sums["parameters"] += prod(row["shape"])
        sums["bytes"] += row["bytes"]
    for sums in types.values():
        sums["bits_per_weight"] = 8 * sums["bytes"] / max(sums["parameters"], 1)
    parameters = sum(prod(row["shape"]) for row in rows)
    return {
        "parameters": parameters,
        "bits_per_weight": 8 * sum(row["bytes"] for row in rows) / max(parameters, 1),
        "types": dict(sorted(types.items(), key=lambda item: -item[1]["bytes"])),
        "tensors": rows,
    }


def _template(assets: Mapping[str, bytes]) -> str | dict[str, str] | None:
    from edgeq.text.assets import read_settings

    return read_settings(assets).chat_template


def _gguf_template(metadata: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The template, or all of them by name."""
    start = "tokenizer.chat_template"
    named = {key.removeprefix(f"{start}."): value for key, value in metadata.items() if key.startswith(f"{start}.")}
    found = {name: text for name, text in ({"default": metadata.get(start)} | named).items() if isinstance(text, str)}
    return found["default"] if found.keys() == {"default"} else found or None


def _short(value: Any) -> Any:
    """A metadata value; of a long array, how long it is. JSON has no number that is not finite."""
    if isinstance(value, list | array):
        return f"{len(value)} values" if len(value) > LONGEST else [_short(one) for one in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def _problem(file: "GgufFile") -> str | None:
    """Why the model cannot be imported, its tokenizer aside."""
    from edgeq.gguf.importer import examine

    try:
        examine(file, tokenizer=False)
    except EdgeqError as error:
        return str(error).removeprefix(f"{file.path}: ")
    return None


def general(metadata: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The `general.*` keys, which say what a GGUF model is and where it comes from."""
    for key, value in metadata.items():
        if key.startswith("general.") and key != "general.architecture":
            yield key, ", ".join(map(str, value)) if isinstance(value, list) else value
