#!/usr/bin/env python3
"""Make a language model whose rows are multiples of 256 weights, as GGUF's k-quants need them, of one whose are not.

    python tools/make_sliced.py model.gguf --width 512 --text some.txt --out sliced

Small real models that can be had have rows of 576 or 640, where quantizers fall back to other types; one that is
trained for the purpose on a CPU knows next to nothing. So a Llama is turned and cut, as SliceGPT does
(arXiv:2401.15024):

- The weights of norms go into the matrices that read them. The states between layers may then be rotated: by their own
  principal axes, as a text shows them, of which the first `width` are kept.
- Groups of attention heads are added until the values of all heads are a multiple of 256. An added group is one that is
  there already; the outputs of both are half of what its were.
- The head becomes a matrix of its own, since the embedding has no norm before it.

With `width` as it was, the result computes the same. What is cut costs some perplexity: the checkpoint is a model of
its own, the reference of everything made of it. Rotating also takes weights off the grid of the GGUF file's blocks.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from bf16_checkpoint import write_bf16  # noqa: E402

from edgeq.blocks.reference import decode  # noqa: E402
from edgeq.container.reader import File, open_file  # noqa: E402
from edgeq.errors import EdgeqError, UnsupportedError  # noqa: E402
from edgeq.gguf.importer import import_gguf  # noqa: E402
from edgeq.models import architecture  # noqa: E402
from edgeq.runtime.session import Session  # noqa: E402
from edgeq.text.tokenizer import load_tokenizer  # noqa: E402

COLUMNS = 256  # of a super-block in GGUF
CHUNK, CHUNKS = 512, 8  # tokens of a piece of text whose states are looked at, and how many pieces

F32 = npt.NDArray[np.float32]
READERS = {"attn_norm": ("attn_q", "attn_k", "attn_v"), "ffn_norm": ("ffn_gate", "ffn_up")}  # of each norm
SOURCES = {
    "attn_q": "self_attn.q_proj.weight",
    "attn_k": "self_attn.k_proj.weight",
    "attn_v": "self_attn.v_proj.weight",
    "attn_output": "self_attn.o_proj.weight",
    "ffn_gate": "mlp.gate_proj.weight",
    "ffn_up": "mlp.up_proj.weight",
    "ffn_down": "mlp.down_proj.weight",
}


@dataclass(frozen=True)
class Whole:
    """An open `.eqf` file of a Llama, and its weights in F32."""

    file: File

    @cached_property
    def config(self) -> dict[str, Any]:
        config = dict(self.file.metadata["config"])
        if config["model_type"] != "llama" or config.get("attention_bias") or config.get("mlp_bias"):
            raise UnsupportedError(f"{self.file.path}: is no plain Llama: other models are not taken apart")
        return config

    @property
    def layers(self) -> range:
        return range(self.config["num_hidden_layers"])

    @property
    def head(self) -> str:
        """The matrix that makes logits."""
        return "output" if "output.weight" in self.file.tensors else "token_embd"

    def weights(self, name: str) -> F32:
        """[n] or [rows, columns] of `name.weight`."""
        info = self.file.tensors[f"{name}.weight"]
        data = self.file.data(info.name)
        return data.view(np.float32) if len(info.shape) == 1 else decode(data, *info.shape, info.type)

    def ids(self, text: str) -> list[int]:
        tokenizer = load_tokenizer({name: self.file.asset(name) for name in self.file.assets})
        return tokenizer.encode(text[: 16 * CHUNK * CHUNKS], add_special=False, parse_special=False)


def principal_axes(whole: Whole, ids: list[int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(energies, axes in columns) of the states that the norms of all layers read, as long as they are after those."""
    norms = {
        f"blk.{i}.{readers[0]}.weight": f"blk.{i}.{norm}" for i in whole.layers for norm, readers in READERS.items()
    }
    weights = {name: whole.weights(norm) for name, norm in norms.items()}
    size = whole.config["hidden_size"]
    total = np.zeros((size, size))

    def tapped(name: str, x: F32) -> None:
        # A channel whose weight is nearly zero says nothing of its state, and matters as little
        weight = weights[name]
        states = np.divide(x, weight, out=np.zeros_like(x), where=np.abs(weight) > 1e-6)
        total.__iadd__(states.T @ states)

    with Session(whole.file, context=CHUNK, taps=list(norms)) as session:
        for start in range(0, min(len(ids), CHUNK * CHUNKS), CHUNK):
            session.rewind(0)
            session.eval(ids[start : start + CHUNK], tapped=tapped)
    energies, axes = np.linalg.eigh(total)
    return energies[::-1], axes[:, ::-1]


