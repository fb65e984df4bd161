"""What the runtime must know of the kernels' memory, free of Numba: control block, tapes, packed activations."""

# Control block of a team (execute.py), as indices into its int64 words, and sizes in bytes
JOB, JOB_TAPE, JOB_STEPS, JOB_STOP, JOB_LED, JOB_WAKE = 16, 24, 25, 26, 27, 32
CONTROL_BYTES, WORKER_BYTES = 320, 64
MAX_THREADS = 64  # the bits of the mask of workers to wake

STEP_WORDS = 3  # of a tape: kernel, argument block, barrier

GROUP = 32  # columns that share an activation scale
SUMS_BYTES = 20  # per token and group, beside the 32 bytes of codes (quantize.py)

KV_BYTES = {"f16": 2, "f32": 4}


def heads_per_tile(heads: int, kv_heads: int) -> int:
    """Query heads that one attention tile takes: at most 4, dividing a group of heads with the least left over."""
    group = heads // kv_heads
    return -(-group // -(-group // 4))
