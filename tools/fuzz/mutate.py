"""Changes of bytes and of JSON, which know nothing of a file; `mutate_*.py` know what one is made of, so that most of
what comes out gets past the first checks of its reader."""

import json
import marshal
import random
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Rng = random.Random
Mutator = Callable[[Rng, bytes], bytes]
RAWS: list[str] = []  # what is written into JSON as it is, in place of "\1number\1"


def raw(text: str) -> str:
    """What stands for it until JSON is written."""
    RAWS.append(text)
    return f"\1{len(RAWS) - 1}\1"


NUMBERS: list[Any] = [0, 1, -1, 2, 3, 7, 255, 1 << 15, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 63, -(1 << 63), 1 << 64]
NUMBERS += [10**400, -(10**400), 0.0, -0.0, 0.5, 1e-45, 1e38, 3.5e38, 1e308, 5e-324, raw("1e400"), raw("-1e400")]
NUMBERS += [raw("NaN"), raw("Infinity"), raw("1" * 5000), raw("1e99999"), True, False]
TEXTS: list[Any] = ["", "a", "\x1b[31m", "\0", "\n", "٣", "²", "../x", "/etc/passwd", "a" * 20000, raw('"\\ud800"')]
TEXTS += ["é" * 300, "<s>", "NaN", "-1", "1" * 5000, "\u202e", "%s{}", "__class__", "\x85\u2028", "[" * 5000]
OTHERS: list[Any] = [
    None,
    [],
    {},
    [[]],
    {"": ""},
    [None] * 3,
    {"a": {"b": {}}},
    [0] * 500,
    raw("[" * 2000 + "]" * 2000),
]


def nasty(rng: Rng) -> Any:
    """A JSON value that somebody may not have thought of."""
    return copied(rng.choice(rng.choice([NUMBERS, TEXTS, OTHERS])))


def text_of(document: Any) -> bytes:
    """JSON, with what is raw as it is."""
    text = json.dumps(document)
    if "\\u0001" in text:
        text = re.sub(r'"\\u0001(\d+)\\u0001"', lambda found: RAWS[int(found[1])], text)
    return text.encode("utf-8", "surrogatepass")


@lru_cache(16)
def parsed(data: bytes) -> Any:
    """What JSON holds; nobody changes it."""
    return json.loads(data)


def copied(value: Any) -> Any:
    """A copy of what JSON holds."""
    return marshal.loads(marshal.dumps(value))


def places(value: Any, most: int = 4000) -> list[tuple[Any, Any]]:
    """(container, key) of all values within a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < most:
        one = waiting.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, item in items:
            found.append((one, key))
            waiting.append(item)
    return found


def in_json(rng: Rng, document: Any) -> Any:
    """A copy of a JSON value with one to three changes."""
    copy = copied(document)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        owner, key = rng.choice(places(copy) or [({}, "")])
        if key not in _keys(owner):
            continue
        match rng.randrange(8):
            case 0:
                owner.pop(key, None) if isinstance(owner, dict) else owner.pop(key)
            case 1 if isinstance(owner, dict):
                owner[rng.choice(TEXTS)] = owner.pop(key, None)
            case 2 if isinstance(owner, list):
                owner[key:key] = copied([owner[key]] * rng.choice([1, 2, 1000]))
            case 3:
                other, name = rng.choice(places(copy))
                owner[key] = copied(other[name]) if name in _keys(other) else None
            case 4 if isinstance(owner[key], int | float):
                owner[key] = rng.choice(
                    [
                        owner[key] + 1,
                        owner[key] - 1,
                        -owner[key],
                        owner[key] * 2,
                        owner[key] << 20 if isinstance(owner[key], int) else owner[key] / 0.3,
                    ]
                )
            case _:
                owner[key] = nasty(rng)
    return copy


def _keys(owner: Any) -> Any:
    return owner.keys() if isinstance(owner, dict) else range(len(owner))


def in_bytes(rng: Rng, data: bytes, head: int = 4096) -> bytes:
    """A few bytes changed, mostly near the beginning; or a piece cut out, doubled or cut off."""
    if not data:
        return rng.randbytes(5)
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(min(len(out), head) if rng.random() < 0.8 else len(out))
        match rng.randrange(6):
            case 0:
                out[at] = rng.randrange(256)
            case 1:
                out[at] ^= 1 << rng.randrange(8)
            case 2:
                width = rng.choice([2, 4, 8])
                out[at : at + width] = rng.choice([0, 1, 0x7F, 0xFF]).to_bytes(1, "little") * width
            case 3:
                del out[at : at + rng.choice([1, 8, 64])]
            case 4:
                out[at:at] = out[at : at + rng.choice([1, 8, 64])]
            case _ if rng.random() < 0.3:
                del out[at:]
        if not out:
            break
    return bytes(out)


def of_json(rng: Rng, data: bytes) -> bytes:
    """A JSON file changed, or its bytes."""
    return in_bytes(rng, data) if rng.random() < 0.1 else text_of(in_json(rng, parsed(data)))
