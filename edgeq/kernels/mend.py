"""Error feedback, compiled: the fast twin of `edgeq.blocks.mending.quantize`, giving the same bits.

A lane is one of a panel's 16 rows, as in `encode`. First what super-blocks share is settled; then group after group
takes in the errors of those before, has its scale chosen, and its columns rounded one by one. Sweeps go over the groups
again: each takes in the errors of all others, and is rounded anew in the rows where it then loses less.
"""

from edgeq.blocks.table import block_type
from edgeq.kernels import encode_mins, encode_offsets, encode_symmetric
from edgeq.kernels.argument_blocks import MEND_BLOCK, MEND_COLUMN, Mend
from edgeq.kernels.encode import CODES_BYTES, COLUMNS, WORK_BYTES, X_BYTES, make_pack, searches, transpose
from edgeq.kernels.search import ROW, constant, inverse, weighed
from edgeq.simd.argument_words import words_of
from edgeq.simd.choice import store_u8x16, to_u8x16, where_above
from edgeq.simd.isa import Isa
from edgeq.simd.memory import load_f32, load_i64, stack, store_f32
from edgeq.simd.vector import (
    add,
    device,
    load_f32x16,
    load_splat_f32,
    load_u8x16,
    mul,
    select_below,
    splat_f32,
    store_f32x16,
    sub,
    u8x16_to_f32,
    zero_f32x16,
)

# A thread's scratch: f32 [columns][16] weights, what they decode to, and errors, u8 [columns][16] codes, and per
# super-block the work space of a search, d and dmin.
BLOCK_BYTES = WORK_BYTES + 2 * ROW
assert BLOCK_BYTES == MEND_BLOCK and MEND_COLUMN == 3 * ROW + 16


