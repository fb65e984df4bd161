"""The file of a calibration: llama.cpp's importance matrix in GGUF form, with keys and tensors of our own beside.

Source: tools/imatrix/imatrix.cpp and common/imatrix-loader.cpp of llama.cpp, which ignore what they do not know. Of a
matrix NAME there are

    NAME.in_sum2    f32 [matrices, columns], sums of squares; NAME.counts, f32 [matrices, 1], of how many rows
    NAME.range      f32 [2], the least and the greatest value (ours)
    NAME.maxima     f32 [columns], the largest magnitudes (ours)
    NAME.sketch     i32 [3, bins], values by size: bins, the lower 31 bits of their counts, the upper ones (ours)
    NAME.gram       f32 [columns, columns], E[x x^T] (ours)

and of all `edgeq.tokens`, i32 [tokens], the sequences one after the other; `edgeq.lengths`, i32 [sequences], how long
each is; `edgeq.origins`, i32 [sequences], the corpus that it is of. The old binary form is read, too.
"""

import os
import struct
from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from edgeq.container.gguf_reader import GgufFile, open_gguf
from edgeq.container.gguf_values import ARRAY, F64, STRING, U32, Typed, is_gguf, render_metadata
from edgeq.container.gguf_writer import GgufSpec, GgufWriter
from edgeq.errors import FormatError, NotFoundError, UnsupportedError
from edgeq.models.gguf_architectures import exported
from edgeq.models.gguf_places import FUSED, split
from edgeq.quantize.calibration import Calibration, Corpus, Statistics, Subject
from edgeq.quantize.sketch import BINS, Sketch
from edgeq.system.input import read_bytes

SUMS, COUNTS, RANGE, GRAM = ".in_sum2", ".counts", ".range", ".gram"
MAXIMA, SKETCH = ".maxima", ".sketch"
WORD = 31  # bits of a count that an i32 holds
TOKENS, LENGTHS, ORIGINS = "edgeq.tokens", "edgeq.lengths", "edgeq.origins"
KEYS = "edgeq.calibration."
TYPES = {"f": "F32", "i": "I32"}
MOST_DAT = 1 << 20  # matrices, bytes of a name: more is no file of the old form

Arrays = dict[str, npt.NDArray[Any]]
Fail = Callable[[str], NoReturn]


