import pytest
import small_tokenizers as small

from edgeq.text.detokenizer import Detokenizer
from edgeq.text.tokenizer import load_tokenizer


def stream_of(pieces: list[bytes], hidden: tuple[int, ...] = (), strip_space: bool = False) -> list[str]:
    """What each token gives, then what the flush gives."""
    stream = Detokenizer(pieces.__getitem__, hidden.__contains__, strip_space)
    return [stream.push(i) for i in range(len(pieces))] + [stream.flush()]


@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        ([b"a", b"b"], ["a", "b", ""]),
        ([b"\xe2", b"\x82", b"\xac"], ["", "", "€", ""]),
        ([b"x\xf0\x9f", b"\xa6\x99y"], ["x", "🦙y", ""]),
        ([b"\xe2\x82"], ["", "\ufffd"]),
        ([b"\xff", b"a"], ["\ufffd", "a", ""]),
        ([b"\xe2", b"a"], ["", "\ufffda", ""]),
        ([b"", b"\xc3", b"", b"\xa9"], ["", "", "", "é", ""]),
    ],
)
def test_only_whole_characters_come_out(pieces, texts):
    assert stream_of(pieces) == texts


def test_only_the_first_space_is_dropped():
    assert stream_of([b" a", b" b"], strip_space=True) == ["a", " b", ""]
    assert stream_of([b"  a"], strip_space=True) == [" a", ""]
    assert stream_of([b"a", b" b"], strip_space=True) == ["a", " b", ""]
    assert stream_of([b" a", b" b"], strip_space=False) == [" a", " b", ""]
    assert stream_of([b"<s>", b" a"], hidden=(0,), strip_space=True) == ["", "a", ""], "control tokens are no text"


def test_a_control_token_does_not_lose_a_waiting_byte():
    assert stream_of([b"\xc3", b"<x>", b"\xa9"], hidden=(1,)) == ["", "", "é", ""]


def test_streams_of_a_tokenizer_join_to_its_text():
    tokenizer = load_tokenizer(small.byte_level_assets())
    text = "hello 🦙 world, ½"
    stream = tokenizer.stream()
    pieces = [stream.push(i) for i in tokenizer.encode(text)]
    assert "".join(pieces) + stream.flush() == text
    assert "\ufffd" not in "".join(pieces)


def test_a_continuation_keeps_its_leading_space():
    tokenizer = load_tokenizer(small.spm_assets())
    assert tokenizer.stream(continues=True).push(small.SPACE_HI) == " hi"
    assert tokenizer.stream().push(small.SPACE_HI) == "hi"
    assert tokenizer.stream(special=True).push(small.EOS) == "</s>"
