"""Sums over the rows that some matrices read: of squares, of products, of values by size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.quantize.calibration import F32Array, Statistics
from edgeq.quantize.reads import Router
from edgeq.quantize.sketch import BINS, Sketch, bin_counts

ROWS = 64  # widened at a time: what a core keeps in its cache
SAMPLE = 8  # one of so many rows goes into the sketch, but not the first of a text, which is like no other
PRODUCT_ROWS, PRODUCT_BITS = 512, 21  # 512 products of two numbers of 21 bits: a sum that float64 holds exactly


def products(x: F32Array) -> npt.NDArray[np.float64]:
    """x^T x, f64 [columns, columns] of f32 [rows, columns], at most PRODUCT_ROWS.

    Libraries of linear algebra add in an order that depends on their threads. So each column is rounded first, to
    PRODUCT_BITS below its largest magnitude: then all sums are exact, in any order.
    """
    largest = np.frexp(np.abs(x).max(0))[1].astype(np.int64) - PRODUCT_BITS
    whole = np.rint(np.ldexp(x.astype(np.float64), -largest))
    exact: npt.NDArray[np.float64] = np.ldexp(whole.T @ whole, largest[:, None] + largest)
    return exact


class Sums:
    """What `names`, matrices that read the same, read. All sums are float64, in the order of the rows.

    products: those of `names` whose Gram matrix is wanted
    router:   chooses the experts, whose own matrices read the rows that are routed to them
    """

    def __init__(self, names: Sequence[str], columns: int, products: set[str], router: Router | None = None) -> None:
        self.names, self.router, self._products = names, router, products
        self._count = np.zeros(1, np.int64)
        self._square = np.zeros(columns)
        self._range = np.array([np.inf, -np.inf], np.float32)
        self._maxima = np.zeros(columns, np.float32)
        self._sketch = np.zeros(BINS, np.int64)
        self._gram = np.zeros((columns, columns) if products else (0, 0))
        experts = len(router.weight) if router else 0
        self._routed, self._routed_square = np.zeros(experts, np.int64), np.zeros((experts, columns))

    @property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All sums so far, by name: to be written, and to be filled again."""
        return {
            "count": self._count,
            "square": self._square,
            "range": self._range,
            "maxima": self._maxima,
            "sketch": self._sketch,
            "gram": self._gram,
            "routed": self._routed,
            "routed_square": self._routed_square,
        }

    def add(self, x: F32Array, first: int = 0) -> None:
        """Add rows f32 [rows, columns], the first of which is at that position of its text. EdgeqError where they are
        no finite numbers."""
        for start in range(0, len(x), ROWS):
            wide = x[start : start + ROWS].astype(np.float64)
            chosen = self.router.routed(wide)[0] if self.router else None
            np.square(wide, out=wide)
            self._square += wide.sum(0)
            if chosen is not None:
                for expert in np.unique(chosen):
                    mine = wide[(chosen == expert).any(1)]
                    self._routed[expert] += len(mine)
                    self._routed_square[expert] += mine.sum(0)
        if not np.isfinite(self._square).all():
            raise EdgeqError(f"{self.names[0]} reads values that are no finite numbers: the model cannot be calibrated")
        self._count += len(x)
        self._range[:] = min(self._range[0], x.min()), max(self._range[1], x.max())
        np.maximum(self._maxima, np.abs(x).max(0), out=self._maxima)
        self._sketch += bin_counts(x[(1 - first) % SAMPLE :: SAMPLE])
        if self._products:
            for start in range(0, len(x), PRODUCT_ROWS):
                self._gram += products(x[start : start + PRODUCT_ROWS])

    def statistics(self) -> dict[str, Statistics]:
        """Those of each matrix, by name."""
        low, high = float(self._range[0]), float(self._range[1])
        sketch = Sketch(self._sketch, low, high, self._maxima)
        gram = (self._gram / self._count).astype(np.float32) if self._products else None
        found = {}
        for name in self.names:
            own = gram if name in self._products else None
            found[name] = Statistics(self._square.astype(np.float32), self._count, low, high, sketch, own)
        for name in self.router.matrices if self.router else ():
            square = self._routed_square.astype(np.float32)
            found[name] = Statistics(square, self._routed, low, high, sketch)
        return found
