"""Has a model see: images become rows that stand in a text for tokens."""

import hashlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeq.blocks.reference import decode, encode
from edgeq.blocks.table import tensor_bytes
from edgeq.container.changed import ChangedFile
from edgeq.container.part_file import PartFile
from edgeq.container.reader import File
from edgeq.errors import ContextError, FormatError, UsageError
from edgeq.graph.aligned import aligned
from edgeq.models.composition import Model
from edgeq.models.gguf_images import may_see
from edgeq.models.image_tower import PROJECTOR, TOWER, Images, is_of_images
from edgeq.models.rows_in import RowsIn
from edgeq.runtime.mixed_text import Given, Mixed, key_of
from edgeq.runtime.session import Session
from edgeq.vision.image_parts import expanded
from edgeq.vision.picture import pixels

if TYPE_CHECKING:
    from edgeq.vision.preparation import Layout, Tiles
    from edgeq.vision.resampling import U8

KEPT_BYTES = 256 << 20  # of rows of images that were seen: those of a conversation come again with each of its turns
MOST_KNOWN = 1 << 16  # images whose numbers are known: another one's may be new when it comes again

_NUMBERS = itertools.count()  # of all eyes, as prompts of one model could be seen by two

F32 = npt.NDArray[np.float32]


class Look(NamedTuple):
    """An image: its number; what stands for it in a prompt; its tiles, or, if they were seen before, their `rows` in
    place of them."""

    number: int
    layout: "Layout"
    tiles: "Tiles"
    rows: F32 | None = None


