"""DeBERTa's sentencepiece model (`spm.model`) as a `tokenizer.json`: pieces with scores (arXiv:1804.10959), and BERT's
tokens around a text."""

import struct
from base64 import b64encode
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.text.assets import TokenizerSettings
from edgeq.text.protobuf import fields
from edgeq.text.wordpiece import SPECIAL, added_tokens, around_texts

_UNIGRAM, _UNKNOWN = 1, 2  # sentencepiece's kind of a model, of a piece
_DAMAGED = "spm.model is damaged: download the checkpoint's own"


def from_sentencepiece(data: bytes, settings: TokenizerSettings) -> dict[str, Any]:
    """`tokenizer.json` of an `spm.model`, which normalizes as that says. Raises TokenizerError for one that is damaged,
    that is of another kind, or whose tokens around a text are unknown."""
    pieces, unknown, kind, charsmap = _read(data)
    if kind != _UNIGRAM or unknown is None:
        raise TokenizerError("spm.model is no unigram model with an unknown piece: put a tokenizer.json beside it")
    vocab = {text: i for i, (text, _) in reversed([*enumerate(pieces)])}
    names = {role: settings.roles.get(role, token) for role, token in SPECIAL.items()}
    for role in ("cls_token", "sep_token"):
        if names[role] not in vocab:
            raise TokenizerError(f"spm.model has no {names[role]!r}, its {role}: download the checkpoint's own")
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    steps: list[dict[str, Any]] = [{"type": "Lowercase"}] if settings.lowercase else []
    steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
    if charsmap:
        steps.append({"type": "Precompiled", "precompiled_charsmap": b64encode(charsmap).decode()})
    steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(names, vocab),
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": spaces,
        "post_processor": around_texts(names, vocab),
        "decoder": spaces,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": pieces, "byte_fallback": False},
    }


def _read(data: bytes) -> tuple[list[tuple[str, float]], int | None, int, bytes]:
    """Pieces with their scores, the unknown one's number, the kind of the model, the map of characters."""
    pieces: list[tuple[str, float]] = []
    unknown, kind, charsmap = None, _UNIGRAM, b""
    try:
        for field, payload in fields(data):
            if field > 3:
                continue
            found = dict(fields(payload))
            if field == 1:
                if found.get(3) == _UNKNOWN:
                    unknown = len(pieces)
                pieces.append((found[1].decode(), struct.unpack("<f", found.get(2, bytes(4)))[0]))
            elif field == 2:
                kind = found.get(3, kind)
            else:
                charsmap = bytes(found.get(2, charsmap))
    except (TokenizerError, TypeError, AttributeError, KeyError, ValueError, struct.error) as error:
        raise TokenizerError(_DAMAGED) from error
    return pieces, unknown, kind, charsmap
