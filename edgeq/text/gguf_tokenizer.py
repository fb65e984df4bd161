"""The tokenizer in a GGUF file's metadata as the files that a checkpoint has: `tokenizer.model` or `tokenizer.json`,
`tokenizer_config.json` and `generation_config.json`.
"""

import json
import re
import struct
from collections.abc import Mapping
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.text.gguf_pretokenizers import PRE_TOKENIZERS, PreTokenizer
from edgeq.text.wordpiece import wordpiece

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
KINDS = ("llama", "gpt2", "bert")
_PREFIX = "tokenizer.ggml."
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_SPM_ROLES = {"bos": 1, "eos": 2, "unknown": 0}  # where a sentencepiece vocabulary does not say
_BERT_ROLES = {"unknown": "unk_token", "cls": "cls_token", "seperator": "sep_token", "padding": "pad_token"}
_BERT_ROLES |= {"mask": "mask_token"}
_RESERVED = re.compile(r"\[.+\]")  # names of special and unused tokens
_ENDS = ("eos", "eot", "eom")
_TEMPLATE = "tokenizer.chat_template"


def has_tokenizer(metadata: Mapping[str, Any]) -> bool:
    """Whether a file has a tokenizer at all; some hold weights only."""
    return metadata.get(f"{_PREFIX}model", "none") not in ("none", "no_vocab")


def tokenizer_assets(metadata: Mapping[str, Any], source: str) -> dict[str, bytes]:
    """File name -> bytes. TokenizerError, one line that begins with `source`, for a tokenizer that cannot run here."""
    try:
        return _Vocabulary(metadata).assets()
    except TokenizerError as error:
        raise TokenizerError(f"{source}: {error}") from error


