"""Granite 3's mixtures of experts: Granite with experts in every layer, whose checkpoints keep them in one tensor."""

from dataclasses import replace
from functools import partial

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import ExpertMatrix, MixtureOfExperts, read_experts, router
from edgeq.models.granite import MULTIPLIERS
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.tensors import Fused

MOE = "block_sparse_moe."


def compose(config: Config) -> Model:
    """What is added to the residual stream is scaled; the experts' weights are normalized over the chosen."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    heads = replace(read_heads(config, n), scale=config.number("attention_multiplier", 1.0))
    embedded, added, divisor = (config.number(key, 1.0) for key in MULTIPLIERS)
    bias = config.flag("attention_bias")
    attention = Attention(separate(n, heads, bias), output(n, heads, bias), heads, rope(config, heads.head_dim))
    count, top_k = read_experts(config, "num_local_experts", 8, 2)
    choose = router(n, count, f"{MOE}router.layer", instead=f"{MOE}router")
    experts = MixtureOfExperts(choose, expert_matrices(n, m, count), count, top_k, normalized=True, factor=added)
    norms = pre_norms(norm, mixed=added)
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"))
    layers = [Layer(norms, attention, experts)] * size.num_hidden_layers
    return Model(
        "granitemoe",
        size,
        attention,
        Embedding(embedding, factor=embedded),
        layers,
        Head(norm("output_norm", "model.norm"), head, factor=1.0 / divisor),
        settings={key: config.number(key, 1.0) for key in MULTIPLIERS} | experts.settings("num_local_experts"),
    )


def expert_matrices(n: int, m: int, count: int) -> tuple[ExpertMatrix, ...]:
    """The rows of each expert's gate and up follow one another; files and memory have other names for them."""
    both = (f"{MOE}input_linear.weight", f"{MOE}experts.gate_up_proj")
    last = (f"{MOE}output_linear.weight", f"{MOE}experts.down_proj")
    return (
        ExpertMatrix("ffn_gate_exps", count, m, n, Fused(2 * m), stacked=both),
        ExpertMatrix("ffn_up_exps", count, m, n, Fused(2 * m, first=m), stacked=both),
        ExpertMatrix("ffn_down_exps", count, n, m, Fused(n), stacked=last),
    )
