"""StarCoder and SantaCoder: GPT-2 whose query heads share one key/value head (arXiv:2305.06161)."""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import checked
from edgeq.models.feed_forward import plain
from edgeq.models.gpt2 import read_gpt_dimensions
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, fused, fused_by_head
from edgeq.models.norms import LayerNorm
from edgeq.ops import NO_ROPE


def compose(config: Config) -> Model:
    """Without multi_query each head has a key and a value of its own, which stand beside its query."""
    config.refuse(scale_attn_weights=True, add_cross_attention=False)
    size = read_gpt_dimensions(config)
    n, count, one = size.hidden_size, config.integer("n_head"), config.flag("multi_query", True)
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_epsilon", 1e-5))
    heads = checked(config, count, 1 if one else count, n // count)
    qkv = (fused if one else fused_by_head)(n, heads, "attn.c_attn", bias=True)
    attention = Attention(qkv, Matrix("attn_output", "attn.c_proj", n, n, bias=True), heads, NO_ROPE)
    activation = config.activation("activation_function", "gelu_pytorch_tanh")
    mlp = plain(n, size.intermediate_size, activation, "mlp.c_fc", "mlp.c_proj", bias=True)
    norms = PreNorms(norm("attn_norm", "ln_1"), norm("ffn_norm", "ln_2"))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True), "transformer.wte")
    positions = Matrix("position_embd", "transformer.wpe", size.max_position_embeddings, n)
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return Model(
        "gpt_bigcode",
        size,
        attention,
        Embedding(embedding, positions=positions),
        layers,
        Head(norm("output_norm", "transformer.ln_f"), head),
        prefixes=("transformer.", ""),
        layers_in="transformer.h.{}.",
    )
