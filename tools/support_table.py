"""The tables of what is supported, derived from the tables in the code and from the tests' lists of cases.

    python tools/support_table.py [--write]

Prints them, or writes them into edgeq/docs/support.md between its two markers. They hold what is in the block-type
table and the table of GGUF's types, the kernels' catalog, the architectures and GGUF's names for them, the
configurations that are compared with transformers, and the counts of tokenizer vectors and of renderings of chat
templates.
"""

import argparse
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = REPOSITORY / "tests"
PAGE = REPOSITORY / "edgeq" / "docs" / "support.md"
BEGIN, END = "<!-- made by tools/support_table.py: begin -->\n", "<!-- made by tools/support_table.py: end -->\n"
sys.path[:0] = [str(REPOSITORY), str(TESTS), str(TESTS / "models")]

from architecture_cases import CASES, FILES  # noqa: E402
from encoder_cases import ENCODERS, WITHOUT_CLASS  # noqa: E402
from token_vectors import PASSED  # noqa: E402

from edgeq.blocks.gguf_decode import can_narrow  # noqa: E402
from edgeq.blocks.gguf_types import BY_NAME  # noqa: E402
from edgeq.blocks.table import BLOCK_TYPES  # noqa: E402
from edgeq.models import SUPPORTED, architecture  # noqa: E402
from edgeq.models.gguf_architectures import ARCHITECTURES, EXPORTED  # noqa: E402
from edgeq.models.gguf_mixtures import MIXTRAL  # noqa: E402
from edgeq.models.image_tower import FAMILIES  # noqa: E402
from edgeq.models.wrapped import WRAPPED  # noqa: E402
from edgeq.ops import catalog  # noqa: E402
from edgeq.simd import isa  # noqa: E402
from edgeq.system.output import write_file  # noqa: E402


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def grouped(rows: Iterable[tuple[str, tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Rows (name, cells) with those of equal cells in one, in the order of their first names."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, cells in rows:
        names.setdefault(cells, []).append(name)
    return [(", ".join(found), *cells) for cells, found in names.items()]


def block_cells(name: str) -> tuple[str, ...]:
    """Import, export, encoding, kernel bodies of one of our or GGUF's types."""
    gguf = BY_NAME.get(name)
    bodies = [row for row in isa.TABLE if name in catalog.variants(row)["matmul"]]
    encoders = [row for row in isa.TABLE if name in catalog.variants(row)["encode"]]
    plain = name in BLOCK_TYPES and not BLOCK_TYPES[name].quantized
    if gguf is None:
        importing = "not in GGUF"
    elif not gguf.held:
        importing = "refused by name"
    elif gguf.native:
        importing = "every bit"
    else:
        importing = f"every weight, as {gguf.held}" + ("; scales may be rounded" if name == "NVFP4" else "")
    return (
        importing,
        "every bit" if gguf is not None and (gguf.native or can_narrow(gguf.held, name)) else "",
        "yes" if encoders or plain else "",
        ("all" if len(bodies) == len(isa.TABLE) else ", ".join(row.name for row in bodies)),
    )


def block_table() -> str:
    names = [*BLOCK_TYPES, *(name for name in BY_NAME if name not in BLOCK_TYPES)]
    return table(
        ("block type", "from GGUF", "to GGUF", "encoder", f"kernels for the {len(isa.TABLE)} bodies"),
        grouped((name, block_cells(name)) for name in names),
    )


def elsewhere() -> Counter[str]:
    """The configurations of architectures that transformers has no class of."""
    return Counter(architecture(config).name for config in WITHOUT_CLASS.values())


def architecture_cells(name: str, real: Counter[str]) -> tuple[str, ...]:
    """The way from and to GGUF, and what the results are compared with."""
    importable = {entry.model_type for entry in (*ARCHITECTURES.values(), MIXTRAL)} | EXPORTED.keys()
    ways = [way for way, names in (("from", importable), ("to", EXPORTED)) if WRAPPED.get(name, name) in names]
    kinds = [{config["model_type"] for config in cases.values()} for cases in (CASES, FILES["peers"])]
    tested = ["logits and greedy text" + " of llama.cpp" * (name in kinds[1])] if name in kinds[0] else []
    tested += ["last states"] if any(config["model_type"] == name for config in ENCODERS.values()) else []
    tested += ["last states of llama.cpp"] if name in elsewhere() else []
    tested += ["the same of real models"] if real[name] else []
    seen = "; of images rows, logits and greedy text" if name in FAMILIES else ""
    return " and ".join(ways), (", ".join(tested) or "as the text model it names") + seen


def architecture_table() -> str:
    """Architectures, the number of small random configurations of each in brackets."""
    cases = Counter(config["model_type"] for config in (*CASES.values(), *ENCODERS.values())) + elsewhere()
    real = Counter(model["model_type"] for model in _golden("manifest.json")["models"].values())
    rows = ((f"{name} ({cases[name]})" if cases[name] else name, architecture_cells(name, real)) for name in SUPPORTED)
    return table(("architecture (configurations tested)", "GGUF", "compared with transformers'"), grouped(rows))


def counts() -> str:
    passed, possible = (sum(column) for column in zip(*PASSED.values(), strict=True))
    vocabularies = ", ".join(f"{name} {good}/{total}" for name, (good, total) in PASSED.items())
    golden = _golden("chat_templates.json")
    entries = [entry["renderings"] for entry in golden["templates"].values()]
    tried, each = sum(map(len, entries)), 2 * len(entries)
    refused = sum(rendering is None for renderings in entries for rendering in renderings)
    paragraphs = (
        f"Token ids of llama.cpp's vocabulary tests: {passed} of {possible} ({vocabularies}).",
        f"Chat templates: {tried} of {tried} renderings of {len(entries)} templates are those of transformers, "
        f"{refused} of them refusals by both. With and without a generation prompt: {', '.join(golden['kinds'])}: "
        f"{each} of {each} each.",
    )
    return "\n\n".join("\n".join(textwrap.wrap(text, 120)) for text in paragraphs)


def _golden(name: str) -> dict:
    found: dict = json.loads((TESTS / "golden" / name).read_text(encoding="utf-8"))
    return found


def tables() -> str:
    """What belongs between the markers."""
    return "\n\n".join((block_table(), architecture_table(), counts())) + "\n"


def with_tables(text: str) -> str:
    """The page with the tables of today. SystemExit if it has not both markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: lacks the lines {BEGIN.strip()!r} and {END.strip()!r}")
    return before + BEGIN + "\n" + tables() + "\n" + END + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write them into edgeq/docs/support.md")
    if not parser.parse_args().write:
        print(tables(), end="")
        return
    write_file(PAGE, with_tables(PAGE.read_text(encoding="utf-8")).encode())


if __name__ == "__main__":
    main()
