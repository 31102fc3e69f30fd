"""Greedy k-center: the coreset of PatchCore (Roth et al., 2022, algorithm 1; Sener & Savarese, 2018).

Each point chosen is the farthest from those chosen before, so the coreset for a small ratio is the first part of the
one for a large ratio: select once, at the largest. Exact, in the points' own space, without a random projection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from harness.common.errors import PredictionsError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Room = Callable[[int, int], torch.Tensor]

LARGEST = 1e36  # squared distance; NaN is not below it either
LEADING_AXES = 32  # coordinates that distances are bounded in
FIRST_AXES = 8  # of them, for the first bound
ROWS = 4096  # at a time, where all are gone through: the linear algebra library copies what it multiplies
BASIS_ROWS = 4096  # rows that the axes are estimated from; any orthonormal axes give right bounds
SLICE = 2048  # selections between two calls of `progress`
FOLLOWED = 128  # about one point in this many is followed exactly


@dataclass(frozen=True)
class Order:
    """Points in the order of their selection.

    Attributes:
        rows: (m,) row numbers; the first is the start.
        radii: (m,) distance of each to those before it when it was chosen, falling; infinite for the first. The
            covering radius of the first j centers is `radii[j]`.
    """

    rows: Ints
    radii: Floats


def start_row(points: torch.Tensor, seed: int) -> int:
    """Where the selection begins: the point that lies farthest in a direction drawn from the seed.

    A row number drawn from the seed would name another patch whenever the images come in another order.

    Args:
        points: (n, d).
        seed: draws the direction.
    """
    direction = np.random.default_rng(seed).standard_normal(points.shape[1]).astype(np.float32)
    return int((points @ torch.from_numpy(direction).to(points.device)).argmax())


class KCenter:
    """A selection that can be taken further.

    Args:
        points: (n, d) float32; may be memory-mapped. Where they lie decides who computes: the compiled kernel for the
            cpu, Torch for an accelerator.
        start: row of the first center.
        known: an earlier selection from the same points and start, to go on from.
        room: makes uninitialised float32 tensors on the cpu, for what is as long as the points.

    Raises:
        PredictionsError: a point is NaN or infinite, or so large that its square overflows.
    """

    def __init__(self, points: torch.Tensor, start: int, known: Order | None = None, room: Room = torch.empty) -> None:
        on_cpu = points.device.type == "cpu"
        self._engine: _Compiled | _Torch = _Compiled(points, start, room) if on_cpu else _Torch(points, start)
        if known is not None and len(known.rows) and known.rows[0] == start:
            self._engine.adopt(known)

    def extend(self, size: int, progress: Callable[[int], None] | None = None) -> Order:
        """Select on until `size` centers are chosen, or no distinct point is left.

        Args:
            size: centers in all.
            progress: called with the number of centers now and then.
        """
        engine = self._engine
        size = max(1, min(size, engine.n))
        engine.reserve(size)
        while engine.count < size:
            # In slices: compiled code can't be interrupted, and a person wants to see it go on.
            until = min(size, engine.count + SLICE)
            engine.extend(until)
            if progress is not None:
                progress(engine.count)
            if engine.count < until:
                break
        count = min(size, engine.count)
        return Order(engine.rows[:count].copy(), engine.radii[:count].copy())


def k_center(points: torch.Tensor | Floats, size: int, start: int = 0) -> Order:
    """Select `size` of `points`, (n, d), beginning with row `start`; fewer if there are fewer distinct ones.

    Ties go to the lowest row. The order is the same for the same points, whatever the number of threads.
    """
    return KCenter(torch.as_tensor(points), start).extend(size)


class _Compiled:
    """On the cpu; see coreset_cpu.py."""

    def __init__(self, points: torch.Tensor, start: int, room: Room) -> None:
        import numba

        from harness.detectors import coreset_cpu

        self._kernel = coreset_cpu
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        self._x: Floats = np.ascontiguousarray(points.detach().numpy(), dtype=np.float32)
        self.n = len(self._x)
        self.rows = np.zeros(0, np.int64)
        self.radii = np.zeros(0, np.float32)
        self._bound = np.empty(self.n, np.float64)
        self._seen = np.ones(self.n, np.int32)
        coreset_cpu.distances_to(self._x, start, self._bound)
        if not self._bound.max() < LARGEST:
            raise _not_finite(points)
        self._axes, reach = _leading_axes(self._x, room)
        # What rounding can do to a coordinate grows with the length of the rows.
        self._slack = 4e-6 * reach
        self._centers = np.zeros((self._axes.shape[1], 0), np.float32)
        self.count = 0
        self.reserve(1)
        self._take(np.array([start]), np.array([np.inf], np.float32))

    def reserve(self, size: int) -> None:
        """Room for that many centers."""
        if size > len(self.rows):
            self.rows = np.concatenate([self.rows, np.zeros(size - len(self.rows), np.int64)])
            self.radii = np.concatenate([self.radii, np.zeros(size - len(self.radii), np.float32)])
            centers = np.zeros((self._axes.shape[1], size + self._kernel.BLOCK), np.float32)
            centers[:, : self.count] = self._centers[:, : self.count]
            self._centers = centers

    def adopt(self, known: Order) -> None:
        """Take centers as chosen; what they change is found out when it is needed."""
        self.reserve(len(known.rows))
        self._take(known.rows, known.radii)

    def _take(self, rows: Ints, radii: Floats) -> None:
        self.count = len(rows)
        self.rows[: self.count] = rows
        self.radii[: self.count] = radii
        self._centers[:, : self.count] = self._axes[rows].T

    def extend(self, until: int) -> None:
        self.count = self._kernel.extend(
            self._x,
            self._axes,
            self._centers,
            min(FIRST_AXES, self._axes.shape[1]),
            self.rows,
            self.radii,
            self._bound,
            self._seen,
            self.count,
            until,
            self._slack,
            max(256, self.n // FOLLOWED),
        )


class _Torch:
    """On an accelerator: the plain algorithm, whose n x d reads a step are what such a device is good at."""

    def __init__(self, points: torch.Tensor, start: int) -> None:
        self._x = points.float()
        self.n = len(points)
        self._nearest = (self._x - self._x[start]).square_().sum(1)
        if not bool(self._nearest.max() < LARGEST):
            raise _not_finite(points)
        self.rows = np.array([start], np.int64)
        self.radii = np.array([np.inf], np.float32)
        self.count = 1

    def reserve(self, size: int) -> None:
        """Nothing: arrays grow as they are filled."""

    def adopt(self, known: Order) -> None:
        for row in known.rows[1:]:
            self._update(self._x[int(row)])
        self.rows, self.radii, self.count = known.rows, known.radii, len(known.rows)

    def _update(self, center: torch.Tensor) -> None:
        torch.minimum(self._nearest, (self._x - center).square_().sum(1), out=self._nearest)

    def extend(self, until: int) -> None:
        rows, radii = [], []
        for _ in range(until - self.count):
            # All on the device; looked at once a slice. Of equal points `argmax` gives the first.
            row = self._nearest.argmax(dim=0, keepdim=True)
            rows.append(row)
            radii.append(self._nearest.index_select(0, row))
            self._update(self._x.index_select(0, row))
        chosen = torch.cat(rows).cpu().numpy()
        distances = torch.cat(radii).sqrt().cpu().numpy().astype(np.float32)
        # From the first 0 on, all points coincide with centers.
        distinct = int((distances > 0).sum())
        self.rows = np.concatenate([self.rows, chosen[:distinct]])
        self.radii = np.concatenate([self.radii, distances[:distinct]])
        self.count += distinct


def _leading_axes(x: Floats, room: Room) -> tuple[Floats, float]:
    """Coordinates (n, q) in orthonormal axes that hold most of the variance, and the longest row about the mean."""
    sample = x[:: max(1, len(x) // BASIS_ROWS)][:BASIS_ROWS]
    mean = sample.mean(axis=0)
    unit = sample - mean
    # So that products do not overflow, however large the points.
    scale = float(max(unit.max(), -unit.min())) or 1.0
    unit /= scale
    width = min(LEADING_AXES, x.shape[1])
    # Subspace iteration, from a fixed beginning. The axes only make bounds tight; they need not be exact.
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((x.shape[1], width)).astype(np.float32))[0]
    for _ in range(4):
        basis = np.linalg.qr(unit.T @ (unit @ basis))[0]
    projected = unit @ basis
    _, rotation = np.linalg.eigh(projected.T @ projected)
    basis = np.ascontiguousarray((basis @ rotation[:, ::-1]).astype(np.float32))
    coordinates: Floats = room(len(x), width).numpy()
    for first in range(0, len(x), ROWS):
        np.matmul(x[first : first + ROWS], basis, out=coordinates[first : first + ROWS])
        coordinates[first : first + ROWS] -= mean @ basis
    # Rows of the whole set may be longer than those of the sample: the length of a coordinate row bounds what matters.
    reach = scale * float(np.sqrt(np.einsum("ij,ij->i", unit, unit).max())) + float(
        max(coordinates.max(), -coordinates.min())
    )
    return coordinates, reach + float(np.linalg.norm(mean))


def _not_finite(points: torch.Tensor) -> PredictionsError:
    bad = ~torch.isfinite(points.float()).all(dim=1)
    row = int(bad.int().argmax()) if bool(bad.any()) else int(points.abs().amax(dim=1).argmax())
    return PredictionsError(
        f"coreset: features of patch {row} are NaN, infinite or too large; expected finite numbers below 1e18."
    )
