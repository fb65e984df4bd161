"""The tokenizer in a GGUF file's metadata as the files that a checkpoint has: `tokenizer.model` or `tokenizer.json`,
`tokenizer_config.json` and `generation_config.json`.
"""

import json
import re
import struct
from array import array
from collections.abc import Mapping
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.text.gguf_names import CONTROL_NAMES, END_NAMES
from edgeq.text.gguf_pretokenizers import PRE_TOKENIZERS, PreTokenizer
from edgeq.text.protobuf import message, number
from edgeq.text.tokenizer import END_OF_TURN
from edgeq.text.wordpiece import wordpiece
from edgeq.text.world import FILE, unescaped, vocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
KINDS = ("llama", "gpt2", "gemma4", "bert", "rwkv")
_PREFIX = "tokenizer.ggml."
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
# Tokens around what is filled in, as CodeLlama's tokenizer_config.json calls them -> GGUF's keys, the later one first
_INFILL = {
    "prefix_token": ("fim_pre", "prefix"),
    "suffix_token": ("fim_suf", "suffix"),
    "middle_token": ("fim_mid", "middle"),
}
_SPM_ROLES = {"bos": 1, "eos": 2, "unknown": 0}  # where a sentencepiece vocabulary does not say
_BERT_ROLES = {"unknown": "unk_token", "cls": "cls_token", "seperator": "sep_token", "padding": "pad_token"}
_BERT_ROLES |= {"mask": "mask_token"}
_RESERVED = re.compile(r"\[.+\]")  # names of special and unused tokens
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_LARGEST = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]  # f32
ENDS = ("eos", "eot", "eom")
_FURTHER_ENDS = END_NAMES.difference(END_OF_TURN)
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
        if not self.tokens:
            raise TokenizerError("the tokenizer has no tokens: convert the model again")
        self.types = self.token_types()
        for marked in self.infill().values():
            self.types[marked] = CONTROL

    def text(self, key: str) -> str | None:
        value = self.metadata.get(_PREFIX + key)
        return value if isinstance(value, str) else None

    def array(self, key: str, kind: type, length: int | None = None) -> list[Any]:
        """A list of the metadata; empty where there is none. TokenizerError for one of another kind or length."""
        value = self.metadata.get(_PREFIX + key, [])
        kinds = (int, float) if kind is float else kind
        wrong = not isinstance(value, list | array)
        if wrong or any(type(first) is bool or not isinstance(first, kinds) for first in value[:1]):
            raise TokenizerError(f"{_PREFIX}{key} is not a list of {kind.__name__}: convert the model again")
        if value and length is not None and len(value) != length:
            raise TokenizerError(f"{_PREFIX}{key} has {len(value)} entries, there are {length} tokens: convert again")
        return list(value)

    def token_types(self) -> list[int]:
        """The type of each token: what the file says, but for names that say more to GGUF's readers."""
        told = self.array("token_type", int, len(self.tokens))
        types = [kind if NORMAL <= kind <= BYTE else NORMAL for kind in told] or [NORMAL] * len(self.tokens)
        if not told:
            for role in ("bos", "eos", "padding"):
                if (control := self.role(role)) is not None:
                    types[control] = CONTROL
        spelled = (
            {token for token in self.tokens if _BYTE.fullmatch(token)} if self.model in ("llama", "gemma4") else set()
        )
        for i, token in enumerate(self.tokens):
            # Gemma's vocabulary has HTML's </s> as a text of its own, of another type than NORMAL
            if token in END_OF_TURN or (types[i] == NORMAL and token in CONTROL_NAMES):
                types[i] = CONTROL
            elif token in spelled and types[i] in (NORMAL, BYTE):
                types[i] = BYTE if len(spelled) == 256 else UNUSED  # all of them, or no text is spelled in bytes
        return types

    def flag(self, key: str, default: bool) -> bool:
        value = self.metadata.get(_PREFIX + key)
        return value if isinstance(value, bool) else default

    def role(self, name: str) -> int | None:
        """The id of a special token, if the file or the kind of tokenizer names one."""
        default = _SPM_ROLES.get(name) if self.model == "llama" else None
        value = self.metadata.get(f"{_PREFIX}{name}_token_id", default)
        return value if type(value) is int and 0 <= value < len(self.tokens) else None

    def infill(self) -> dict[str, int]:
        """The tokens around what is filled in, if the file names all three."""
        ids = {name: next((i for k in keys if (i := self.role(k)) is not None), None) for name, keys in _INFILL.items()}
        found = {name: i for name, i in ids.items() if i is not None}
        return found if len({*found.values()}) == len(_INFILL) else {}

    def assets(self) -> dict[str, bytes]:
        if self.model == "bert":
            return self.wordpiece()
        if self.model == "llama":
            files, add_bos = {"tokenizer.model": self.sentencepiece()}, True
        elif self.model == "rwkv":
            files, add_bos = {FILE: self.pieces()}, False
        elif self.model == "gemma4":
            files, add_bos = {"tokenizer.json": _json(self.spaced())}, True
        else:
            pre = self.pre_tokenizer()
            files, add_bos = {"tokenizer.json": _json(self.byte_level(pre))}, pre.add_bos
        config: dict[str, Any] = {
            role: None if (token := self.role(name)) is None else self.tokens[token] for name, role in _ROLES.items()
        }
        config |= {name: self.tokens[token] for name, token in self.infill().items()}
        config |= {"add_bos_token": self.flag("add_bos_token", add_bos)}
        config |= {"add_eos_token": self.flag("add_eos_token", False)}
        if self.model in ("llama", "rwkv"):
            config["added_tokens_decoder"] = self.added()
        if template := self.chat_template():
            config["chat_template"] = template
        ends = [token for name in ENDS if (token := self.role(name)) is not None]
        controls = (i for i, kind in enumerate(self.types) if kind == CONTROL and i not in ends)
        ends += [i for i in controls if self.tokens[i] in _FURTHER_ENDS]
        files["tokenizer_config.json"] = _json(config)
        return files | ({"generation_config.json": _json({"eos_token_id": ends})} if ends else {})

    def added(self) -> dict[str, Any]:
        """Tokens that cut the text before any merging: control ones, and those of the vocabulary's author."""
        kinds = {CONTROL: True, USER_DEFINED: False}
        places = {token: i for i, token in enumerate(self.tokens)}
        return {
            str(i): {"content": token, "special": kinds[kind]}
            for i, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind in kinds and token and places[token] == i
        }

    def chat_template(self) -> str | list[dict[str, str]] | None:
        """The template, or a list where the file has several by name, whether or not it lists these names."""
        found = {
            key.removeprefix(_TEMPLATE).removeprefix(".") or "default": text
            for key, text in self.metadata.items()
            if (key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")) and isinstance(text, str)
        }
        if found.keys() <= {"default"}:
            return found.get("default")
        return [{"name": name, "template": text} for name, text in found.items()]

    def pre_tokenizer(self) -> PreTokenizer:
        name = self.text("pre") or "default"  # files of before mid 2024 do not say
        if name not in PRE_TOKENIZERS:
            raise TokenizerError(f"the pre-tokenizer {name[:60]!r} is not known: convert the original checkpoint")
        return PRE_TOKENIZERS[name]

    def byte_level(self, pre: PreTokenizer) -> dict[str, Any]:
        """A byte-level BPE `tokenizer.json`."""
        splits = [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
            for pattern in pre.patterns
        ]
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        return self.pairs(
            {"type": "Sequence", "pretokenizers": [*splits, level]},
            {**level, "add_prefix_space": True, "use_regex": True},
            ignore_merges=pre.ignore_merges,
        )

    def spaced(self) -> dict[str, Any]:
        """A `tokenizer.json` of BPE on a whole text, whose spaces are marked, and whose other letters are bytes."""
        parts = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}]
        unknown = self.role("unknown")
        found = self.pairs(
            None,
            {"type": "Sequence", "decoders": [*parts, {"type": "Fuse"}]},
            byte_fallback=True,
            fuse_unk=True,
            unk_token=None if unknown is None else self.tokens[unknown],
        )
        return found | {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}}

    def pairs(self, pre_tokenizer: Any, decoder: Any, **model: Any) -> dict[str, Any]:
        """A BPE `tokenizer.json`; `model` are what its model has beside the usual."""
        if f"{_PREFIX}merges" not in self.metadata:
            raise TokenizerError(f"the tokenizer has no {_PREFIX}merges: convert the model again")
        vocab = {token: i for i, token in enumerate(self.tokens)}
        merges = []
        for line in self.array("merges", str):
            at = line.find(" ", 1)
            left, right = line[:at], line[at + 1 :]
            if at > 0 and left in vocab and right in vocab and left + right in vocab:
                merges.append([left, right])
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
            "pre_tokenizer": pre_tokenizer,
            "post_processor": None,
            "decoder": decoder,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocab,
                "merges": merges,
                **model,
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

    def pieces(self) -> bytes:
        """RWKV's file; control tokens have no lines there."""
        apart = (CONTROL, USER_DEFINED, UNUSED)
        kept = {i: token for i, token in enumerate(self.tokens) if token and self.types[i] not in apart}
        return vocabulary({i: unescaped(token) for i, token in kept.items()})

    def sentencepiece(self) -> bytes:
        """A serialized sentencepiece ModelProto (sentencepiece_model.proto): pieces, trainer_spec, normalizer_spec."""
        scores = self.array("scores", float, len(self.tokens)) or [0.0] * len(self.tokens)
        places = {token: i for i, token in enumerate(self.tokens)}
        unknown = self.role("unknown")
        if unknown is None:
            unknown = 0
        # sentencepiece wants exactly one unknown piece; converters also give that type to tokens that only pad
        types = [CONTROL if kind == UNKNOWN else kind for kind in self.types]
        types[unknown] = UNKNOWN
        # and each name once: of tokens with the same one, text becomes the last
        named = [
            (token, kind) if token and places[token] == i else (f"<unnamed {i}>", kind if i == unknown else UNUSED)
            for i, (token, kind) in enumerate(zip(self.tokens, types, strict=True))
        ]
        pieces = b"".join(
            message(1, message(1, _utf8(token)) + b"\x15" + _f32(score) + number(3, kind))
            for (token, kind), score in zip(named, scores, strict=True)
        )
        trainer = number(3, 2) + number(35, int(BYTE in types))  # model_type BPE, byte_fallback
        spaces = number(3, int(self.flag("add_space_prefix", True)))
        spaces += number(4, int(self.flag("remove_extra_whitespaces", False))) + number(5, 1)
        return pieces + message(2, trainer) + message(3, message(1, b"identity") + spaces)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise TokenizerError(f"the token {text[:40]!a} is not UTF-8: convert the model again") from None


def _f32(score: float) -> bytes:
    return struct.pack("<f", max(-_LARGEST, min(score, _LARGEST)))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
