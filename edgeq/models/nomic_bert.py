"""Nomic BERT: BERT with rotary embedding and gated MLPs, whose matrices have no biases (arXiv:2402.01613)."""

from functools import partial

from edgeq.models.bert import encoder_heads
from edgeq.models.composition import Embedding, Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import GatedMLP
from edgeq.models.layers import Layer, NormedSums
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, fused, output
from edgeq.models.norms import LayerNorm
from edgeq.models.rope_scaling import whole_rope

THETA = 1000.0
# What the checkpoints of its makers call what transformers calls otherwise: transformers' name -> theirs
NAMES = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
}


def compose(config: Config) -> Model:
    """Norms come after each sum."""
    config = config.usually(**{ours: config.get(theirs) for ours, theirs in NAMES.items() if theirs in config})
    config.refuse(activation_function="swiglu", prenorm=False, causal=False, use_rms_norm=False, parallel_block=False)
    config.refuse(qkv_proj_bias=False, mlp_fc1_bias=False, mlp_fc2_bias=False, moe_every_n_layers=0)
    config.refuse(rotary_emb_fraction=1.0, rotary_emb_interleaved=False, rotary_emb_scale_base=None)
    config.refuse(rotary_scaling_factor=None)  # by which texts longer than those of the training are rotated
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(LayerNorm, width=n, eps=config.number("layer_norm_eps", 1e-12))
    heads = encoder_heads(config, config.integer("num_attention_heads"), n)
    config.refuse(head_dim=heads.head_dim)
    attention = Attention(
        fused(n, heads, "attn.Wqkv"),
        output(n, heads, source="attn.out_proj"),
        heads,
        whole_rope(config, heads.head_dim, theta=THETA),
    )
    mlp = GatedMLP(
        Matrix("ffn_gate", "mlp.fc12", m, n),
        Matrix("ffn_up", "mlp.fc11", m, n),
        Matrix("ffn_down", "mlp.fc2", n, m),
        config.activation("hidden_act", "silu"),
    )
    norms = NormedSums(norm("attn_output_norm", "norm1"), norm("layer_output_norm", "norm2"))
    embedding = Embedding(
        Matrix("token_embd", "embeddings.word_embeddings", size.vocab_size, n),
        types=Matrix("token_types", "embeddings.token_type_embeddings", config.integer("type_vocab_size", 2), n),
        norm=norm("token_embd_norm", "emb_ln"),
    )
    return Model(
        "nomic_bert",
        size,
        attention,
        embedding,
        [Layer(norms, attention, mlp)] * size.num_hidden_layers,
        None,
        prefixes=("", "nomic_bert."),
        layers_in="encoder.layers.{}.",
        settings={"rope_theta": THETA},
    )
