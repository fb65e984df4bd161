'''What a typed text means: a command, a message, or one that goes on.

A line that ends with a backslash goes on in the next one. A text that begins with """ goes on to a line that ends with
""", and is a message as it stands between them. /name is a command, and // begins a message with a slash.
'''

from collections.abc import Callable

QUOTES = '"""'


def read_text(next_line: Callable[[bool], str]) -> str:
    """One typed text from as many lines as it has. The argument of `next_line` is whether the text goes on.

    Raises the EOFError of `next_line` if no line comes; a text that it cuts short is what there is.
    """
    text = next_line(False)
    while (block := block_is_open(text)) or text.endswith("\\"):
        try:
            line = next_line(True)
        except EOFError:
            return text if block else text[:-1]
        text = f"{text if block else text[:-1]}\n{line}"
    return text


def block_is_open(text: str) -> bool:
    """Whether a text begins with \"\"\" and no line of it ends with another one."""
    return text.startswith(QUOTES) and _block_end(text) is None


def _block_end(text: str) -> int | None:
    """Where the \"\"\" is that closes the block with which a text begins: at the end of a line."""
    at = len(QUOTES)
    for line in text[at:].splitlines(keepends=True):
        if line.rstrip().endswith(QUOTES):
            return at + len(line.rstrip()) - len(QUOTES)
        at += len(line)
    return None


def command_of(text: str) -> tuple[str, str] | None:
    """(name, rest) of a command, e.g. ("/save", "talk.json"); None where it is a message."""
    if not text.startswith("/") or text.startswith("//"):
        return None
    name = text.split(maxsplit=1)[0]
    return name.lower(), text[len(name) :].strip()


def message_of(text: str) -> str:
    """The message that a typed text is."""
    if text.startswith(QUOTES):
        end = _block_end(text)
        inner = text[len(QUOTES) : end]
        if end is None or not text[end + len(QUOTES) :].strip():  # else it is pasted code that begins with a docstring
            return inner.removeprefix("\n").removesuffix("\n")
    return text.removeprefix("/") if text.startswith("//") else text
