"""What stands in the tables that kernels look 4-bit codes up in."""

import pytest

from edgeq.blocks.table import BLOCK_TYPES, block_type
from edgeq.kernels.codes_tables import WIDE_UNIT, numbers, two_bytes, unit

EXACT = [bt.name for bt in BLOCK_TYPES.values() if bt.values and bt.code_bits == 4 and bt.name != "NF4"]


@pytest.mark.parametrize("name", EXACT)
def test_bytes_are_the_values(name):
    bt = block_type(name)
    bits, zero_point, table = numbers(bt)
    assert len(table) == 16 and all(0 < byte < 1 << bits for byte in table)
    assert tuple((byte - zero_point) * unit(bt) for byte in table) == bt.values


def test_narrow_values_take_narrow_dots():
    assert {name: numbers(block_type(name))[0] for name in EXACT} == {
        "IQ4_NL": 8,
        "IQ4_XS": 8,
        "MXFP4": 5,
        "IQ12_W": 8,
        "IQ3_W": 6,
        "IQ3S_W": 5,
        "NVFP4_W": 5,
    }


def test_two_bytes_are_within_half_a_unit():
    bt = block_type("NF4")
    high, low = two_bytes(bt)
    assert all(0 < byte < 256 for byte in high) and all(0 <= byte < 256 for byte in low)
    for value, a, b in zip(bt.values, high, low, strict=True):
        assert abs(256 * (a - 128) + (b - 128) - value / WIDE_UNIT) <= 0.5
