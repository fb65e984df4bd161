"""RWKV's World tokenizer: of a text the longest pieces, as llama.cpp cuts it, from both kinds of files."""

import json

import pytest

from edgeq.errors import TokenizerError
from edgeq.text.gguf_tokenizer import tokenizer_assets
from edgeq.text.gguf_vocabulary import tokenizer_metadata
from edgeq.text.tokenizer import Tokenizer, load_tokenizer
from edgeq.text.world import FILE, escaped, unescaped

PIECES = ["\n\n", "ab", "abcd", "cde", " a", "User", "é", "日本", "'", '"', "\\", "'\"", "\\n", "  ", "    ", "\r\n"]
HALVES = [b"\xe6\x97", b"\xa5\xe6", b"a\xff"]
WORDS: list[str | bytes] = [*(piece for piece in PIECES if len(piece.encode()) > 1), *HALVES]
FIRST = 257
ROWS = FIRST + len(WORDS) + 3


def line(number: int, piece: str | bytes) -> str:
    """As the file has it: text where it is text."""
    return f"{number} {piece!r} {len(piece.encode() if isinstance(piece, str) else piece)}\n"


def file(words: list[str | bytes] = WORDS) -> bytes:
    """The bytes, those that are no letters by themselves as bytes; then words."""
    single: list[str | bytes] = [chr(b) if b < 128 else bytes([b]) for b in range(256)]
    return "".join(line(i, piece) for i, piece in enumerate(single + words, 1)).encode()


def loaded(data: bytes, **config: object) -> Tokenizer:
    return load_tokenizer({FILE: data, "tokenizer_config.json": json.dumps(config).encode()}, "m", ROWS)


def longest(text: bytes) -> list[int]:
    """By looking at all pieces at every place."""
    pieces = [bytes([b]) for b in range(256)] + [w.encode() if isinstance(w, str) else w for w in WORDS]
    found = []
    while text:
        piece = max((piece for piece in pieces if text.startswith(piece)), key=len)
        found.append(1 + pieces.index(piece))
        text = text[len(piece) :]
    return found


# What llama.cpp makes of them
TEXTS = {
    "": [],
    "abcde": [259, 102],
    "abab cde": [258, 258, 33, 260],
    "User: é\n\n": [262, 59, 33, 263, 257],
    "日本 日": [264, 33, 270, 166],
    "a'\"b\\n  \r\n      x": [98, 265, 99, 266, 267, 269, 268, 267, 121],
    "\x00\x7f": [1, 128],
    "ÿ": [196, 192],
    "𝄞": [241, 158, 133, 159],
}


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_longest(text: str) -> None:
    tokenizer = loaded(file())
    ids = tokenizer.encode(text)
    assert ids == TEXTS[text] == longest(text.encode())
    assert tokenizer.decode(ids) == text


def test_a_text_s_end() -> None:
    """The number that no line has; checkpoints may name it, and what ends a turn."""
    plain = loaded(file())
    assert (plain.bos_id, plain.eos_ids, plain.vocab_size) == (None, {0}, FIRST + len(WORDS))
    assert plain.encode("<|rwkv_tokenizer_end_of_text|>ab") == [0, 258] and plain.decode([0, 258]) == "ab"
    assert plain.encode("<|rwkv_tokenizer_end_of_text|>", parse_special=False) == longest(
        b"<|rwkv_tokenizer_end_of_text|>"
    )
    added = {"0": {"content": "<s>", "special": True}}
    named = loaded(file(), bos_token="<s>", eos_token="\n\n", added_tokens_decoder=added, add_bos_token=True)
    assert (named.bos_id, named.eos_ids) == (0, {257})
    assert named.encode("ab<s>") == [0, 258, 0] and named.token_id("ab") == 258 and named.token_id("nothing") is None
    assert named.encode_pair("ab", "abcd", 9).ids == [0, 258, 0, 259]


def test_to_gguf_and_back() -> None:
    """As llama.cpp's converter writes it."""
    added = {"0": {"content": "<s>", "special": True}}
    own = loaded(file(), bos_token="<s>", eos_token="<s>", added_tokens_decoder=added)
    files = {
        FILE: file(),
        "tokenizer_config.json": json.dumps({"bos_token": "<s>", "added_tokens_decoder": added}).encode(),
    }
    metadata = tokenizer_metadata(files, ROWS, "m")
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert metadata["tokenizer.ggml.model"] == "rwkv" and "tokenizer.ggml.scores" not in metadata
    assert tokens[0] == "<s>" and types[0] == 3 and tokens[10] == "\\t" and tokens[263] == "\\xc3\\xa9"
    assert tokens[-3:] == ["[PAD273]", "[PAD274]", "[PAD275]"] and types[-3:] == [5] * 3 and {*types[1:-3]} == {1}
    assets = tokenizer_assets(metadata | {"tokenizer.ggml.eot_token_id": 257, "tokenizer.ggml.eos_token_id": 0}, "m")
    back = load_tokenizer(assets, "m", ROWS)
    assert (back.bos_id, back.eos_ids) == (0, {0, 257})
    for text in TEXTS:
        assert back.encode(text) == own.encode(text)


def test_escapes() -> None:
    for piece in (bytes(range(256)), b"'", b"'\"", b"\\x41"):
        assert unescaped(escaped(piece)) == piece
    assert unescaped("é\\q\\x4g") == "éqx4g".encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (file()[:-2] + b"9\n", "line 272 is malformed"),
        (file() + b"300 'ab'\n", "line 273 is malformed"),
        (file() + b"300 '' 0\n", "line 273 is malformed"),
        (file() + b"258 'xyz' 3\n", "line 273 is malformed"),
        (file() + b"300 b'\\u1234' 2\n", "line 273 is malformed"),
        (file() + b"300 '\\ud800' 3\n", "line 273 is malformed"),
        (file() + b"300 'a\xff' 2\n", "is not UTF-8"),
        (file().replace(line(66, "A").encode(), b"66 'AA' 2\n"), "has no token for the byte 0x41"),
        (b"", "has no token for the byte 0x00"),
    ],
)
def test_damaged_files(data: bytes, message: str) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        loaded(data)
    assert "\n" not in str(caught.value)


def test_a_model_of_fewer_rows() -> None:
    """Pieces that it has not are spelled by others; a byte cannot be."""
    files = {FILE: file()}
    assert load_tokenizer(files, "m", 259).encode("abcd") == [258, 100, 101]
    with pytest.raises(TokenizerError, match=r"m: .* has no token for the byte 0xc7"):
        load_tokenizer(files, "m", 200)
