"""Gemma 4 that sees: an encoder of patches in a grid, whose heads are rotated by columns and rows; what goes into its
matrices, and what comes out, may be held within bounds. The means of neighbouring states are normed and projected."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import NamedTuple

from edgeq.models.composition import Model
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import MOST_LAYERS, Dimensions, read_heads
from edgeq.models.feed_forward import GatedMLP
from edgeq.models.image_tower import CHANNELS, MOST_SIDE, Images, projector, vision_config
from edgeq.models.layers import BothNorms, Layer
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, head_norms, key_width, query_width
from edgeq.models.norms import PlainHeadNorm, RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.rows_in import PatchesIn, RowsIn
from edgeq.models.tensors import Tensors
from edgeq.models.wrapped import text_config
from edgeq.ops import NO_ROPE, Graph, Rope, Value
from edgeq.vision.proportional import IMAGE, ROWS, read_proportional

AT = "model.vision_tower."
BIAS, SCALE = "std_bias", "std_scale"
USUAL = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
    "rms_norm_eps": 1e-6,
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "position_embedding_size": 10240,
}


class Pooled(NamedTuple):
    """Means of states times the root of their `width`, less what is learned and times it if they are `standardized`,
    normed."""

    width: int
    eps: float
    standardized: bool

    def tensors(self, t: Tensors) -> None:
        """What is learned."""
        if self.standardized:
            t.vector(BIAS, f"{AT}{BIAS}", self.width)
            t.vector(SCALE, f"{AT}{SCALE}", self.width)

    def graph(self, g: Graph, x: Value) -> Value:
        """Of x."""
        x = g.scale(x, sqrt(self.width))
        if self.standardized:
            x = g.mul_row(g.add_vector(x, BIAS, -1.0), SCALE)
        return g.rms_norm(x, None, self.eps)


def read_images(config: Config, width: int) -> Images:
    """As `config` says, whose text model has rows of `width` values. CheckpointError for sizes that do not fit
    together, UnsupportedError for what is not computed."""
    own = vision_config(config).usually(**USUAL)
    own.refuse(model_type="gemma4_vision")
    _check_padding(config)
    patch, joined = own.integer("patch_size", most=MOST_SIDE), own.integer("pooling_kernel_size", most=MOST_SIDE)
    n, rows, eps = own.integer("hidden_size"), _rows(config), own.number("rms_norm_eps")
    places, most = own.integer("position_embedding_size"), rows * joined
    if places < most:
        raise config.unsupported(f"images may be {most} patches wide, there are embeddings of {places} columns")
    first = Matrix("patch_embd", f"{AT}patch_embedder.input_proj", n, CHANNELS * patch * patch)
    table = PatchesIn(first, f"{AT}patch_embedder.position_embedding_table", (2, places, n), most, CHANNELS)
    last = Matrix("input_projection", "model.embed_vision.embedding_projection", width, n)
    before = Pooled(n, eps, own.flag("standardize"))
    return Images(
        _tower(own, n, rows * joined * joined, eps, table),
        projector(RowsIn(last, before=before), rows),
        patch,
        joined,
        rows,
        mean=True,
        whole=whole_images(config, True) > 0,
        token=config.integer("image_token_id", 258880),
        reserved=(IMAGE,),
        preparation=partial(read_proportional, patch=patch, joined=joined, rows=rows),
    )


def whole_images(config: Config, local: bool) -> int:
    """In the larger models rows of an image see one another, in layers with a window."""
    return _rows(config) if local and text_config(config).get("use_bidirectional_attention") == "vision" else 0


def _rows(config: Config) -> int:
    """Of an image, at most."""
    return config.integer("vision_soft_tokens_per_image", 280, most=ROWS[-1])


def _check_padding(config: Config) -> None:
    """For the second embedding of the text's layers an image's rows are padding, whose id is 0 for every given row."""
    text = text_config(config)
    if text.get("hidden_size_per_layer_input", 256) and (padding := text.get("pad_token_id", 0)) != 0:
        raise config.unsupported(f"images: pad_token_id {shown(padding)} is not supported")


def _tower(own: Config, n: int, patches: int, eps: float, first: PatchesIn) -> Model:
    """The encoder."""
    heads = replace(read_heads(own, n), causal=False, scale=1.0)
    if heads.head_dim % 4:
        raise own.malformed(f"head_dim is {heads.head_dim}, two halves are rotated: needed is a multiple of 4")
    m, layers = own.integer("intermediate_size"), own.integer("num_hidden_layers", most=MOST_LAYERS)
    matrix, norm = partial(_matrix, own.flag("use_clipped_linears")), partial(RMSNorm, width=n, eps=eps)
    q, kv = query_width(heads), key_width(heads)
    attention = Attention(
        (
            matrix("attn_q", "self_attn.q_proj", q, n),
            matrix("attn_k", "self_attn.k_proj", kv, n),
            matrix("attn_v", "self_attn.v_proj", kv, n),
        ),
        matrix("attn_out", "self_attn.o_proj", n, q),
        heads,
        NO_ROPE,
        head_norms(heads, eps),
        value_norm=PlainHeadNorm(heads.head_dim, eps),
        grid=_rope(own, heads.head_dim // 2),
    )
    mlp = GatedMLP(
        matrix("ffn_gate", "mlp.gate_proj", m, n),
        matrix("ffn_up", "mlp.up_proj", m, n),
        matrix("ffn_down", "mlp.down_proj", n, m),
        own.activation("hidden_activation", "gelu_pytorch_tanh"),
    )
    norms = BothNorms(
        norm("ln1", "input_layernorm"),
        norm("attn_post_norm", "post_attention_layernorm"),
        norm("ln2", "pre_feedforward_layernorm"),
        norm("ffn_post_norm", "post_feedforward_layernorm"),
    )
    size, stack = Dimensions(n, m, layers, 1, patches), [Layer(norms, attention, mlp)] * layers
    return Model("image tower", size, attention, first, stack, None, layers_in=f"{AT}encoder.layers.{{}}.", bare=True)


def _matrix(bounded: bool, name: str, source: str, rows: int, columns: int) -> Matrix:
    return Matrix(name, f"{source}.linear", rows, columns, bounded=source if bounded else "")


def _rope(own: Config, rotated: int) -> Rope:
    """Of half a head, for columns as for rows."""
    given = own.get("rope_parameters") or {}
    if not isinstance(given, Mapping) or given.get("rope_type", "axial") not in ("axial", "default"):
        raise own.unsupported(f"images: rope_parameters {shown(given)} are not supported")
    return rope(own.changed(rope_parameters={**given, "rope_type": "default"}), rotated, theta=100.0)
