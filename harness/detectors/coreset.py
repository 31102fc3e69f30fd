"""Greedy k-center: the coreset of PatchCore (Roth et al., 2022, algorithm 1; Sener & Savarese, 2018).

Each new center is the point farthest from all earlier centers. The coreset for a small ratio is therefore a prefix of
the coreset for a large ratio. One selection at the largest ratio is enough. The selection is exact: distances are those
of the points themselves, without a random projection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from harness.common.errors import PredictionsError
from harness.common.threads import same_number

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Allocate = Callable[[int, int], torch.Tensor]

LARGEST = 1e36  # largest squared distance; a comparison with NaN fails too
LEADING_AXES = 32  # axes of the lower bounds of distances
FIRST_AXES = 8  # leading axes of the first, cheaper bound
ROWS = 4096  # rows of one matrix product, which copies its operands
BASIS_ROWS = 4096  # rows from which the axes are estimated; any orthonormal axes give valid bounds
SLICE = 2048  # selected centers between two calls of `progress`
FOLLOWED = 128  # about one point in this number is followed exactly


@dataclass(frozen=True)
class Order:
    """Points in the order of their selection.

    Attributes:
        rows: (m,) row numbers of the centers; the first is the start.
        radii: (m,) distance of each center to the nearest earlier center, descending; infinite for the first. The
            covering radius of the first j centers is `radii[j]`.
    """

    rows: Ints
    radii: Floats


def start_row(points: torch.Tensor, seed: int) -> int:
    """The row of the first center: the point farthest in a random direction.

    A random row number would be another patch when the order of the images changes.

    Args:
        points: (n, d).
        seed: seed of the direction.
    """
    direction = np.random.default_rng(seed).standard_normal(points.shape[1]).astype(np.float32)
    return int((points @ torch.from_numpy(direction).to(points.device)).argmax())


class KCenter:
    """A selection that can be extended.

    Args:
        points: (n, d) float32; may be memory-mapped. The compiled kernel computes on the cpu, Torch on an accelerator.
        start: row of the first center.
        initial: an earlier selection from the same points and start, which is extended.
        allocate: returns an uninitialised float32 tensor on the cpu; for arrays with n rows.

    Raises:
        PredictionsError: a point is NaN or infinite, or its square overflows.
    """

    def __init__(
        self, points: torch.Tensor, start: int, initial: Order | None = None, allocate: Allocate = torch.empty
    ) -> None:
        on_cpu = points.device.type == "cpu"
        self._engine: _Compiled | _Torch = _Compiled(points, start, allocate) if on_cpu else _Torch(points, start)
        if initial is not None and len(initial.rows) and initial.rows[0] == start:
            self._engine.adopt(initial)

    def extend(self, size: int, progress: Callable[[int], None] | None = None) -> Order:
        """Select centers until there are `size`, or until no distinct point is left.

        Args:
            size: number of centers, with the earlier ones.
            progress: called repeatedly with the number of centers.

        Returns:
            The first `size` centers.
        """
        with same_number():
            return self._extend(size, progress)

    def _extend(self, size: int, progress: Callable[[int], None] | None) -> Order:
        engine = self._engine
        size = max(1, min(size, engine.n))
        engine.reserve(size)
        while engine.count < size:
            # Compiled code can't be interrupted and reports no progress, so each call selects only a slice.
            until = min(size, engine.count + SLICE)
            engine.extend(until)
            if progress is not None:
                progress(engine.count)
            if engine.count < until:
                break
        count = min(size, engine.count)
        return Order(engine.rows[:count].copy(), engine.radii[:count].copy())


def k_center(points: torch.Tensor | Floats, size: int, start: int = 0) -> Order:
    """Select centers by greedy k-center. Of equally far points, the lowest row is selected.

    The order does not depend on the number of threads.

    Args:
        points: (n, d).
        size: number of centers; the result has fewer if there are fewer distinct points.
        start: row of the first center.
    """
    return KCenter(torch.as_tensor(points), start).extend(size)


class _Compiled:
    """The selection on the cpu; see coreset_cpu.py."""

    def __init__(self, points: torch.Tensor, start: int, allocate: Allocate) -> None:
        from harness.detectors import coreset_cpu

        self._kernel = coreset_cpu
        # The import of the kernel may have loaded Numba, so that the number of the stage does not count for Numba yet.
        with same_number():
            self._prepare(points, start, allocate)

    def _prepare(self, points: torch.Tensor, start: int, allocate: Allocate) -> None:
        self._points: Floats = np.ascontiguousarray(points.detach().numpy(), dtype=np.float32)
        self.n = len(self._points)
        self.rows, self.radii = np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._bound = np.empty(self.n, np.float64)
        self._compared = np.ones(self.n, np.int32)
        self._kernel.distances_to(self._points, start, self._bound)
        if not self._bound.max() < LARGEST:
            raise _not_finite(points)
        self._axes, reach = _leading_axes(self._points, allocate)
        # The rounding error of a coordinate grows with the length of the rows.
        self._slack = 4e-6 * reach
        self._centers = np.zeros((self._axes.shape[1], 0), np.float32)
        self.count = 0
        self.reserve(1)
        self._set_centers(np.array([start]), np.array([np.inf], np.float32))

    def reserve(self, size: int) -> None:
        """Allocate arrays for `size` centers."""
        if size > len(self.rows):
            self.rows = np.concatenate([self.rows, np.zeros(size - len(self.rows), np.int64)])
            self.radii = np.concatenate([self.radii, np.zeros(size - len(self.radii), np.float32)])
            centers = np.zeros((self._axes.shape[1], size + self._kernel.BLOCK), np.float32)
            centers[:, : self.count] = self._centers[:, : self.count]
            self._centers = centers

    def adopt(self, initial: Order) -> None:
        """Take the centers of an earlier selection; the distances to them are computed when they are needed."""
        self.reserve(len(initial.rows))
        self._set_centers(initial.rows, initial.radii)

    def _set_centers(self, rows: Ints, radii: Floats) -> None:
        self.count = len(rows)
        self.rows[: self.count] = rows
        self.radii[: self.count] = radii
        self._centers[:, : self.count] = self._axes[rows].T

    def extend(self, until: int) -> None:
        self.count = self._kernel.extend(
            self._points,
            self._axes,
            self._centers,
            min(FIRST_AXES, self._axes.shape[1]),
            self.rows,
            self.radii,
            self._bound,
            self._compared,
            self.count,
            until,
            self._slack,
            max(256, self.n // FOLLOWED),
        )


class _Torch:
    """The selection on an accelerator: the plain algorithm reads all n x d values in each step."""

    def __init__(self, points: torch.Tensor, start: int) -> None:
        self._points = points.float()
        self.n = len(points)
        self._nearest = (self._points - self._points[start]).square_().sum(1)
        if not bool(self._nearest.max() < LARGEST):
            raise _not_finite(points)
        self.rows = np.array([start], np.int64)
        self.radii = np.array([np.inf], np.float32)
        self.count = 1

    def reserve(self, size: int) -> None:
        """Nothing to do: the arrays grow with each slice."""

    def adopt(self, initial: Order) -> None:
        for row in initial.rows[1:]:
            self._update(self._points[int(row)])
        self.rows, self.radii, self.count = initial.rows, initial.radii, len(initial.rows)

    def _update(self, center: torch.Tensor) -> None:
        torch.minimum(self._nearest, (self._points - center).square_().sum(1), out=self._nearest)

    def extend(self, until: int) -> None:
        rows, radii = [], []
        for _ in range(until - self.count):
            # The host reads the results once for a slice. Of equal values, `argmax` returns the first.
            row = self._nearest.argmax(dim=0, keepdim=True)
            rows.append(row)
            radii.append(self._nearest.index_select(0, row))
            self._update(self._points.index_select(0, row))
        centers = torch.cat(rows).cpu().numpy()
        distances = torch.cat(radii).sqrt().cpu().numpy().astype(np.float32)
        # After the first distance of 0, all points coincide with centers.
        distinct = int((distances > 0).sum())
        self.rows = np.concatenate([self.rows, centers[:distinct]])
        self.radii = np.concatenate([self.radii, distances[:distinct]])
        self.count += distinct


def _leading_axes(points: Floats, allocate: Allocate) -> tuple[Floats, float]:
    """Coordinates (n, q) in the orthonormal axes of largest variance, and a bound of the length of a row."""
    sample = points[:: max(1, len(points) // BASIS_ROWS)][:BASIS_ROWS]
    mean = sample.mean(axis=0)
    scaled = sample - mean
    # Products of large points would overflow without the scale.
    scale = float(max(scaled.max(), -scaled.min())) or 1.0
    scaled /= scale
    width = min(LEADING_AXES, points.shape[1])
    # Subspace iteration from a fixed start. Inexact axes make the bounds less tight, but not wrong.
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((points.shape[1], width)).astype(np.float32))[0]
    for _ in range(4):
        basis = np.linalg.qr(scaled.T @ (scaled @ basis))[0]
    projected = scaled @ basis
    _, rotation = np.linalg.eigh(projected.T @ projected)
    basis = np.ascontiguousarray((basis @ rotation[:, ::-1]).astype(np.float32))
    coordinates: Floats = allocate(len(points), width).numpy()
    for first in range(0, len(points), ROWS):
        np.matmul(points[first : first + ROWS], basis, out=coordinates[first : first + ROWS])
        coordinates[first : first + ROWS] -= mean @ basis
    # Rows outside the sample may be longer than the rows of the sample; the largest coordinate accounts for them.
    longest = scale * float(np.sqrt(np.einsum("ij,ij->i", scaled, scaled).max()))
    largest = float(max(coordinates.max(), -coordinates.min()))
    return coordinates, longest + largest + float(np.linalg.norm(mean))


def _not_finite(points: torch.Tensor) -> PredictionsError:
    invalid = ~torch.isfinite(points.float()).all(dim=1)
    row = int(invalid.int().argmax()) if bool(invalid.any()) else int(points.abs().amax(dim=1).argmax())
    return PredictionsError(
        f"coreset: patch {row} has NaN, infinite or huge features; expected numbers below 1e18. Check the weights."
    )
