"""What a session promises beside its numbers: positions, limits, errors, the choice of the cache."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import File, open_file
from edgeq.container.writer import TensorSpec, Writer
from edgeq.errors import ContextError, EdgeqError, FormatError, UnsupportedError, UsageError
from edgeq.runtime.program import DEFAULT_CONTEXT
from edgeq.runtime.session import Session
from edgeq.toolchain import library

TEXT = [5, 900, 17, 301, 42, 1203, 8]


@pytest.fixture(scope="module")
def file(tiny: Callable[[str], File]) -> File:
    return tiny("Q4_K_M")


def copied(file: File, path: Path, drop: str = "", reshape: str = "", **config: object) -> Path:
    """A copy of a file without the tensor `drop`, with `reshape` a row short, or with another configuration."""
    specs = []
    for info in file.tensors.values():
        rows = info.shape[0] - 16 if info.name == reshape else info.shape[0]
        if info.name != drop:
            specs.append(TensorSpec(info.name, (rows, *info.shape[1:]), info.type))
    metadata = {**file.metadata, "config": {**file.metadata["config"], **config}}
    with Writer(path, specs, metadata, {}) as writer:
        for spec in specs:
            data = file.data(spec.name)
            if spec.name == reshape:
                rows = file.tensors[spec.name].shape[0]
                data = data[: data.nbytes * spec.shape[0] // rows]
            writer.write(spec.name, data)
    return path


def test_shapes_and_positions(file: File) -> None:
    with Session(file, context=40, threads=1) as session:
        assert (session.context, session.position, session.threads) == (40, 0, 1)
        logits = session.eval(TEXT)
        assert logits.shape == (1, 2048) and logits.dtype == np.float32
        assert session.position == 7
        assert session.eval(TEXT, all_logits=True).shape == (7, 2048)
        assert session.position == 14


def test_results_are_the_callers(file: File) -> None:
    """A later evaluation does not change logits that were handed out."""
    with Session(file, context=32, threads=1) as session:
        first = session.eval(TEXT)
        kept = first.copy()
        session.eval([1, 2, 3])
        assert np.array_equal(first, kept)


def test_rewind(file: File) -> None:
    with Session(file, context=32, threads=2) as session:
        expected = session.eval(TEXT, all_logits=True)
        session.rewind(3)
        assert session.position == 3
        other = session.eval([700])
        session.rewind(3)
        assert np.array_equal(session.eval(TEXT[3:], all_logits=True), expected[3:])
        assert not np.array_equal(other, expected[3:4])
        for position in (-1, 8):
            with pytest.raises(UsageError, match=f"cannot rewind to position {position}: 7 are evaluated"):
                session.rewind(position)
        assert session.position == 7


def test_a_full_context(file: File) -> None:
    with Session(file, context=16, threads=2) as session:
        expected = session.eval(TEXT)
        with pytest.raises(ContextError, match="10 tokens after 7 do not fit in a context of 16 positions"):
            session.eval(list(range(10)))
        assert session.position == 7
        session.eval(list(range(9)))
        assert session.position == 16
        with pytest.raises(ContextError):
            session.eval([1])
        session.rewind(0)
        assert np.array_equal(session.eval(TEXT), expected)


@pytest.mark.parametrize(
    ("tokens", "message"), [([], "no tokens"), ([1, -1], "between 0 and 2047"), ([1, 2048], "between 0 and 2047")]
)
def test_bad_tokens_change_nothing(file: File, tokens: list[int], message: str) -> None:
    with Session(file, context=32, threads=1) as session:
        expected = session.eval(TEXT, all_logits=True)[-1:]
        session.rewind(6)
        with pytest.raises(UsageError, match=message):
            session.eval(tokens)
        assert session.position == 6
        assert np.array_equal(session.eval(TEXT[6:]), expected)


def test_a_closed_session_leaves_its_file_open(file: File) -> None:
    with Session(file, context=16, threads=2) as session:
        expected = session.eval(TEXT)
    session.close()
    with Session(file, context=16, threads=2) as again:
        assert np.array_equal(again.eval(TEXT), expected)


def test_two_sessions_on_a_file(file: File) -> None:
    with Session(file, context=32, threads=2) as one, Session(file, context=32, threads=2) as two:
        expected = one.eval(TEXT, all_logits=True)
        one.rewind(0)
        for i, token in enumerate(TEXT):
            assert np.array_equal(one.eval([token]), expected[i : i + 1])
            two.eval([token + 1])
        assert (one.position, two.position) == (7, 7)


def test_the_cache_follows_the_weights(tiny: Callable[[str], File]) -> None:
    with Session(tiny("F32"), context=32, threads=1) as exact, Session(tiny("Q8_0"), context=32, threads=1) as eight:
        assert (exact.kv, eight.kv) == ("f32", "f16")
        assert exact.memory()["kv"] == 2 * eight.memory()["kv"] == 6 * 2 * 2 * 32 * 32 * 4
        assert eight.memory()["weights"] == tiny("Q8_0").nbytes
        assert eight.memory()["scratch"] > 0


def test_cache_elements(file: File) -> None:
    results = {}
    memory = {}
    for kv in ("f16", "q8_0", "f32"):
        with Session(file, context=32, threads=2, kv=kv) as session:
            results[kv] = session.eval(TEXT, all_logits=True)
            memory[kv] = session.memory()["kv"]
    for kv in ("f16", "q8_0"):
        assert 0 < np.abs(results[kv] - results["f32"]).max() < 0.5
    assert memory["q8_0"] * 32 == memory["f16"] * 17, "8.5 bits for 16"


def test_the_default_context(file: File) -> None:
    with Session(file, threads=1) as session:
        assert session.context == min(512, DEFAULT_CONTEXT)
    with Session(file, context=0, threads=1) as session:
        assert session.context == 512, "all that the model was trained for"


@pytest.mark.parametrize(
    ("option", "value"), [("context", -1), ("context", -5), ("threads", 0), ("threads", -1), ("threads", 1000)]
)
def test_impossible_arguments(file: File, option: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{value} .*cannot work: give"):
        Session(file, **{option: value})


def test_threads_from_the_environment(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQ_THREADS", "3")
    with Session(file, context=16) as session:
        assert session.threads == 3
    monkeypatch.setenv("EDGEQ_THREADS", "many")
    with pytest.raises(UsageError, match="EDGEQ_THREADS is 'many'"):
        Session(file, context=16)


def test_announces_what_it_must_compile(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    Session(file, context=16, threads=1).close()
    lines: list[str] = []
    with Session(file, context=16, threads=1, announce=lines.append):
        assert lines == []
    answers = iter([["norm", "matmul:Q4_K"]])
    monkeypatch.setattr(library, "missing", lambda names: next(answers))
    monkeypatch.setattr(library, "_compile", lambda names, progress: True)
    with Session(file, context=16, threads=1, announce=lines.append):
        assert len(lines) == 1
        assert lines[0].startswith("compiling 2 kernels for ") and lines[0].endswith(", once: norm, matmul:Q4_K")


def multiplied(file: File, path: Path, **factors: float) -> Path:
    """A copy of a file of F32 weights, those of the named parts of layers times a factor."""
    specs = [TensorSpec(info.name, info.shape, info.type) for info in file.tensors.values()]
    with Writer(path, specs, file.metadata, {}) as writer:
        for spec in specs:
            part = spec.name.removesuffix(".weight").rpartition(".")[2]
            weights = file.data(spec.name).view(np.float32) * np.float32(factors.get(part, 1.0))
            writer.write(spec.name, weights.view(np.uint8))
    return path


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize(
    ("kv", "part", "exponent"), [("f16", "attn_v", 20), ("f16", "attn_k", 20), ("q8_0", "attn_v", 40)]
)
def test_values_that_the_cache_cannot_hold(
    tiny: Callable[[str], File], tmp_path: Path, kv: str, part: str, exponent: int, states: bool
) -> None:
    """The cache is named, and what to do; with that the results are those of the model before its values grew."""
    plain = tiny("F32")
    undo = {"attn_v": "attn_output", "attn_k": "attn_q"}[part]
    path = multiplied(plain, tmp_path / "large.eqf", **{part: 2.0**exponent, undo: 2.0**-exponent})
    with open_file(path) as large:
        with Session(large, context=32, threads=1, kv=kv, states=states) as session:
            expected = rf"large\.eqf: its keys or values .* range of a KV cache of {kv}: load it with --kv f32"
            for _ in range(2):
                with pytest.raises(EdgeqError, match=expected):
                    session.eval(TEXT)
                assert session.position == 0
        options = {"context": 32, "threads": 1, "kv": "f32", "states": states}
        with Session(large, **options) as right, Session(plain, **options) as before:
            assert np.array_equal(right.eval(TEXT), before.eval(TEXT))


def test_a_conversation_stays_where_it_was(tiny: Callable[[str], File], tmp_path: Path) -> None:
    """A token whose numbers are none leaves the tokens before it."""
    specs = [TensorSpec(info.name, info.shape, info.type) for info in tiny("F32").tensors.values()]
    path = tmp_path / "bad.eqf"
    with Writer(path, specs, tiny("F32").metadata, {}) as writer:
        for spec in specs:
            weights = tiny("F32").data(spec.name).view(np.float32).copy()
            if spec.name == "token_embd.weight":
                weights.reshape(-1, spec.shape[1], 16)[TEXT[-1] // 16, 0, TEXT[-1] % 16] = np.nan
            writer.write(spec.name, weights.view(np.uint8))
    with open_file(path) as bad, Session(bad, context=32, threads=1, states=True) as session:
        session.eval(TEXT[:3])
        with pytest.raises(EdgeqError, match=r"bad\.eqf: the model computed no finite numbers: its weights"):
            session.eval(TEXT[3:], all_logits=True)
        assert session.position == 3
        after = session.eval(TEXT[3:5])
    with open_file(path) as bad, Session(bad, context=32, threads=1, states=True) as session:
        assert np.array_equal(after, session.eval(TEXT[:5]))


@pytest.mark.parametrize("name", ["token_embd.weight", "output_norm.weight", "blk.5.ffn_down.weight"])
def test_a_missing_tensor(file: File, tmp_path: Path, name: str) -> None:
    path = copied(file, tmp_path / "cut.eqf", drop=name)
    with open_file(path) as cut, pytest.raises(FormatError, match=rf"cut\.eqf: tensor {name} is missing"):
        Session(cut)


def test_fewer_layers_than_the_file_has(file: File, tmp_path: Path) -> None:
    """Without its last layer a model is another one."""
    path = copied(file, tmp_path / "few.eqf", num_hidden_layers=5)
    expected = r"few\.eqf: tensor blk\.5\.\S+ belongs to no layer: its configuration has 5 layers"
    with open_file(path) as few, pytest.raises(FormatError, match=expected):
        Session(few)


def test_a_misshapen_tensor(file: File, tmp_path: Path) -> None:
    path = copied(file, tmp_path / "short.eqf", reshape="blk.2.attn_k.weight")
    expected = r"short\.eqf: tensor blk\.2\.attn_k\.weight is \[48, 192\], its configuration needs \[64, 192\]"
    with open_file(path) as short, pytest.raises(FormatError, match=expected):
        Session(short)


def test_an_unknown_architecture(file: File, tmp_path: Path) -> None:
    path = copied(file, tmp_path / "rwkv.eqf", model_type="rwkv")
    with open_file(path) as other, pytest.raises(UnsupportedError, match=r"rwkv\.eqf: model_type 'rwkv'"):
        Session(other)