class Eyes:
    """Sees for one open file, in any threads, one image after the other.

    Every image has a number, by its pixels: two that differ in one value have two.
    """

    def __init__(self, file: File, images: Images, threads: int, announce: Callable[[str], None] | None = None) -> None:
        """`announce` hears a line if kernels must be compiled first. Raises UnsupportedError for settings of the file
        that are not followed."""
        assets = {name: file.asset(name) for name in file.assets}
        self.images = images
        self.preparation = images.preparation(assets, str(file.path))
        self._file, self._threads, self._announce = file, threads, announce
        self.whole = images.rows if images.whole else 0  # see Mixed
        self._lock, self._turns = threading.Lock(), threading.Lock()  # of what is known, which is short; to encode
        self._numbers = OrderedDict[bytes, int]()  # by digests of pixels
        self._kept = OrderedDict[int, F32]()
        self._sessions: tuple[Session, Session] | None = None
        self._places: Places | None = None
        self._closed = False

    def look(self, image: "U8") -> "Look":
        """An image u8 [height, width, 3], as it is to be encoded. UsageError for a shape that cannot be."""
        layout = self.preparation.layout(*image.shape[:2])
        state = hashlib.sha256(repr(image.shape).encode())
        state.update(np.ascontiguousarray(image).data)
        digest = state.digest()
        with self._lock:
            if digest not in self._numbers:
                self._numbers[digest] = next(_NUMBERS)
            number = self._numbers[digest]
            if len(self._numbers) > MOST_KNOWN:
                self._numbers.popitem(last=False)
            seen = self._kept.get(number)
        return Look(number, layout, self.preparation.tiles(image) if seen is None else [], seen)

    def rows(self, look: "Look") -> F32:
        """What an image becomes, tile by tile, f32 [rows of its layout, hidden size]. Raises UsageError where these
        eyes are closed."""
        with self._turns:
            if self._closed:  # while this one waited for its turn, say
                raise UsageError("the model is closed: load it again")
            with self._lock:
                found = self._kept.get(look.number, look.rows)
            if found is None:
                found = np.concatenate([self._of_tile(tile) for tile in look.tiles])
            with self._lock:
                self._kept[look.number] = found
                self._kept.move_to_end(look.number)
                while len(self._kept) > 1 and sum(rows.nbytes for rows in self._kept.values()) > KEPT_BYTES:
                    self._kept.popitem(last=False)
        return found

    def close(self) -> None:
        """Nothing can be seen afterwards."""
        with self._turns:
            for session in self._sessions or ():
                session.close()
            self._sessions, self._closed = None, True

    def _of_tile(self, tile: "U8") -> F32:
        (tower, projector), size = self._programs(), self.images.patch
        down, across = (edge // size for edge in tile.shape[:2])
        if self._places:
            self._places.set(down, across)
        tower.rewind(0)
        states = tower.eval(self.preparation.values.patches(tile, size), all_logits=True, across=across)
        projector.rewind(0)
        return projector.eval(joined(states, across, self.images.joined, self.images.mean), all_logits=True)

    def _programs(self) -> tuple[Session, Session]:
        if self._sessions is None:
            made, most = list[Session](), self.preparation.most_patches
            for before, model in ((TOWER, self.images.tower), (PROJECTOR, self.images.projector)):
                part: File = PartFile(self._file, before)
                count = model.max_position_embeddings
                if most and before == TOWER:
                    assert self.images.positions is not None
                    self._places = Places(part, model, most, self.images.positions)
                    part, model, count = self._places.file, self._places.model, most
                elif most:
                    count = most // self.images.joined**2
                made.append(
                    Session(
                        part,
                        model=model,
                        rows=True,
                        context=count,
                        batch=count,
                        threads=self._threads,
                        announce=self._announce,
                    )
                )
            self._sessions = made[0], made[1]
        return self._sessions


def joined(states: F32, across: int, by: int, mean: bool = False) -> F32:
    """The states of patches, row by row, so many in a row: each `by` times `by` neighbours one after the other, row by
    row, or their `mean`. f32 [n, width] to [n / by^2, by * by * width], or [n / by^2, width]."""
    width = states.shape[1]
    squares = states.reshape(-1, by, across // by, by, width).transpose(0, 2, 1, 3, 4)
    if mean:
        means: F32 = squares.mean(axis=(2, 3), dtype=np.float32).reshape(-1, width)
        return means
    return np.ascontiguousarray(squares).reshape(-1, by * by * width)


class Places:
    """A tower whose positions are those of the tile that comes next: its `model`, and its `file`, in which they lie in
    memory."""

    def __init__(self, file: File, model: Model, most: int, made: Callable[[F32, int, int], F32]) -> None:
        """For tiles of at most so many patches, whose positions are `made` of the file's."""
        embedding = model.embedding
        assert isinstance(embedding, RowsIn) and embedding.positions is not None
        name, (count, width) = f"{embedding.positions.name}.weight", (embedding.positions.rows, model.size.hidden_size)
        info = file.tensors.get(name)
        if info is None or (info.type, info.shape) != ("F32", (count, width)):
            what = f"tensor {name} of the image encoder is no F32 {[count, width]}"
            raise FormatError(f"{file.path}: {what}: convert the checkpoint again")
        self._made, self._shape = made, (0, 0)
        self._table = decode(file.data(name), count, width, "F32")
        self._panels = aligned(tensor_bytes("F32", (most, width)))
        self.file = ChangedFile(file, {name: ("F32", self._panels)}, {name: (most, width)})
        size = model.size._replace(max_position_embeddings=most)
        positions = embedding.positions._replace(rows=most)
        self.model = replace(model, size=size, embedding=embedding._replace(positions=positions))

    def set(self, down: int, across: int) -> None:
        """For a tile of so many rows and columns of patches."""
        if self._shape != (down, across):
            panels = encode(self._made(self._table, down, across), "F32")
            self._panels[: len(panels)] = panels
            self._shape = down, across


def can_see(file: File) -> bool:
    """Whether a file holds what a model sees with."""
    return any(map(is_of_images, file.tensors))


def text_alone(file: File) -> str:
    """What to say of a file that reads text alone, and how it would see, if it might."""
    imported = file.metadata.get("gguf") or {}
    tokens = file.asset("tokenizer.json") if "tokenizer.json" in file.assets else b""
    may = may_see(imported.get("architecture"), lambda token: token.encode() in tokens)
    how = " (a GGUF file with its --mmproj may see)" if may else ""
    return f"{file.path}: reads text alone{how}"


class Sight:
    """The images of one conversation, as a model's eyes see them."""

    def __init__(self, eyes: Eyes, given: Sequence[object], most: int) -> None:
        """Raises UsageError for what is no image, ContextError where they become more than `most` rows."""
        self._eyes, self._looks = eyes, list[Look]()
        left = most
        for number, image in enumerate(given, 1):
            self._looks.append(eyes.look(pixels(image, f"image {number}")))
            left -= self._looks[-1].layout.rows
            if left < 0:
                what = f"the images of the conversation take more than the {most} tokens of the context"
                raise ContextError(f"{what}: give fewer, or load with a larger --context")

    def expanded(self, prompt: str) -> str:
        """A prompt with all that stands for its images. Raises UsageError as image_parts.expanded."""
        return expanded(prompt, self._eyes.preparation.mark, [look.layout.text for look in self._looks])

    def mixed(self, tokens: list[int]) -> Mixed:
        """The prompt, its images seen. Raises UsageError where the tokens are not those of an expanded prompt."""
        places = [at for at, token in enumerate(tokens) if token == self._eyes.images.token]
        keys, blocks = list(tokens), {}
        for look in self._looks:
            blocks[look.number] = rows = self._eyes.rows(look)
            here, places = places[: len(rows)], places[len(rows) :]
            if len(here) < len(rows):
                break
            for row, at in enumerate(here):
                keys[at] = key_of(look.number, row)
        else:
            if not places:
                return Mixed(tokens, keys, Given(blocks), self._eyes.whole)
        raise UsageError("the model's tokenizer does not write its images as its config.json says: convert it again")
