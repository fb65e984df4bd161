"""The file of a calibration: there and back, llama.cpp's form of it, and what is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from edgeq.errors import FormatError, NotFoundError, UsageError
from edgeq.models import architecture
from edgeq.quantize.calibration import Calibration, Corpus, Statistics, Subject
from edgeq.quantize.imatrix import read_calibration, write_calibration
from edgeq.quantize.sketch import Sketch

RNG = np.random.default_rng(3)
SEQUENCES = tuple(np.array(one, np.int32) for one in ([1, 5, 5, 7], [1, 2], [1, 9, 9]))
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 10,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def statistics(columns: int, experts: int = 0, gram: bool = False) -> Statistics:
    shape = (experts, columns) if experts else (columns,)
    counts = np.arange(experts) * 3 if experts else np.array([9])
    sketch = Sketch.of(np.float32(RNG.standard_normal((9, columns))))
    counts_above = np.where(sketch.counts == sketch.counts.max(), 5 << 31, 0)  # more than an i32 holds
    sketch = Sketch(sketch.counts + counts_above, -1.5, 2.5, sketch.channel_maxima)
    products = np.float32(RNG.random((columns, columns))) if gram else None
    return Statistics(np.float32(9 * RNG.random(shape)), counts, -1.5, 2.5, sketch, products)


@pytest.fixture
def calibration() -> Calibration:
    matrices = {
        "blk.0.attn_q.weight": statistics(32),
        "blk.1.ffn_down.weight": statistics(64),
        "blk.1.ffn_gate_exps.weight": statistics(32, 4),
        "token_embd.weight": statistics(32, gram=True),
    }
    subject = Subject("llama", 2, 32, 10, "a model")
    corpora = (Corpus("prose", 7, 12.5), Corpus("code", 2))
    return Calibration("x", matrices, subject, SEQUENCES, np.array([0, 1, 0], np.int32), corpora, 256)


def test_what_is_written_is_read(calibration: Calibration, tmp_path: Path):
    path = tmp_path / "m.calib"
    write_calibration(path, calibration)
    found = read_calibration(path)
    assert (found.source, found.subject, found.chunk_size) == (str(path), calibration.subject, 256)
    assert found.corpora[0] == Corpus("prose", 7, 12.5)
    assert (found.corpora[1].name, found.corpora[1].tokens) == ("code", 2) and np.isnan(found.corpora[1].perplexity)
    assert [one.tolist() for one in found.sequences] == [one.tolist() for one in SEQUENCES]
    assert found.origins.tolist() == [0, 1, 0] and found.tokens == 9
    assert found.token_counts.tolist() == [0, 3, 1, 0, 0, 2, 0, 1, 0, 2]
    assert found.matrices.keys() == calibration.matrices.keys()
    for name, one in calibration.matrices.items():
        other = found.of(name)
        assert np.array_equal(other.sum_square, one.sum_square) and np.array_equal(other.counts, one.counts)
        assert (other.low, other.high) == (one.low, one.high) == (-1.5, 2.5)
        a, b = found.sketch(name), calibration.sketch(name)
        assert np.array_equal(a.counts, b.counts) and np.array_equal(a.channel_maxima, b.channel_maxima)
        assert (a.minimum, a.maximum) == (-1.5, 2.5)
        assert (other.gram is None) == (one.gram is None) == (name != "token_embd.weight")
        assert one.gram is None or np.array_equal(other.gram, one.gram)
    experts = found.of("blk.1.ffn_gate_exps.weight")
    sums, counts = experts.sum_square.astype(np.float64), experts.counts
    np.testing.assert_allclose(experts.mean_square[1:], sums[1:] / counts[1:, None], rtol=1e-6)
    np.testing.assert_allclose(experts.mean_square[0], sums.sum(0) / counts.sum(), rtol=1e-6)
    assert found.starved(4) == ["blk.1.ffn_gate_exps.weight: 2 of 4 experts saw fewer than 4 tokens"]


def test_the_file_is_llama_cpp_s(calibration: Calibration, tmp_path: Path):
    write_calibration(tmp_path / "m.calib", calibration)
    reader = GGUFReader(tmp_path / "m.calib")
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["prose", "code"]
    assert reader.fields["imatrix.chunk_count"].contents() == 1
    assert reader.fields["imatrix.chunk_size"].contents() == 256
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, one in calibration.matrices.items():
        experts = len(one.counts)
        assert tensors[f"{name}.in_sum2"].shape.tolist() == [one.columns, experts]
        assert tensors[f"{name}.counts"].data.tolist() == [[count] for count in one.counts]
        assert np.array_equal(tensors[f"{name}.in_sum2"].data, one.sum_square.reshape(experts, -1))
    assert all(len(name) < 64 for name in tensors), "ggml has room for no longer names"


def imatrix(path: Path, tensors: dict[str, np.ndarray], kind: str = "imatrix") -> Path:
    """A file as llama-imatrix writes it."""
    writer = GGUFWriter(path, "")
    writer.kv_data[0].clear()  # it has no general.architecture
    writer.add_type(kind)
    writer.add_array("imatrix.datasets", ["wiki.txt"])
    writer.add_uint32("imatrix.chunk_count", 2)
    writer.add_uint32("imatrix.chunk_size", 128)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_of_llama_imatrix_is_read(tmp_path: Path):
    q, experts = np.float32(RNG.random((1, 32))), np.float32(RNG.random((3, 32)))
    tensors = {
        "blk.0.attn_q.weight.in_sum2": q,
        "blk.0.attn_q.weight.counts": np.full((1, 1), 256, np.float32),
        "blk.0.ffn_up_exps.weight.in_sum2": experts,
        "blk.0.ffn_up_exps.weight.counts": np.array([[4], [0], [2]], np.float32),
    }
    found = read_calibration(imatrix(tmp_path / "imatrix.gguf", tensors))
    assert found.subject is None and found.sequences == () and found.token_counts.size == 0
    assert (found.tokens, found.chunk_size, found.corpora[0].name) == (256, 128, "wiki.txt")
    np.testing.assert_allclose(found.of("blk.0.attn_q.weight").mean_square, q[0] / 256, rtol=1e-6)
    means = found.of("blk.0.ffn_up_exps.weight").mean_square
    np.testing.assert_allclose(means[[0, 2]], experts[[0, 2]] / [[4], [2]], rtol=1e-6)
    assert found.of("blk.0.attn_k.weight") is None


def test_a_file_of_the_old_form_is_read(tmp_path: Path):
    sums = np.float32(RNG.random(32))
    name = b"blk.0.attn_q.weight"
    entry = struct.pack("<i", len(name)) + name + struct.pack("<ii", 4, 32) + sums.tobytes()
    path = tmp_path / "imatrix.dat"
    path.write_bytes(struct.pack("<i", 1) + entry + struct.pack("<ii", 4, 4) + b"wiki")
    found = read_calibration(path)
    np.testing.assert_allclose(found.of("blk.0.attn_q.weight").mean_square, sums / 4, rtol=1e-6)
    every = struct.pack("<i", 1 << 19) + struct.pack("<i", 1) + b"a" + struct.pack("<ii", 4, -1) + bytes(9 << 20)
    for damaged in (struct.pack("<i", 1) + entry[:-4], every):  # "all that is left", half a million times
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"imatrix\.dat: is no calibration"):
            read_calibration(path)


def test_parts_of_what_gguf_fuses_are_one_matrix_there(tmp_path: Path):
    reads = {f"blk.0.attn_{part}.weight": statistics(32) for part in "qkv"}
    first = reads["blk.0.attn_q.weight"]
    both = statistics(32)
    calibration = Calibration(
        "x",
        {**dict.fromkeys(reads, first), "blk.0.ffn_gate.weight": both, "blk.0.ffn_up.weight": both},
        Subject("phi3", 1, 32, 10),
    )
    write_calibration(tmp_path / "m.calib", calibration)
    found = read_calibration(tmp_path / "m.calib")
    assert found.matrices.keys() == {"blk.0.attn_qkv.weight", "blk.0.ffn_up.weight"}
    for name, one in calibration.matrices.items():
        assert np.array_equal(found.of(name).sum_square, one.sum_square), name
    assert found.of("blk.0.attn_output.weight") is None and found.of("blk.1.attn_q.weight") is None


def test_another_model_is_refused(calibration: Calibration):
    model = architecture(CONFIG)
    calibration = Calibration("m.calib", {"blk.0.attn_q.weight": statistics(32)}, Subject("llama", 2, 32, 10, "small"))
    calibration.check(model, "small.eqf")
    for key, value in (("num_hidden_layers", 3), ("hidden_size", 64), ("vocab_size", 11), ("model_type", "mistral")):
        with pytest.raises(UsageError, match=r"m\.calib: is of small \(llama, 2 layers of 32, 10 tokens\), m2\.eqf is"):
            calibration.check(architecture({**CONFIG, key: value}), "m2.eqf")
    foreign = Calibration("i.gguf", {"blk.0.attn_q.weight": statistics(48)})
    with pytest.raises(UsageError, match=r"i\.gguf: blk\.0\.attn_q\.weight has \[48\] values, m\.eqf needs \[32\]"):
        foreign.check(model, "m.eqf")
    with pytest.raises(UsageError, match=r"i\.gguf: has none of the matrices of m\.eqf: make one of this model"):
        Calibration("i.gguf", {"blk.0.attn_qkvx.weight": statistics(32)}).check(model, "m.eqf")


GOOD = {"a.weight.in_sum2": np.ones((1, 4), np.float32), "a.weight.counts": np.ones((1, 1), np.float32)}

SKETCHED = {
    "a.weight.range": np.array([-1, 1], np.float32),
    "a.weight.maxima": np.ones(4, np.float32),
    "a.weight.sketch": np.ones((3, 2), np.int32),
}


def test_an_older_file_of_ours_has_no_sketch(tmp_path: Path):
    older = GOOD | {"a.weight.range": SKETCHED["a.weight.range"], "a.weight.quantiles": np.ones(17, np.float32)}
    found = read_calibration(imatrix(tmp_path / "old.gguf", older))
    assert (found.of("a.weight").low, found.of("a.weight").high, found.of("a.weight").sketch) == (-1, 1, None)
    with pytest.raises(UsageError, match=r"old\.gguf: has no sketch of what a\.weight reads: calibrate again"):
        found.sketch("a.weight")
    with pytest.raises(UsageError, match=r"old\.gguf: knows nothing of what b\.weight reads"):
        found.sketch("b.weight")
    assert read_calibration(imatrix(tmp_path / "new.gguf", GOOD | SKETCHED)).sketch("a.weight").total == 1 + (1 << 31)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a.weight.counts": np.ones((3, 1), np.float32)}, "has no counts that belong to 'a.weight'"),
        ({"a.weight.in_sum2": np.full((1, 4), -1, np.float32)}, "a negative sum of squares or count"),
        ({"a.weight.in_sum2": np.full((1, 4), np.nan, np.float32)}, "values that are not finite"),
        ({"a.weight.counts": np.ones((1, 1), np.float16)}, "is F16, F32 or I32 is needed"),
        ({"a.weight.gram": np.ones((4, 3), np.float32)}, r"the Gram matrix of 'a.weight' has the shape \[4, 3\]"),
        (
            {"a.weight.sketch": np.ones((3, 2), np.int32)},
            "the sketch of 'a.weight' has no range and largest magnitudes",
        ),
        (
            SKETCHED | {"a.weight.maxima": np.ones(3, np.float32)},
            "has no range and largest magnitudes that belong to it",
        ),
        (SKETCHED | {"a.weight.sketch": np.full((3, 2), 1 << 14, np.int32)}, "has counts of bins that there are not"),
        (SKETCHED | {"a.weight.sketch": np.full((3, 2), -1, np.int32)}, "has counts of bins that there are not"),
        (SKETCHED | {"a.weight.sketch": np.ones((2, 2), np.int32)}, "has counts of bins that there are not"),
        ({"edgeq.lengths": np.ones(1, np.int32)}, "its sequences are not as long as it says"),
        (
            {
                "edgeq.tokens": np.ones(1, np.int32),
                "edgeq.lengths": np.ones(1, np.int32),
                "edgeq.origins": np.ones(1, np.int32),
            },
            "has sequences of no corpus",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change: dict[str, np.ndarray], message: str):
    with pytest.raises(FormatError, match=f"bad.gguf: .*{message}") as caught:
        read_calibration(imatrix(tmp_path / "bad.gguf", GOOD | change))
    assert "\n" not in str(caught.value)


def test_what_is_no_calibration_is_refused(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no such file: `edgeq calibrate` makes a calibration"):
        read_calibration(tmp_path / "none.calib")
    model = imatrix(tmp_path / "model.gguf", {"token_embd.weight": np.ones((2, 4), np.float32)}, "model")
    with pytest.raises(FormatError, match=r"model\.gguf: is a GGUF file, but no calibration"):
        read_calibration(model)
    (tmp_path / "text").write_text("This is a text.")
    with pytest.raises(FormatError, match="is no calibration"):
        read_calibration(tmp_path / "text")
