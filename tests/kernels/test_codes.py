"""A row of the block table is all that a type needs whose scales are coded, and whose codes lie, as another one's."""

import numpy as np
import pytest

from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import BLOCK_TYPES, BlockType
from edgeq.kernels.codes import reader
from edgeq.kernels.encode_api import encode_panels
from edgeq.simd import isa
from edgeq.toolchain import library

TOY = BlockType("TOY", None, 0, 5, 32, "s6", 16, False, 128)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCK_TYPES, "TOY", TOY)


def test_the_reference_encodes_and_decodes_it():
    weights = np.random.default_rng(1).standard_normal((20, 288), dtype=np.float32)
    data = encode(weights, "TOY")
    assert data.nbytes == TOY.tensor_bytes(20, 288)
    error = np.square(decode(data, 20, 288, "TOY") - weights).mean()
    assert error < 0.002  # Q5_K's is about as large


def test_kernels_read_it():
    kind = reader("TOY", isa.choose())
    assert (kind.codes.bits, kind.codes.zero_point, kind.codes.coded, kind.codes.signed) == (5, 16, True, True)
    assert (kind.header_bytes, kind.group_bytes, kind.min_row) == (128, 320, None)


def test_the_encoder_gives_the_bytes_of_the_reference(monkeypatch):
    from edgeq.toolchain.compile import compile_kernel

    def here(name: str) -> library.Kernel:  # in this process: no other knows the row
        code = compile_kernel(*name.split(":"), isa.choose(), "toy")
        return library.Kernel(name, library._engine().load(code, "toy"))

    monkeypatch.setattr(library, "kernel", here)
    weights = np.random.default_rng(2).standard_normal((20, 288), dtype=np.float32)
    assert np.array_equal(encode_panels(weights, "TOY"), encode(weights, "TOY"))
