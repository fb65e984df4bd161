"""Changes of sentencepiece models and of chat templates."""

import struct

from mutate import Rng, in_bytes
from mutate_gguf import INTS

from edgeq.text.protobuf import fields_as_written, message, number


def tokenizer_model(rng: Rng, data: bytes) -> bytes:
    """A sentencepiece model with fields changed."""
    if rng.random() < 0.2:
        return in_bytes(rng, data, len(data))
    parts = [(field, value, written) for field, value, written in fields_as_written(data)]
    for _ in range(rng.choice([1, 1, 2, 10])):
        at = rng.randrange(len(parts))
        field, value, written = parts[at]
        match rng.randrange(5):
            case 0:
                parts.pop(at)
                parts = parts or [(1, b"", b"")]
                continue
            case 1:
                parts.insert(at, rng.choice(parts))
                continue
            case 2 if isinstance(value, bytes):
                written = message(field, _piece(rng, value))
            case 3 if isinstance(value, bytes):
                written = message(field, in_bytes(rng, value, len(value) + 1))
            case _:
                extra = number(rng.choice([3, 24, 35, 40, 41, 42, 43]), rng.choice(INTS))
                extra = rng.choice([extra, message(2, rng.randbytes(rng.choice([4, 40, 4000])))])
                written = message(field, (value if isinstance(value, bytes) else b"") + extra)
        parts[at] = field, value, written
    return b"".join(written for _, _, written in parts)


LITERALS = (
    rb"''",
    rb"b''",
    rb"'\ud800'",
    rb"b'\u1234'",
    rb"'\N{DEGREE SIGN}'",
    rb"'\x'",
    rb'"',
    b"1",
    b"'%s'" % (b"a" * 5000),
)


def world(rng: Rng, data: bytes) -> bytes:
    """A vocabulary of RWKV's with lines changed."""
    lines = data.split(b"\n")
    for _ in range(rng.choice([1, 1, 2, 10])):
        at = rng.randrange(len(lines))
        number, _, rest = lines[at].partition(b" ")
        literal, _, length = rest.rpartition(b" ")
        match rng.randrange(5):
            case 0:
                lines[at] = in_bytes(rng, lines[at], len(lines[at]) + 1)
            case 1:
                lines.insert(at, rng.choice(lines))
            case 2:
                lines[at] = b" ".join((number, rng.choice(LITERALS), length))
            case 3:
                lines[at] = b" ".join((str(rng.choice(INTS)).encode(), literal, length))
            case _:
                lines[at] = b" ".join((number, literal, str(rng.choice(INTS)).encode()))
    return b"\n".join(lines)


def _piece(rng: Rng, value: bytes) -> bytes:
    text = rng.choice([b"", b"\xff", b"\xed\xa0\x80", b"\0", b"a" * 5000, b"<0x0A>", "▁".encode(), rng.randbytes(3)])
    score = rng.choice([b"", b"\x15" + struct.pack("<f", rng.choice([0.0, float("nan"), float("inf"), -1e38]))])
    return message(1, text) + score + (number(3, rng.randrange(9)) if rng.random() < 0.7 else b"")


EXPRESSIONS = [
    "messages",
    "messages[0].content",
    "x",
    "1e400|int",
    "'a' * 10",
    "range(3)",
    "namespace(a=1)",
    "bos_token",
]
EXPRESSIONS += [
    "messages[0]['role']",
    "[1, [2]]",
    "{'a': 1}",
    "loop.index",
    "undefined.x.y",
    "'%s' % 1",
    "''|join",
    "dict()",
]
EXPRESSIONS += [
    "-1",
    "1 // 0",
    "10 ** 9",
    "'é'",
    "none",
    "true",
    "strftime_now('%Y')",
    "strftime_now('%' * 9)",
    "cycler('a')",
]
EXPRESSIONS += [
    "raise_exception('no')",
    "messages.__class__",
    "''.join(['a'])",
    "'{0.x}'.format(1)",
    "lipsum()",
    "1.0 / 3",
]
EXPRESSIONS += [
    "('a,' * 9).split(',')",
    "messages|tojson(indent=1)",
    "joiner()",
    "self",
    "caller()",
    "varargs",
    "'\\ud800'",
]
FILTERS = [
    "int",
    "float",
    "upper",
    "tojson",
    "length",
    "trim",
    "join(',')",
    "first",
    "last",
    "list",
    "string",
    "sort",
    "abs",
]
FILTERS += [
    "default('d')",
    "replace('a', 'b')",
    "map('upper')",
    "map(attribute='x')",
    "selectattr('a')",
    "items",
    "batch(2)",
]
FILTERS += [
    "center(9)",
    "indent(3)",
    "round(400)",
    "format(1)",
    "groupby('a')",
    "dictsort",
    "unique",
    "wordwrap(0)",
    "slice(0)",
]
FILTERS += [
    "truncate(3)",
    "filesizeformat",
    "xmlattr",
    "urlize",
    "random",
    "reverse",
    "sum",
    "max",
    "pprint",
    "escape",
    "attr('a')",
]
STATEMENTS = [
    "for m in {}",
    "if {}",
    "set x = {}",
    "macro f(a={})",
    "call f({})",
    "filter upper",
    "block b",
    "include {}",
]
STATEMENTS += [
    "import {} as q",
    "endfor",
    "endif",
    "endmacro",
    "else",
    "elif {}",
    "with a = {}",
    "generation",
    "raw",
    "endraw",
]
STATEMENTS += [
    "set x",
    "endset",
    "do {}",
    "break",
    "continue",
    "autoescape {}",
    "extends {}",
    "from {} import a",
    "elif",
]


def expression(rng: Rng, depth: int = 0) -> str:
    """An expression of Jinja's, mostly."""
    left = rng.choice(EXPRESSIONS)
    if depth < 3 and rng.random() < 0.5:
        operator = rng.choice(["+", "-", "*", "~", "in", "==", "<", "and", "%", "//", "**", "is", "if", "."])
        left = f"({left} {operator} {expression(rng, depth + 1)})"
    return left + "".join(f"|{rng.choice(FILTERS)}" for _ in range(rng.choice([0, 0, 1, 2])))


def template(rng: Rng, data: bytes) -> bytes:
    """Pieces of a template put in, left out, swapped."""
    parts = (
        data.decode()
        .replace("}}", "}}\0")
        .replace("%}", "%}\0")
        .replace("{{", "\0{{")
        .replace("{%", "\0{%")
        .split("\0")
    )
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(parts))
        match rng.randrange(6):
            case 0:
                parts.pop(at)
                parts = parts or [""]
            case 1:
                parts.insert(at, "{{ " + expression(rng) + " }}")
            case 2:
                parts.insert(at, "{% " + rng.choice(STATEMENTS).replace("{}", expression(rng)) + " %}")
            case 3:
                parts[at] = "{{ " + expression(rng) + " }}"
            case 4:
                parts.insert(at, rng.choice(parts) * rng.choice([1, 30]))
            case _:
                parts[at] = in_bytes(rng, parts[at].encode()).decode(errors="replace")
    return "".join(parts).encode("utf-8", "replace")
