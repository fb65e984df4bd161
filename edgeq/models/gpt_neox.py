"""GPT-NeoX and Pythia: LayerNorm, fused q, k and v head by head, attention and MLP side by side (arXiv:2204.06745)."""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import checked, read_dimensions
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, Parallel, PreNorms
from edgeq.models.mixers import Attention, fused_by_head, output
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import rope
from edgeq.ops import Rope


def compose(config: Config) -> Model:
    """Every head has a key and a value of its own. In a parallel layer both norms read what it gets."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-5))
    count, bias = config.integer("num_attention_heads"), config.flag("attention_bias", True)
    heads = checked(config, count, count, n // count)
    attention = Attention(
        fused_by_head(n, heads, "attention.query_key_value", bias),
        output(n, heads, bias, "attention.dense"),
        heads,
        read_rope(config, heads.head_dim),
    )
    activation = config.activation("hidden_act", "gelu")
    mlp = plain(n, m, activation, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", bias=True)
    arrange = Parallel if config.flag("use_parallel_residual", True) else PreNorms
    norms = arrange(norm("attn_norm", "input_layernorm"), norm("ffn_norm", "post_attention_layernorm"))
    tied = config.flag("tie_word_embeddings")
    embedding, head = embedding_and_head(size, tied, "gpt_neox.embed_in", "embed_out")
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return Model(
        "gpt_neox",
        size,
        attention,
        Embedding(embedding),
        layers,
        Head(norm("output_norm", "gpt_neox.final_layer_norm"), head),
        prefixes=("gpt_neox.", ""),
        layers_in="gpt_neox.layers.{}.",
    )


def read_rope(config: Config, head_dim: int) -> Rope:
    """Under names of its own."""
    own = {"rope_theta": config.get("rotary_emb_base"), "partial_rotary_factor": config.get("rotary_pct")}
    known = {key: value for key, value in own.items() if value is not None}
    return rope(config.usually(**known), head_dim, partial=0.25)
