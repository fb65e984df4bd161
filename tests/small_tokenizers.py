"""Tokenizers small enough to check by hand."""

import json
from typing import Any

from token_vectors import sentencepiece_model

from edgeq.text.piece_bytes import byte_level_bytes

# Ids of the byte-level tokenizer: byte b is token b, then the merges, then the special tokens.
BYTE_NAMES = {byte_level_bytes(chr(c))[0]: chr(c) for c in range(0x180) if len(byte_level_bytes(chr(c))) == 1}
HE, LLO, WORLD = 256, 257, 258
END_OF_TEXT, IM_START, IM_END, THINK = 259, 260, 261, 262


def byte_level_assets(**config: Any) -> dict[str, bytes]:
    """A byte-level BPE tokenizer.json whose first 256 ids are the bytes; `config` is tokenizer_config.json."""
    vocab = {BYTE_NAMES[b]: b for b in range(256)} | {"he": HE, "ll": LLO, "Ġw": WORLD}
    specials = [("<|endoftext|>", END_OF_TEXT), ("<|im_start|>", IM_START), ("<|im_end|>", IM_END)]
    tokens = [(name, i, True) for name, i in specials] + [("<think>", THINK, False)]
    model = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": special,
            }
            for name, i, special in tokens
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["h e", "l l", "Ġ w"]},
    }
    return {"tokenizer.json": json.dumps(model).encode(), "tokenizer_config.json": json.dumps(config).encode()}


# Ids of the sentencepiece model: <unk> <s> </s>, 256 bytes, then these pieces.
PIECES = ["▁", "h", "i", "▁h", "hi", "▁hi", "a"]
UNK, BOS, EOS, BYTE_0 = 0, 1, 2, 3
SPACE, HI, SPACE_HI = (259 + PIECES.index(piece) for piece in ("▁", "hi", "▁hi"))
SEP = 266  # an added token after the model's own


def spm_assets(
    add_dummy_prefix: bool = True, remove_extra_whitespaces: bool = False, **config: Any
) -> dict[str, bytes]:
    """A sentencepiece tokenizer.model with byte fallback and one added token, `<sep>`."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{b:02X}>", 0.0, 6) for b in range(256)]
    pieces += [(piece, float(len(piece)), 1) for piece in PIECES]
    added = {str(SEP): {"content": "<sep>", "special": True, "lstrip": False, "rstrip": True}}
    settings = {"bos_token": "<s>", "eos_token": "</s>", "added_tokens_decoder": added} | config
    return {
        "tokenizer.model": sentencepiece_model(pieces, add_dummy_prefix, remove_extra_whitespaces),
        "tokenizer_config.json": json.dumps(settings).encode(),
    }
