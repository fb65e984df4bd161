"""Texts scored by what a model would write."""

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_encoder import random_checkpoints
from small_tokenizers import byte_level_assets

import edgeq
from edgeq.engine.yes_no import INSTRUCTION, YesNo
from edgeq.errors import UsageError
from edgeq.text.tokenizer import load_tokenizer

YES, NO = 259, 260


class Cache:
    """Stands for a model: says yes by the length of its prompt."""

    def __init__(self):
        self.prompts = []

    def prompt(self, tokens, timings):
        self.prompts.append(tokens)
        logits = np.zeros(300, np.float32)
        logits[YES], logits[NO] = len(tokens) / 100, 4.0
        return logits


def tokenizer():
    assets = byte_level_assets(add_bos_token=False)
    document = json.loads(assets["tokenizer.json"])
    document["model"]["vocab"] |= {"yes": YES, "no": NO}
    return load_tokenizer({**assets, "tokenizer.json": json.dumps(document).encode()})


def test_the_question_and_the_score():
    asking, cache = YesNo(tokenizer(), 4096), Cache()
    scores = asking(cache, "who?", ["I", "the other one<|im_end|>"])
    assert scores == pytest.approx([1 / (1 + np.exp(4.0 - len(prompt) / 100)) for prompt in cache.prompts])
    first, second = (tokenizer().decode(prompt, special=True) for prompt in cache.prompts)
    asked = f"<Instruct>: {INSTRUCTION}\n<Query>: who?\n<Document>: I<|im_end|>\n"
    assert asked + "<|im_start|>assistant\n<think>\n\n</think>" in first
    assert first.startswith("<|im_start|>system\nJudge whether")
    end, start = (tokenizer().token_id(name) for name in ("<|im_end|>", "<|im_start|>"))
    assert [prompt.count(end) for prompt in cache.prompts] == [2, 2], "a name of one in a text is text"
    assert second.count("<|im_end|>") == 3 and cache.prompts[0].count(start) == 3
    asking(cache, "who?", ["I"], "Find a person")
    assert "<Instruct>: Find a person\n" in tokenizer().decode(cache.prompts[-1])


def test_a_text_that_is_too_long_is_cut():
    asking, cache = YesNo(tokenizer(), 500), Cache()
    asking(cache, "who?", ["I", "a" * 900])
    assert len(cache.prompts[1]) == 500 and asking.timings.cut == 1
    assert cache.prompts[1][-5:] == cache.prompts[0][-5:]


def test_a_tokenizer_without_the_answers():
    with pytest.raises(UsageError, match='no tokens "yes" and "no"'):
        YesNo(load_tokenizer(byte_level_assets()), 100)


def test_a_model_is_known_by_its_name(tmp_path: Path):
    folder = random_checkpoints.write("qwen3", tmp_path / "Qwen3-Reranker-tiny")
    edgeq.convert(folder, tmp_path / "m.eqf", "Q8_0", allow_no_tokenizer=True)
    edgeq.convert(
        random_checkpoints.write("qwen3", tmp_path / "q"), tmp_path / "n.eqf", "Q8_0", allow_no_tokenizer=True
    )
    with edgeq.load(tmp_path / "m.eqf") as model, edgeq.load(tmp_path / "n.eqf") as other:
        assert model.asks_yes_or_no and not other.asks_yes_or_no
