"""What an import makes of a GGUF file of what a model sees with, beside the text model's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeq.container.gguf_reader import GgufFile, open_gguf
from edgeq.container.writer import TensorSpec
from edgeq.gguf.import_plan import PLAIN, TURNED, Job, held
from edgeq.models.gguf_images import may_see, read_images


def might_see(path: Path) -> bool:
    """Whether a GGUF file is of a text model that may have a file to see with."""
    with open_gguf(path) as file:
        tokens = file.metadata.get("tokenizer.ggml.tokens")
        has = tokens.__contains__ if isinstance(tokens, list) else lambda _: False
        return may_see(file.metadata.get("general.architecture"), has)


def with_images(
    file: GgufFile, seeing: GgufFile, text: dict[str, Any], assets: dict[str, bytes]
) -> tuple[list[Job], dict[str, Any]]:
    """The tensors to write of the file `seeing`, and the configuration of the larger model around the one that `text`
    is of, in `file`; `assets` gets the small files that say so. Raises as read_images."""
    shapes = {tensor.name: tensor.shape for tensor in seeing.tensors.values()}
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    config, settings, tensors = read_images(seeing.metadata, shapes, text, tokens, seeing.path)
    for name, values in (("config.json", config), ("preprocessor_config.json", settings)):
        assets[name] = json.dumps(values, indent=2).encode()
    jobs = []
    for name, there in tensors.items():
        tensor = replace(seeing.tensors[there.name], shape=there.of)
        kind, how = held(seeing, tensor, name)
        if there.turned and kind not in PLAIN:
            kind, how = "F16", TURNED
        spec = TensorSpec(name, there.shape, kind)
        jobs.append(Job(tensor, spec, how, there.first, turned=there.turned, bound=there.bound))
    return jobs, config
