"""What a file says of its calibration: there and back, the same on any threads, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import open_file
from edgeq.drift.seen import ASSET, Seen, directed, parse, seen_by, signs
from edgeq.errors import FormatError, UsageError
from edgeq.quantize.extract import extract
from edgeq.quantize.requantize import requantize


def test_it_is_there_and_says_what_was_read(told):
    with open_file(told.path) as file, open_file(told.plain) as plain:
        seen = seen_by(file)
        content = file.asset(ASSET)
        assert all(np.array_equal(file.data(name), plain.data(name)) for name in plain.tensors)
        assert len(content) < Seen.most_bytes(len(seen.inputs), len(seen.slices))
        again = extract(plain, told.calibration, 1)
    assert again.content() == content, "whatever the threads"
    assert list(seen.inputs) == [f"blk.{i}.{part}.weight" for i in range(6) for part in PARTS]
    assert [one.name for one in seen.slices] == ["some", "others"] and (seen.texts, seen.length, seen.start) == (
        128,
        32,
        (0,),
    )
    assert all(5 < one.perplexity < 30 for one in seen.slices)
    assert sum(one.tokens for one in seen.slices) == sum(map(len, told.calibration.sequences))
    values = seen.inputs["blk.2.ffn_down.weight"].values
    assert values.shares.shape == (1, 20) and values.edges.shape == (1, 19)
    np.testing.assert_allclose(values.shares, 0.05, atol=0.01)
    exact = again.inputs["blk.2.ffn_down.weight"]
    np.testing.assert_allclose(values.edges, exact.values.edges, rtol=1e-3)
    np.testing.assert_allclose(values.shares, exact.values.shares, atol=0.005)


PARTS = ("attn_q", "attn_output", "ffn_gate", "ffn_down")


def test_a_part_of_a_text_is_as_those_that_were_looked_at(told):
    with open_file(told.path) as file:
        seen = seen_by(file)
    text = [0, *range(100, 200)]
    assert seen.part(text, 0.0) == [0, *range(100, 131)] and seen.part(text, 1.0) == [0, *range(169, 200)]
    assert seen.part(text[1:], 0.5) == [0, *range(134, 165)]
    assert seen.part([0, 5, 6], 0.9) == [0, 5, 6] and seen.part([], 0.5) == [0]


def test_directions_have_signs_that_the_format_says():
    def mixed(h: int) -> int:
        h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        return h ^ h >> 16

    found = signs(70)
    assert found.tolist() == [[1 - 2 * (mixed(column) >> bit & 1) for bit in range(16)] for column in range(1, 71)]
    x = np.random.default_rng(0).standard_normal((5, 70)).astype(np.float32)
    np.testing.assert_allclose(directed(x), x.astype(np.float64) @ found, atol=1e-9)


def changed(whole: dict, *path: object, to: object) -> bytes:
    """The JSON with one thing in it replaced."""
    whole = json.loads(json.dumps(whole))
    place = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return json.dumps(whole).encode()


def test_what_is_damaged_is_refused_in_one_line(told):
    with open_file(told.path) as file:
        content = file.asset(ASSET)
        whole = json.loads(content)
        damaged = [
            b"",
            b"[]",
            b"\xff\x00",
            b"[" * 100_000,
            content[:-9],
            *(
                changed(whole, key, to=to)
                for key in whole
                if key not in ("version", "start")
                for to in (None, [], -1, "x", {})
            ),
            changed(whole, "texts", to=float("nan")),
            changed(whole, "start", to=None),
            changed(whole, "start", to=["x"]),
            changed(whole, "inputs", 0, "low", to=1e9),
            changed(whole, "inputs", 0, "low", to=True),
            changed(whole, "inputs", 0, "values", "edges", 0, 3, to=1e9),
            changed(whole, "inputs", 0, "values", "edges", to=[[]]),
            changed(whole, "inputs", 0, "values", "shares", to=[[1.0]]),
            changed(whole, "inputs", 0, "directions", "edges", to=whole["inputs"][0]["values"]["edges"]),
            changed(whole, "inputs", 0, "directions", "spread", to=-1),
            changed(whole, "tokens", "groups", to=[[1, 2], "ab"]),
            changed(whole, "tokens", "shares", to=[[0.5] * len(whole["tokens"]["shares"][0])]),
            changed(whole, "slices", 0, "perplexity", to=0),
        ]
        for one in damaged:
            with pytest.raises(FormatError, match=r"told\.eqf: calibration\.json is damaged: convert the model again"):
                parse(one, file)
        with pytest.raises(FormatError, match="is of version 2, and this edgeq knows 1"):
            parse(changed(whole, "version", to=2), file)
        with pytest.raises(FormatError, match=r"names 'blk\.9\.x', which is no matrix of the model"):
            parse(changed(whole, "inputs", 0, "name", to="blk.9.x"), file)
        for start in ([2048], [-1], [0, 0]):
            with pytest.raises(FormatError, match="begins with what is no token of the model"):
                parse(changed(whole, "start", to=start), file)
        parse(changed(whole, "more", to=1), file)  # what is not known is passed over


def test_a_file_without_it_is_told_apart(told, tmp_path: Path):
    with open_file(told.plain) as file, pytest.raises(UsageError, match="does not say what it was calibrated with"):
        seen_by(file)
    requantize(told.path, tmp_path / "again.eqf", "Q4_0", 1)
    with open_file(tmp_path / "again.eqf") as file:
        assert ASSET not in file.assets, "another file reads other values"
