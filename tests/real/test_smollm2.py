"""SmolLM2-135M-Instruct: a chat of eight turns, and logits, as transformers computes them from the same weights."""

from conversation import MAX_TOKENS, TURNS
from exactness import check_logits, divergence

CLEAR = 0.4  # margin of a choice, in logits, which rounding does not change


def test_eight_greedy_turns_are_the_same(smollm2):
    messages = []
    for question, turn in zip(TURNS, smollm2.golden["turns"], strict=True):
        messages.append({"role": "user", "content": question})
        prompt = smollm2.exact.chat_tokens(messages)
        assert (len(prompt), prompt[-16:]) == (turn["prompt_tokens"], turn["prompt"])
        answer = "".join(smollm2.exact.chat(messages, MAX_TOKENS, temperature=0))
        assert answer == turn["answer"]
        messages.append({"role": "assistant", "content": answer})
    assert smollm2.golden["tokens"][: len(prompt)] == prompt


def test_logits_are_the_same(smollm2):
    rows = smollm2.exact.logits(smollm2.golden["tokens"])
    check_logits(rows[smollm2.golden["positions"]], smollm2.golden)


def test_the_quantized_file_is_close(smollm2):
    """Its weights are the same; its activations are rounded to 8 bits, and its keys and values to f16."""
    tokens = smollm2.golden["tokens"]
    exact, rounded = smollm2.exact.logits(tokens), smollm2.imported.logits(tokens)
    assert 0 < divergence(exact, rounded).mean() < 0.005
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.95


def test_the_quantized_file_says_the_same_where_no_choice_is_near(smollm2):
    """Others it may make differently: "What is the capital of France?" begins with "The" or, 0.08 behind, with "L"."""
    messages, compared = [], 0
    for turn in smollm2.golden["turns"]:
        messages.append({"role": "user", "content": turn["question"]})
        if turn["margin"] > CLEAR:
            assert "".join(smollm2.imported.chat(messages, MAX_TOKENS, temperature=0)) == turn["answer"]
            compared += 1
        messages.append({"role": "assistant", "content": turn["answer"]})
    assert compared


def test_the_quantized_file_answers_and_ends(smollm2):
    """As tools/demo asks it."""
    messages = [{"role": "user", "content": "What is the capital of Germany?"}]
    assert "".join(smollm2.imported.chat(messages, temperature=0)) == "The capital of Germany is Berlin."
    assert smollm2.imported.finish_reason == "eos"
