"""GPT-2: learned positions, LayerNorm, an MLP without a gate; its checkpoints keep matrices as [inputs, outputs]."""

from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import MOST_LAYERS, Dimensions, checked
from edgeq.models.feed_forward import plain
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, Projections, fused
from edgeq.models.norms import LayerNorm
from edgeq.ops import NO_ROPE, Heads

# What the other architectures call it -> what GPT-2 calls it
NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}


def compose(config: Config) -> Model:
    """Every matrix has a bias; positions are embedded like tokens."""
    config.refuse(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    size, count = read_gpt_dimensions(config), config.integer("n_head")
    heads = checked(config, count, count, size.hidden_size // count)
    qkv = fused(size.hidden_size, heads, "attn.c_attn", bias=True, transposed=True)
    return decoder("gpt2", config, size, heads, qkv, "gelu_new", transposed=True)


def decoder(
    name: str, config: Config, size: Dimensions, heads: Heads, qkv: Projections, activation: str, transposed: bool
) -> Model:
    """What GPT-2 and its kin are but for their attention's heads; `activation` where the configuration names none."""
    n = size.hidden_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_epsilon", 1e-5))
    output = Matrix("attn_output", "attn.c_proj", n, n, bias=True, transposed=transposed)
    attention = Attention(qkv, output, heads, NO_ROPE)
    kind = config.activation("activation_function", activation)
    mlp = plain(n, size.intermediate_size, kind, "mlp.c_fc", "mlp.c_proj", bias=True, transposed=transposed)
    norms = PreNorms(norm("attn_norm", "ln_1"), norm("ffn_norm", "ln_2"))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings", True), "transformer.wte")
    positions = Matrix("position_embd", "transformer.wpe", size.max_position_embeddings, n)
    layers = [Layer(norms, attention, mlp)] * size.num_hidden_layers
    return Model(
        name,
        size,
        attention,
        Embedding(embedding, positions=positions),
        layers,
        Head(norm("output_norm", "transformer.ln_f"), head),
        prefixes=("transformer.", ""),
        layers_in="transformer.h.{}.",
    )


def read_gpt_dimensions(config: Config) -> Dimensions:
    """Under the names that GPT-2 and its kin have for them."""
    n = config.integer("n_embd", most=1 << 28)
    return Dimensions(
        hidden_size=n,
        intermediate_size=config.integer("n_inner", 4 * n),
        num_hidden_layers=config.integer("n_layer", most=MOST_LAYERS),
        vocab_size=config.integer("vocab_size"),
        max_position_embeddings=config.integer("n_positions", 2048),
    )
