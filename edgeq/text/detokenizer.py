"""Token ids to text, one token at a time: never half a character, never a lost or an extra space."""

import codecs
from collections.abc import Callable


class Detokenizer:
    """Joins the bytes of tokens and hands out whole UTF-8 characters as soon as they are complete.

    A character may be spread over several tokens (byte-level BPE, or sentencepiece's `<0xE2>` byte tokens), so up to
    three bytes wait inside. Bytes that no continuation can make valid become U+FFFD, at the latest in `flush`.
    """

    def __init__(self, piece_bytes: Callable[[int], bytes], hidden: Callable[[int], bool], strip_space: bool):
        """`piece_bytes(id)` gives a token's bytes, `hidden(id)` tells control tokens, which leave no text.

        `strip_space` drops the one space that sentencepiece puts before the first word of a text.
        """
        self._piece_bytes = piece_bytes
        self._hidden = hidden
        self._strip_space = strip_space
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that became complete with this token; may be empty."""
        if self._hidden(token):
            return ""
        data = self._piece_bytes(token)
        if self._strip_space and data:
            self._strip_space = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def flush(self, cut: bool = False) -> str:
        """What is left at the end of the text: nothing, or U+FFFD for a character that never got whole.

        `cut`: the text was ended from outside, and half a character is nothing that the model wrote.
        """
        return "" if cut else self._decoder.decode(b"", final=True)
