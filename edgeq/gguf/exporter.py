"""`.eqf` files to GGUF: the inverse of an import, and the way to GGUF for what was converted from a checkpoint."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from edgeq.container.gguf_values import METADATA_ASSET
from edgeq.container.gguf_writer import GgufSpec, GgufWriter
from edgeq.container.reader import open_file
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.gguf.export_metadata import metadata_of, recorded
from edgeq.gguf.export_plan import Exported, Fallback, empty, longer, target
from edgeq.gguf.export_rows import rows_of
from edgeq.gguf.rearranger import TO_BLOCKS, Rearranger
from edgeq.gguf.row_order import pieces_of
from edgeq.models import architecture, gguf_xielu
from edgeq.models.composition import Model
from edgeq.models.gguf import scores_factor
from edgeq.models.gguf_architectures import exported
from edgeq.models.gguf_gemma3n import rows_added, unread
from edgeq.models.gguf_hooks import is_routed, mamba_of
from edgeq.models.gguf_places import FUSED, places
from edgeq.models.gguf_rope import factor_tensors
from edgeq.models.gguf_rwkv7 import unread as unread_of_rwkv7
from edgeq.models.image_tower import is_of_images
from edgeq.models.matrix import check_tensors, layers_held
from edgeq.models.wrapped import of_text

Progress = Callable[[str, int, int, int, int], None]


@dataclass(frozen=True)
class Report:
    """What an export did. `nbytes` is the file's."""

    path: str
    architecture: str
    tensors: list[Exported]
    nbytes: int
    notes: list[str] = field(default_factory=list)


def export_gguf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    fallback: Fallback | None = None,
    allow_no_tokenizer: bool = False,
    tokenizer: bool = True,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Report:
    """Write the `.eqf` file `source` as the GGUF file `out`: the same blocks, bit for bit.

    An imported model gets back all its metadata. GGUF's k-quants need rows of a multiple of 256 weights; with a
    `fallback` other matrices are encoded again. `tokenizer` may be left out. `announce` hears one line if a kernel must
    be compiled first. Raises UnsupportedError for an architecture, a rope scaling or rows that GGUF cannot hold,
    TokenizerError for such a tokenizer unless `allow_no_tokenizer`, UsageError for an `out` that is the source,
    OutputError if it cannot be written.
    """
    with open_file(source) as file:
        if os.path.exists(out) and os.path.samefile(file.path, out):
            raise UsageError(f"{os.fspath(out)}: is the model itself: give another name for the output")
        if os.fspath(out).endswith(".eqf"):
            raise UsageError(f"{os.fspath(out)}: an export writes a .gguf file: name it so")
        if file.requires:  # what its tensors mean without these, no reader of GGUF could know
            what = f"{file.path}: requires {', '.join(file.requires)}, which GGUF has no word for"
            raise UnsupportedError(f"{what}: run the .eqf file, or convert the checkpoint again without")
        model = architecture(file.metadata["config"], file.path)
        mamba = mamba_of(model) if isinstance(model, Model) else None
        both_ways, routed = not model.heads.causal, isinstance(model, Model) and is_routed(model)
        name, entry = exported(file.metadata["architecture"], file.path, mamba is not None, both_ways, routed)
        shapes = {tensor.name: tensor.shape for tensor in file.tensors.values()}
        layers = layers_held(model.num_hidden_layers, file.metadata["config"])
        check_tensors(shapes, model.tensors, layers, file.path)
        notes: list[str] = []
        keys, metadata, alignment = metadata_of(file, model, name, tokenizer, allow_no_tokenizer, notes)
        fused = recorded(file, "fused", list, entry.fused)
        if not {*fused} <= {whole for whole, _ in FUSED}:
            raise FormatError(f"{file.path}: its header names tensors of GGUF that there are not: import it again")
        groups = mamba.shape.groups if mamba else 1
        heads = model.heads.num_attention_heads, model.heads.num_key_value_heads
        targets = [
            replace(
                target(file, place, fallback, groups, heads[0]), pieces=pieces_of(place, model) if place.woven else 1
            )
            for place in places([one for one in file.tensors if _is_exported(one)], entry, fused)
        ]
        own = model if isinstance(model, Model) else None
        targets = [longer(tensor, rows_added(own)) for tensor in targets]
        if any(map(is_of_images, file.tensors)):
            notes.append("what reads images is left out: the GGUF file reads text alone")
        if any(info.activation_scale is not None for info in file.tensors.values()):
            notes.append("GGUF has no word for scales of activations: readers take each token's own")
        told = of_text(file.metadata["config"], str(file.path))
        factors = {} if METADATA_ASSET in file.assets else factor_tensors(told, own)
        never_read = unread(own) | (unread_of_rwkv7(own) if own else {})
        spare = [empty(*one, targets) for one in never_read.items() if one[0] not in file.tensors]
        specs = [GgufSpec(t.name, t.shape, t.type) for t in targets]
        specs += [spec for spec, _ in spare]
        specs += [GgufSpec(name, (len(values),), "F32") for name, values in factors.items()]
        total, done = sum(info.nbytes for info in file.tensors.values()), 0
        rearranger = Rearranger(TO_BLOCKS, announce, total)
        factor = scores_factor(model, entry) if isinstance(model, Model) else 1.0
        with GgufWriter(out, metadata, keys, specs, alignment) as writer:
            for index, tensor in enumerate(targets):
                for rows in rows_of(file, tensor, entry, heads, fallback, rearranger, factor):
                    writer.write(rows)
                done += sum(file.tensors[part].nbytes for part in tensor.parts)
                if progress:
                    progress(tensor.name, index, len(targets), done, total)
            for _, nbytes in spare:
                writer.write(np.zeros(nbytes, np.uint8))
            for values in factors.values():
                writer.write(np.array(values, "<f4"))
        return Report(os.fspath(out), name, targets, writer.nbytes, notes)


def _is_exported(name: str) -> bool:
    return not gguf_xielu.is_said(name) and not is_of_images(name)
