"""Checks what can be checked of a GGUF model, which has no checksums: that it is whole, that its tensors are those of
its metadata, that its tokenizer runs here, and that no scale of a block is infinite or no number."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from edgeq.container.gguf_reader import GgufFile, GgufTensor
from edgeq.errors import FormatError
from edgeq.gguf.importer import examine

CHUNK_BYTES = 16 << 20

# Of a value's bits, those of the exponent: all are set in what is not finite
_EXPONENT = {"F32": ("<u4", 0x7F800000), "F64": ("<u8", 0x7FF << 52), "BF16": ("<u2", 0x7F80)}
_HALF_EXPONENT = 0x7C00
_NO_SCALE = {"MXFP4": 0xFF}  # the scale, the first byte of a block, that stands for none


def verify(file: GgufFile, progress: Callable[[int, int], None] | None = None, threads: int = 2) -> list[str]:
    """Check every tensor; the result is what there is to say of the model. `progress` hears bytes done, and in all.

    Raises what `import_gguf` does of a model that is damaged, incomplete or cannot run here; FormatError that names
    the first tensor with a scale or a value that is not finite.
    """
    notes = examine(file, allow_no_tokenizer=True).notes
    tensors = list(file.tensors.values())
    total, done = sum(tensor.nbytes for tensor in tensors), 0
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        try:
            for tensor, row in zip(tensors, pool.map(lambda tensor: _bad_row(file, tensor), tensors), strict=True):
                if row is not None:
                    what = "a value" if tensor.type.columns == 1 else "a scale"
                    where = f"{file.owner(tensor.name)}: tensor {tensor.name[:80]!r}"
                    raise FormatError(f"{where} has {what} in row {row} that is not finite: download or copy it again")
                done += tensor.nbytes
                if progress:
                    progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)
    file.check()
    return notes


def _bad_row(file: GgufFile, tensor: GgufTensor) -> int | None:
    """The first row that holds a scale, or of a plain type a value, that is not finite."""
    rows = file.data(tensor.name)
    step = max(CHUNK_BYTES // rows.shape[1], 1)
    for start in range(0, len(rows), step):
        bad = _not_finite(np.ascontiguousarray(rows[start : start + step]), tensor)
        if bad.any():
            return start + int(bad.argmax()) // (bad.size // len(rows[start : start + step]))
    file.release(tensor.name)
    return None


def _not_finite(rows: npt.NDArray[np.uint8], tensor: GgufTensor) -> npt.NDArray[np.bool_]:
    """bool [blocks or values]: whether each is not finite."""
    name = tensor.type.name
    if name in _EXPONENT:
        dtype, mask = _EXPONENT[name]
        values = rows.reshape(-1).view(dtype)
        return np.asarray((values & values.dtype.type(mask)) == mask)
    blocks = rows.reshape(-1, tensor.type.block_bytes)
    if name in _NO_SCALE:
        return np.asarray(blocks[:, 0] == _NO_SCALE[name])
    if name == "IQ1_M":  # has its f16 in the upper nibbles of four words, the exponent in the last two
        words = np.ascontiguousarray(blocks[:, 52:56]).view("<u2")
        half = (words[:, 0] >> 4 & 0xF00) | (words[:, 1] & 0xF000)
        return np.asarray((half & _HALF_EXPONENT) == _HALF_EXPONENT)
    if name == "NVFP4":  # has four 8-bit floats, one of which stands for none
        return np.asarray(((blocks[:, :4] & 127) == 127).any(axis=1))
    bad = np.zeros(len(blocks), np.bool_)
    for offset in tensor.type.halves:
        half = np.ascontiguousarray(blocks[:, offset : offset + 2]).view("<u2")[:, 0]
        bad |= (half & _HALF_EXPONENT) == _HALF_EXPONENT
    return bad
