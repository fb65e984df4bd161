"""What a checkpoint's JSON files say about its special tokens, gathered into one place.

The same fact may stand in up to five files. The order of trust is that of the Hugging Face loaders:
`tokenizer_config.json`, then `special_tokens_map.json`, then `generation_config.json`, then `config.json`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.system.json_input import parse_json

_SURROGATE = re.compile("[\ud800-\udfff]")
_ID = re.compile(r"\d{1,9}", re.ASCII)
_TEMPLATE_FILE = re.compile(r"chat_template(?:\.([\w.\-]+))?\.jinja", re.ASCII)  # of several, the name
MOST_TOKENS = 1 << 31
INFILL = ("prefix_token", "suffix_token", "middle_token")
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched in the text before any merging happens."""

    content: str
    special: bool  # a control token: never shown in decoded text
    lstrip: bool = False  # swallows the whitespace before it
    rstrip: bool = False  # swallows the whitespace after it
    single_word: bool = False  # only where it is not a part of a word
    normalized: bool = False  # matched in the normalized text, after those that are not


@dataclass(frozen=True)
class TokenizerSettings:
    """The tokenizer's surroundings, read from the JSON files of a checkpoint."""

    roles: dict[str, str]  # "bos_token" -> "<s>"; only the roles that have a token
    absent: frozenset[str]  # roles that tokenizer_config.json sets to null
    specials: frozenset[str]  # names of tokens that are special, whatever else is said of them
    added: dict[int, AddedToken]
    add_bos: bool | None  # None: left to the tokenizer's own post-processor
    add_eos: bool | None
    add_prefix_space: bool
    legacy: bool  # sentencepiece: every stretch of text between special tokens gets a leading space
    bos_ids: tuple[int, ...]
    eos_ids: tuple[int, ...]
    chat_template: str | dict[str, str] | None
    infill: tuple[str, ...] = ()  # tokens before, after and within which a middle is filled in; all three or none
    # Of a vocabulary without a tokenizer.json
    lowercase: bool | None = None
    strip_accents: bool | None = None
    split_chinese: bool = True


def read_settings(assets: Mapping[str, bytes]) -> TokenizerSettings:
    """Read the settings out of the JSON assets. Raises TokenizerError for a file that is no JSON object."""
    config = json_asset(assets, "tokenizer_config.json")
    special_map = json_asset(assets, "special_tokens_map.json")
    generation = json_asset(assets, "generation_config.json")
    model = json_asset(assets, "config.json")
    text_model = model.get("text_config") if isinstance(model.get("text_config"), dict) else {}
    sources = (generation, model, text_model or {})
    roles = _roles(config, special_map)
    specials = frozenset(roles.values()) | _further_specials(config, special_map)
    return TokenizerSettings(
        roles=roles,
        absent=frozenset(role for role in ROLES if role in config and config[role] is None),
        specials=specials,
        added=_added_tokens(config, json_asset(assets, "added_tokens.json"), specials),
        add_bos=_flag(config, "add_bos_token"),
        add_eos=_flag(config, "add_eos_token"),
        add_prefix_space=_flag(config, "add_prefix_space") is not False,
        legacy=_flag(config, "legacy") is not False,
        bos_ids=_first_ids("bos_token_id", sources),
        eos_ids=tuple(i for source in sources for i in _ids(source.get("eos_token_id"))),
        chat_template=_chat_template(assets, config),
        infill=_infill(config),
        lowercase=_flag(config, "do_lower_case"),
        strip_accents=_flag(config, "strip_accents"),
        split_chinese=_flag(config, "tokenize_chinese_chars") is not False,
    )


def json_asset(assets: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The JSON object in an asset, or an empty one where the asset is missing."""
    data = assets.get(name)
    if data is None:
        return {}
    try:
        value = parse_json(bytes(data))
    except ValueError as error:
        raise TokenizerError(f"{name} is not valid JSON ({error}): download the checkpoint's own") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{name} holds a {type(value).__name__}, not a JSON object: is it the right file?")
    return value


def _infill(config: dict[str, Any]) -> tuple[str, ...]:
    found = tuple(token for name in INFILL if (token := _content(config.get(name))) is not None)
    return found if len({*found}) == len(INFILL) else ()


def _flag(config: dict[str, Any], name: str) -> bool | None:
    value = config.get(name)
    return value if isinstance(value, bool) else None


def _content(value: Any) -> str | None:
    """A token written as a string or as a serialized AddedToken; half a surrogate pair is no text."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value and not _SURROGATE.search(value) else None


def _roles(config: dict[str, Any], special_map: dict[str, Any]) -> dict[str, str]:
    roles = {}
    for role in ROLES:
        token = _content(config[role]) if role in config else _content(special_map.get(role))
        if token is not None:
            roles[role] = token
    return roles


def _further_specials(config: dict[str, Any], special_map: dict[str, Any]) -> set[str]:
    """Tokens without a role that are special: a list, or an object of tokens by names of the model's own."""
    found: set[str] = set()
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = config[key] if key in config else special_map.get(key)
        tokens = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        found |= {content for token in tokens if (content := _content(token)) is not None}
    return found


def _added_tokens(config: dict[str, Any], old_style: dict[str, Any], specials: frozenset[str]) -> dict[int, AddedToken]:
    """`added_tokens_decoder` (id -> token) of tokenizer_config.json, over its ancestor, added_tokens.json."""
    added = {
        i: AddedToken(text, special=text in specials, normalized=text not in specials)
        for text, i in old_style.items()
        if type(i) is int and 0 <= i < MOST_TOKENS and text
    }
    decoder = config.get("added_tokens_decoder")
    for key, value in decoder.items() if isinstance(decoder, dict) else ():
        content = _content(value)
        if content is None or not isinstance(value, dict) or not _ID.fullmatch(str(key)):
            raise TokenizerError(
                f"tokenizer_config.json: added token {key!r} is malformed: download the checkpoint's own"
            )
        special = value.get("special") is True
        added[int(key)] = AddedToken(
            content,
            special=special or content in specials,
            lstrip=value.get("lstrip") is True,
            rstrip=value.get("rstrip") is True,
            single_word=value.get("single_word") is True,
            normalized=value.get("normalized", not special) is True,
        )
    return added


def _ids(value: Any) -> list[int]:
    """A token id, a list of them, or nothing; a number that no vocabulary reaches is no id."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 <= v < MOST_TOKENS]


def _first_ids(key: str, sources: tuple[dict[str, Any], ...]) -> tuple[int, ...]:
    return next((tuple(ids) for source in sources if (ids := _ids(source.get(key)))), ())


def _chat_template(assets: Mapping[str, bytes], config: dict[str, Any]) -> str | dict[str, str] | None:
    """The template's source; a dict where a checkpoint holds several, by name. Files of their own win, all of them."""
    own = {
        match[1] or "default": bytes(data).decode("utf-8", errors="replace")
        for name, data in assets.items()
        if (match := _TEMPLATE_FILE.fullmatch(name))
    }
    if own:
        return own if own.keys() != {"default"} else own["default"]
    value = config.get("chat_template", json_asset(assets, "chat_template.json").get("chat_template"))
    if isinstance(value, list):
        return {
            str(entry["name"]): str(entry["template"])
            for entry in value
            if isinstance(entry, dict) and "name" in entry and "template" in entry
        }
    if isinstance(value, dict):
        return {str(name): template for name, template in value.items() if isinstance(template, str)}
    return value if isinstance(value, str) else None
