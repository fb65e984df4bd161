"""Mamba's layers (arXiv:2312.00752): a selective scan; its steps, and what it takes up and gives, follow from what the
convolution gives."""

from typing import NamedTuple

from edgeq.models.config import Config
from edgeq.models.matrix import Matrix, layer_name
from edgeq.models.norms import Norm
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Graph, Value


class ScanShape(NamedTuple):
    """`channels` with a state of `size` values each, whose steps are made of `rank` values; a convolution of `taps`
    positions."""

    channels: int
    size: int
    rank: int
    taps: int


class Mamba(NamedTuple):
    """Of `n` values of the residual stream.

    source: what the checkpoint's names begin with
    bias, conv_bias: whether the projections into the layer and out of it, and the convolution, have one
    norms: of what steps are made of, of what is taken up and of what is read, if there are any
    """

    n: int
    shape: ScanShape
    source: str
    bias: bool
    conv_bias: bool
    norms: tuple[Norm, Norm, Norm] | None = None

    @property
    def into(self) -> tuple[Matrix, Matrix]:
        """To what the convolution reads, and to the gate: one tensor in the checkpoint."""
        count, source = self.shape.channels, f"{self.source}.in_proj"
        return (
            Matrix("ssm_inner", source, count, self.n, self.bias, Fused(2 * count)),
            Matrix("ssm_gate", source, count, self.n, self.bias, Fused(2 * count, first=count)),
        )

    @property
    def selected(self) -> tuple[Matrix, Matrix, Matrix]:
        """To what steps are made of, to what is taken up and what is read: one tensor in the checkpoint."""
        (channels, size, rank, _), source = self.shape, f"{self.source}.x_proj"
        whole = rank + 2 * size
        return (
            Matrix("ssm_rank", source, rank, channels, fused=Fused(whole)),
            Matrix("ssm_b", source, size, channels, fused=Fused(whole, first=rank)),
            Matrix("ssm_c", source, size, channels, fused=Fused(whole, first=rank + size)),
        )

    @property
    def steps(self) -> Matrix:
        """To the step of each channel."""
        return Matrix("ssm_dt", f"{self.source}.dt_proj", self.shape.channels, self.shape.rank, bias=True)

    @property
    def output(self) -> Matrix:
        """Back into the residual stream."""
        return Matrix("ssm_out", f"{self.source}.out_proj", self.n, self.shape.channels, self.bias)

    def tensors(self, t: Tensors) -> None:
        """The projections, the convolution, decays, the norms."""
        channels, size, _, taps = self.shape
        for matrix in self.into:
            matrix.tensors(t)
        t.depthwise("ssm_conv1d", f"{self.source}.conv1d", channels, taps, self.conv_bias)
        for part in (*self.selected, *(self.norms or ()), self.steps):
            part.tensors(t)
        t.rate_matrix("ssm_a.weight", f"{self.source}.A_log", channels, size)
        t.vector("ssm_d.weight", f"{self.source}.D", channels)
        self.output.tensors(t)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at = layer_name(i)
        x, gate = (matrix.graph(g, h, at) for matrix in self.into)
        conv = f"{at}ssm_conv1d"
        x = g.causal_conv(x, f"{conv}.weight", f"{conv}.bias" if self.conv_bias else None, layer=i)
        step, b, c = (matrix.graph(g, x, at) for matrix in self.selected)
        if self.norms:
            step, b, c = (norm.graph(g, value, at) for norm, value in zip(self.norms, (step, b, c), strict=True))
        step = self.steps.graph(g, step, at)
        x = g.selective_scan(x, step, b, c, f"{at}ssm_a.weight", f"{at}ssm_d.weight", layer=i)
        return self.output.graph(g, g.silu_mul(gate, x), at, add_to)


def read_scan(config: Config, n: int, size: str, taps: str, rank: str, expand: str) -> ScanShape:
    """The shape, which a configuration says under these keys. UnsupportedError for one that is not computed."""
    config.refuse(hidden_act="silu")  # of the convolution: gates are SiLU's whatever it says
    given = config.get(rank, "auto")
    shape = ScanShape(
        config.integer(expand, 2, most=1024) * n,
        config.integer(size, 16, most=65_536),
        -(-n // 16) if given in ("auto", None) else config.integer(rank),
        config.integer(taps, 4, most=64),
    )
    if shape.channels % 16:
        raise config.unsupported(f"a Mamba layer has {shape.channels} channels: a multiple of 16 is needed")
    if shape.taps < 2:
        raise config.unsupported("the convolution has 1 position, at least 2 are needed")
    return shape
