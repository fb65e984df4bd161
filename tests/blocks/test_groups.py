"""Codes chosen column by column decode to what was said when they were chosen, in every block type."""

import numpy as np
import pytest

from edgeq.blocks.groups import groups_of
from edgeq.blocks.panels import pack_panels
from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import BLOCK_TYPES

QUANTIZED = [bt.name for bt in BLOCK_TYPES.values() if bt.quantized]


def by_groups(weights: np.ndarray, name: str, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(panels, what they were said to decode to) of weights [rows, columns] that nothing moves."""
    bt, wanted = BLOCK_TYPES[name], np.ascontiguousarray(weights.T)
    kind, columns = groups_of(bt), weights.shape[1]
    codes, decoded = np.empty(wanted.shape, np.uint8), np.empty_like(wanted)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        spans = [slice(at, at + kind.span) for at in range(0, columns, kind.span)]
        multiples = [kind.settle(wanted[span], importance[span]) for span in spans]
        groups = []
        for at in range(0, columns, kind.columns):
            part = slice(at, at + kind.columns)
            groups.append(kind.scale(wanted[part], importance[part], multiples[at // kind.span]))
            for k in range(at, min(at + kind.columns, columns)):
                codes[k], decoded[k] = kind.column(wanted[k], groups[-1])
    return pack_panels(kind.fields(codes, multiples, groups), bt), decoded.T


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("shape", [(24, 288), (5, 96)])
def test_what_is_packed_decodes_to_what_was_chosen(name, shape):
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(shape).astype(np.float32)
    weights[0], weights[1], weights[2, 3] = 0, np.abs(weights[1]), 1000
    weights[3] *= 1e-6
    panels, decoded = by_groups(weights, name, np.exp(rng.standard_normal(shape[1])).astype(np.float32))
    assert np.array_equal(decode(panels, *shape, name), decoded)


@pytest.mark.parametrize("name", QUANTIZED)
def test_weights_that_nothing_moves_are_encoded_about_as_well_as_at_once(name):
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((64, 512)).astype(np.float32)
    importance = np.exp(rng.standard_normal(512)).astype(np.float32)
    importance /= importance.mean()
    at_once = decode(encode(weights, name, importance), 64, 512, name)
    error, least = (np.sum((w - weights) ** 2 * importance) for w in (by_groups(weights, name, importance)[1], at_once))
    assert error < 1.003 * least
