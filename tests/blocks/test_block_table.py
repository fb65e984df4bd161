"""The block-type table: sizes by the rules of the format, and its copy in formats/types.json."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import gguf_oracle
import pytest

from edgeq.blocks.table import BLOCK_TYPES, block_type, panels, super_blocks, tensor_bytes
from edgeq.errors import UnsupportedError

QUANTIZED = [bt for bt in BLOCK_TYPES.values() if bt.quantized]
FORMATS = Path(__file__).resolve().parents[2] / "formats"


@pytest.mark.parametrize("bt", [bt for bt in BLOCK_TYPES.values() if bt.gguf_columns], ids=lambda bt: bt.name)
def test_full_super_blocks_have_the_size_of_gguf(bt):
    columns, nbytes = gguf_oracle.sizes(bt.name)
    assert (gguf_oracle.type_of(bt.name), columns, nbytes) == (bt.gguf_id, bt.gguf_columns, bt.gguf_block_bytes)
    assert bt.tensor_bytes(48, 768) == bt.gguf_bytes(48, 768) == 48 * 768 // columns * nbytes


def test_ragged_rows_keep_a_full_header():
    q4_k, q6_k = block_type("Q4_K"), block_type("q6_k")
    assert q4_k.panel_bytes(576) == 3 * 256 + 18 * 256
    assert q6_k.panel_bytes(32) == 288 + 384
    assert block_type("Q5_K").tensor_bytes(17, 288) == 2 * (2 * 256 + 9 * 320)
    assert block_type("Q8_0").super_block_offset(2) == 2 * (256 + 8 * 512)
    assert q4_k.bits_per_weight(256) == 4.5
    assert (panels(16), panels(17), super_blocks(256), super_blocks(288)) == (1, 2, 1, 2)


def test_a_row_with_one_scale_has_one_header():
    i8_r = block_type("i8_r")
    assert i8_r.panel_bytes(32) == 64 + 512
    assert i8_r.tensor_bytes(17, 576) == 2 * (64 + 18 * 512)
    assert i8_r.bits_per_weight(1024) == 8 + 32 / 1024
    assert (i8_r.accepts(131072), i8_r.accepts(131104), i8_r.accepts(40)) == (True, False, False)
    with pytest.raises(UnsupportedError, match="I8_R needs rows of up to 131072 weights, not 131104: use F16"):
        tensor_bytes("I8_R", [16, 131104])


def test_what_a_type_cannot_hold():
    assert [block_type("Q4_K").accepts(cols) for cols in (0, 31, 32, 100, 896)] == [False, False, True, False, True]
    assert block_type("F16").accepts(33)
    with pytest.raises(UnsupportedError, match="Q4_K needs rows of a multiple of 32 weights, not 100"):
        block_type("Q4_K").panel_bytes(100)
    with pytest.raises(UnsupportedError, match="GGUF's Q6_K needs rows of a multiple of 256, not 288"):
        block_type("Q6_K").gguf_bytes(1, 288)
    with pytest.raises(UnsupportedError, match="'Q9_9': this version knows F32, F16"):
        block_type("Q9_9")


def test_bytes_of_a_shape():
    assert tensor_bytes("F32", [10]) == 40
    assert tensor_bytes("Q8_0", [17, 64]) == 2 * (256 + 2 * 512)
    assert tensor_bytes("Q8_0", [3, 17, 64]) == 3 * tensor_bytes("Q8_0", [17, 64])
    for name, shape in (("F16", [10]), ("F32", []), ("F32", [1, 2, 3, 4]), ("F32", [0, 5])):
        with pytest.raises(UnsupportedError):
            tensor_bytes(name, shape)


def test_types_json_is_the_table():
    document = json.loads((FORMATS / "types.json").read_text())
    expected = [{**asdict(bt), "values": list(bt.values), "group_bytes": bt.group_bytes} for bt in BLOCK_TYPES.values()]
    assert document["types"] == expected
    assert (document["panel_rows"], document["group_columns"], document["super_block_columns"]) == (16, 32, 256)


def test_the_table_needs_no_numpy():
    script = "import sys, edgeq.blocks.table; sys.exit(bool({'numpy', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
