"""The kernel between GGUF's blocks and panels gives the bytes that NumPy gives, on every body."""

import numpy as np
import pytest
from kernel_calls import BODIES, Body

from edgeq.blocks.reference import from_gguf, to_gguf
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.errors import KernelError
from edgeq.gguf import rearranger
from edgeq.gguf.rearranger import TO_BLOCKS, TO_PANELS, Rearranger

QUANTIZED = [bt for bt in BLOCK_TYPES.values() if bt.quantized and bt.gguf_columns]


def through(body: Body, kernel: str) -> Rearranger:
    made = Rearranger(kernel)
    made._kernel = body.kernel(kernel)
    return made


@pytest.mark.parametrize("bt", QUANTIZED, ids=lambda bt: bt.name)
@pytest.mark.parametrize("body", BODIES, ids=repr)
def test_the_bytes_of_numpy(body: Body, bt):
    """Full panels and a short one, full super-blocks and, where GGUF has them, a short one."""
    rng = np.random.default_rng(1)
    for rows, cols in ((48, 512), (37, 256 + (96 if bt.gguf_columns == 32 else 0)), (5, 256)):
        blocks = rng.integers(0, 256, bt.gguf_bytes(rows, cols), np.uint8)
        expected = from_gguf(blocks, rows, cols, bt.name)
        assert np.array_equal(through(body, TO_PANELS).to_panels(blocks, rows, cols, bt), expected)
        assert np.array_equal(through(body, TO_BLOCKS).to_blocks(expected, rows, cols, bt), blocks)


def test_every_type_has_a_table_that_its_twin_follows():
    from edgeq.kernels.rearrange import reference

    for bt in QUANTIZED:
        tables = rearranger._tables(bt.name, 8)
        assert tables is not None, bt.name
        table, back = tables
        row = np.random.default_rng(2).integers(0, 256, bt.gguf_bytes(1, 256), np.uint8)
        places = table[2 : 2 + 2 * int(table[0])].reshape(-1, 2)
        words = np.array([int.from_bytes(row[at : at + 4].tobytes(), "little") for at, _ in places], np.uint32)
        units = reference(table, np.tile(words[:, None], (1, 16)))
        assert np.array_equal(reference(back, units)[:, 0], words), bt.name
        assert rearranger._written(table) == bt.panel_bytes(256)


def test_without_the_kernel_numpy_does_it(monkeypatch: pytest.MonkeyPatch):
    def refuse(names, announce=None):
        raise KernelError("no compiler")

    monkeypatch.setattr(rearranger, "prepare", refuse)
    bt = BLOCK_TYPES["Q6_K"]
    blocks = np.random.default_rng(3).integers(0, 256, bt.gguf_bytes(20, 256), np.uint8)
    panels = Rearranger(TO_PANELS).to_panels(blocks, 20, 256, bt)
    assert np.array_equal(to_gguf(panels, 20, 256, bt.name), blocks)


def test_the_kernel_is_compiled_where_that_is_worth_it(monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []
    monkeypatch.setattr(rearranger, "prepare", lambda names, announce: asked.append(names) or {names[0]: None})
    monkeypatch.setattr(rearranger, "missing", lambda names: names)
    Rearranger(TO_PANELS, nbytes=1 << 20)
    assert not asked
    Rearranger(TO_PANELS, nbytes=1 << 30)
    monkeypatch.setattr(rearranger, "missing", lambda names: [])
    Rearranger(TO_BLOCKS, nbytes=1 << 20)
    assert asked == [[TO_PANELS], [TO_BLOCKS]]


def test_a_type_that_changes_more_than_places_is_left_to_numpy(monkeypatch: pytest.MonkeyPatch):
    def adding(data, rows, cols, name):
        return from_gguf((data + 1).astype(np.uint8), rows, cols, name)

    monkeypatch.setattr(rearranger, "from_gguf", adding)
    rearranger._tables.cache_clear()
    rearranger._parts.cache_clear()
    try:
        bt = BLOCK_TYPES["Q8_0"]
        blocks = np.arange(bt.gguf_bytes(16, 256), dtype=np.uint64).astype(np.uint8)
        assert rearranger._parts("Q8_0", 256) is None
        assert np.array_equal(Rearranger(TO_PANELS).to_panels(blocks, 16, 256, bt), adding(blocks, 16, 256, bt.name))
    finally:
        rearranger._tables.cache_clear()
        rearranger._parts.cache_clear()
