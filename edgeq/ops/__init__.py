"""The operations, one file each, and the table of them: the vocabulary in which a model describes its forward pass.

A row here is how a model says it. What an operation is made of (arguments, shape, memory, steps, kernel, twin) stands
in its file.
"""

from edgeq.graph.heads import Heads
from edgeq.graph.op import SAID, Op, Recorder, Variants, says
from edgeq.graph.value import Value
from edgeq.ops.activation import Activation
from edgeq.ops.attention import Attention
from edgeq.ops.causal_conv import CausalConv
from edgeq.ops.channel_delta import ChannelDelta
from edgeq.ops.copy_rows import Outputs
from edgeq.ops.delta_net import DeltaNet
from edgeq.ops.elementwise import (
    Add,
    AddRow,
    AddVector,
    Clamp,
    Clip,
    MulRow,
    Scale,
    ScaleBy,
    SigmoidGate,
    SigmoidMul,
    Softcap,
)
from edgeq.ops.embedding import Embedding
from edgeq.ops.experts import Experts, MixtureOfExperts
from edgeq.ops.gated_norm import GatedNorm
from edgeq.ops.gated_recurrence import GatedRecurrence
from edgeq.ops.gaussian_top import GaussianTop
from edgeq.ops.given_rows import GivenRows
from edgeq.ops.grid_rope import RotateInGrid
from edgeq.ops.head_gate import HeadGate
from edgeq.ops.head_layer_norm import HeadLayerNorm
from edgeq.ops.head_linear import HeadLinear
from edgeq.ops.head_norm import HeadNorm
from edgeq.ops.input_rows import InputRows
from edgeq.ops.join import Join
from edgeq.ops.latents import Latents
from edgeq.ops.layer_norm import LayerNorm
from edgeq.ops.lerp import Lerp
from edgeq.ops.matmul import Linear
from edgeq.ops.norm import RMSNorm
from edgeq.ops.pack import Pack
from edgeq.ops.pack_tokens import PackTokens
from edgeq.ops.positions import Positions
from edgeq.ops.previous import Previous
from edgeq.ops.relative_positions import RelativeScores
from edgeq.ops.rescale import Rescale
from edgeq.ops.rope import NO_ROPE, Rope, Rotate
from edgeq.ops.selective_scan import SelectiveScan
from edgeq.ops.short_conv import ShortConv
from edgeq.ops.silu_mul import SiluMul
from edgeq.ops.state_space import StateSpace
from edgeq.ops.token_types import TokenTypes
from edgeq.ops.weighed_sum import WeighedSum
from edgeq.ops.wkv import Vectors, Wkv

__all__ = ["NO_ROPE", "Experts", "Graph", "Heads", "RelativeScores", "Rope", "Value", "Vectors", "kernels"]


class Graph(Recorder):
    """What a model may say. Weights are named as in the file."""

    embedding = says(Embedding)
    rows = says(InputRows)
    given_rows = says(GivenRows)
    add_positions = says(Positions)
    add_row = says(AddRow)
    add_vector = says(AddVector)
    add_types = says(TokenTypes)
    rms_norm = says(RMSNorm)
    layer_norm = says(LayerNorm)
    head_norm = says(HeadNorm)
    head_layer_norm = says(HeadLayerNorm)
    linear = says(Linear)
    head_linear = says(HeadLinear)
    rotate = says(Rotate)
    rotate_in_grid = says(RotateInGrid)
    attend = says(Attention)
    latents = says(Latents)
    short_conv = says(ShortConv)
    causal_conv = says(CausalConv)
    delta_net = says(DeltaNet)
    channel_delta = says(ChannelDelta)
    state_space = says(StateSpace)
    selective_scan = says(SelectiveScan)
    previous = says(Previous)
    lerp = says(Lerp)
    wkv = says(Wkv)
    gated_recurrence = says(GatedRecurrence)
    gated_norm = says(GatedNorm)
    silu_mul = says(SiluMul)
    activation = says(Activation)
    experts = says(MixtureOfExperts)
    sigmoid_gate = says(SigmoidGate)
    sigmoid_mul = says(SigmoidMul)
    head_gate = says(HeadGate)
    join = says(Join)
    scale = says(Scale)
    scale_by = says(ScaleBy)
    add = says(Add)
    softcap = says(Softcap)
    mul_row = says(MulRow)
    clip = says(Clip)
    clamp = says(Clamp)
    gaussian_top = says(GaussianTop)
    rescale = says(Rescale)
    weighed_sum = says(WeighedSum)
    outputs = says(Outputs)

    def attention(self, q: Value, k: Value, v: Value, heads: Heads, rope: Rope, layer: int) -> Value:
        """Rotate q and k, append k and v to the layer's KV cache, softmax(scale q k^T) v."""
        return self.attend(self.rotate(q, k, v, heads, rope, layer), heads, layer)


def kernels() -> Variants:
    """The variants of every family of kernels that operations ask for."""
    ops: list[type[Op]] = [*SAID, Pack, PackTokens]
    return {family: variants for op in ops for family, variants in op.kernels.items()}
