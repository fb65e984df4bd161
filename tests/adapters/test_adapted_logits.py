"""Adapters that peft has made: at run time and merged, against what transformers computes with them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapter_cases
import numpy as np
import pytest
import random_checkpoints
from adapter_cases import BOTH, CASES, TOKENS, folder
from safetensors.numpy import load_file, save_file

import edgeq
from edgeq.conversion.conversion import convert
from edgeq.engine import adapted_sessions
from edgeq.engine.model import Model
from edgeq.errors import MemoryLimitError, UsageError
from edgeq.runtime import session

NEAR = 1e-4  # 100 times what is found
GREEDY = {"temperature": 0.0}
A, B = folder("llama"), folder("llama-rslora")
TWO = [(folder(case), scale) for case, scale in BOTH]


def prompt(case: str) -> list[int]:
    return random_checkpoints.make(CASES[case].checkpoint)[2][:TOKENS]


@pytest.mark.parametrize("case", CASES)
def test_at_run_time_logits_are_those_of_peft(case: str, file: Callable[..., Path]) -> None:
    with edgeq.load(file(CASES[case].checkpoint), threads=2, lora=[folder(case)]) as model:
        found, without = model.logits(prompt(case)), model.logits(prompt(case), lora=[])
    expected = adapter_cases.logits(case)
    assert np.abs(found - expected).max() <= NEAR
    assert np.abs(found - without).max() > 1, "the adapter changes what comes out by far more"


def test_a_session_for_other_adapters_tells_what_it_compiles(file: Callable[..., Path]) -> None:
    with edgeq.load(file("llama"), threads=1, announce=print) as model:
        assert model._session_for([A])._session.program.announce is print


@pytest.mark.parametrize("case", CASES)
def test_merged_logits_are_those_of_peft(case: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "merged.eqf"
    convert(checkpoint(CASES[case].checkpoint), path, "F32", allow_no_tokenizer=True, lora=[folder(case)])
    with edgeq.load(path, threads=2) as model:
        assert np.abs(model.logits(prompt(case)) - adapter_cases.logits(case)).max() <= NEAR
        assert model.file.metadata["provenance"]["adapters"] == f"{case} x 1"


def test_two_adapters_with_scales(llama: Model, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    expected = adapter_cases.logits("both")
    found = llama.logits(prompt("llama"), lora=TWO)
    assert np.abs(found - expected).max() <= NEAR
    as_text = [f"{path}:{scale}" for path, scale in TWO]
    np.testing.assert_array_equal(llama.logits(prompt("llama"), lora=as_text), found)
    convert(checkpoint("llama"), tmp_path / "m.eqf", "F32", allow_no_tokenizer=True, lora=TWO)
    with edgeq.load(tmp_path / "m.eqf", threads=1) as model:
        assert np.abs(model.logits(prompt("llama")) - expected).max() <= NEAR
        assert model.file.metadata["provenance"]["adapters"] == "llama x 0.5, llama-rslora x -1.5"


def test_a_scale_of_zero_is_the_model_itself(llama: Model) -> None:
    plain = llama.logits(prompt("llama"))
    for lora in ([], [f"{A}:0"], [(A, 0), (B, 0.0)]):
        np.testing.assert_array_equal(llama.logits(prompt("llama"), lora=lora), plain)


@pytest.mark.parametrize("type", ["F32", "Q8_0"])
def test_switching_changes_nothing_for_others(
    type: str, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits as of a model that was loaded for it; also where another session had to make room, and within a
    generation that others come between."""
    sets: list[list[object]] = [[A], [B], [], [A, (B, 0.5)]]
    tokens = prompt("llama")
    fresh = []
    for lora in sets:
        with edgeq.load(file("llama", type), threads=1, lora=lora) as model:
            fresh.append((model.logits(tokens), list(model.generate_tokens(tokens, 12, **GREEDY))))
    assert len({tuple(said) for _, said in fresh}) == len(sets), "each set says something else"
    monkeypatch.setattr(adapted_sessions, "KEPT", 2)
    with edgeq.load(file("llama", type), threads=1) as model:
        for i in (0, 1, 2, 0, 3, 1, 2, 0):
            np.testing.assert_array_equal(model.logits(tokens, lora=sets[i]), fresh[i][0])
            said = model.generate_tokens(tokens, 12, lora=sets[i], **GREEDY)
            begun = [next(said) for _ in range(5)]
            for other in (1, 3, 2):
                assert list(model.generate_tokens(tokens, 12, lora=sets[other], **GREEDY)) == fresh[other][1]
            assert begun + list(said) == fresh[i][1]


def test_each_set_keeps_its_own_conversation(llama: Model) -> None:
    """What goes on from a text is not computed again; another set's keys and values are never taken for its own."""
    tokens = prompt("llama")

    def computed(lora: list[object] | None) -> int:
        answer = llama.generate_tokens(tokens, 1, lora=lora, **GREEDY)
        list(answer)
        return answer.timings.computed_tokens

    assert [computed(lora) for lora in ([A], [B], None, [A], [B], [], [(A, 0.5)], [A])] == [16, 16, 16, 1, 1, 1, 16, 1]


