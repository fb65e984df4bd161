"""What people call a model: a path, a repository with or without the Hub's address, a short name, the name of one that
is in the cache."""

import difflib
import os
import re
from collections.abc import Iterable

from edgeq.errors import NotFoundError, UsageError
from edgeq.store import recommended
from edgeq.system import endings

# What may stand before owner/name, and what may follow where an address was copied from a browser. Of the slashes after
# https: a path leaves one.
_ADDRESS = re.compile(r"(?:https?://?)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?=[^/]+/[^/])", re.IGNORECASE)
_VIEW = re.compile(r"(?:/(?:tree|blob)/main)?/?(?=:|$)")
_SIZE = re.compile(r"[0-9.]+[bm](?![a-z0-9])", re.IGNORECASE)  # with which Ollama's tags begin: 7b-instruct-q4_0
_WORD = re.compile(r"[A-Za-z0-9][\w.:\-]*")


def resolve(text: str) -> str:
    """The same model as a path or as `owner/name[:TYPE]`; what is neither an address nor a short name stays as it is.

    A path that exists is always that path. Raises NotFoundError for a short name with a size that it has not.
    """
    if os.path.lexists(text):
        return text
    if found := _ADDRESS.match(text):
        return _VIEW.sub("", text[found.end() :], count=1)
    if row := recommended.find(text):
        return row.repository
    stem, _, kind = text.rpartition(":")
    if row := recommended.find(stem):
        if _SIZE.match(kind):
            family = f"{row.name.partition(':')[0]}:"
            sizes = ", ".join(one.name for one in recommended.TABLE if one.name.startswith(family))
            raise NotFoundError(f"{text}: there is no such size: there are {sizes}, and owner/name of the Hub")
        if kind.lower() == "latest":
            return row.repository
        return f"{row.repository}:{kind}"
    return text


def called(path: str) -> str:
    """What clients of a server call a model that was given no name: its file's, without what tells the format."""
    last = os.path.basename(os.path.normpath(path))
    return last.removesuffix(".eqf").removesuffix(".gguf") or path


def is_word(text: str) -> bool:
    """Whether it can only be a name: no path, no file, no repository."""
    return _WORD.fullmatch(text) is not None and not text.endswith(endings.MODEL) and not os.path.lexists(text)


def among(text: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is `text`, or else the only one that begins with it, in whatever case; None for none.

    A name also begins at its part after the owner: `qwen2.5` finds `Qwen-Qwen2.5-0.5B-Instruct`. Raises UsageError
    where several begin so.
    """
    names = list(dict.fromkeys(names))
    if text in names:
        return text
    wanted = text.lower()
    found = [name for name in names if any(part.startswith(wanted) for part in _beginnings(name))]
    if len(found) > 1:
        raise UsageError(f"{text}: may be {' or '.join(found)}: say more of its name")
    return found[0] if found else None


def _beginnings(name: str) -> tuple[str, str]:
    name = name.lower()
    return name, name.partition("-")[2]


def unknown(text: str, names: Iterable[str]) -> NotFoundError:
    """What to say of a name that none of `names`, nor a short name, is."""
    known = [*names, *recommended.USUAL, *(row.name for row in recommended.TABLE)]
    likely = difflib.get_close_matches(text.lower(), known, 1, cutoff=0.6)
    hint = f"did you mean {likely[0]}?" if likely else "give a file, a folder, or owner/name of the Hub"
    return NotFoundError(
        f"{text}: no such file, and no model of that name: {hint} (`edgeq models --recommended` lists some)"
    )
