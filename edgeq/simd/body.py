"""What an instruction set body promises: the byte dot products of one instruction set, as LLVM IR.

A body is a file with a class of these methods and one object of it, `BODY`, and a row of the table in `isa`: nothing
else knows that it is there. Its dots are exact integers, so that all bodies give the same bits; what it does beyond
them, and how it prefers a shared kernel to be written, has a default here that is right for every CPU.

A code line is 64 unsigned bytes: 16 rows x 4 columns, the columns of a row side by side. Activations are signed bytes
from -127 to 127; a word is the 4 of them that a line meets. Dots are 16 int32, one for each row. `b` is the LLVM
builder, addresses are int64.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llvmlite import ir

from edgeq.simd import emit


@dataclass(frozen=True)
class Codes:
    """What dot products must know of a block type, see `blocks/table.py`: `halves` if 16 columns share a scale, `coded`
    if scales are integers (`signed` or not) times a factor, `short_scales` if a scale times FLOAT_BIAS is exact."""

    bits: int = 8
    zero_point: int = 0
    halves: bool = False
    coded: bool = False
    signed: bool = False
    short_scales: bool = False


BYTES = Codes()


class Body(Protocol):
    """The dot products of one instruction set. Bodies derive from this class, and override what they do better."""

    centred: frozenset[int] = frozenset()
    """Widths of codes whose dots already take the zero point, 2**(bits - 1), away: they start without its share."""

    tile_bias: int = 0
    """Bits of a float that a tile's dots may start from for nothing, as `Codes.short_scales` allows; 0 if that costs
    something. Where it is not 0, starts are made all at once and kept in memory: broadcasts from there are loads."""

    in_two: bool = False
    """Whether a matvec of one panel does a group of 8 lines 4 at a time, as more do not fit in registers."""

    pins_halves: bool = False
    """Whether the first half of a group is pinned in registers before the second half: else both fight for them."""

    arranges: bool = False
    """Whether `dot_tile` reads code lines otherwise than they lie in files, see `arrange_pair`."""

    lines_at_once: int = 8
    """Code lines that `add_tile` is best asked for."""

    reloads_rows: bool = False
    """Whether a row that several multiplications add to is loaded for each of them: where these add in place, a row
    that is loaded anew need not be copied."""

    @abstractmethod
    def dot_lines(self, b: ir.IRBuilder, total: ir.Value, lines: Sequence[ir.Value], words: ir.Value, code_bits: int):
        """total + the dots of these code lines and the activations at `words`, one word for each line, one after the
        other. There are 4 lines, or 8; the default of `dot_panels` asks for one at a time. 16 bytes may be read at
        `words` even for fewer lines than 4."""

    @abstractmethod
    def dot_tile(
        self,
        b: ir.IRBuilder,
        lines: ir.Value,
        words: ir.Value,
        tokens: int,
        count: int,
        code_bits: int,
        start: Callable[[int], ir.Value],
        pairs: ir.Value | None = None,
        zero_point: int = 0,
    ) -> list[ir.Value]:
        """The dots of `tokens` tokens over `count` code lines at `lines`, each added to `start(token)`.

        Words lie [line][token]. `pairs`, the address of scales as `scale_pairs` makes them, comes only if
        `scales_integers`: the dots are multiplied by them, their starts are not. `zero_point` comes only if
        `tile_centre` asks for it: it is taken away from every code.
        """

    @abstractmethod
    def lookup(self, b: ir.IRBuilder, table: ir.Value, codes: ir.Value) -> ir.Value:
        """The byte of `table`, a constant of 16, for each of 64 bytes from 0 to 15."""

    def dot_panels(
        self,
        b: ir.IRBuilder,
        totals: list[ir.Value],
        lines_of: Callable[[int, int], Sequence[ir.Value]],
        which: Sequence[int],
        words: ir.Value,
        code_bits: int,
        pairs_of: Callable[[int], ir.Value] | None = None,
        tokens: int = 1,
    ) -> list[ir.Value]:
        """`totals`, of every panel one for each token, + the dots of its pairs of lines `which` and the activations
        at `words`.

        `lines_of(panel, i)` makes lines 2i and 2i + 1, whose words are 2i and 2i + 1; words lie [line][token].
        `pairs_of(panel)` comes only if `scales_integers`: the scales that multiply these dots. For bodies that read
        several panels at once.
        """
        for i in which:
            for at in range(len(totals)):
                low, high = lines_of(at // tokens, i)
                for line, code_line in ((2 * i, low), (2 * i + 1, high)):
                    word = emit.offset(b, words, 4 * (line * tokens + at % tokens))
                    totals[at] = self.dot_lines(b, totals[at], [code_line], word, code_bits)
        return totals

    def bias(self, kind: Codes) -> int:
        """Where dots of this kind start: at 0, or at the bits of a large float, which make a float of them by one
        subtraction. That is free only where dots start at something anyway."""
        return 0

    def start(self, b: ir.IRBuilder, scalar: ir.Value, near: ir.Value | None) -> ir.Value:
        """The int32 `scalar` in 16 lanes, where a dot starts. `near` is an address that changes with every group, if
        the value should be made anew there."""
        return emit.splat(b, scalar, 16)

    def scales_integers(self, kind: Codes) -> bool:
        """Whether coded scales multiply integer dots, in `dot_tile` and `dot_panels`, and not floats."""
        return False

    def scale_pairs(self, b: ir.IRBuilder, codes: ir.Value, signed: bool) -> ir.Value:
        """16 byte codes of scales as the 64 bytes that this body multiplies dots by; for those that do."""
        raise NotImplementedError(f"{type(self).__name__} multiplies no integers by scales")

    def tile_centre(self, kind: Codes) -> int:
        """The zero point that `dot_tile` takes away by itself, or 0 if its share is in the start of a dot."""
        return 0

    def add_tile(
        self, b: ir.IRBuilder, totals: list[ir.Value], lines: ir.Value, words: ir.Value, count: int
    ) -> list[ir.Value]:
        """`totals`, one for each token, + the dots of `count` code lines of 8-bit codes; as `dot_tile` does it. The
        loop around it goes over all of a row."""
        return self.dot_tile(b, lines, words, len(totals), count, 8, totals.__getitem__)

    def arrange_pair(self, b: ir.IRBuilder, low: ir.Value, high: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Two code lines as `dot_tile` reads them from memory."""
        return low, high
