"""Texts to sequences of tokens: what comes with edgeq, files, chats, their order, random tokens."""

import json
from collections import Counter
from pathlib import Path

import pytest

from edgeq.conversion.passages import RANDOM, Text, passages, read_text, shipped
from edgeq.errors import TemplateError, UsageError
from edgeq.quantize.collect import Passage
from edgeq.text.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return load_tokenizer({path.name: path.read_bytes() for path in tiny_model.glob("*.json")})


def test_what_is_shipped_has_many_domains_and_languages_and_no_padding():
    texts = {text.name: text for text in shipped()}
    assert len(texts) >= 25 and {"essays", "python_code", "mathematics", "chinese", "arabic", "chat"} <= texts.keys()
    plain = {name: text.documents[0] for name, text in texts.items() if isinstance(text.documents[0], str)}
    assert 60_000 <= sum(len(text.encode()) for text in plain.values()) <= 100_000
    lines = Counter(line for text in plain.values() for line in text.splitlines() if len(line) > 40)
    assert max(lines.values()) == 1, "nothing is said twice"
    assert len(texts["chat"].documents) > 10 and not texts["chat"].strict


def test_texts_are_cut_and_begin_as_a_text_does(tokenizer: Tokenizer):
    text = "One day a fox met a crow. " * 40
    ids = tokenizer.encode(text, add_special=False)
    found = passages([Text("fox", [text])], tokenizer, length=64)
    assert all(one.corpus == "fox" and len(one.tokens) <= 64 for one in found)
    start = tokenizer.encode("")
    assert all(list(one.tokens[: len(start)]) == start for one in found)
    joined = [i for one in found for i in one.tokens[len(start) :]]
    assert joined == ids[: len(joined)] and len(ids) - len(joined) < 16


def test_a_limit_cuts_all_texts_alike(tokenizer: Tokenizer):
    words = "The little boat went over the blue sea and found an island. "
    texts = [Text("long", [words * 120]), Text("short", [words * 40]), Text("chats", [words * 20, words * 20])]
    whole = sizes(passages(texts, tokenizer, tokens=10**6, length=32))
    total = sum(whole.values())
    for limit in (total - 1, total // 2, total // 4):
        found = passages(texts, tokenizer, tokens=limit, length=32)
        assert limit - 3 * 16 <= sum(len(one.tokens) for one in found) <= limit
        for name, count in sizes(found).items():
            assert 0 <= whole[name] * limit / total - count < 17
    half = passages(texts, tokenizer, tokens=total // 2, length=32)
    so_far = sizes(half[: len(half) // 2])
    assert all(abs(so_far[name] / whole[name] - 0.25) < 0.05 for name in whole), "texts take turns"


def test_a_limit_holds_where_many_texts_are_short(tokenizer: Tokenizer):
    texts = [Text("long", ["All is well. " * 500]), *(Text(f"{i}", ["We went home. " * 5]) for i in range(9))]
    found = passages(texts, tokenizer, tokens=100)
    assert 100 - 16 < sum(len(one.tokens) for one in found) <= 100


def sizes(found: list[Passage]) -> Counter[str]:
    """Tokens by corpus."""
    counts: Counter[str] = Counter()
    for one in found:
        counts[one.corpus] += len(one.tokens)
    return counts


def test_of_a_long_text_only_the_beginning_is_read(tokenizer: Tokenizer):
    found = passages([Text("long", ["All is well. " * 10**6])], tokenizer, tokens=100, length=64)
    assert [len(one.tokens) for one in found] == [64, 36]
    chats = Text("chats", [[{"role": "user", "content": "How are you? " * 9}]] * 50 + ["never read"])
    found = passages([chats], tokenizer, tokens=100)
    assert len(found) < 4 and sum(len(one.tokens) for one in found) <= 100


def test_chats_are_written_by_the_model_s_template(tokenizer: Tokenizer, tmp_path: Path):
    chats = [[{"role": "user", "content": f"Tell me a story about {what}, please, a long one."}] for what in "ab"]
    path = tmp_path / "talk.jsonl"
    path.write_text(
        "\n\n".join([*(json.dumps({"messages": one}) for one in chats), '{"text": "' + "A day. " * 20 + '"}'])
    )
    text = read_text(path, "talk")
    assert (text.name, text.documents[:2], text.documents[2]) == ("talk", chats, "A day. " * 20)
    found = passages([Text("talk", chats)], tokenizer)
    template = tokenizer.chat_template
    assert template is not None
    expected = [
        Passage("talk", tokenizer.encode(template.render(one, add_generation_prompt=False), add_special=False))
        for one in chats
    ]
    assert found == expected


def test_a_chat_that_the_template_refuses(tokenizer: Tokenizer, tmp_path: Path, monkeypatch):
    chat = [{"role": "user", "content": "Why does the wind blow over the hills and the sea all day long?"}]
    monkeypatch.setitem(vars(tokenizer), "chat_template", tokenizer.template_from("{{ raise_exception('no') }}"))
    with pytest.raises(TemplateError, match=r"talk: m\.eqf: the chat template refuses this conversation: no"):
        passages([Text("talk", [chat])], tokenizer, source="m.eqf")
    (found,) = passages([Text("talk", [chat], strict=False)], tokenizer)
    assert "user: Why does the wind" in tokenizer.decode(found.tokens)
    monkeypatch.setitem(vars(tokenizer), "chat_template", None)
    assert passages([Text("talk", [chat])], tokenizer) == [found]


def test_random_tokens_stand_for_text_and_are_always_the_same(tokenizer: Tokenizer):
    text = Text("a", ["The sun was warm and the bird sang in the tree. " * 5])
    found = passages([text], tokenizer, tokens=20, length=64, random_tokens=300)
    drawn = [one for one in found if one.corpus == RANDOM]
    assert found == passages([text], tokenizer, tokens=20, length=64, random_tokens=300)
    start = tokenizer.encode("")
    ids = [i for one in drawn for i in one.tokens[len(start) :]]
    assert len(ids) == 300 and len(set(ids)) > 200
    special = {i for i, token in tokenizer.added.items() if token.special}
    assert special and not special & set(ids)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b" \n", "a.txt: is empty: give some text"),
        ("a.txt", b"\xff\xfe", "a.txt: is not UTF-8 text: save it as UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{', "a.jsonl: line 2: is not valid JSON"),
        ("a.jsonl", b'{"messages": []}', 'a.jsonl: line 1: is neither {"messages": '),
        ("a.jsonl", b'{"messages": ["x"]}', "a.jsonl: line 1: is neither"),
        ("a.jsonl", b"[1]", "a.jsonl: line 1: is neither"),
    ],
)
def test_files_that_hold_no_text_are_refused(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_text(tmp_path / name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_too_little_is_refused(tokenizer: Tokenizer, tmp_path: Path):
    with pytest.raises(UsageError, match="none: cannot be read: No such file or directory: give a text file"):
        read_text(tmp_path / "none")
    with pytest.raises(UsageError, match="short: is too short: give at least 16 tokens of text"):
        passages([Text("short", ["Hello."])], tokenizer)
    with pytest.raises(UsageError, match="at least 16 tokens are needed"):
        passages([Text("a", ["Hello. " * 50])], tokenizer, length=8)
