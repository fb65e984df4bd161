"""Granite 3's mixtures of experts: Granite with experts in every layer, whose checkpoints keep them in one tensor."""

from functools import partial

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import ExpertMatrix, GatedMLP, MixtureOfExperts, fused_gated, read_experts, router
from edgeq.models.granite import granite, read_added, read_attention
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.tensors import Fused

Names = tuple[str, str, str]  # of the router, of gate and up, of down
IN_FILES: Names = ("router.layer", "input_linear.weight", "output_linear.weight")
IN_MEMORY: Names = ("router", "experts.gate_up_proj", "experts.down_proj")


def compose(config: Config) -> Model:
    """What is added to the residual stream is scaled; the experts' weights are normalized over the chosen."""
    size = read_dimensions(config)
    n, added = size.hidden_size, read_added(config)
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-6))
    attention = read_attention(config, n)
    experts = read_mixture(config, n, size.intermediate_size, added)
    layers = [Layer(pre_norms(norm, mixed=added), attention, experts)] * size.num_hidden_layers
    return granite("granitemoe", config, size, attention, layers, norm, settings=experts.settings("num_local_experts"))


def read_mixture(
    config: Config, n: int, m: int, added: float, names: tuple[Names, Names] = (IN_FILES, IN_MEMORY)
) -> MixtureOfExperts:
    """The experts of a layer, `m` values in between, whose result is multiplied by `added`; `names` are those that a
    checkpoint has for them, and those that it may have instead."""
    count, top_k = read_experts(config, "num_local_experts", 8, 2)
    (choose, *usual), (other, *others) = ([f"block_sparse_moe.{name}" for name in each] for each in names)
    matrices = expert_matrices(n, m, count, *zip(usual, others, strict=True))
    return MixtureOfExperts(router(n, count, choose, other), matrices, count, top_k, normalized=True, factor=added)


def shared_mlp(config: Config, n: int, suffix: str = "") -> GatedMLP:
    """The MLP for every token; in the file its names end in `suffix`."""
    m = config.integer("shared_intermediate_size", 1024)
    activation = config.activation("hidden_act", "silu")
    return fused_gated(n, m, activation, "shared_mlp.input_linear", "shared_mlp.output_linear", suffix)


def expert_matrices(
    n: int, m: int, count: int, both: tuple[str, ...], last: tuple[str, ...]
) -> tuple[ExpertMatrix, ...]:
    """The rows of each expert's gate and up follow one another in a tensor named `both`; `last` is that of down."""
    return (
        ExpertMatrix("ffn_gate_exps", count, m, n, Fused(2 * m), stacked=both),
        ExpertMatrix("ffn_up_exps", count, m, n, Fused(2 * m, first=m), stacked=both),
        ExpertMatrix("ffn_down_exps", count, n, m, Fused(n), stacked=last),
    )
