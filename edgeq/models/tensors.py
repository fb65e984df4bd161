"""The tensors of a model: their names and shapes in the file, and which rows of the checkpoint's tensors they are."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import NamedTuple


class Projected(NamedTuple):
    """`number` rows of the tensor `rows`, which the LayerNorm `norm` has normed if there is one, that a matrix with a
    bias multiplies, whatever a model reads: so what comes out is known beforehand."""

    rows: str
    number: int
    bias: str
    norm: str
    eps: float


class Part(NamedTuple):
    """Rows of one tensor of a checkpoint.

    source: its Hugging Face name; shape: all of it, as it is there
    rows:   how many of its rows are meant. They lie in runs of `run` rows, the first run from row `first` on, each
            further one `step` rows after the one before: a slice of a fused tensor, or the heads of one kind in it.
    transposed: the rows are the columns of what is there
    plane:  the part lies in this matrix of a tensor of three dimensions
    flat:   the rows are single values of what is there, read as one vector
    turned: the rows are columns of what is there, and their columns its rows from this one on
    projected: the rows are what those of `turned` on make of these
    channels: a row has so many values of a pixel side by side, and then those of the next one; here all first values
             come first
    """

    source: str
    shape: tuple[int, ...]
    rows: int
    first: int = 0
    run: int = 0
    step: int = 0
    transposed: bool = False
    plane: int | None = None
    flat: bool = False
    turned: int | None = None
    projected: Projected | None = None
    channels: int = 1

    @property
    def needs(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors of the checkpoint that it is made of."""
        found, given = {self.source: self.shape}, self.projected
        if given:
            rows, columns = self.shape
            found |= {given.rows: (given.number, columns), given.bias: (rows,)}
            found |= {f"{given.norm}.{part}": (columns,) for part in ("weight", "bias") if given.norm}
        return found

    def row(self, index: int) -> int:
        """Where the row `index` of the part is in its tensor."""
        run, within = divmod(index, self.run or self.rows)
        return self.first + run * self.step + within


class Fused(NamedTuple):
    """Where a slice lies in a tensor of `rows` rows: see Part; a run of 0 is the whole slice."""

    rows: int
    first: int = 0
    run: int = 0
    step: int = 0


class Tensor(NamedTuple):
    """A tensor of the file: `parts` one after the other, `add` added to every value; with `log` each was x, and is
    -e^x.

    shape:   [n], [rows, columns], or [experts, rows, columns] with one part per expert
    ternary: weights are rounded to -s, 0 or s, s being the mean of |weight| over the tensor (arXiv:2402.17764)
    instead: the parts of a checkpoint that keeps them in other tensors
    bound:   it is a bound of other values, at most NO_BOUND, which stands where it is infinite
    """

    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    add: float = 0.0
    ternary: bool = False
    instead: tuple[Part, ...] = ()
    log: bool = False
    bound: bool = False


BOUNDS = ("input_min", "input_max", "output_min", "output_max")
NO_BOUND = 1e18  # whose square is a number in f32, too


