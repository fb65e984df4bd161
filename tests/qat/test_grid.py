"""Rounding in torch against the NumPy reference: the same bits, and gradients as they are meant."""

import numpy as np
import pytest

from edgeq.blocks.fields import decode_fields
from edgeq.blocks.panels import pack_panels, unpack_panels
from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import BLOCK_TYPES, block_type

pytest.importorskip("torch", reason="needs torch: run tools/test --qat")

TYPES = [name for name, bt in BLOCK_TYPES.items() if bt.quantized]
MINE = pytest.mark.parametrize("name", TYPES)


def weights(seed=0):
    """Rows of many sizes; some weights are nothing, or nearly so."""
    drawn = np.random.default_rng(seed)
    found = (drawn.standard_normal((20, 288)) * drawn.uniform(0.01, 2, (20, 1))).astype(np.float32)
    found[3] = 0
    found[5, :64] *= 1e-30
    return found


@pytest.fixture
def grid_of(torch):
    from edgeq.qat.grid import Grid

    def make(given, name, learned=False):
        bt = block_type(name)
        fields = unpack_panels(encode(given, name), *given.shape, bt)
        return Grid(fields, bt, learned)

    return make


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


@MINE
def test_a_files_weights_round_to_themselves(grid_of, torch, name):
    given = weights()
    data = encode(given, name)
    held = decode(data, *given.shape, name)
    found = grid_of(given, name)(torch.from_numpy(held))
    np.testing.assert_array_equal(bits(found.detach()), bits(held))


@MINE
def test_other_weights_round_to_what_their_fields_decode_to(grid_of, torch, name):
    grid, given = grid_of(weights(), name), torch.from_numpy(weights(seed=1) * 1.5)
    found, bt = grid(given).detach().numpy(), block_type(name)
    fields = grid.fields(given)
    np.testing.assert_array_equal(bits(found), bits(decode_fields(fields, bt)))
    np.testing.assert_array_equal(bits(found), bits(decode(pack_panels(fields, bt), *given.shape, name)))
    assert np.abs(found - given.numpy()).mean() < np.abs(given.numpy()).mean()


@MINE
def test_learned_scales_are_coded_as_the_file_has_them(grid_of, torch, name):
    grid, given = grid_of(weights(), name, learned=True), torch.from_numpy(weights())
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in (grid.scale, grid.offset):
            one.mul_(torch.rand(one.shape, generator=drawn) + 0.5)
    found = grid(given).detach().numpy()
    np.testing.assert_array_equal(bits(found), bits(decode_fields(grid.fields(given), block_type(name))))


@MINE
def test_rows_looked_up_are_those_of_the_whole(grid_of, torch, name):
    grid, given = grid_of(weights(), name), torch.from_numpy(weights(seed=2))
    rows = torch.tensor([7, 0, 19])
    assert torch.equal(grid(given, rows), grid(given)[rows])


def test_a_gradient_passes_but_not_further_outwards(grid_of, torch):
    grid = grid_of(np.linspace(-8, 7, 32, dtype=np.float32)[None], "Q4_0")
    scale = float(grid.scale[0, 0].detach())
    given = torch.full((1, 32), 3 * scale)
    given[0, :4] = torch.tensor([20.0, 20.0, -20.0, -20.0]) * scale  # beyond the last values, and all others within
    given.requires_grad_()
    gradient = torch.ones(1, 32)
    gradient[0, :4] = torch.tensor([-1.0, 1.0, 1.0, -1.0]) * np.sign(scale)  # a step goes against it: out, back
    grid(given).backward(gradient)
    assert torch.equal(given.grad[0, :4] * np.sign(scale), torch.tensor([0.0, 1.0, 0.0, -1.0]))
    assert torch.equal(given.grad[0, 4:], torch.ones(28))


@MINE
def test_gradients_of_scales_are_those_of_straight_through_rounding(grid_of, torch, name):
    """Against torch's own derivatives of scale * (x + what rounding x changes) + offset, x being clamped."""
    drawn = np.random.default_rng(1)
    base = drawn.standard_normal((16, 512)).astype(np.float32)
    grid, given = grid_of(base, name, learned=True), torch.from_numpy(base * 1.3)
    gradient = torch.from_numpy(drawn.standard_normal(base.shape).astype(np.float32))
    grid(given).backward(gradient)

    scale, offset = (one.detach().clone().requires_grad_() for one in grid.coded_scales(grid.scale, grid.offset))
    x = grid.split(given)
    x = ((x - grid.spread(offset)) if grid.bt.has_mins else x) / grid.spread(scale)
    clamped = x.clamp(*grid.ends)
    rounded = grid.spread(scale) * (clamped + (grid.nearest(x) - clamped).detach())
    rounded = rounded + grid.spread(offset) if grid.bt.has_mins else rounded
    rounded.backward(grid.split(gradient))
    torch.testing.assert_close(grid.scale.grad, scale.grad, atol=1e-3, rtol=1e-3)
    if grid.bt.has_mins:
        torch.testing.assert_close(grid.offset.grad, offset.grad, atol=1e-4, rtol=1e-4)
