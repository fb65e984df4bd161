"""The last states of encoders and of causal models against transformers', on random checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import random_checkpoints
from encoder_cases import DECODERS, ENCODERS, FIRST
from safetensors.numpy import load_file, save_file

import edgeq
from edgeq.container.reader import open_file
from edgeq.errors import CheckpointError, ContextError, UnsupportedError, UsageError
from edgeq.models import architecture
from edgeq.quantize.pipeline import convert
from edgeq.runtime.session import Session

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DIGESTS = json.loads((GOLDEN / "manifest.json").read_text())["states"]


def converted(case: str, folder: Path, kind: str = "F32") -> Path:
    convert(random_checkpoints.write(case, folder), folder / "m.eqf", kind, allow_no_tokenizer=True)
    return folder / "m.eqf"


def states(path: Path, prompt: list[int], threads: int = 2, batch: int = 512) -> np.ndarray:
    with open_file(path) as file, Session(file, context=70, threads=threads, batch=batch, states=True) as session:
        return session.eval(prompt, all_logits=True)


def test_every_case_has_golden_states() -> None:
    assert DIGESTS.keys() == {*FIRST, *DECODERS}, "run tools/make_golden.py"


@pytest.mark.parametrize("case", DIGESTS)
def test_states_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    assert random_checkpoints.digest(case) == DIGESTS[case], "another checkpoint: run tools/make_golden.py"
    expected = np.load(GOLDEN / "states.npz")[case]
    found = states(converted(case, tmp_path), random_checkpoints.make(case)[2])
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-3


@pytest.mark.parametrize("case", FIRST)
def test_quantized_encoders(case: str, tmp_path: Path) -> None:
    """Near the exact states, and the same bits with any number of threads, whatever was evaluated before."""
    prompt = random_checkpoints.make(case)[2]
    path = converted(case, tmp_path, "Q8_0")
    found, expected = states(path, prompt), np.load(GOLDEN / "states.npz")[case]
    assert np.sqrt(np.mean((found - expected) ** 2)) <= 0.1 * expected.std()
    np.testing.assert_array_equal(states(path, prompt, threads=3, batch=16), found)
    with open_file(path) as file, Session(file, context=70, threads=1) as session:
        session.eval(prompt[::-1] + prompt[:6])
        session.rewind(0)
        np.testing.assert_array_equal(session.eval(prompt), found[-1:])


def test_causal_states_do_not_depend_on_batches(tmp_path: Path) -> None:
    prompt, path = random_checkpoints.make("llama")[2], converted("llama", tmp_path, "Q8_0")
    np.testing.assert_array_equal(states(path, prompt, batch=24), states(path, prompt))


def test_a_decoder_alone_embeds_and_writes_no_text(tmp_path: Path) -> None:
    """As `LlamaModel` saves itself: without a head, and without the prefix of names."""
    folder = random_checkpoints.write("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaModel"]}))
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): values for name, values in tensors.items() if name != "lm_head.weight"}
    save_file(bare, folder / "model.safetensors")
    report = convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    assert report.notes == ["no lm_head.weight is stored, as for a LlamaModel: the model embeds texts, and writes none"]
    prompt = random_checkpoints.make("llama")[2]
    found = states(tmp_path / "m.eqf", prompt)
    assert np.abs(found - np.load(GOLDEN / "states.npz")["llama"]).max() <= 1e-3
    with edgeq.load(tmp_path / "m.eqf") as model, pytest.raises(UsageError, match=r"m\.eqf: .* and writes none"):
        model.logits(prompt)


def test_an_encoder_sees_what_follows(tmp_path: Path) -> None:
    prompt, path = random_checkpoints.make("bert")[2], converted("bert", tmp_path)
    other = [*prompt[:-1], (prompt[-1] + 1) % 48]
    assert np.abs(states(path, prompt)[0] - states(path, other)[0]).max() > 0.01


def test_names_without_a_prefix(tmp_path: Path) -> None:
    """As sentence encoders have them."""
    folder = random_checkpoints.write("bert", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("bert."): values for name, values in tensors.items()}, folder / "model.safetensors")
    convert(folder, tmp_path / "m.eqf", "F32", allow_no_tokenizer=True)
    found = states(tmp_path / "m.eqf", random_checkpoints.make("bert")[2])
    assert np.abs(found - np.load(GOLDEN / "states.npz")["bert"]).max() <= 1e-3


def test_what_an_encoder_refuses(tmp_path: Path) -> None:
    with open_file(converted("bert", tmp_path)) as file:
        with Session(file, threads=1) as session:
            assert session.context == 70
            session.eval([3, 4])
            with pytest.raises(UsageError, match="cannot be continued"):
                session.eval([5])
            session.rewind(0)
            with pytest.raises(ContextError, match="71 tokens after 0 do not fit"):
                session.eval([5] * 71)
        with pytest.raises(ContextError, match="embeddings of 70 positions"):
            Session(file, context=96, threads=1)


@pytest.mark.parametrize(
    ("case", "change", "error", "message"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, UnsupportedError, "position_embedding_type"),
        ("bert", {"is_decoder": True}, UnsupportedError, "is_decoder"),
        ("bert", {"num_attention_heads": 5}, CheckpointError, "cannot share 64 values evenly"),
        ("roberta", {"pad_token_id": 69}, CheckpointError, "pad_token_id is 69"),
        ("distilbert", {"sinusoidal_pos_embds": True}, UnsupportedError, "sinusoidal_pos_embds"),
    ],
)
def test_configurations_that_are_refused(case, change, error, message) -> None:
    with pytest.raises(error, match=message):
        architecture({**ENCODERS[case], **change}, "c")