def test_adapters_loaded_are_what_calls_have_by_default(file: Callable[..., Path]) -> None:
    with edgeq.load(file("llama"), threads=1, lora=[A]) as model:
        expected = adapter_cases.logits("llama")
        parts = np.concatenate(list(model.iter_logits(prompt("llama"))))
        assert np.abs(parts - expected).max() <= NEAR
        assert np.abs(model.logits(prompt("llama"), lora=[B]) - adapter_cases.logits("llama-rslora")).max() <= NEAR
        same, other = model.score(prompt("llama")), model.score(prompt("llama"), lora=[B])
    with edgeq.load(file("llama"), threads=1) as model:
        np.testing.assert_array_equal(model.score(prompt("llama"), lora=[A]), same)
        np.testing.assert_array_equal(model.score(prompt("llama"), lora=[B]), other)
        assert model.score(prompt("llama"), [[1, 2]], lora=[A])[0] != model.score(prompt("llama"), [[1, 2]])[0]


def test_however_a_prompt_is_split_the_bits_are_the_same(llama: Model) -> None:
    tokens = random_checkpoints.make("llama")[2]
    whole = llama.logits(tokens, lora=TWO)
    session = llama._session_for(TWO).cache._session
    session.rewind(0)
    parts = [session.eval(tokens[:37], all_logits=True), *(session.eval([token]) for token in tokens[37:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_an_adapter_that_changed_on_the_disk_is_read_again(llama: Model, tmp_path: Path) -> None:
    place = shutil.copytree(A, tmp_path / "adapter")
    first = llama.logits(prompt("llama"), lora=[place])
    shutil.copytree(B, place, dirs_exist_ok=True)
    os.utime(place / "adapter_model.safetensors", ns=(1, 1))
    assert np.abs(llama.logits(prompt("llama"), lora=[place]) - first).max() > 0.1


def test_embeddings_have_adapters_too(file: Callable[..., Path]) -> None:
    tokens = prompt("llama")
    states = []
    for lora in ([], [A]):
        with edgeq.load(file("llama"), threads=1, embeddings=True, lora=lora) as model:
            states.append(model.session.eval(tokens, all_logits=True))
    assert np.abs(states[0] - states[1]).max() > 0.1


def test_a_closed_model_closes_every_session(file: Callable[..., Path]) -> None:
    model = edgeq.load(file("llama"), threads=1)
    going = model.generate_tokens(prompt("llama"), 5, lora=[A], **GREEDY)
    next(going)
    model.close()
    with pytest.raises(UsageError, match="closed"):
        next(going)


def random_adapter(folder: Path, checkpoint: Path, rank: int) -> Path:
    """One for every matrix of a checkpoint's layers, as far as linear layers read them."""
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    random, tensors = np.random.default_rng(rank), {}
    for name, weight in load_file(checkpoint / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if weight.ndim == 2 and ".experts." not in module and any(part.isdigit() for part in module.split(".")):
            rows, columns = weight.T.shape if ".c_" in name else weight.shape
            for which, shape in (("A", (rank, columns)), ("B", (rows, rank))):
                tensors[f"{module}.lora_{which}.weight"] = random.normal(0, 0.2, shape).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


AGREE = ["llama-ragged", "gpt2-ragged", "olmo2-ragged", "llama-bias", "gemma2", "granite", "falcon-h1", "qwen3-next"]


@pytest.mark.parametrize("rank", [1, 37])
@pytest.mark.parametrize("case", AGREE)
def test_merged_and_at_run_time_agree(
    case: str, rank: int, file: Callable[..., Path], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Also where rows are no multiple of 32 and ranks none of 16, with biases, caps and factors after a product."""
    adapter, tokens = random_adapter(tmp_path / "a", checkpoint(case), rank), random_checkpoints.make(case)[2]
    convert(checkpoint(case), tmp_path / "m.eqf", "F32", allow_no_tokenizer=True, lora=[adapter])
    with edgeq.load(tmp_path / "m.eqf", threads=2) as model:
        merged = model.logits(tokens)
    with edgeq.load(file(case), threads=2) as model:
        found, plain = model.logits(tokens, lora=[adapter]), model.logits(tokens)
    assert np.abs(found - merged).max() <= 1e-3
    assert np.abs(found - plain).max() > 0.5


def test_sets_make_room_where_memory_is_short(file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The sets that were used longest ago go first; without others to drop, what lacks is said."""
    made, real = [0], session.Session.__init__

    def limited(self: session.Session, *args: Any, **options: Any) -> None:
        if made[0] == 2:
            raise MemoryLimitError("no memory")
        real(self, *args, **options)
        made[0] += 1

    def closing(self: session.Session) -> None:
        made[0] -= 1
        close(self)

    close = session.Session.close
    monkeypatch.setattr(session.Session, "__init__", limited)
    monkeypatch.setattr(session.Session, "close", closing)
    with edgeq.load(file("llama"), threads=1) as model:
        for lora in ([A], [B], [A], []):
            model.logits([1, 2], lora=lora)
        assert made == [2]
        made[0] = 2
        model._sessions._drop()
        made[0] = 2
        with pytest.raises(MemoryLimitError, match="no memory"):
            model.logits([1, 2], lora=[B])
        made[0] = 1


def test_beside_quantized_matrices(file: Callable[..., Path]) -> None:
    """The factors read what the matrix reads before that is rounded; threads do not change a bit."""
    found = []
    for threads in (1, 2):
        with edgeq.load(file("llama", "Q8_0"), threads=threads, lora=[A]) as model:
            found.append(model.logits(prompt("llama")))
    np.testing.assert_array_equal(*found)
    expected = adapter_cases.logits("llama")
    assert np.sqrt(np.mean((found[0] - expected) ** 2)) <= 0.05 * expected.std()
