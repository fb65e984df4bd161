"""Where GGUF puts tensors: under which names, and which of ours are one there."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.models.gguf_architecture import GgufArchitecture
from edgeq.models.gguf_gemma3n import STACKED

# Tensors that GGUF may hold as one, ours in the order of their rows
FUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("attn_qkv", ("attn_q", "attn_k", "attn_v")),
    ("ffn_up", ("ffn_gate", "ffn_up")),
    ("ffn_gate_up_exps", ("ffn_gate_exps", "ffn_up_exps")),
    ("ssm_in", ("ssm_gate", "ssm_x", "ssm_step")),  # Mamba-2's
    ("ssm_in", ("ssm_inner", "ssm_gate")),
    ("ssm_x", ("ssm_rank", "ssm_b", "ssm_c")),
    *STACKED.items(),
)

# Keys and values of latent attention's heads: GGUF may weave both into one tensor, where those of keys are turned
KV_B, OF_KEYS, OF_VALUES = "attn_kv_b", "attn_k_b", "attn_v_b"


@dataclass(frozen=True)
class Place:
    """A tensor of GGUF: its name, those of ours that its rows are, one after the other, and whether it has another
    shape: a vector there that is a matrix of one row here, biases of experts, a matrix there, a vector here, matrices
    of heads, one here, or a matrix of each part; or whether rows of the parts follow one another piece by piece. The
    first axes there of a vector here are `folded`, if that is not None."""

    name: str
    parts: tuple[str, ...]
    flat: bool = False
    woven: bool = False
    folded: tuple[int, ...] | None = None

    def shape_there(self, part: str, shape: tuple[int, ...], heads: int) -> tuple[int, ...]:
        """The shape that a part of ours has there."""
        return (heads * shape[1], shape[0] // heads) if turns(self.name, part) else shape


def turns(whole: str, part: str) -> bool:
    """Whether the rows of a part are columns in the tensor `whole`, head by head."""
    return split(whole)[1] == KV_B and split(part)[1] == OF_KEYS


def places(names: Sequence[str], entry: GgufArchitecture, fused: Sequence[str]) -> list[Place]:
    """The tensors of GGUF that our tensors `names` become, in their order; those named in `fused` (of FUSED)
    hold several of ours."""
    found: list[Place] = []
    done: set[str] = set()
    every = set(names)
    for name in names:
        if name in done:
            continue
        prefix, stem, suffix = split(name)
        parts: tuple[str, ...] = (name,)
        theirs = stem
        for whole, ours in FUSED:
            group = tuple(f"{prefix}{part}{suffix}" for part in ours)
            biases = stem.endswith("_exps") and suffix == ".bias"  # a row per expert: they do not follow one another
            if whole in fused and stem in ours and set(group) <= every and not biases:
                parts, theirs = group, whole
        woven = False
        for whole, ours in entry.woven.items():
            group = tuple(f"{prefix}{part}{suffix}" for part in ours)
            if stem in ours and set(group) <= set(names):
                parts, theirs, woven = group, whole, True
        # Falcon calls its only norm as we do, and renames both where there are two
        if stem in entry.renamed and (stem != "attn_norm" or f"{prefix}ffn_norm{suffix}" in every):
            theirs = entry.renamed[stem]
        done |= set(parts)
        folded = entry.folded.get(stem)
        flat = stem in entry.vectors or folded is not None or (stem.endswith("_exps") and suffix == ".bias")
        found.append(Place(f"{prefix}{theirs}{'' if stem in entry.bare else suffix}", parts, flat, woven, folded))
    return found


def split(name: str) -> tuple[str, str, str]:
    """`blk.0.attn_q.weight` as ("blk.0.", "attn_q", ".weight")."""
    stem, dot, suffix = name.rpartition(".")
    prefix = ".".join(stem.split(".")[:2]) + "." if stem.startswith("blk.") else ""
    return prefix, stem[len(prefix) :], dot + suffix
