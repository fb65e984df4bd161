"""DeBERTa's `spm.model`: the pieces that sentencepiece itself finds, between BERT's tokens."""

import io
import json

import pytest
import sentencepiece

from edgeq.errors import TokenizerError
from edgeq.text.protobuf import message, number
from edgeq.text.tokenizer import load_tokenizer

WORDS = ["one", "town", "the", "then", "other", "not", "note", "tone", "ohne", "Öl", "tenth", "hotel"]
TEXTS = ["the other note", "  two   spaces\tand\nlines ", "ｆｕｌｌ ﬁt Öl", "", "unknown: 雨", "a\u00a0b", "x" * 300]


@pytest.fixture(scope="module")
def data() -> bytes:
    """A model of sentencepiece's own making, whose normalization takes wide and joined letters apart."""
    written = io.BytesIO()
    lines = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        model_type="unigram",
        vocab_size=50,
        hard_vocab_limit=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        minloglevel=2,
    )
    return written.getvalue()


def test_pieces_are_sentencepiece_s(data: bytes):
    own = sentencepiece.SentencePieceProcessor(model_proto=data)
    tokenizer = load_tokenizer({"spm.model": data})
    for text in TEXTS:
        assert tokenizer.encode(text) == [1, *own.encode(text), 2], text
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0]
    pair = tokenizer.encode_pair(TEXTS[0], TEXTS[2], 500)
    first, second = own.encode(TEXTS[0]), own.encode(TEXTS[2])
    assert pair.ids == [1, *first, 2, *second, 2] and pair.types == [0] * (len(first) + 2) + [1] * (len(second) + 1)


def test_capitals_and_tokens_of_its_own(data: bytes):
    size = sentencepiece.SentencePieceProcessor(model_proto=data).get_piece_size()
    files = {"tokenizer_config.json": {"do_lower_case": True}, "added_tokens.json": {"[MASK]": size}}
    lower = load_tokenizer({"spm.model": data, **{name: json.dumps(file).encode() for name, file in files.items()}})
    assert lower.encode("The NOTE") == load_tokenizer({"spm.model": data}).encode("the note")
    assert lower.encode("the[MASK]")[-2] == size


def test_models_that_are_none(data: bytes):
    with pytest.raises(TokenizerError, match=r"spm\.model cannot be read \(Precompiled"):
        load_tokenizer({"spm.model": data[:-3]})
    for damaged in (b"\xff" * 9, message(1, b"\x08\x01"), number(1, 5)):
        with pytest.raises(TokenizerError, match=r"spm\.model is damaged: download the checkpoint's own"):
            load_tokenizer({"spm.model": damaged})
    with pytest.raises(TokenizerError, match=r"spm\.model is no unigram model"):
        load_tokenizer({"spm.model": data + message(2, number(3, 2))})
    with pytest.raises(TokenizerError, match=r"has no '\[CLS\]', its cls_token"):
        load_tokenizer({"spm.model": data.replace(b"[CLS]", b"[BOS]")})
