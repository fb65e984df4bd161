"""Byte dot products of unsigned codes and signed activations: `usdot` by lane, and `usmmla` for tiles of tokens.

`usmmla` multiplies 2 rows x 8 columns by 8 columns x 2 tokens, twice the products of `usdot`. Two code lines, zipped
once when a super-block is unpacked, give registers of 2 rows x 8 columns; a zip of the words of two lines gives 2
tokens; and an unzip of two results gives 4 rows of a token.
"""

from edgeq.simd import arm, emit
from edgeq.simd.emit import I32X4, U8X16
from edgeq.simd.intrinsics import USDOT, USMMLA

_EVEN, _ODD = (0, 2, 4, 6), (1, 3, 5, 7)
_LOW, _HIGH = (0, 4, 1, 5), (2, 6, 3, 7)


class NeonI8mm(arm.Arm):
    in_two = True  # 16 registers of codes are too many
    arranges = True
    lines_at_once = 32  # dots are put in order once for so many

    def bias(self, kind):
        return emit.FLOAT_BIAS

    def start(self, b, scalar, near):
        return arm.splat_by_copies(b, scalar, near)

    def dot_lines(self, b, total, lines, words, code_bits):
        parts = emit.quarters(b, total)
        for first in range(0, len(lines), 4):
            activations = emit.load(b, emit.offset(b, words, 4 * first), U8X16, 4)
            for lane, line in enumerate(lines[first : first + 4]):
                codes = emit.quarters(b, line)
                parts = [_usdot(b, part, code, activations, lane) for part, code in zip(parts, codes, strict=True)]
            parts = emit.pin(b, parts)
        return emit.join(b, parts)

    def arrange_pair(self, b, low, high):
        """Rows 0 and 1 x 8 columns, rows 2 and 3, ..."""
        pairs = [
            _zip(b, x, y, lanes)
            for x, y in zip(emit.quarters(b, low), emit.quarters(b, high), strict=True)
            for lanes in (_LOW, _HIGH)
        ]
        return emit.join(b, pairs[:4]), emit.join(b, pairs[4:])

    def dot_tile(self, b, lines, words, tokens, count, code_bits, start):
        """Code lines lie in pairs, as `arrange_pair` leaves them."""
        assert tokens % 2 == 0 and count % 2 == 0
        starts = [emit.quarters(b, start(t))[0] for t in range(tokens)]  # every row starts at the same value
        # totals[pair of tokens][pair of rows]: row 0 token 0, row 0 token 1, row 1 token 0, row 1 token 1
        totals = [[emit.shuffle(b, starts[t], starts[t + 1], _LOW)] * 8 for t in range(0, tokens, 2)]
        for j in range(0, count, 2):
            activations = _words_of_pairs(b, emit.offset(b, words, 4 * tokens * j), tokens)
            for rows in range(8):
                codes = emit.load(b, emit.offset(b, lines, 64 * j + 16 * rows), U8X16, 16)
                for pair, each in enumerate(activations):
                    totals[pair][rows] = USMMLA(b, totals[pair][rows], codes, each)
            pinned = emit.pin(b, [part for parts in totals for part in parts])
            totals = [pinned[8 * pair : 8 * pair + 8] for pair in range(tokens // 2)]
        return [
            emit.join(
                b,
                [emit.shuffle(b, totals[t // 2][r], totals[t // 2][r + 1], (_EVEN, _ODD)[t % 2]) for r in (0, 2, 4, 6)],
            )
            for t in range(tokens)
        ]

    def add_tile(self, b, totals, lines, words, count):
        """In `dot_tile` every row starts at the same value."""
        dots = self.dot_tile(b, lines, words, len(totals), count, 8, lambda t: emit.splat_constant(emit.I32X16, 0))
        return [b.add(total, dot) for total, dot in zip(totals, dots, strict=True)]


def _words_of_pairs(b, words, tokens):
    """For each two of `tokens` tokens, 2 or 4, their words of two lines: both of the first one, both of the second."""
    near = emit.load(b, words, U8X16, 4)
    if tokens == 2:
        return [_zip(b, near, near, (0, 2, 1, 3))]
    far = emit.load(b, emit.offset(b, words, 16), U8X16, 4)
    return [_zip(b, near, far, _LOW), _zip(b, near, far, _HIGH)]


def _zip(b, x, y, lanes):
    """Words (4 bytes) of two registers, interleaved."""
    return b.bitcast(emit.shuffle(b, b.bitcast(x, I32X4), b.bitcast(y, I32X4), lanes), U8X16)


def _usdot(b, total, codes, activations, lane):
    return USDOT(b, total, codes, emit.repeat_word(b, activations, lane))


BODY = NeonI8mm()
