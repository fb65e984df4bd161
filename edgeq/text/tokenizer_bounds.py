"""What a `tokenizer.json` may ask of the `tokenizers` library: nothing that makes a text huge, or ends the process."""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

from edgeq.errors import TokenizerError

MOST_GROWTH = 64  # times that normalizers may make a text longer
MOST_IDS = 1 << 22  # that a vocabulary may reach up to
MOST_ADDED = 1000  # characters that they may put before it, or in place of one
_PREFIX = re.compile(rb'"continuing_subword_prefix"\s*:\s*"[^"]')
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")  # with which that name could be written otherwise; nobody does so
_CHARSMAP = re.compile(rb'"precompiled_charsmap"\s*:\s*"([^"]*)"')
_AGAIN = "download the checkpoint's own"


def check_merges(data: bytes) -> None:
    """TokenizerError for merges of pieces that lack the model's prefix: the library cuts as many bytes off them, and
    ends the process where that is within a character."""
    if not (_PREFIX.search(data) or _ESCAPED_LETTER.search(data)):
        return
    try:
        model = json.loads(data).get("model")
    except (ValueError, RecursionError, AttributeError):
        return  # the library says what is wrong
    prefix = model.get("continuing_subword_prefix") if isinstance(model, dict) else None
    merges = model.get("merges") if isinstance(model, dict) else None
    if not isinstance(prefix, str) or not isinstance(merges, list):
        return
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if isinstance(pair, list) and len(pair) == 2 and not str(pair[1]).startswith(prefix):
            raise TokenizerError(
                f"tokenizer.json merges {str(pair[1])[:40]!r}, which lacks the prefix {prefix!r}: {_AGAIN}"
            )


def check_charsmaps(data: bytes) -> None:
    """TokenizerError for a charsmap that is no base64, or shorter than it says: the library panics, which is told on
    stderr whoever catches it."""
    for found in _CHARSMAP.finditer(data):
        try:
            charsmap = base64.b64decode(found[1].replace(b"\\/", b"/"), validate=True)
        except (ValueError, binascii.Error):
            charsmap = b""
        trie = int.from_bytes(charsmap[:4], "little")
        if len(charsmap) < 8 or trie % 4 or not 4 <= trie <= len(charsmap) - 4:
            raise TokenizerError(f"tokenizer.json has a damaged precompiled_charsmap: {_AGAIN}")


def check_growth(tokenizer: Any) -> None:
    """TokenizerError for a tokenizer that makes a text very much longer before it is cut, or repeats it, or whose steps
    have nothing to look for."""
    growth = 1.0
    for step in _steps(tokenizer.normalizer):
        if step["type"] == "Replace" and step["pattern"].get("String") == "":
            raise TokenizerError(f"tokenizer.json has a normalizer that replaces nothing by something: {_AGAIN}")
        added = max((len(step[key]) for key in ("content", "prepend") if isinstance(step.get(key), str)), default=0)
        if added > MOST_ADDED:
            raise TokenizerError(f"tokenizer.json has a normalizer that writes {added} characters at once: {_AGAIN}")
        growth *= _growth(step)
    if growth > MOST_GROWTH:
        raise TokenizerError(f"tokenizer.json has normalizers that make a text {growth:.0f} times longer: {_AGAIN}")
    if any(step["type"] == "FixedLength" and step.get("length") == 0 for step in _steps(tokenizer.pre_tokenizer)):
        raise TokenizerError(f"tokenizer.json cuts a text into pieces of no length: {_AGAIN}")
    for step in _steps(tokenizer.post_processor):
        single = step.get("single")
        if isinstance(single, list) and sum("Sequence" in part for part in single) > 1:
            raise TokenizerError(f"tokenizer.json has a post-processor that repeats the text: {_AGAIN}")


def _growth(step: dict[str, Any]) -> float:
    """How many times longer a normalizer can make a text, those aside that follow Unicode."""
    if step["type"] == "Replace":
        pattern, content = step["pattern"], step["content"]
        found = len(pattern["String"]) if "String" in pattern else 1
        return max(1.0, len(content) / found if found else 1.0 + len(content))
    if step["type"] == "Precompiled":
        return max(1.0, _longest_replacement(step["precompiled_charsmap"]) / 3)  # NFKC: 18 letters of two bytes
    return 1.0


def _longest_replacement(charsmap: str) -> int:
    """Bytes of the longest text that a charsmap puts in place of a character: behind the trie, they end with zeros."""
    try:
        data = base64.b64decode(charsmap)
    except (ValueError, binascii.Error):
        return 0
    trie = int.from_bytes(data[:4], "little")
    return max(map(len, data[4 + trie :].split(b"\0")), default=0)


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or post-processor, one after the other."""
    waiting = [] if part is None else [json.loads(part.__getstate__())]
    while waiting:
        step = waiting.pop()
        inner = step.get("normalizers", step.get("pretokenizers", step.get("processors")))
        if isinstance(inner, list):
            waiting += reversed(inner)
        else:
            yield step