def groups_of(config: Mapping[str, Any], layer: int) -> list[int]:
    """Which group of heads each one of the result is: all that there are, then so many again, others in each layer."""
    groups = config["num_key_value_heads"]
    columns = config["num_attention_heads"] // groups * config["head_dim"]
    added = next(n for n in range(COLUMNS) if (groups + n) * columns % COLUMNS == 0)
    return [*range(groups), *((layer + i) % groups for i in range(added))]


def sliced(whole: Whole, axes: F32) -> tuple[dict[str, Any], dict[str, F32]]:
    """(config.json, tensors by their names in a checkpoint), with the states turned to the columns of `axes`."""
    size, width = axes.shape
    config = {"head_dim": size // whole.config["num_attention_heads"], **whole.config}
    per_group = config["num_attention_heads"] // config["num_key_value_heads"]
    groups = len(groups_of(config, 0))
    # The mean square of fewer coordinates that have all the energy is larger, what a norm gives therefore smaller
    unit = np.full(width, np.sqrt(size / width), np.float32)
    found = {"model.embed_tokens.weight": whole.weights("token_embd") @ axes, "model.norm.weight": unit}
    found["lm_head.weight"] = whole.weights(whole.head) * whole.weights("output_norm") @ axes
    for i in whole.layers:
        own, theirs = f"blk.{i}.", f"model.layers.{i}."
        chosen = groups_of(config, i)
        shares = np.array([1 / chosen.count(group) for group in chosen], np.float32)

        def grouped(rows: F32, chosen: list[int] = chosen) -> F32:
            return rows.reshape(config["num_key_value_heads"], -1, rows.shape[1])[chosen].reshape(-1, rows.shape[1])

        found[f"{theirs}input_layernorm.weight"] = found[f"{theirs}post_attention_layernorm.weight"] = unit
        for norm, readers in READERS.items():
            weight = whole.weights(own + norm)
            for name in readers:
                turned = whole.weights(own + name) * weight @ axes
                found[theirs + SOURCES[name]] = grouped(turned) if norm == "attn_norm" else turned
        values = (
            grouped(whole.weights(f"{own}attn_output").T) * np.repeat(shares, per_group * config["head_dim"])[:, None]
        )
        found[theirs + SOURCES["attn_output"]] = (values @ axes).T
        found[theirs + SOURCES["ffn_down"]] = axes.T @ whole.weights(f"{own}ffn_down")
    heads = {"num_attention_heads": groups * per_group, "num_key_value_heads": groups}
    return {**config, **heads, "hidden_size": width, "tie_word_embeddings": False}, found


def write_sliced(file: File, text: str, width: int, out: Path) -> float:
    """The sliced checkpoint in the folder `out`; the part of the states' energy that is kept."""
    whole = Whole(file)
    energies, axes = principal_axes(whole, whole.ids(text))
    config, found = sliced(whole, np.ascontiguousarray(axes[:, :width], np.float32))
    order = [part.source for tensor in architecture(config, str(out)).tensors.values() for part in tensor.parts]
    weights = [(name, found[name].shape, [np.ascontiguousarray(found[name])]) for name in dict.fromkeys(order)]
    write_bf16(out, weights, config, {name: file.asset(name) for name in file.assets})
    return float(energies[:width].sum() / energies.sum())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a GGUF file")
    parser.add_argument("--width", type=int, required=True, help="of the states between layers")
    parser.add_argument("--text", type=Path, required=True, help="UTF-8, to see these states on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint, made if missing")
    options = parser.parse_args()
    try:
        with TemporaryDirectory() as folder:
            imported = Path(folder, "imported.eqf")
            import_gguf(options.source, imported)
            with open_file(imported) as file:
                kept = write_sliced(file, options.text.read_text(encoding="utf-8"), options.width, options.out)
    except (EdgeqError, OSError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {kept:.2%} of the states' energy is kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
