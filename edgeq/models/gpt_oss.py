"""gpt-oss: experts with biases and a clamped gate, attention with a sink per head, every other layer local
(arXiv:2508.10925)."""

from functools import partial
from typing import NamedTuple

from edgeq.models.composition import Model, decoder
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import MixtureOfExperts, read_experts
from edgeq.models.layers import Layer, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.rope_scaling import rope
from edgeq.models.tensors import Fused, Tensors
from edgeq.models.windows import by_layer

THETA = 150000.0


class GptOssExperts(NamedTuple):
    """The experts' matrices: rows of gate and up take turns, each has a bias; they are [inputs, outputs], those of
    MXFP4 [outputs, inputs]."""

    num_experts: int
    n: int
    m: int

    def tensors(self, t: Tensors) -> None:
        """The matrices, each with its bias."""
        n, m, count = self.n, self.m, self.num_experts
        for name, source, rows, columns, fused in (
            ("ffn_gate_exps", "gate_up_proj", m, n, Fused(2 * m, run=1, step=2)),
            ("ffn_up_exps", "gate_up_proj", m, n, Fused(2 * m, first=1, run=1, step=2)),
            ("ffn_down_exps", "down_proj", n, m, Fused(n)),
        ):
            t.stacked(name, f"mlp.experts.{source}", count, rows, columns, fused, transposed=True)
            t.rows_of_experts(name, f"mlp.experts.{source}_blocks", count, rows, columns, fused)
            t.expert_bias(name, f"mlp.experts.{source}_bias", count, rows, fused)


def compose(config: Config) -> Model:
    """The first, third, ... layer is local; the norm before the experts is named after the attention."""
    size = read_dimensions(config)
    n, m = size.hidden_size, size.intermediate_size
    norm = partial(RMSNorm, width=n, eps=config.number("rms_norm_eps", 1e-5))
    heads, bias = read_heads(config, n, head_dim=64), config.flag("attention_bias", True)
    windows = by_layer(config.usually(sliding_window=128), [i % 2 == 0 for i in range(size.num_hidden_layers)])
    attention = Attention(
        separate(n, heads, bias),
        output(n, heads, bias),
        heads,
        rope(config, heads.head_dim, theta=THETA),
        sinks="self_attn.sinks",
    )
    count, top_k = read_experts(config, "num_local_experts", 128, 4)
    experts = MixtureOfExperts(
        Matrix("ffn_gate_inp", "mlp.router", count, n, bias=True),
        [GptOssExperts(count, n, m)],
        count,
        top_k,
        normalized=True,
        alpha=config.number("swiglu_alpha", 1.702),
        limit=config.number("swiglu_limit", 7.0),
    )
    norms = PreNorms(norm("attn_norm", "input_layernorm"), norm("post_attention_norm", "post_attention_layernorm"))
    layers = [Layer(norms, attention.over(window), experts) for window in windows]
    return decoder(
        "gpt_oss",
        config,
        size,
        attention,
        layers,
        norm,
        settings={"rope_theta": THETA, "intermediate_size": m, **experts.settings("num_local_experts")},
    )
