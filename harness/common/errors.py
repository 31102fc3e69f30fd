"""Every error the harness raises on purpose.

    HarnessError                  one clear sentence, or a list of them, for the user
    |-- ConfigError               the YAML or an override is wrong; holds all problems, not only the first
    |-- DataError                 the images, masks or folders differ from the config
    |   `-- ImageTooLargeError    an image has more pixels than may be read
    |-- WeightsError              wrong weights, or weights that do not fit the backbone
    |   `-- WeightsNotFoundError  no searched place has weights for a backbone
    |-- UnknownNameError          a model, backbone, layer, kind of data ... does not exist
    |-- StoreError                the result folder can't be read or written
    |   `-- NewerVersionError     a newer version of harness wrote the file
    |-- TrainingError             a loss is NaN or infinite
    |-- WorkerLostError           the worker of a run died several times
    |-- MemoryLimitError          features fit neither in memory nor on disk
    |-- ExportError               an exported file predicts other values than its model
    |-- NotFittedError            a detector predicts before it is fitted
    `-- PredictionsError          predictions have a wrong shape or values without an order

The command line prints a `HarnessError` without a traceback and ends with exit status 2. Any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class HarnessError(Exception):
    """Base of all expected errors.

    Args:
        problems: one sentence, or one for each problem. A sentence names the key or file, the wrong value, the expected
            value and the remedy.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ConfigError(HarnessError):
    """The config, or an override on the command line, is wrong."""


class DataError(HarnessError):
    """The images on disk differ from the config."""


class ImageTooLargeError(DataError):
    """An image has more pixels than may be read."""


class WeightsError(HarnessError):
    """Backbone weights are missing, unreadable or do not fit."""


class WeightsNotFoundError(WeightsError):
    """No searched place has weights for a backbone.

    Args:
        problem: one sentence, see `HarnessError`.
        reason: why the hub has no weights, in a few words.
    """

    def __init__(self, problem: str, reason: str = "") -> None:
        super().__init__(problem)
        self.reason = reason

    def __reduce__(self) -> tuple[type[WeightsNotFoundError], tuple[str, str]]:
        """Pickle both arguments: a worker process sends the error to its parent."""
        return type(self), (self.problems[0], self.reason)


class UnknownNameError(HarnessError):
    """A name that is not registered."""


class StoreError(HarnessError):
    """The result folder can't be read or written."""


class NewerVersionError(StoreError):
    """A newer version of harness wrote the file, in a format that this version does not know."""


class TrainingError(HarnessError):
    """Training went wrong: the loss is NaN or infinite."""


class WorkerLostError(HarnessError):
    """A process or a machine died while it executed runs."""


class MemoryLimitError(HarnessError):
    """Features fit neither into the allowed memory nor on the disk."""


class ExportError(HarnessError):
    """An exported file predicts other values than its model."""


class NotFittedError(HarnessError):
    """A detector predicts before it is fitted."""


class PredictionsError(HarnessError):
    """Predictions have a wrong shape, or values without an order (NaN)."""


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """The names most like `name`.

    Args:
        name: any text; case is ignored.
        choices: the valid names.

    Returns:
        At most three names, the best first; empty where no name is similar.
    """
    by_lower = {str(choice).lower(): str(choice) for choice in choices}
    return [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]


def unknown_name(kind: str, name: str, choices: Iterable[str], limit: int = 60) -> str:
    """One sentence for an unknown name: the nearest names first, then the valid names.

    Args:
        kind: of the name, such as "backbone".
        name: the unknown one.
        choices: the valid names.
        limit: number of valid names that the sentence lists.
    """
    names = sorted({str(choice) for choice in choices})
    near = nearest(name, names)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    listed = ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
    return f"unknown {kind} {name!r}.{hint} Known: {listed or 'none'}."


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(error).strip().split("\n", maxsplit=1)[0]
