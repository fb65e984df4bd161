"""Where the tensors of a PyTorch checkpoint (`pytorch_model*.bin`) lie, read without PyTorch.

Since PyTorch 1.6 such a file is an uncompressed ZIP archive: `<top>/data.pkl` is the pickle, and
`<top>/data/<key>` are the raw storages. The members are stored, so rows can be read in place.
"""

import os
import struct
import zipfile
import zlib
from typing import BinaryIO, NoReturn

from edgeq.checkpoints.safetensors_index import LFS_POINTER
from edgeq.checkpoints.stored import ELEMENTS, Stored
from edgeq.checkpoints.torch_pickle import MAX_PICKLE_BYTES, load_views
from edgeq.errors import CheckpointError
from edgeq.system.input import open_regular

MOST_DIRECTORY = 8 << 20  # bytes
# The archive's last records, each with the size of the list of parts; between the two there is a locator
_END, _END64, _LOCATOR = struct.Struct("<4s8xI6x"), struct.Struct("<4s36xQ8x"), 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., name bytes, extra bytes


def index(path: str) -> dict[str, Stored]:
    """The tensors of `path`. CheckpointError, one line, if the file is damaged, incomplete or asks for code."""
    try:
        with open(open_regular(path), "rb") as file:
            start = file.read(len(LFS_POINTER))
            if not start.startswith(b"PK"):
                _not_a_zip(path, start)
            _check_directory(path, file)
            with zipfile.ZipFile(file) as archive:
                return _index(path, archive, file)
    except OSError as e:
        _fail(path, f"cannot be read: {e.strerror or e}")
    except CheckpointError:
        raise
    # A name that is no UTF-8 is a ValueError, a part that asks for a password or an unknown method a RuntimeError
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, RuntimeError, ValueError, OverflowError):
        _fail(path, "the archive is damaged or cut short: download it again")


def _index(path: str, archive: zipfile.ZipFile, file: BinaryIO) -> dict[str, Stored]:
    members = {m.filename: m for m in archive.infolist()}
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        _fail(path, "is a ZIP archive without a PyTorch checkpoint in it")
    top = pickles[0].removesuffix("data.pkl")
    order = members.get(f"{top}byteorder")
    if any(m.compress_type != zipfile.ZIP_STORED for m in (order, members[pickles[0]]) if m is not None):
        _fail(path, "its parts are compressed, which PyTorch never does: save the checkpoint again")
    if order is not None and (order.file_size > 16 or archive.read(order).strip() != b"little"):
        _fail(path, "its numbers are big-endian, which is not supported: save it on a little-endian machine")
    if members[pickles[0]].file_size > MAX_PICKLE_BYTES:
        _fail(path, f"its pickle has more than {MAX_PICKLE_BYTES >> 20} MiB: not a model checkpoint")
    found: dict[str, Stored] = {}
    for name, view in load_views(archive.read(pickles[0]), path).items():
        member = members.get(f"{top}data/{view.storage.key}")
        if member is None:
            _fail(path, f"the data of tensor {name!r} is missing from the archive: download it again")
        element_bytes = ELEMENTS[view.storage.dtype].itemsize
        if member.compress_type != zipfile.ZIP_STORED or member.file_size < view.storage.elements * element_bytes:
            _fail(path, f"the data of tensor {name!r} is compressed or too short: save the checkpoint again")
        found[name] = view.at(name, path, _data_offset(path, member, file), element_bytes)
    return found


def _check_directory(path: str, file: BinaryIO) -> None:
    """CheckpointError if the archive's list of its parts, all of which is read at once, is larger than any real one."""
    nbytes = os.fstat(file.fileno()).st_size
    start = max(0, nbytes - _END.size - 0xFFFF - _END64.size - _LOCATOR)
    file.seek(start)
    tail = file.read()
    file.seek(0)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise zipfile.BadZipFile
    sizes = [_END.unpack_from(tail, at)[1]]
    before = at - _LOCATOR - _END64.size
    if before >= 0 and tail[before : before + 4] == b"PK\6\6":
        sizes = [_END64.unpack_from(tail, before)[1]]
    if max(sizes) > MOST_DIRECTORY:
        _fail(path, f"its list of parts takes {max(sizes)} bytes: not a model checkpoint")


def _data_offset(path: str, member: zipfile.ZipInfo, file: BinaryIO) -> int:
    """Byte of the file where a stored member's data starts: after its local header, which has its own lengths."""
    file.seek(member.header_offset)
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    offset = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if signature != b"PK\x03\x04" or offset + member.file_size > os.fstat(file.fileno()).st_size:
        _fail(path, f"the archive's member {member.filename!r} is damaged: download it again")
    return int(offset)


def _not_a_zip(path: str, start: bytes) -> NoReturn:
    if start == LFS_POINTER:
        _fail(path, "is a Git LFS pointer, not the weights: run `git lfs pull` or download the file itself")
    if start[:1] == b"\x80":
        _fail(path, "is in PyTorch's format from before version 1.6: save it as safetensors first")
    _fail(path, "is not a PyTorch checkpoint: download it again")


def _fail(path: str, what: str) -> NoReturn:
    raise CheckpointError(f"{path}: {what}")
