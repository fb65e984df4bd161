"""The grid that a block type's scales lay under a matrix: weights rounded to it in torch, to the bits that the file's
codes and scales decode to. Gradients pass straight through the rounding, to the scales as LSQ has them
(arXiv:1902.08153).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeq.blocks.fields import Fields
from edgeq.blocks.search_mins import MOST
from edgeq.blocks.search_symmetric import FACTOR_RANGE
from edgeq.blocks.table import GROUP, SUPER_BLOCK, BlockType

LARGEST_F16 = 65504.0
LEAST_SCALE = 1e-30  # below, its inverse would overflow; what it scales is zero
AS_THEY_ARE = ("f32", "row")  # scales that are not coded further
LEAST_EXPONENT, LARGEST_EXPONENT = 3, 254  # of scales that are powers of two


class Grid(nn.Module):
    """The scales of rows of one quantized block type, and mins where it has them.

    scale, offset  f32 [rows, scale groups]; a weight is scale * value + offset, the values being the type's. They are
                   rounded as the type codes them whenever they are used, so that they can be learned
    unit, unit_min f32 [rows, super-blocks] that scales and mins are multiples of; empty where they are none
    """

    def __init__(self, fields: Fields, bt: BlockType, learned: bool = False) -> None:
        """The grid of `fields`; `learned`: whether scales and offsets are to be trained too."""
        super().__init__()
        self.bt, self.columns = bt, fields.codes.shape[1]
        self.coded = fields.scales is not None
        self.unit, self.unit_min = (nn.Buffer(_f32(part if self.coded else None)) for part in (fields.d, fields.dmin))
        self.scale = nn.Parameter(self._scales(fields), requires_grad=learned)
        self.offset = nn.Parameter(self._offsets(fields), requires_grad=learned and bt.has_mins)
        values = torch.tensor(bt.values, dtype=torch.float32)
        levels, self._code = np.unique(values.numpy(), return_index=True)  # the first of codes that mean the same
        self.values = nn.Buffer(torch.from_numpy(levels), persistent=False)

    def _scales(self, fields: Fields) -> Tensor:
        if self.bt.scales == "e8m0":
            return torch.ldexp(torch.ones(fields.d.shape), torch.from_numpy(fields.d.astype(np.int32) - 128))
        if fields.scales is None:
            return _f32(fields.d)
        factors = _f32(fields.scales) - (32 if self.bt.scales == "s6" else 0)
        return self._per_group(self.unit) * factors

    def _offsets(self, fields: Fields) -> Tensor:
        if not self.bt.has_mins:
            return torch.empty(0)
        return -(self._per_group(self.unit_min) * _f32(fields.mins)) if self.coded else _f32(fields.dmin)

    def forward(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        """`weight` f32 [rows, columns] rounded; or some rows of it, int64 [n], as [n, columns]."""
        if rows is None:
            return _rounded(weight, self.scale, self.offset, self, None)
        offset = self.offset[rows] if self.bt.has_mins else self.offset
        return _rounded(weight[rows], self.scale[rows], offset, self, rows)

    def step(self) -> float:
        """How far apart neighbouring weights are, the root of the mean square over all groups."""
        spread = 1.0
        if self.bt.values:
            spread = float(self.values.max() - self.values.min()) / (len(self.values) - 1)
        return spread * float(self.scale.detach().square().mean().sqrt())

    def fields(self, weight: Tensor) -> Fields:
        """Codes and scales of `weight`: what its rounding decodes from. UnsupportedError is the caller's to raise for
        weights that are not finite, which have none."""
        with torch.no_grad():
            scale, offset = self.coded_scales(self.scale, self.offset)
            values = self.nearest(self._as_codes(weight, scale, offset)).reshape(weight.shape)
            if self.bt.values:
                codes = self._code[torch.searchsorted(self.values, values.contiguous()).cpu().numpy()]
            else:
                codes = (values + self.bt.zero_point).cpu().numpy()
            return Fields(codes.astype(np.uint8), **self._header(scale, offset))

    def _header(self, scale: Tensor, offset: Tensor) -> dict[str, Any]:
        """All but the codes, of scales and offsets as they are coded."""
        mins: dict[str, Any] = {}
        if not self.coded:
            if self.bt.scales == "e8m0":
                return {"d": (torch.frexp(scale)[1] + 127).cpu().numpy().astype(np.uint8)}
            if self.bt.has_mins:
                mins = {"dmin": offset.cpu().numpy().astype(np.float16)}
            return {
                "d": scale.cpu().numpy().astype(np.float32 if self.bt.scales in AS_THEY_ARE else np.float16),
                **mins,
            }
        factors = _multiples(scale, self._per_group(self.unit), *self._range()).cpu().numpy()
        factors = factors + 32 if self.bt.scales == "s6" else factors
        if self.bt.has_mins:
            multiples = _multiples(-offset, self._per_group(self.unit_min), *self._range())
            mins = {"dmin": self.unit_min.cpu().numpy().astype(np.float16)}
            mins["mins"] = multiples.cpu().numpy().astype(np.uint8)
        kind = np.int8 if self.bt.scales == "i8" else np.uint8
        return {"d": self.unit.cpu().numpy().astype(np.float16), "scales": factors.astype(kind), **mins}

    def _range(self) -> tuple[int, int]:
        return FACTOR_RANGE.get(self.bt.scales) or (0, MOST[self.bt.scales])

    def coded_scales(self, scale: Tensor, offset: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scales and offsets as the type codes them; `rows` says which rows they are of, where not of all."""
        if self.bt.scales in AS_THEY_ARE:
            return scale, offset
        if self.bt.scales == "e8m0":
            fraction, exponent = torch.frexp(scale.clamp_min(LEAST_SCALE))
            nearest = exponent - (fraction < 0.5**0.5).int() + 128
            power = nearest.clamp(LEAST_EXPONENT, LARGEST_EXPONENT) - 128
            return torch.where(scale < LEAST_SCALE, scale, torch.ldexp(torch.ones_like(scale), power)), offset
        if not self.coded:
            return _half(scale), _half(offset)
        low, high = self._range()
        unit = self._per_group(self.unit if rows is None else self.unit[rows])
        scale = unit * _multiples(scale, unit, low, high)
        if self.bt.has_mins:
            unit = self._per_group(self.unit_min if rows is None else self.unit_min[rows])
            offset = -(unit * _multiples(-offset, unit, low, high))
        return scale, offset

    def nearest(self, x: Tensor) -> Tensor:
        """The value that is nearest to each of `x`, weights in units of their scales."""
        if self.bt.values:
            return self.values[torch.bucketize(x, (self.values[1:] + self.values[:-1]) / 2)]
        zero = self.bt.zero_point
        return x.round().add_(zero).clamp_(0, self.bt.levels).sub_(zero)

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        if self.bt.values:
            return float(self.values[0]), float(self.values[-1])
        return -self.bt.zero_point, self.bt.levels - self.bt.zero_point

    def _as_codes(self, weight: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """Weights in units of their scales, [rows, units of up to 32 columns, columns of one]."""
        inverse = torch.where(scale.abs() < LEAST_SCALE, 0.0, 1 / scale)
        x = self.split(weight)
        if self.bt.has_mins:
            x = x - self.spread(offset)
        return x * self.spread(inverse)

    @property
    def unit_columns(self) -> int:
        return min(self.scale_columns, GROUP)

    @property
    def scale_columns(self) -> int:
        """How many columns of a row share a scale."""
        return self.columns if self.bt.per_row else self.bt.scale_group

    def split(self, weight: Tensor) -> Tensor:
        """[rows, columns] as [rows, units, columns of a unit]."""
        return weight.reshape(weight.shape[0], -1, self.unit_columns)

    def spread(self, groups: Tensor) -> Tensor:
        """[rows, scale groups] as [rows, units, 1]."""
        times = self.scale_columns // self.unit_columns
        wide = groups if times == 1 else groups.repeat_interleave(times, 1)
        return wide[:, : self.columns // self.unit_columns, None]

    def gathered(self, units: Tensor) -> Tensor:
        """The sums [rows, scale groups] of what is of each unit, [rows, units]."""
        times = self.scale_columns // self.unit_columns
        if times == 1:
            return units
        return nn.functional.pad(units, (0, -units.shape[1] % times)).reshape(len(units), -1, times).sum(2)

    def _per_group(self, blocks: Tensor) -> Tensor:
        """[rows, super-blocks] as [rows, scale groups]."""
        return blocks.repeat_interleave(SUPER_BLOCK // self.bt.scale_group, 1)[:, : self.columns // self.bt.scale_group]


class _Rounded(torch.autograd.Function):
    """Rounding, and what passes through it: all of a weight's gradient, but where a weight beyond the last value would
    go further; of a scale's what it changes with the codes fixed, less what codes give back."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, offset: Tensor, grid: Grid, rows: Tensor | None) -> Tensor:
        ctx.grid, ctx.rows = grid, rows
        ctx.save_for_backward(weight, scale, offset)
        scale, offset = grid.coded_scales(scale, offset, rows)
        found = grid.nearest(grid._as_codes(weight, scale, offset)).mul_(grid.spread(scale))
        return (found.add_(grid.spread(offset)) if grid.bt.has_mins else found).reshape(weight.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grid, (weight, scale, offset) = ctx.grid, ctx.saved_tensors
        scale, offset = grid.coded_scales(scale, offset, ctx.rows)
        gradient, x = grid.split(gradients[0]), grid._as_codes(weight, scale, offset)
        beyond = x - x.clamp(*grid.ends)
        wanted: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            further = beyond * gradient * grid.spread(scale.sign()) < 0
            wanted[0] = gradient.masked_fill(further, 0).reshape(weight.shape)
        if ctx.needs_input_grad[1]:
            change = grid.nearest(x) - torch.where(beyond == 0, x, 0)
            wanted[1] = grid.gathered((gradient * change).sum(2))
        if ctx.needs_input_grad[2]:
            wanted[2] = grid.gathered((gradient * (beyond != 0)).sum(2))
        return *wanted, None, None


def _rounded(weight: Tensor, scale: Tensor, offset: Tensor, grid: Grid, rows: Tensor | None) -> Tensor:
    found: Tensor = _Rounded.apply(weight, scale, offset, grid, rows)
    return found


def _multiples(x: Tensor, unit: Tensor, low: int, high: int) -> Tensor:
    """The factors, whole numbers, of `unit` that are nearest to `x`; zero where there is no unit."""
    return torch.where(unit == 0, 0.0, x / unit).round_().clamp_(low, high).add_(0)


def _half(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST_F16, LARGEST_F16).half().float()


def _f32(part: Any) -> Tensor:
    return torch.empty(0) if part is None else torch.from_numpy(np.asarray(part).astype(np.float32))
