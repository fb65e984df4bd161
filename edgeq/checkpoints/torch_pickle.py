"""Reads the pickle of a PyTorch checkpoint without PyTorch and without running anything that it asks for.

A pickle is a program: it names functions and calls them. Here only the names in `_ALLOWED` exist, each stands for a
harmless object of this module, and every other name is refused.
"""

import io
import pickle
import pickletools
from collections import OrderedDict
from typing import Any, NamedTuple

from edgeq.checkpoints.stored import Stored, extent
from edgeq.errors import CheckpointError

MAX_PICKLE_BYTES = 64 << 20
MOST_OPCODES = 1 << 19  # a tensor takes some forty
# What a state dict needs, in whichever protocol: no sets, no instances, nothing that doubles what is there
_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "BINGET", "LONG_BINGET", "GET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"),
    *("SHORT_BINBYTES", "BINBYTES", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST"),
    *("APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    *("BINPERSID", "FLOAT", "POP", "POP_MARK"),
}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}


# Tuples, because the pickle opcode BUILD may set attributes of anything that has some, after it was checked.
class Storage(NamedTuple):
    """A run of elements: the archive's member `data/<key>`."""

    key: str
    dtype: str
    elements: int


class View(NamedTuple):
    """A tensor: part of a storage, offsets and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def at(self, name: str, path: str, storage_offset: int, element_bytes: int) -> Stored:
        """The same tensor as bytes of the file `path`, where its storage starts at `storage_offset`."""
        first = storage_offset + self.offset * element_bytes
        return Stored(name, self.shape, self.storage.dtype, path, first, self.strides)


class _Dtype(NamedTuple):
    """A typed storage class such as `torch.HalfStorage`; only ever an argument."""

    code: str


class _RebuildTensor:
    """Stands for `torch._utils._rebuild_tensor_v2`."""

    __slots__ = ()

    def __call__(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, *unused: Any
    ) -> View:
        if not isinstance(storage, Storage):
            raise TypeError("a tensor without a storage")
        shape, strides = tuple(size), tuple(stride)
        if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
            raise ValueError("a tensor with impossible sizes")
        if extent(shape, strides) + offset > storage.elements and 0 not in shape:
            raise ValueError("a tensor larger than its storage")
        return View(storage, offset, shape, strides)


class _RebuildParameter:
    """Stands for `torch._utils._rebuild_parameter`: a parameter is its tensor."""

    __slots__ = ()

    def __call__(self, data: Any, *unused: Any) -> Any:
        return data


_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    **{("torch", name): _Dtype(code) for name, code in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, path: str) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            asked = f"{module}.{name}"[:120]
            raise CheckpointError(
                f"{self._path}: its pickle asks for {asked!r}, which is not data: refused; use the safetensors version"
            )
        return found

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", _Dtype() as dtype, str() as key, _, int() as elements):
                return Storage(key, dtype.code, elements)
        raise pickle.UnpicklingError("unknown persistent id")


def load_views(data: bytes, path: str) -> dict[str, View]:
    """The tensors that a state dict's pickle describes; entries that are no tensors are left out.

    CheckpointError, one line that names `path`, for a pickle that is damaged or asks for any code.
    """
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if number > MOST_OPCODES:
                raise CheckpointError(f"{path}: its pickle has more than {MOST_OPCODES} steps: not a model checkpoint")
            if opcode.name not in _OPCODES:
                raise CheckpointError(
                    f"{path}: its pickle has the step {opcode.name}, which no tensors need: refused; use the "
                    "safetensors version"
                )
            # The unpickler allocates memo slots up to the index asked for: gigabytes for five hostile bytes.
            if opcode.name in _PUTS and int(str(argument)) > MOST_OPCODES:
                raise pickle.UnpicklingError("memo index out of range")
        state = _Unpickler(data, path).load()
    except CheckpointError:
        raise
    # What a hostile or damaged pickle can make the standard unpickler raise.
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        MemoryError,
        RecursionError,
    ) as e:
        raise CheckpointError(f"{path}: its pickle is damaged ({type(e).__name__}): download it again") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a dict of tensors: not a model checkpoint")
    # Of the class: BUILD may have given an object other methods
    inner = dict.get(state, "state_dict")
    items = dict.items(inner if isinstance(inner, dict) else state)
    return {name: view for name, view in items if isinstance(name, str) and isinstance(view, View)}