def write_calibration(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write `calibration` as the file `path`, whole or not at all. OutputError if it cannot be written."""
    arrays: Arrays = {}
    for name, one in _in_gguf(calibration).items():
        arrays[f"{name}{SUMS}"] = one.sum_square.reshape(-1, one.columns)
        arrays[f"{name}{COUNTS}"] = one.counts.astype(np.float32).reshape(-1, 1)
        if np.isfinite([one.low, one.high]).all():
            arrays[f"{name}{RANGE}"] = np.array([one.low, one.high], np.float32)
        if one.sketch is not None and one.sketch.total:
            arrays[f"{name}{MAXIMA}"] = one.sketch.channel_maxima
            arrays[f"{name}{SKETCH}"] = _words(one.sketch)
        if one.gram is not None:
            arrays[f"{name}{GRAM}"] = one.gram
    if calibration.sequences:
        arrays[TOKENS] = np.concatenate(calibration.sequences)
        arrays[LENGTHS] = np.array([len(one) for one in calibration.sequences], np.int32)
        arrays[ORIGINS] = calibration.origins
    metadata = _metadata(calibration)
    specs = [GgufSpec(name, array.shape, TYPES[array.dtype.kind]) for name, array in arrays.items()]
    with GgufWriter(path, render_metadata(metadata), len(metadata), specs) as writer:
        for array in arrays.values():
            writer.write(np.ascontiguousarray(array))


def _in_gguf(calibration: Calibration) -> dict[str, Statistics]:
    """The matrices by their names in GGUF: parts of what its architecture fuses read the same, and are one there."""
    fused: Iterable[str] = ()
    if calibration.subject is not None:
        try:
            fused = exported(calibration.subject.architecture, calibration.source)[1].fused
        except UnsupportedError:  # GGUF has no such model: the names are ours
            fused = ()
    found: dict[str, Statistics] = {}
    for name, one in calibration.matrices.items():
        prefix, stem, suffix = split(name)
        whole = next((whole for whole, parts in FUSED if whole in fused and stem in parts), stem)
        found.setdefault(f"{prefix}{whole}{suffix}", one)
    return dict(sorted(found.items()))


def _metadata(calibration: Calibration) -> dict[str, Typed]:
    subject, corpora = calibration.subject, calibration.corpora
    values = {
        "general.type": Typed(STRING, "imatrix"),
        "imatrix.datasets": Typed(ARRAY, [corpus.name for corpus in corpora]),
        "imatrix.chunk_count": Typed(U32, max(calibration.tokens // calibration.chunk_size, 1)),
        "imatrix.chunk_size": Typed(U32, calibration.chunk_size),
        f"{KEYS}corpora.tokens": Typed(ARRAY, [corpus.tokens for corpus in corpora], U32),
        f"{KEYS}corpora.perplexity": Typed(ARRAY, [corpus.perplexity for corpus in corpora], F64),
    }
    if subject is not None:
        values |= {
            f"{KEYS}architecture": Typed(STRING, subject.architecture),
            f"{KEYS}layers": Typed(U32, subject.layers),
            f"{KEYS}hidden_size": Typed(U32, subject.hidden_size),
            f"{KEYS}vocab_size": Typed(U32, subject.vocab_size),
            f"{KEYS}name": Typed(STRING, subject.name),
        }
    return values


def read_calibration(path: str | os.PathLike[str]) -> Calibration:
    """The calibration in the file `path`: of `edgeq calibrate`, or an importance matrix of llama.cpp.

    Raises NotFoundError where there is none, FormatError for a file that is something else, or damaged.
    """
    source = os.fspath(path)
    if not os.path.exists(source):
        raise NotFoundError(f"{source}: no such file: `edgeq calibrate` makes a calibration")
    if not is_gguf(source):
        return _read_dat(source)
    with open_gguf(source) as file:
        if not any(name.endswith(SUMS) for name in file.tensors):
            raise FormatError(f"{source}: is a GGUF file, but no calibration: `edgeq calibrate` makes one")
        return _read(source, file)


def _read(source: str, file: GgufFile) -> Calibration:
    def fail(what: str) -> NoReturn:
        raise FormatError(f"{source}: {what}: calibrate again, or copy the file again")

    arrays = {name: _array(file, name, fail) for name in file.tensors}
    matrices = {}
    for name in arrays:
        if name.endswith(SUMS):
            matrices[name.removesuffix(SUMS)] = _statistics(arrays, name.removesuffix(SUMS), fail)
    sequences, origins = _sequences(arrays, fail)
    chunk_size, names = file.metadata.get("imatrix.chunk_size"), file.metadata.get("imatrix.datasets")
    corpora = _corpora(names if isinstance(names, list) else [], file.metadata)
    if origins.size and not 0 <= origins.min() <= origins.max() < len(corpora):
        fail("has sequences of no corpus")
    chunk_size = chunk_size if isinstance(chunk_size, int) and chunk_size > 0 else 512
    subject = _subject(file.metadata)
    if subject and sequences and max(int(one.max()) for one in sequences) >= subject.vocab_size:
        fail(f"has tokens beyond the {subject.vocab_size} of its model")
    return Calibration(source, matrices, subject, sequences, origins, corpora, chunk_size)


def _array(file: GgufFile, name: str, fail: Fail) -> npt.NDArray[Any]:
    tensor = file.tensors[name]
    if tensor.type.name not in TYPES.values():
        fail(f"tensor {name[:80]!r} is {tensor.type.name}, F32 or I32 is needed")
    dtype = np.float32 if tensor.type.name == "F32" else np.int32
    array = file.data(name).reshape(-1).view(dtype).reshape(tensor.shape).copy()  # the map is closed
    if not np.isfinite(array).all():
        fail(f"tensor {name[:80]!r} has values that are not finite")
    return array


def _statistics(arrays: Arrays, name: str, fail: Fail) -> Statistics:
    sums, counts = arrays[f"{name}{SUMS}"], arrays.get(f"{name}{COUNTS}")
    sums = sums.reshape(-1, sums.shape[-1])
    if counts is None or counts.size not in (1, len(sums)):
        fail(f"has no counts that belong to {name[:80]!r}")
    if sums.min() < 0 or counts.min() < 0:
        fail(f"{name[:80]!r} has a negative sum of squares or count")
    counts = np.rint(np.broadcast_to(counts.reshape(-1), len(sums))).astype(np.int64)
    low, high = arrays.get(f"{name}{RANGE}", np.full(2, np.nan))
    gram = arrays.get(f"{name}{GRAM}")
    if gram is not None and gram.shape != (sums.shape[1],) * 2:
        fail(f"the Gram matrix of {name[:80]!r} has the shape {list(gram.shape)}")
    sketch = _sketch(arrays, name, sums.shape[1], fail)
    return Statistics(sums[0] if len(sums) == 1 else sums, counts, float(low), float(high), sketch, gram)


def _words(sketch: Sketch) -> npt.NDArray[np.int32]:
    bins = np.flatnonzero(sketch.counts)
    counts = sketch.counts[bins]
    return np.stack([bins, counts & ((1 << WORD) - 1), counts >> WORD]).astype(np.int32)


def _sketch(arrays: Arrays, name: str, columns: int, fail: Fail) -> Sketch | None:
    """None in a file that has none."""
    limits, maxima, words = (arrays.get(f"{name}{what}") for what in (RANGE, MAXIMA, SKETCH))
    if words is None:
        return None
    if limits is None or limits.shape != (2,) or maxima is None or maxima.shape != (columns,) or maxima.min() < 0:
        fail(f"the sketch of {name[:80]!r} has no range and largest magnitudes that belong to it")
    if words.ndim != 2 or len(words) != 3 or words.min() < 0 or words[0].max() >= BINS:
        fail(f"the sketch of {name[:80]!r} has counts of bins that there are not")
    bins, low, high = words.astype(np.int64)
    counts = np.zeros(BINS, np.int64)
    counts[bins] = low + (high << WORD)
    return Sketch(counts, float(limits[0]), float(limits[1]), maxima)


def _sequences(arrays: Arrays, fail: Fail) -> tuple[tuple[npt.NDArray[np.int32], ...], npt.NDArray[np.int32]]:
    empty = np.empty(0, np.int32)
    tokens, lengths, origins = (arrays.get(name, empty) for name in (TOKENS, LENGTHS, ORIGINS))
    if (lengths < 1).any() or lengths.sum(dtype=np.int64) != len(tokens) or len(origins) != len(lengths):
        fail("its sequences are not as long as it says")
    if tokens.size and tokens.min() < 0:
        fail("has negative tokens")
    return tuple(np.split(tokens, np.cumsum(lengths)[:-1])) if len(tokens) else (), origins


def _corpora(names: list[Any], metadata: Mapping[str, Any]) -> tuple[Corpus, ...]:
    tokens, perplexities = (metadata.get(f"{KEYS}corpora.{what}") for what in ("tokens", "perplexity"))
    if not isinstance(tokens, array) or not isinstance(perplexities, array):
        return tuple(Corpus(str(name), 0) for name in names)
    rows = zip(names, tokens, perplexities, strict=False)
    return tuple(Corpus(str(name), int(count), float(perplexity)) for name, count, perplexity in rows)


def _subject(metadata: Mapping[str, Any]) -> Subject | None:
    words = [metadata.get(f"{KEYS}{key}") for key in ("architecture", "name")]
    numbers = [metadata.get(f"{KEYS}{key}") for key in ("layers", "hidden_size", "vocab_size")]
    if not all(isinstance(one, str) for one in words) or not all(isinstance(one, int) for one in numbers):
        return None
    (architecture, name), (layers, hidden_size, vocab_size) = map(str, words), (int(one or 0) for one in numbers)
    return Subject(architecture, layers, hidden_size, vocab_size, name)


def _read_dat(source: str) -> Calibration:
    """The old binary form: of each matrix its name, the number of chunks, and the sums over these of mean squares."""
    try:
        data = read_bytes(source)
    except OSError as error:
        raise FormatError(f"{source}: cannot be read: {error.strerror}: check its permissions") from None
    matrices, at = {}, 4
    try:
        (number,) = struct.unpack_from("<i", data)
        if not 0 < number < MOST_DAT:
            raise ValueError
        for _ in range(number):
            (length,) = struct.unpack_from("<i", data, at)
            if not 0 < length < MOST_DAT:
                raise ValueError
            name = data[at + 4 : at + 4 + length].decode()
            calls, values = struct.unpack_from("<ii", data, at + 4 + length)
            at += 12 + length
            if values < 1:  # -1 would be all that is left, again and again
                raise ValueError
            sums = np.frombuffer(data, "<f4", values, at).astype(np.float32)
            if calls < 1 or not np.isfinite(sums).all() or sums.min() < 0:
                raise ValueError
            matrices[name] = Statistics(sums, np.array([calls]))
            at += 4 * values
    except (struct.error, ValueError):  # a UnicodeDecodeError is one
        raise FormatError(f"{source}: is no calibration: `edgeq calibrate` makes one") from None
    return Calibration(source, matrices)