def make(variant: str, isa: Isa):
    """The kernel for block type `variant`. Threads take contiguous runs of panels."""
    bt = block_type(variant)
    header_bytes, group_bytes, per_row = bt.header_bytes, bt.group_bytes, bt.per_row
    # a row with one scale has its header once
    super_block_bytes = 8 * group_bytes if per_row else bt.super_block_offset(1)
    panel_of = _one_header if per_row else _header_for_each
    search, write_header = (encode_symmetric.make_row(bt).scale, _row_scale) if per_row else searches(bt)
    arguments, pack_group, size = words_of(Mend), make_pack(bt), bt.coded_columns
    shared = bt.scales not in ("f16", "f32", "e8m0", "row")
    if bt.has_mins:
        kind = encode_offsets.make_group(bt) if bt.scales == "f16" else encode_mins.make_group(bt)
    else:
        kind = encode_symmetric.make_group(bt)
    best, beside, scale_of, keep, kept, finish = kind.best, kind.beside, kind.scale, kind.keep, kind.kept, kind.finish
    round_column, reach, wide = kind.column, kind.reach[0], 2 * kind.reach[1] + 1

    @device
    def settle(wanted, importance, columns, blocks, unused, present):
        """d and dmin of every super-block; where a row has one scale, that is the d of them all."""
        scale = search(wanted, importance, columns) if per_row else zero_f32x16()
        for block in range((columns + COLUMNS - 1) // COLUMNS):
            groups = min(COLUMNS, columns - block * COLUMNS) // 32
            work = blocks + block * BLOCK_BYTES
            for row in range(64):
                store_f32x16(work + row * ROW, zero_f32x16())
            if per_row:
                store_f32x16(work + WORK_BYTES, scale)
            if shared:
                first = block * COLUMNS
                d, dmin = search(wanted + first * ROW, importance + first * 4, groups, work, unused, present)
                store_f32x16(work + WORK_BYTES, d)
                store_f32x16(work + WORK_BYTES + ROW, dmin)

    @device
    def loss(x, y, own, upper, importance, count, scale, offset):
        """What a group's columns lose with this scale; x stays as it is, y is f32 [count][16] to work in."""
        inv, total = inverse(scale), zero_f32x16()
        _copy(x, count, y)
        for j in range(count):
            moved = load_f32x16(y + j * ROW)
            _, found = round_column(moved, scale, offset, inv)
            residual = sub(moved, found)
            total = add(total, weighed(mul(residual, residual), importance, j))
            _move(y, upper, j, count, sub(load_f32x16(own + j * ROW), found))
        return total

    @device
    def choose_scale(x, y, own, upper, importance, count, work, group, start, start_min, least, first):
        """Factors of a group with which its columns lose least, near those given, and that loss. These are kept where
        no other loses less than `least`; they are tried themselves if `first` is -1."""
        d, dmin = load_f32x16(work + WORK_BYTES), load_f32x16(work + WORK_BYTES + ROW)
        new, new_min, factor, factor_min = start, start_min, start, start_min
        for i in range(first, wide * (2 * reach + 1)):
            if i >= 0:
                new, new_min = beside(start, start_min, i // wide - reach, i % wide - wide // 2)
            scale, offset = scale_of(new, new_min, d, dmin)
            lost = loss(x, y, own, upper, importance, count, scale, offset)
            factor, factor_min = where_above(least, lost, new, factor), where_above(least, lost, new_min, factor_min)
            least = where_above(least, lost, lost, least)
        keep(work, group, factor, factor_min)
        return least

    @device
    def round_group(x, own, upper, order, count, wanted, decoded, errors, codes, work, group, now, least, present):
        """Codes of a group, what it decodes to and its errors, in the rows where the least loss is below that of now;
        the others stay."""
        factor, factor_min = kept(work, group)
        scale, offset = scale_of(
            factor, factor_min, load_f32x16(work + WORK_BYTES), load_f32x16(work + WORK_BYTES + ROW)
        )
        inv = inverse(scale)
        for j in range(count):
            column = load_i64(order + j * 8)
            row, code_row = decoded + column * ROW, codes + column * 16
            code, found = round_column(load_f32x16(x + j * ROW), scale, offset, inv)
            _move(x, upper, j, count, sub(load_f32x16(own + j * ROW), found))
            found = where_above(now, least, found, load_f32x16(row))
            code = where_above(now, least, mul(code, present), u8x16_to_f32(load_u8x16(code_row)))
            store_f32x16(row, found)
            store_u8x16(code_row, to_u8x16(code))
            store_f32x16(errors + j * ROW, sub(_weights(wanted, order, j), found))

    def kernel(args, thread, n_threads):
        (
            source, rows, columns, target, result, first, last, order, uppers, settling, importance, sweeps, pulls,
            again, scratch, room,
        ) = arguments(args)  # fmt: skip
        wanted = scratch + thread * room
        decoded = wanted + columns * ROW
        errors = decoded + columns * ROW
        codes = errors + columns * ROW
        blocks = codes + columns * 16
        x, y, own, unused = stack(X_BYTES), stack(X_BYTES), stack(X_BYTES), stack(CODES_BYTES)
        panel_bytes = panel_of(columns, header_bytes) + columns // 32 * group_bytes
        for panel in range(
            first + (last - first) * thread // n_threads, first + (last - first) * (thread + 1) // n_threads
        ):
            valid = rows - panel * 16 if rows - panel * 16 < 16 else 16
            present = select_below(valid, splat_f32(1.0), zero_f32x16())
            transpose(source + panel * 16 * columns * 4, columns * 4, valid, columns, wanted)
            settle(wanted, settling, columns, blocks, unused, present)
            for sweep in range(sweeps + 1):
                done, part = 0, pulls if sweep else uppers
                while done < columns:
                    chosen = order + done * 8
                    at = load_i64(chosen) // size * size
                    work, group = blocks + at // COLUMNS * BLOCK_BYTES, at % COLUMNS // size
                    count = size if columns - at > size else columns - at
                    seen = columns if sweep else done
                    upper = part + seen * count * 4
                    _mend(x, part, wanted, chosen, errors, seen, count)
                    if sweep:
                        each = again + done * 4
                        _copy(x, count, own)
                        now = _loss_of(x, y, own, upper, each, chosen, count, decoded)
                        start, start_min = kept(work, group)
                    else:
                        each, now = importance + done * 4, constant(float("inf"))
                        _gather(wanted, chosen, count, own)
                        d, dmin = load_f32x16(work + WORK_BYTES), load_f32x16(work + WORK_BYTES + ROW)
                        start, start_min = best(x, each, work, group, d, dmin, count)
                    untried = 0 if sweep else -1
                    least = choose_scale(x, y, own, upper, each, count, work, group, start, start_min, now, untried)
                    if not sweep:  # there is nothing yet that could stay
                        least = constant(-1.0)
                    row = errors + done * ROW
                    round_group(
                        x, own, upper, chosen, count, wanted, decoded, row, codes, work, group, now, least, present
                    )
                    part = upper + count * count * 4
                    done += count
            out = target + panel * panel_bytes
            for block in range((columns + COLUMNS - 1) // COLUMNS):
                work = blocks + block * BLOCK_BYTES
                start = out + block * super_block_bytes
                for group in range((min(COLUMNS, columns - block * COLUMNS) + size - 1) // size):
                    finish(work, group, present)
                if not per_row or block == 0:
                    write_header(start, work, load_f32x16(work + WORK_BYTES), load_f32x16(work + WORK_BYTES + ROW))
                for g in range(min(8, columns // 32 - block * 8)):
                    pack_group(codes + (block * 8 + g) * 512, start + header_bytes + g * group_bytes)
            _transpose_back(decoded, columns, valid, result + panel * 16 * columns * 4)

    return kernel


@device
def _one_header(columns, header_bytes):
    return header_bytes


@device
def _header_for_each(columns, header_bytes):
    return (columns + COLUMNS - 1) // COLUMNS * header_bytes


@device
def _row_scale(out, work, d, dmin):
    store_f32x16(out, d)


@device
def _loss_of(x, y, own, upper, importance, order, count, decoded):
    """What a group's columns lose as they are."""
    total = zero_f32x16()
    _copy(x, count, y)
    for j in range(count):
        moved, found = load_f32x16(y + j * ROW), _weights(decoded, order, j)
        residual = sub(moved, found)
        total = add(total, weighed(mul(residual, residual), importance, j))
        _move(y, upper, j, count, sub(load_f32x16(own + j * ROW), found))
    return total


@device
def _mend(x, upper, wanted, order, errors, done, count):
    """The weights of a group's columns, with what the errors before them leave to be mended: f32 [count][16]."""
    for j in range(0, count, 4):
        sum_0, sum_1 = _weights(wanted, order, j), _weights(wanted, order, j + 1)
        sum_2, sum_3 = _weights(wanted, order, j + 2), _weights(wanted, order, j + 3)
        for i in range(done):
            error, row = load_f32x16(errors + i * ROW), upper + (i * count + j) * 4
            sum_0 = add(sum_0, mul(load_splat_f32(row), error))
            sum_1 = add(sum_1, mul(load_splat_f32(row + 4), error))
            sum_2 = add(sum_2, mul(load_splat_f32(row + 8), error))
            sum_3 = add(sum_3, mul(load_splat_f32(row + 12), error))
        store_f32x16(x + j * ROW, sum_0)
        store_f32x16(x + (j + 1) * ROW, sum_1)
        store_f32x16(x + (j + 2) * ROW, sum_2)
        store_f32x16(x + (j + 3) * ROW, sum_3)


@device
def _move(x, upper, j, count, error):
    """Take the error of column j into the columns behind it."""
    for k in range(j + 1, count):
        moved = mul(load_splat_f32(upper + (j * count + k) * 4), error)
        store_f32x16(x + k * ROW, add(load_f32x16(x + k * ROW), moved))


@device
def _copy(x, count, y):
    for j in range(count):
        store_f32x16(y + j * ROW, load_f32x16(x + j * ROW))


@device
def _gather(wanted, order, count, own):
    for j in range(count):
        store_f32x16(own + j * ROW, _weights(wanted, order, j))


@device
def _weights(wanted, order, j):
    return load_f32x16(wanted + load_i64(order + j * 8) * ROW)


@device
def _transpose_back(x, columns, valid, target):
    """[columns][16] f32 to `valid` rows."""
    for row in range(valid):
        for k in range(columns):
            store_f32(target + (row * columns + k) * 4, load_f32(x + k * ROW + row * 4))
