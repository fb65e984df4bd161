"""Byte dot products in plain vector IR, for any CPU that LLVM knows. Correct first; the other bodies are fast."""

from llvmlite import ir

from edgeq.simd import emit
from edgeq.simd.body import Body


class Portable(Body):
    def dot_lines(self, b, total, lines, words, code_bits):
        for j, line in enumerate(lines):
            total = self.dot_bytes(b, total, line, emit.splat_word(b, emit.offset(b, words, 4 * j), 64))
        return total

    def dot_bytes(self, b, total, codes, activations):
        """total + the sums of four products each of unsigned `codes` and signed `activations`: what `vpdpbusd` does."""
        wide = ir.VectorType(emit.I32, codes.type.count)
        products = b.mul(b.zext(codes, wide), b.sext(activations, wide))
        for column in range(4):
            total = b.add(total, emit.shuffle(b, products, products, range(column, wide.count, 4)))
        return total

    def dot_tile(self, b, lines, words, tokens, count, code_bits, start):
        totals = [start(t) for t in range(tokens)]
        for j in range(count):
            line = emit.load(b, emit.offset(b, lines, 64 * j), emit.U8X64, 32)
            for t in range(tokens):
                totals[t] = self.dot_lines(b, totals[t], [line], emit.offset(b, words, 4 * (j * tokens + t)), code_bits)
        return totals

    def lookup(self, b, table, codes):
        result = codes
        for code in range(16):
            value = emit.splat(b, b.extract_element(table, emit.I32(code)), 64)
            result = b.select(b.icmp_unsigned("==", codes, emit.splat_constant(emit.U8X64, code)), value, result)
        return result


BODY = Portable()
