"""Every error the harness raises on purpose.

    HarnessError                  one clear sentence (or a list of them) for the person at the terminal
    |-- ConfigError               the YAML or an override is wrong; holds all problems found, not just the first
    |-- DataError                 the images, masks or folders are not what the config says
    |   `-- ImageTooLargeError    an image has more pixels than may be read
    |-- WeightsError              wrong weights, or weights that do not fit the backbone
    |   `-- WeightsNotFoundError  no weights for a backbone, in no place that was looked in
    |-- UnknownNameError          a model, backbone, layer, dataset kind ... that does not exist
    |-- StoreError                the result folder can't be read or written
    |   `-- NewerVersionError     a newer version of harness wrote it
    |-- TrainingError             a loss that is no number
    |-- WorkerLostError           what made a run died, again and again
    |-- MemoryLimitError          features fit neither in memory nor on disk
    |-- ExportError               an exported file gives other answers than the model it was made of
    |-- NotFittedError            a detector is asked for scores before it has learnt anything
    `-- PredictionsError          a backend handed over predictions that make no sense

The command line prints a `HarnessError` without a traceback and ends with exit status 2. Anything else that
escapes is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class HarnessError(Exception):
    """Base of all expected errors.

    Args:
        problems: one sentence, or several when all of them were found at once. Each names the thing, what was
            found, what was expected and what to do.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class ConfigError(HarnessError):
    """The config, or an override on the command line, is wrong."""


class DataError(HarnessError):
    """The images on disk are not what the config says."""


class ImageTooLargeError(DataError):
    """An image has more pixels than may be read."""


class WeightsError(HarnessError):
    """Backbone weights are missing, unreadable or do not fit."""


class WeightsNotFoundError(WeightsError):
    """No place that was looked in has weights for a backbone.

    Args:
        problem: see `HarnessError`.
        reason: why the hub has none, in few words.
    """

    def __init__(self, problem: str, reason: str = "") -> None:
        super().__init__(problem)
        self.reason = reason

    def __reduce__(self) -> tuple[type[WeightsNotFoundError], tuple[str, str]]:
        """For a worker that sends it back."""
        return type(self), (self.problems[0], self.reason)


class UnknownNameError(HarnessError):
    """A name that is not registered."""


class StoreError(HarnessError):
    """The result folder can't be read or written."""


class NewerVersionError(StoreError):
    """A newer version of harness wrote the file: what it means is not known here."""


class TrainingError(HarnessError):
    """Training went wrong: the loss is NaN or infinite."""


class WorkerLostError(HarnessError):
    """A process or a machine died while it made runs."""


class MemoryLimitError(HarnessError):
    """Features fit neither into the memory allowed nor on the disk."""


class ExportError(HarnessError):
    """An exported file gives other answers than the model that it was made of."""


class NotFittedError(HarnessError):
    """A detector is asked for scores before it has learnt anything."""


class PredictionsError(HarnessError):
    """Predictions of the wrong shape, or with values that can't be ranked."""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names most like `name`, best first, ignoring case; empty when none is near."""
    by_lower = {str(k).lower(): str(k) for k in known}
    return [by_lower[m] for m in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]


def unknown_name(what: str, name: str, known: Iterable[str], limit: int = 60) -> str:
    """One sentence for an unknown name: the nearest names first, then the whole list (up to `limit`)."""
    names = sorted({str(k) for k in known})
    near = nearest(name, names)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    listed = ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
    return f"unknown {what} {name!r}.{hint} Known: {listed or 'none'}."