class _Vocabulary:
    """A vocabulary read out of metadata."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        self.model = self.text("model")
        if self.model not in KINDS:
            raise TokenizerError(
                f"the tokenizer is of the kind {str(self.model)[:40]!r}; supported are {', '.join(KINDS)}"
            )
        self.tokens: list[str] = self.array("tokens", str)
        self.types: list[int] = self.array("token_type", int, len(self.tokens)) or [NORMAL] * len(self.tokens)
        if not self.tokens:
            raise TokenizerError("the tokenizer has no tokens: convert the model again")

    def text(self, key: str) -> str | None:
        value = self.metadata.get(_PREFIX + key)
        return value if isinstance(value, str) else None

    def array(self, key: str, kind: type, length: int | None = None) -> list[Any]:
        """A list of the metadata; empty where there is none. TokenizerError for one of another kind or length."""
        value = self.metadata.get(_PREFIX + key, [])
        if not isinstance(value, list) or (value and not isinstance(value[0], kind)):
            raise TokenizerError(f"{_PREFIX}{key} is not a list of {kind.__name__}: convert the model again")
        if value and length is not None and len(value) != length:
            raise TokenizerError(f"{_PREFIX}{key} has {len(value)} entries, there are {length} tokens: convert again")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.metadata.get(_PREFIX + key)
        return value if isinstance(value, bool) else default

    def role(self, name: str) -> int | None:
        """The id of a special token, if the file or the kind of tokenizer names one."""
        default = _SPM_ROLES.get(name) if self.model == "llama" else None
        value = self.metadata.get(f"{_PREFIX}{name}_token_id", default)
        return value if type(value) is int and 0 <= value < len(self.tokens) else None

    def assets(self) -> dict[str, bytes]:
        if self.model == "bert":
            return self.wordpiece()
        if self.model == "llama":
            files, add_bos = {"tokenizer.model": self.sentencepiece()}, True
        else:
            pre = self.pre_tokenizer()
            files, add_bos = {"tokenizer.json": _json(self.byte_level(pre))}, pre.add_bos
        config: dict[str, Any] = {
            role: None if (token := self.role(name)) is None else self.tokens[token] for name, role in _ROLES.items()
        }
        config |= {"add_bos_token": self.flag("add_bos_token", add_bos)}
        config |= {"add_eos_token": self.flag("add_eos_token", False)}
        if self.model == "llama":
            config["added_tokens_decoder"] = self.added()
        if template := self.chat_template():
            config["chat_template"] = template
        ends = [token for name in _ENDS if (token := self.role(name)) is not None]
        files["tokenizer_config.json"] = _json(config)
        return files | ({"generation_config.json": _json({"eos_token_id": ends})} if ends else {})

    def added(self) -> dict[str, Any]:
        """Tokens that cut the text before any merging: control ones, and those of the vocabulary's author."""
        kinds = {CONTROL: True, USER_DEFINED: False}
        return {
            str(i): {"content": token, "special": kinds[kind]}
            for i, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind in kinds and token
        }

    def chat_template(self) -> str | list[dict[str, str]] | None:
        """The template, or a list where the file has several by name."""
        main = self.metadata.get(_TEMPLATE)
        names = self.metadata.get("tokenizer.chat_templates")
        named = {"default": main} | {
            str(name): self.metadata.get(f"{_TEMPLATE}.{name}") for name in (names if isinstance(names, list) else [])
        }
        found = {name: text for name, text in named.items() if isinstance(text, str)}
        if len(found) > 1:
            return [{"name": name, "template": text} for name, text in found.items()]
        return main if isinstance(main, str) else None

    def pre_tokenizer(self) -> PreTokenizer:
        name = self.text("pre") or "default"  # files of before mid 2024 do not say
        if name not in PRE_TOKENIZERS:
            raise TokenizerError(f"the pre-tokenizer {name[:60]!r} is not known: convert the original checkpoint")
        return PRE_TOKENIZERS[name]

    def byte_level(self, pre: PreTokenizer) -> dict[str, Any]:
        """A byte-level BPE `tokenizer.json`."""
        vocab = {token: i for i, token in enumerate(self.tokens)}
        merges = []
        for line in self.array("merges", str):
            at = line.find(" ", 1)
            left, right = line[:at], line[at + 1 :]
            if at > 0 and left in vocab and right in vocab and left + right in vocab:
                merges.append([left, right])
        splits = [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
            for pattern in pre.patterns
        ]
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": vocab[entry["content"]], "single_word": False, "lstrip": False, "rstrip": False}
                | {"normalized": False, **entry}
                for entry in self.added().values()
            ],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
            "post_processor": None,
            "decoder": {**level, "add_prefix_space": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": pre.ignore_merges,
                "vocab": vocab,
                "merges": merges,
            },
        }

    def wordpiece(self) -> dict[str, bytes]:
        """GGUF marks beginnings of words where BERT's own vocabulary marks what goes on with one."""
        roles = {
            role: self.tokens[token] for name, role in _BERT_ROLES.items() if (token := self.role(name)) is not None
        }
        kept = {*roles.values()}
        tokens = [
            t.removeprefix("▁") if t.startswith("▁") or t in kept or _RESERVED.fullmatch(t) else f"##{t}"
            for t in self.tokens
        ]
        return {"tokenizer.json": _json(wordpiece(tokens, roles)), "tokenizer_config.json": _json(roles)}

    def sentencepiece(self) -> bytes:
        """A serialized sentencepiece ModelProto (sentencepiece_model.proto): pieces, trainer_spec, normalizer_spec."""
        scores = self.array("scores", float, len(self.tokens)) or [0.0] * len(self.tokens)
        unknown = self.role("unknown")
        if unknown is None:
            unknown = 0
        # sentencepiece wants exactly one unknown piece; converters also give that type to tokens that only pad
        types = [CONTROL if kind == UNKNOWN else kind for kind in self.types]
        types[unknown] = UNKNOWN
        pieces = b"".join(
            _message(1, _message(1, _utf8(token)) + b"\x15" + struct.pack("<f", score) + _number(3, kind))
            for token, score, kind in zip(self.tokens, scores, types, strict=True)
        )
        trainer = _number(3, 2) + _number(35, int(BYTE in types))  # model_type BPE, byte_fallback
        spaces = _number(3, int(self.flag("add_space_prefix", True)))
        spaces += _number(4, int(self.flag("remove_extra_whitespaces", False))) + _number(5, 1)
        return pieces + _message(2, trainer) + _message(3, _message(1, b"identity") + spaces)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise TokenizerError(f"the token {text[:40]!a} is not UTF-8: convert the model again") from None


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


_SMALL = [bytes([value]) for value in range(128)]  # nearly all there are: a vocabulary has millions of them


def _varint(value: int) -> bytes:
    """Protobuf's base-128 number."""
    if value < 128:
        return _SMALL[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, payload: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload
