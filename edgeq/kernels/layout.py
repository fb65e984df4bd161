"""What the runtime must know of the kernels' memory, free of Numba: control block, tapes, packed activations."""

# Control block of a team (execute.py), as indices into its int64 words, and sizes in bytes
JOB, JOB_TAPE, JOB_STEPS, JOB_STOP, JOB_LED, JOB_WAKE = 16, 24, 25, 26, 27, 32
JOB_BITS = 7  # of JOB, which say how many threads the job is for; above them its number
CONTROL_BYTES, WORKER_BYTES = 320, 128
SEEN = 1  # in a thread's part: the latest job that it knows of
BARRIERS = 8  # how many there were
TURNS, TURN_SLOTS = 8, 8  # in a thread's part: counters of the turns of its shares, for so many steps (turns.py)
BARRIER_BITS, PART_BITS = 36, 24  # bits of a counter below the number of barriers, and below that of a step's part
MAX_THREADS = 64  # the bits of the mask of workers to wake


def worker_seen(thread: int) -> int:
    """The word of the control block that says which job a thread has seen."""
    return (CONTROL_BYTES + thread * WORKER_BYTES) // 8 + SEEN


STEP_WORDS = 3  # of a tape: kernel, argument block, barrier

# A run: neighbouring rows of a pass that are neighbouring positions of a sequence. Its words: the first row, how many
# rows, the first one's position; and of a single row whose blocks of positions threads share the number of its place
# for partial results (there are SPLIT_RUNS), else -1
RUN_FIRST, RUN_ROWS, RUN_POSITION, RUN_PART = range(4)
RUN_WORDS, SPLIT_RUNS = 4, 4
MOST_RUNS = (1 << BARRIER_BITS - PART_BITS) - 1  # of a pass: each is a part of attention's step

GROUP = 32  # columns that share an activation scale
PROBE_LINES = 32  # code lines of a panel that are measured: making floats of their dots hardly counts
SUMS_BYTES = 20  # per token and group, beside the 32 bytes of codes (pack_rows.py)
ROW_SUMS_BYTES = 8  # per token, where all columns share a scale

# KV cache: bytes of an element. q8_0 has, beside them, an f16 scale per 32 values of a head and position.
KV_BYTES = {"f16": 2, "f32": 4, "q8_0": 1}


def kv_scale_bytes(kind: str, head_dim: int) -> int:
    """Bytes of the scales of one position of a key or value head."""
    return 2 * -(-head_dim // GROUP) if kind == "q8_0" else 0


# Attention works on blocks of positions, and on items of at most so many (token, query head) rows of one kv head
ATTENTION_BLOCK, ATTENTION_ROWS = 256, 64


def heads_per_tile(heads: int, kv_heads: int, most: int) -> int:
    """Query heads of a single token in one attention tile: at most `most`, filling the tiles of a group evenly."""
    group = heads // kv_heads
    return -(-group // -(-group // most))


def attention_places(scratch: int, rows: int, head_dim: int) -> tuple[int, int, int, int, int, int, int, int]:
    """Where an attention item of `rows` rows (whole tiles) keeps things in a thread's scratch, and where that ends:
    queries, scores, widened keys or values, sums and peaks of a block, totals and tops. Also compiled by the kernel."""
    padded = (head_dim + 15) // 16 * 16
    queries = scratch
    scores = queries + rows * padded * 4
    wide = scores + rows * ATTENTION_BLOCK * 4
    sums = wide + max(64, padded) * 64
    peaks = sums + rows * padded * 4
    totals = peaks + (rows * 8 + 63) // 64 * 64
    tops = totals + rows * padded * 4
    return queries, scores, wide, sums, peaks, totals, tops, tops + (rows * 8 + 63) // 64 * 64
