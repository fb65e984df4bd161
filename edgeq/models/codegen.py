"""CodeGen: GPT-J whose checkpoints keep queries, values and keys in one tensor, in the four pieces that it was trained
in (arXiv:2203.13474)."""

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.gptj import rotated
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Projections
from edgeq.models.tensors import Fused
from edgeq.ops import Heads

PIECES = 4


def compose(config: Config) -> Model:
    """CodeGen 350M to 16B; CodeGen 2 1B to 16B."""
    n = config.integer("n_embd", most=1 << 28)
    if n % PIECES:
        raise config.malformed(f"n_embd is {n}, a multiple of {PIECES} is needed")
    return rotated("codegen", config, projections)


def projections(n: int, heads: Heads) -> Projections:
    """From `n` values: each piece has a part of the queries, then of the values, then of the keys."""
    one = n // PIECES
    q, v, k = (Fused(3 * n, first=i * one, run=one, step=3 * one) for i in range(3))
    source = "attn.qkv_proj"
    return (
        Matrix("attn_q", source, n, n, fused=q),
        Matrix("attn_k", source, n, n, fused=k),
        Matrix("attn_v", source, n, n, fused=v),
    )
