"""Writes a `.eqf` file: whole and checked, or not at all."""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgeq.container.header import ASSET_NAME, FEATURES, TENSOR_NAME, render
from edgeq.container.placement import PAGE, PREFIX_BYTES, AssetInfo, TensorInfo, TensorSpec, align, place
from edgeq.system.output import Chunk, OutputFile

__all__ = ["TensorSpec", "Writer"]


class Writer(OutputFile):
    """Writes the tensors of one file in any order, each as one or more chunks appended one after another.

        with Writer("m.eqf", [TensorSpec("output_norm.weight", (64,), "F32")], metadata, assets) as w:
            w.write("output_norm.weight", chunk)

    The file is there when the `with` block ends without an exception and every tensor is complete; after any exception
    an existing `path` is as it was.

    `metadata` needs "architecture" (str) and "config" (dict) and must be JSON. `requires` names what a reader must know
    to read the file rightly: others refuse it. Raises OutputError if the file cannot be written (no folder, no
    permission, disk full), UnsupportedError if a type cannot hold a tensor's shape or takes no scale of activations,
    ValueError for a name given twice, a feature that is not known, a chunk too many or a tensor left incomplete.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tensors: Sequence[TensorSpec],
        metadata: dict[str, Any],
        assets: Mapping[str, bytes],
        requires: Sequence[str] = (),
    ) -> None:
        _check_names(tensors, metadata, assets)
        if unknown := set(requires) - FEATURES:
            raise ValueError(f"features that are not known: {', '.join(sorted(unknown))}")
        self._requires = sorted(set(requires))
        self._metadata = metadata
        self._contents = dict(assets)
        placed, self._assets, nbytes = _fit(tensors, metadata, assets, self._requires)
        super().__init__(path, nbytes)
        self._tensors: dict[str, TensorInfo] = {t.name: t for t in placed}
        self._written = dict.fromkeys(self._tensors, 0)
        self._crc = dict.fromkeys(self._tensors, 0)

    def tensor_bytes(self, name: str) -> int:
        """Bytes of tensor `name` in the file. KeyError if there is none."""
        return self._tensors[name].nbytes

    def write(self, name: str, chunk: Chunk) -> None:
        """Append `chunk` to tensor `name`. Different tensors may be written by different threads at once."""
        data = memoryview(chunk).cast("B")
        info, done = self._tensors[name], self._written[name]
        if done + len(data) > info.nbytes:
            raise ValueError(f"tensor {name!r} has {info.nbytes} bytes, {done + len(data)} were written")
        self._crc[name] = zlib.crc32(data, self._crc[name])
        self.put(data, info.offset + done)
        self._written[name] = done + len(data)

    def _complete(self) -> None:
        for name, info in self._tensors.items():
            if self._written[name] != info.nbytes:
                raise ValueError(f"tensor {name!r} has {info.nbytes} bytes, only {self._written[name]} were written")
        assets: list[AssetInfo] = []
        for a in self._assets:
            content = self._contents[a.name]
            self.put(content, a.offset)
            assets.append(AssetInfo(a.name, a.offset, a.nbytes, zlib.crc32(content)))
        tensors = [replace(t, crc32=self._crc[t.name]) for t in self._tensors.values()]
        self.put(render(self._metadata, tensors, assets, self.nbytes, self._requires), 0)


def file_bytes(tensors: Sequence[TensorSpec], metadata: dict[str, Any], assets: Mapping[str, bytes]) -> int:
    """Bytes of the file that would be written. UnsupportedError if a type cannot hold a tensor's shape."""
    return _fit(tensors, metadata, assets, ())[2]


def _check_names(tensors: Sequence[TensorSpec], metadata: dict[str, Any], assets: Mapping[str, bytes]) -> None:
    names = [t.name for t in tensors]
    for name in names:
        if not TENSOR_NAME.match(name):
            raise ValueError(f"tensor name {name!r} is not allowed")
    for name in assets:
        if not ASSET_NAME.match(name):
            raise ValueError(f"asset name {name!r} is not allowed")
    if len(set(names)) != len(names):
        raise ValueError("a tensor name is given twice")
    if not isinstance(metadata.get("architecture"), str) or not isinstance(metadata.get("config"), dict):
        raise ValueError("metadata needs 'architecture' (a string) and 'config' (an object)")


def _fit(
    tensors: Sequence[TensorSpec], metadata: dict[str, Any], assets: Mapping[str, bytes], requires: Sequence[str]
) -> tuple[list[TensorInfo], list[AssetInfo], int]:
    """Place everything behind a header whose length depends on the places: grows page by page until it fits."""
    start = PAGE
    while True:
        placed, kept, nbytes = place(tensors, assets, start)
        header = len(render(metadata, placed, kept, nbytes, requires))
        if header <= start:
            return placed, kept, nbytes
        start = align(header, PAGE)
        assert start > PREFIX_BYTES
