"""DeBERTa's second and third version: BERT whose attention sees relative positions in place of embeddings of positions
(arXiv:2006.03654, arXiv:2111.09543)."""

from dataclasses import replace
from functools import partial
from math import sqrt

from edgeq.models.bert import encoder_heads, position_table
from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions
from edgeq.models.disentangled_attention import DisentangledAttention
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, NormedSums
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import LayerNorm
from edgeq.models.tensors import Projected
from edgeq.ops import NO_ROPE

NAME, EPS = "deberta", 1e-7  # what checkpoints' names begin with; of norms
MOST_BUCKETS = 65_536


def compose(config: Config) -> Model:
    """Every matrix has a bias; all layers see the same embeddings of relative positions."""
    size = read_dimensions(config.usually(max_position_embeddings=512))
    n, m = size.hidden_size, size.intermediate_size
    _refuse_others(config, n)
    eps = config.number("layer_norm_eps", EPS)
    norm = partial(LayerNorm, width=n, eps=eps)
    heads = encoder_heads(config, config.integer("num_attention_heads"), n)
    attention = Attention(
        separate(n, heads, True, "attention.self.{}_proj", ("query", "key", "value")),
        output(n, heads, True, "attention.output.dense"),
        replace(heads, scale=1 / sqrt(3 * heads.head_dim)),  # scores are a sum of three
        NO_ROPE,
    )
    buckets, farthest = read_buckets(config, size.max_position_embeddings)
    normed = "layer_norm" in [part.strip() for part in str(config.get("norm_rel_ebd", "none")).lower().split("|")]
    within = f"{NAME}.encoder."
    given = Projected(f"{within}rel_embeddings.weight", 2 * buckets, "", f"{within}LayerNorm" if normed else "", eps)
    of_positions = "" if config.flag("share_att_key") else "pos_"
    keys, queries = (f"attention.self.{of_positions}{part}_proj" for part in ("key", "query"))
    mixer = DisentangledAttention(attention, given, keys, queries, farthest)
    mlp = plain(n, m, config.activation("hidden_act", "gelu"), "intermediate.dense", "output.dense", bias=True)
    norms = NormedSums(
        norm("attn_output_norm", "attention.output.LayerNorm"), norm("layer_output_norm", "output.LayerNorm")
    )
    types = config.integer("type_vocab_size") if config.get("type_vocab_size") else 0
    embedding = Embedding(
        Matrix("token_embd", f"{NAME}.embeddings.word_embeddings", size.vocab_size, n),
        positions=position_table(NAME, size) if config.flag("position_biased_input", True) else None,
        types=Matrix("token_types", f"{NAME}.embeddings.token_type_embeddings", types, n) if types else None,
        norm=norm("token_embd_norm", f"{NAME}.embeddings.LayerNorm"),
    )
    layers = [Layer(norms, mixer, mlp)] * size.num_hidden_layers
    return Model(
        "deberta-v2",
        size,
        attention,
        embedding,
        layers,
        None,
        prefixes=(f"{NAME}.", ""),
        layers_in=f"{within}layer.{{}}.",
    )


def read_buckets(config: Config, positions: int) -> tuple[int, int]:
    """See RelativeScores. CheckpointError, UnsupportedError for numbers with which no such model works."""
    farthest = positions if _none(config, "max_relative_positions") else config.integer("max_relative_positions")
    if _none(config, "position_buckets"):
        buckets, farthest = farthest, 0
    else:
        buckets = config.integer("position_buckets", most=MOST_BUCKETS)
        if buckets < 4 or farthest <= buckets // 2 + 1:
            raise config.malformed(f"position_buckets {buckets} cannot tell {farthest} positions apart")
    if buckets % 8 or buckets > MOST_BUCKETS:
        raise config.unsupported(f"{buckets} relative positions are not supported; a multiple of 8 is needed")
    return buckets, farthest


def _none(config: Config, key: str) -> bool:
    """Whether a number is not given; below 1 it is not."""
    value = config.get(key, -1)
    return value is None or (isinstance(value, int) and value < 1)


def _refuse_others(config: Config, n: int) -> None:
    """UnsupportedError for what other checkpoints of the kind have."""
    config.refuse(conv_kernel_size=0, embedding_size=n, attention_head_size=n // config.integer("num_attention_heads"))
    kinds = config.get("pos_att_type")
    found = kinds.lower().split("|") if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    if not config.flag("relative_attention") or sorted(str(kind).strip() for kind in found) != ["c2p", "p2c"]:
        what = f"relative_attention {shown(config.get('relative_attention'))} with pos_att_type {shown(kinds)}"
        raise config.unsupported(f"{what} is not supported; supported are true with c2p and p2c")
