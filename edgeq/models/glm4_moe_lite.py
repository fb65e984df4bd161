"""GLM 4.7 Flash: GLM 4.5's experts with latent attention."""

from functools import partial

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.feed_forward import gated
from edgeq.models.latent_attention import read_latent_attention
from edgeq.models.layers import Layer, pre_norms
from edgeq.models.norms import RMSNorm
from edgeq.models.sigmoid_mixture import read_mixture

USUAL = {"q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256}


def compose(config: Config) -> Model:
    """`mlp_layer_types` says which layers have experts: all but the first, if it says nothing. Layers that guess
    further tokens stay unused."""
    size = read_dimensions(config)
    n, layers = size.hidden_size, size.num_hidden_layers
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    usual = config.usually(rope_interleave=True, **USUAL)
    attention = read_latent_attention(usual, n, usual.flag("rope_interleave"))
    mlp, experts = gated(n, size.intermediate_size, "silu"), read_mixture(config, n, factor=1.8, usual=64)
    given = config.get("mlp_layer_types") or ["dense", *["sparse"] * (layers - 1)]
    kinds = config.layer_types(layers, ("dense", "sparse"), given)
    dense = kinds.index("sparse") if "sparse" in kinds else layers
    first = {"first_k_dense_replace": dense} if "dense" not in kinds[dense:] else {}
    stack = [Layer(pre_norms(norm), attention, mlp if kind == "dense" else experts) for kind in kinds]
    return decoder("glm4_moe_lite", config, size, attention, stack, norm, settings=first)