class Tensors(dict[str, Tensor]):
    """Tensors by their names in the file (GGUF's), collected one by one in the order in which they are used."""

    def __init__(self, own: str = "", theirs: str = "", into: "Tensors | None" = None) -> None:
        super().__init__()
        self._own, self._theirs, self._into = own, theirs, self if into is None else into

    def within(self, own: str, theirs: str) -> "Tensors":
        """To add tensors whose names begin with `own` in the file, with `theirs` in the checkpoint."""
        return Tensors(own, theirs, self._into)

    def elsewhere(self, own: str, theirs: str) -> "Tensors":
        """As `within`, of tensors that lie in no layer, or in another one."""
        return self._into.within(own, theirs)

    def vector(self, name: str, source: str, n: int, add: float = 0.0) -> None:
        """`name` of n values."""
        source = self._theirs + source
        self._into[self._own + name] = Tensor((n,), (Part(source, (n,), n),), add)

    def vectors(self, name: str, source: str, count: int, n: int) -> None:
        """`name` of `count` vectors of n values, one after the other; `{}` in `source` stands for each's number."""
        parts = tuple(Part(self._theirs + source.format(i), (n,), n) for i in range(count))
        self._into[self._own + name] = Tensor((count * n,), parts)

    def rates(self, name: str, source: str, n: int) -> None:
        """`name` of n values, below zero, of whose negatives the checkpoint has the logarithms."""
        self.vector(name, source, n)
        self._into[self._own + name] = self._into[self._own + name]._replace(log=True)

    def flat_rates(self, name: str, source: str, shape: tuple[int, ...]) -> None:
        """As `rates`, all values of a tensor of that shape."""
        self.flat(name, source, shape)
        self._into[self._own + name] = self._into[self._own + name]._replace(log=True)

    def rate_matrix(self, name: str, source: str, rows: int, columns: int) -> None:
        """As `rates`, a matrix."""
        part = Part(self._theirs + source, (rows, columns), rows)
        self._into[self._own + name] = Tensor((rows, columns), (part,), log=True)

    def runs(self, name: str, source: str, slices: "tuple[Fused, ...]", rows: tuple[int, ...], columns: int) -> None:
        """`name.weight`: slices of a fused tensor, of so many rows each, one after the other."""
        whole = f"{self._theirs}{source}.weight"
        parts = tuple(
            Part(whole, (one.rows, columns), count, one.first, one.run or count, one.step)
            for one, count in zip(slices, rows, strict=True)
        )
        self._into[f"{self._own}{name}.weight"] = Tensor((sum(rows), columns), parts)

    def scalar(self, name: str, source: str, axes: int = 0) -> None:
        """`name` of one value, which has so many axes there."""
        self._into[self._own + name] = Tensor((1,), (Part(self._theirs + source, (1,) * axes, 1),))

    def bounds(self, name: str, source: str) -> None:
        """Four of one value each: what goes into a matrix, and what comes out, is held within them."""
        for end in BOUNDS:
            self.scalar(f"{name}.{end}", f"{source}.{end}")
            self._into[f"{self._own}{name}.{end}"] = self._into[f"{self._own}{name}.{end}"]._replace(bound=True)

    def shared(self, name: str, source: str, rows: int, columns: int) -> None:
        """`name` of rows * columns values, row after row of the matrix `source`, which is none of this layer's own."""
        n = rows * columns
        self._into[self._own + name] = Tensor((n,), (Part(source, (rows, columns), n, flat=True),))

    def row(self, name: str, source: str, n: int) -> None:
        """`name` of n values, a matrix of one row there."""
        self._into[self._own + name] = Tensor((n,), (Part(self._theirs + source, (1, n), n, flat=True),))

    def flattened(self, name: str, source: str, shape: tuple[int, ...]) -> None:
        """`name` of all values of a tensor of that shape."""
        self._add(name, (prod(shape),), (Part(self._theirs + source, shape, prod(shape), flat=True),))

    def rows_joined(self, name: str, sources: Sequence[str], shape: tuple[int, ...], whole: str) -> None:
        """`name` of the values of tensors of that shape, one after the other, or of `whole`, a matrix of their rows."""
        n, count = prod(shape), len(sources)
        apart = tuple(Part(self._theirs + source, shape, n, flat=True) for source in sources)
        self._add(name, (count * n,), apart)
        self._add(name, (count * n,), (Part(self._theirs + whole, (count, n), count * n, flat=True),))

    def norm(self, name: str, source: str, n: int, bias: bool = False, add: float = 0.0) -> None:
        """A norm's `name.weight` and, if it has one, `name.bias`."""
        self.vector(f"{name}.weight", f"{source}.weight", n, add)
        if bias:
            self.vector(f"{name}.bias", f"{source}.bias", n)

    def slice(
        self,
        name: str,
        source: str,
        rows: int,
        columns: int,
        fused: "Fused",
        bias: bool = False,
        transposed: bool = False,
        ternary: bool = False,
        ending: str = ".weight",
    ) -> None:
        """`name.weight` and `name.bias`: `rows` rows of a fused tensor, whose name there ends with `ending`."""
        first, run, step = fused.first, fused.run or rows, fused.step
        there = (columns, fused.rows) if transposed else (fused.rows, columns)
        part = Part(f"{self._theirs}{source}{ending}", there, rows, first, run, step, transposed)
        self._into[f"{self._own}{name}.weight"] = Tensor((rows, columns), (part,), ternary=ternary)
        if bias:
            part = Part(f"{self._theirs}{source}.bias", (fused.rows,), rows, first, run, step)
            self._into[f"{self._own}{name}.bias"] = Tensor((rows,), (part,))

    def depthwise(self, name: str, source: str, channels: int, taps: int, bias: bool = False) -> None:
        """`name.weight` [channels, taps] of a convolution whose channels do not mix, and its bias if it has one."""
        part = Part(f"{self._theirs}{source}.weight", (channels, 1, taps), channels)
        self._into[f"{self._own}{name}.weight"] = Tensor((channels, taps), (part,))
        if bias:
            self.vector(f"{name}.bias", f"{source}.bias", channels)

    def joined(self, name: str, sources: Mapping[str, int], columns: int) -> None:
        """`name.weight`: the matrices `sources`, of so many rows each, one after the other."""
        parts = tuple(Part(f"{self._theirs}{one}.weight", (rows, columns), rows) for one, rows in sources.items())
        self._into[f"{self._own}{name}.weight"] = Tensor((sum(sources.values()), columns), parts)

    def depthwise_joined(self, name: str, sources: Mapping[str, int], whole: str, taps: int) -> None:
        """As `depthwise`, of convolutions of so many channels each, one after the other, or of `whole`."""
        count = sum(sources.values())
        apart = tuple(Part(f"{self._theirs}{one}.weight", (rows, 1, taps), rows) for one, rows in sources.items())
        self._add(f"{name}.weight", (count, taps), apart)
        self._add(f"{name}.weight", (count, taps), (Part(f"{self._theirs}{whole}.weight", (count, 1, taps), count),))

    def unrolled(self, name: str, source: str, shape: tuple[int, ...]) -> None:
        """`name.weight` [first of `shape`, product of the others] of a tensor of that shape, and its bias."""
        part = Part(f"{self._theirs}{source}.weight", shape, shape[0])
        self._into[f"{self._own}{name}.weight"] = Tensor((shape[0], prod(shape[1:])), (part,))
        self.vector(f"{name}.bias", f"{source}.bias", shape[0])

    def of_pixels(self, name: str, source: str, rows: int, columns: int, channels: int) -> None:
        """`name.weight` [rows, columns], see Part.channels."""
        part = Part(f"{self._theirs}{source}.weight", (rows, columns), rows, channels=channels)
        self._into[f"{self._own}{name}.weight"] = Tensor((rows, columns), (part,))

    def plane(self, name: str, source: str, shape: tuple[int, int, int], index: int, rows: int) -> None:
        """`name.weight`: the first rows of a matrix of the tensor `source` of that shape."""
        part = Part(self._theirs + source, shape, rows, plane=index)
        self._into[f"{self._own}{name}.weight"] = Tensor((rows, shape[2]), (part,))

    def matrices_of_heads(self, name: str, source: str, heads: int, size: int) -> None:
        """`name.weight` [heads * size, size] of a tensor [heads, size, size], each of whose matrices is turned."""
        whole, there = self._theirs + source, (heads, size, size)
        parts = tuple(Part(whole, there, size, transposed=True, plane=head) for head in range(heads))
        self._into[f"{self._own}{name}.weight"] = Tensor((heads * size, size), parts)

    def flat(self, name: str, source: str, shape: tuple[int, ...]) -> None:
        """`name`, all values of a tensor of that shape."""
        self._into[self._own + name] = Tensor(
            (prod(shape),), (Part(self._theirs + source, shape, prod(shape), flat=True),)
        )

    def turned_heads(self, name: str, source: str, heads: int, rows: int, columns: int, step: int) -> None:
        """`name.weight` [heads * rows, columns]: of each head the first `columns` of its `step` rows there, turned."""
        whole, there = f"{self._theirs}{source}.weight", (heads * step, rows)
        parts = tuple(Part(whole, there, rows, turned=head * step) for head in range(heads))
        self._into[f"{self._own}{name}.weight"] = Tensor((heads * rows, columns), parts)

    def projected(self, name: str, source: str, heads: int, rows: int, columns: int, given: Projected) -> None:
        """`name.weight` [heads * given.number, rows / heads]: what the matrix `source` [rows, columns] makes of what is
        `given`, head after head; its bias is this layer's, too."""
        whole, each = f"{self._theirs}{source}.weight", rows // heads
        given = given._replace(bias=f"{self._theirs}{source}.bias")
        parts = tuple(
            Part(whole, (rows, columns), given.number, turned=head * each, projected=given) for head in range(heads)
        )
        self._into[f"{self._own}{name}.weight"] = Tensor((heads * given.number, each), parts)

    def experts(self, name: str, source: str, count: int, rows: int, columns: int) -> None:
        """`name.weight` [count, rows, columns]; `source` names an expert's tensor, `{}` standing for its number."""
        sources = [f"{self._theirs}{source.format(i)}.weight" for i in range(count)]
        parts = tuple(Part(one, (rows, columns), rows) for one in sources)
        self._into[f"{self._own}{name}.weight"] = Tensor((count, rows, columns), parts)

    def stacked(
        self, name: str, source: str, count: int, rows: int, columns: int, fused: Fused, transposed: bool = False
    ) -> None:
        """As `experts`, of one tensor `source` [count, fused.rows, columns]: a slice of each of its matrices;
        `transposed`: these are [columns, fused.rows] there. The other way to read a tensor that is listed already."""
        there = (count, columns, fused.rows) if transposed else (count, fused.rows, columns)
        first, run, step = fused.first, fused.run or rows, fused.step
        whole = f"{self._theirs}{source}"
        parts = tuple(Part(whole, there, rows, first, run, step, transposed, i) for i in range(count))
        self._add(f"{name}.weight", (count, rows, columns), parts)

    def also(self, name: str, source: str, rows: int, columns: int) -> None:
        """The other way to read the matrix `name.weight`."""
        part = Part(f"{self._theirs}{source}.weight", (rows, columns), rows)
        self._add(f"{name}.weight", (rows, columns), (part,))

    def vector_also(self, name: str, source: str, n: int) -> None:
        """The other way to read the vector `name`."""
        self._add(name, (n,), (Part(self._theirs + source, (n,), n),))

    def rows_of_experts(self, name: str, source: str, count: int, rows: int, columns: int, fused: Fused) -> None:
        """As `stacked`, of one matrix [count * fused.rows, columns]."""
        first, run, step = fused.first, fused.run or rows, fused.step
        whole, there = f"{self._theirs}{source}", (count * fused.rows, columns)
        parts = tuple(Part(whole, there, rows, i * fused.rows + first, run, step) for i in range(count))
        self._add(f"{name}.weight", (count, rows, columns), parts)

    def expert_bias(self, name: str, source: str, count: int, rows: int, fused: Fused) -> None:
        """`name.bias` [count * rows], expert after expert, of a tensor [count, fused.rows]."""
        run, step = (fused.run, fused.step) if fused.step else (count * rows, 0)
        part = Part(f"{self._theirs}{source}", (count, fused.rows), count * rows, fused.first, run, step, flat=True)
        self._add(f"{name}.bias", (count * rows,), (part,))

    def _add(self, name: str, shape: tuple[int, ...], parts: tuple[Part, ...]) -> None:
        """A tensor, or the other way to read it."""
        before = self._into.get(self._own + name)
        self._into[self._own + name] = before._replace(instead=parts) if before else Tensor(shape, parts)


def also_called(source: str, prefixes: tuple[str, ...]) -> list[str]:
    """What else a checkpoint may call the tensor `source`: its names begin with another of `prefixes`."""
    usual = prefixes[0] if prefixes else ""
    if source.startswith(usual):
        return [prefix + source[len(usual) :] for prefix in prefixes[1:]]
    # a head lies beside what the prefix names, in a larger model too
    return [prefix.removesuffix(usual) + source for prefix in prefixes[1:] if prefix.endswith(usual)]


def settled(tensors: Mapping[str, Tensor], has: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors, read in the way for which the checkpoint has the sources; as they are where it has none."""
    found = {}
    for name, tensor in tensors.items():
        other = tensor.instead and not has(tensor.parts[0].source) and has(tensor.instead[0].source)
        found[name] = tensor._replace(parts=tensor.instead, instead=()) if other else tensor._replace(instead=())
    return found
