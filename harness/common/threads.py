"""The number of threads: Torch's number is the number of all libraries.

`OMP_NUM_THREADS` or `torch.set_num_threads` asks for a number. BLAS, OpenMP, Numba and OpenCV each have a number of
their own, and by default each takes all cores. `same_number` gives all of them Torch's number for one stage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache

from threadpoolctl import ThreadpoolController

ASKED = "OMP_NUM_THREADS"
WAITING = "OMP_WAIT_POLICY"
PASSIVE = "PASSIVE"  # threads that wait for work leave their core to other programs
# Libraries read these variables when they are imported.
VARIABLES = (
    ASKED,
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def requested() -> int | None:
    """The number in `OMP_NUM_THREADS`; None without a valid one."""
    # The variable may hold a list: one number for each level of nested regions.
    text = os.environ.get(ASKED, "").split(",")[0].strip()
    return int(text) if text.isdigit() and int(text) else None


def count() -> int:
    """Number of threads that a computation of this process may use.

    Returns:
        Torch's number. Before the import of Torch the number in `OMP_NUM_THREADS`, or the number of cores.
    """
    if "torch" in sys.modules:
        import torch

        return torch.get_num_threads()
    return requested() or cores()


def shared(jobs: int) -> dict[str, str]:
    """Environment variables of a worker process: its share of the cores, or `OMP_NUM_THREADS` if this is less.

    Threads that wait for work leave their core to other programs, unless `OMP_WAIT_POLICY` asks for something else.

    Args:
        jobs: number of workers on this machine.
    """
    number = str(min(count(), max(1, cores() // jobs)))
    return {**dict.fromkeys(VARIABLES, number), WAITING: os.environ.get(WAITING, PASSIVE)}


def start(number: int) -> None:
    """Set the number of a process that the harness has started, before its first computation.

    The process also gets one inter-op thread, because the harness runs one operation of Torch after the other.

    Args:
        number: number of threads of one operation.
    """
    import torch

    torch.set_num_threads(number)
    # Torch accepts this number only once, before the first inter-op work.
    with suppress(RuntimeError):
        torch.set_num_interop_threads(1)


@contextmanager
def same_number(number: int | None = None) -> Iterator[int]:
    """Give all imported libraries one number of threads inside this context, and restore their numbers at its end.

    A library that is imported inside the context needs another `same_number` after its import.

    Args:
        number: for all libraries; None for Torch's number.

    Yields:
        The number.
    """
    import torch

    before = count()
    number = before if number is None else number
    with ExitStack() as stack:
        # The first call of Numba sets OpenMP's number, and thus Torch's, to the number of cores. So Torch comes last.
        stack.callback(torch.set_num_threads, before)
        if "numba" in sys.modules:
            _limit_numba(number, stack)
        if "cv2" in sys.modules:
            _limit_opencv(number, stack)
        stack.enter_context(_controller(len(sys.modules)).limit(limits=number))
        torch.set_num_threads(number)
        yield number


@lru_cache(maxsize=1)
def _controller(modules: int) -> ThreadpoolController:
    """The loaded libraries with threads of their own. The search for them takes milliseconds.

    Args:
        modules: number of imported modules. An import may load another library.
    """
    del modules
    return ThreadpoolController()


def _limit_numba(number: int, stack: ExitStack) -> None:
    import numba

    stack.callback(numba.set_num_threads, numba.get_num_threads())
    numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))


def _limit_opencv(number: int, stack: ExitStack) -> None:
    import cv2

    stack.callback(cv2.setNumThreads, cv2.getNumThreads())
    cv2.setNumThreads(number)
