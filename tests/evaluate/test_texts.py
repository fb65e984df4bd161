import json

import pytest
import small_tokenizers as small

from edgeq.errors import UsageError
from edgeq.evaluate.texts import Passage, cut, digest, read_passages
from edgeq.text.tokenizer import load_tokenizer

PLAIN = load_tokenizer(small.byte_level_assets(), "m", 270)
WITH_BOS = load_tokenizer(small.spm_assets(add_dummy_prefix=False, add_bos_token=True), "m", 270)


def test_chunks_are_full_and_the_second_half_counts():
    text = "".join(chr(97 + i % 26) for i in range(35))
    chunks = cut([Passage(text, "t")], PLAIN, 16)
    assert [bytes(chunk.ids).decode() for chunk in chunks] == [text[:16], text[16:32]]
    assert (chunks[0].first, chunks[0].positions) == (8, 7), "the last token of a chunk predicts nothing"


def test_each_chunk_begins_with_bos():
    chunks = cut([Passage("aaaa" * 10, "t")], WITH_BOS, 16)
    assert [chunk.ids[0] for chunk in chunks] == [small.BOS, small.BOS]
    assert chunks[0].ids[1:] == chunks[1].ids[1:]


def test_names_of_control_tokens_are_text():
    (chunk,) = cut([Passage("<|endoftext|>", "t")], PLAIN, 64)
    assert bytes(chunk.ids) == b"<|endoftext|>"


def test_a_short_passage_is_a_chunk_of_its_own():
    chunks = cut([Passage("a" * 10, "t"), Passage("b", "t"), Passage("c" * 40, "t")], PLAIN, 16)
    assert [len(chunk.ids) for chunk in chunks] == [10, 16, 16]
    with pytest.raises(UsageError, match=r"t: there is no text of 8 tokens"):
        cut([Passage("b", "t")], PLAIN, 16)


def test_at_most_so_many_chunks_of_a_file():
    passages = [Passage("a" * 40, "one"), Passage("b" * 40, "one"), Passage("c" * 99, "two")]
    assert [chunk.ids[0] for chunk in cut(passages, PLAIN, 16, 3)] == [97, 97, 98, 99, 99, 99]
    passages.append(Passage("d" * 40, "one", ("language=de",)))
    assert [chunk.ids[0] for chunk in cut(passages, PLAIN, 16, 1)] == [97, 99, 100], "no slice is left out"


def test_chunks_are_known_by_their_tokens():
    one, same, other = (cut([Passage(text, "t")], PLAIN, 16) for text in ("a" * 16, "a" * 17, "a" * 32))
    assert digest(one) == digest(same) != digest(other)


def test_files_and_their_slices(tmp_path):
    (tmp_path / "held.txt").write_text("ä text\n", encoding="utf-8")
    lines = [{"text": "eins", "language": "de", "length": 4}, {"text": "one", "language": "en"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    found = read_passages([str(tmp_path / "held.txt"), f"books={tmp_path / 'held.txt'}", f"x={tmp_path / 't.jsonl'}"])
    assert [(passage.text, passage.slices) for passage in found] == [
        ("ä text\n", ("held",)),
        ("ä text\n", ("books",)),
        ("eins", ("x", "language=de", "length=4")),
        ("one", ("x", "language=en")),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"text": 5}', r't.jsonl:1: has no "text"'),
        ("t.jsonl", b'{"text": "a"}\n[]', r"t.jsonl:2: is no JSON object"),
        ("t.jsonl", b"{", r"t.jsonl:1: is not JSON"),
        ("t.jsonl", b"[" * 50_000, r"t.jsonl:1: is not JSON"),
        ("t.txt", b"\xff", r"t.txt: is not UTF-8 text"),
        ("missing=t.txt", None, r"t.txt: cannot be read: No such file"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_passages([name])
