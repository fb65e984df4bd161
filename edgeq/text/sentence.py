"""How the states of a text's tokens become one vector: the files of sentence-transformers, and what leaving them out
means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeq.errors import TokenizerError, UnsupportedError
from edgeq.text.assets import json_asset

POOLINGS = ("mean", "cls", "last", "max")
SENTENCE_FILES = ("modules.json", "sentence_bert_config.json", "pooling_config.json")
PROMPTS = "config_sentence_transformers.json"
_MODE = "pooling_mode_"


@dataclass(frozen=True)
class SentenceSettings:
    """pooling: one of POOLINGS; max_length: most tokens of a text, None for as many as the model takes; normalize:
    vectors get the length 1; dense: how many modules of a matrix come before that; prompts: what is put before texts,
    by name; default: the name of the one that is put there unasked; pools_prompt: whether its tokens are pooled too."""

    pooling: str
    max_length: int | None
    normalize: bool
    dense: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    pools_prompt: bool = True


def read_sentence_settings(assets: Mapping[str, bytes], causal: bool) -> SentenceSettings:
    """The settings in a model's assets.

    Without a pooling of its own a causal model's vector is the state of the last token, the only one that has seen the
    whole text; another model's the mean of all. Raises UnsupportedError for a pooling or a module that this version
    does not compute, TokenizerError for a file that is no JSON.
    """
    modules = _modules(assets)
    unknown = [kind for kind in modules if kind not in ("Transformer", "Pooling", "Dense", "Normalize")]
    if "Normalize" in modules[:-1]:
        unknown.append(f"Normalize before {modules[-1]}")
    if unknown:
        raise UnsupportedError(f"modules.json asks for a module {unknown[0]!r}: not supported")
    pools = json_asset(assets, "pooling_config.json")
    pooling = _pooling(pools) or ("last" if causal else "mean")
    told = json_asset(assets, PROMPTS)
    named, default = told.get("prompts"), told.get("default_prompt_name")
    known = named.items() if isinstance(named, dict) else ()
    prompts = {str(name): text for name, text in known if isinstance(text, str)}
    return SentenceSettings(
        pooling,
        most_tokens(assets),
        "Normalize" in modules,
        modules.count("Dense"),
        prompts,
        default if default in prompts else None,
        pools.get("include_prompt") is not False,
    )


def most_tokens(assets: Mapping[str, bytes]) -> int | None:
    """Most tokens of a text, as the model's files say, which may be more than it takes; None where none does.

    Newer sentence-transformers leave it to the tokenizer's files.
    """
    own = json_asset(assets, "sentence_bert_config.json").get("max_seq_length")
    length = own if own is not None else json_asset(assets, "tokenizer_config.json").get("model_max_length")
    return length if type(length) is int and length > 0 else None


def _modules(assets: Mapping[str, bytes]) -> list[str]:
    """The last names of the modules' types, in order; none where there is no such file."""
    if "modules.json" not in assets:
        return []
    wrapped = json_asset({"modules.json": b'{"modules": ' + bytes(assets["modules.json"]) + b"}"}, "modules.json")
    modules: Any = wrapped["modules"]
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise TokenizerError("modules.json is not a list of modules: download the checkpoint's own")
    return [str(module.get("type", "")).rsplit(".", 1)[-1][:60] for module in modules]


def _pooling(config: Mapping[str, Any]) -> str | None:
    """The one pooling that the file asks for; None where it asks for none."""
    named = config.get("pooling_mode")
    asked = [named] if isinstance(named, str) else [k for k, v in config.items() if k.startswith(_MODE) and v is True]
    if not asked:
        return None
    short = asked[0].removeprefix(_MODE).removesuffix("_tokens").removesuffix("_token")
    pooling = "last" if short == "lasttoken" else short
    if len(asked) > 1 or pooling not in POOLINGS:
        raise UnsupportedError(
            f"the pooling {' with '.join(asked)[:80]} is not supported; known are {', '.join(POOLINGS)}"
        )
    return pooling
