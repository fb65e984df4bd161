"""The outer loop of recurrent layers' kernels: over the runs of a pass, page by page, and over the parts of a layer's
state, which do not depend on one another."""

from edgeq.kernels.run_pages import rows_in_page, run_at, state_at
from edgeq.simd.argument_words import words_of
from edgeq.simd.memory import load_i64


def make_scan(block, columns):
    """A kernel whose threads share the parts of all runs. Its argument block, a `block`, says `parts`, the `part_bytes`
    of each in a page from `kept` on, and `pages`, `runs` and `run_count`.

    columns(args, state, token, rows, part): `rows` tokens from `token` on, which lie in one page, and what part number
    `part` knew before them, at `state`, changed in place.
    """
    arguments = words_of(block)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        items = load_i64(a.run_count) * a.parts
        for item in range(items * thread // n_threads, items * (thread + 1) // n_threads):
            number = item // a.parts
            part = item - number * a.parts
            first, rows, start = run_at(a.runs, number)
            done = 0
            while done < rows:
                here = rows_in_page(start + done, rows - done)
                state = state_at(a.pages, first, start + done, a.kept + part * a.part_bytes, a.part_bytes)
                columns(args, state, first + done, here, part)
                done += here

    return kernel
