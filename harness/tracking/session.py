"""The trackers of a sweep. Each run is logged once, and a tracker that fails never stops the sweep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.util import find_spec

from harness import registry
from harness.common.errors import first_line
from harness.common.secrets import concealed
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from harness.tracking.base import Tracker, without_password
from harness.tracking.content import tracked_run
from harness.tracking.logged import Content, Logged, read_logged, write_logged

log = logging.getLogger(__name__)


def missing_trackers(names: Iterable[str]) -> list[str]:
    """One sentence for each tracker that is not installed.

    Args:
        names: keys of `harness.registry.TRACKERS`.
    """
    return [
        f"tracking: {name} found, but not installed; run: pip install 'harness[{name}]', or remove the name."
        for name in names
        if any(find_spec(module) is None for module in registry.load(registry.TRACKERS[name]).modules)
    ]


class TrackingSession:
    """The trackers of one call of `sweep` or `tune`.

    Args:
        names: keys of `harness.registry.TRACKERS`.
        folder: the result folder.
        experiment: name of the sweep.
        note: shows a sentence to the user.
    """

    def __init__(
        self, names: Iterable[str], folder: ResultFolder, experiment: str, note: Callable[[str], None]
    ) -> None:
        self._folder, self._note = folder, note
        self._trackers: dict[str, Tracker] = {
            name: registry.load(registry.TRACKERS[name])(folder.root / name, experiment) for name in names
        }
        self._failed: set[str] = set()

    def log(self, record: RunRecord, with_model: bool) -> None:
        """Log a run to all trackers that have another content of the run, or none. The caller claims the run.

        Args:
            record: of the run, as committed.
            with_model: whether to log the saved model too; a sweep may still delete this model.
        """
        for name in self._trackers:
            if name not in self._failed and not self._is_logged(name, record, with_model):
                self._log(name, record, with_model)

    def log_rest(self) -> None:
        """Log all runs of the result folder that a tracker does not have, and the models that stay."""
        for record in self._ended():
            with self._folder.claim(record.run_id) as claimed:
                # Another process with the claim logs the run itself.
                if claimed:
                    self.log(record, with_model=True)

    def has_rest(self) -> bool:
        """Whether a tracker lacks a run of the result folder."""
        return any(
            not self._is_logged(name, record, with_model=True) for record in self._ended() for name in self._trackers
        )

    def close(self) -> None:
        """Free what the trackers use."""
        for name, tracker in self._trackers.items():
            try:
                tracker.close()
            # The libraries of the trackers raise errors of many types.
            except Exception as error:  # noqa: BLE001
                self._fail(name, error)

    def _ended(self) -> list[RunRecord]:
        """Finished and failed runs of the result folder. A skipped run has nothing to log."""
        records = self._folder.read_records().good if self._trackers else []
        return [record for record in records if record.status != "skipped"]

    def _entry(self, name: str, run_id: str) -> Logged | None:
        """What a tracker has of a run; None where it has nothing, or where another store has the run."""
        entry = read_logged(self._folder.run_folder(run_id)).get(name)
        return entry if entry is not None and entry.store == self._trackers[name].store else None

    def _is_logged(self, name: str, record: RunRecord, with_model: bool) -> bool:
        entry = self._entry(name, record.run_id)
        return entry is not None and entry.has(Content.of(record, self._folder.run_folder(record.run_id), with_model))

    def _log(self, name: str, record: RunRecord, with_model: bool) -> None:
        folder, tracker = self._folder.run_folder(record.run_id), self._trackers[name]
        entry, content = self._entry(name, record.run_id), Content.of(record, folder, with_model)
        known = entry.model if entry is not None else ""
        run = replace(tracked_run(record, folder), knows_model=bool(known) and content.model == known)
        run = run if content.model else replace(run, model=None)
        try:
            own_id = tracker.log(run)
        # The libraries of the trackers raise errors of many types, and the run itself is complete.
        except Exception as error:  # noqa: BLE001
            self._fail(name, error)
            return
        write_logged(folder, name, Logged(tracker.store, own_id, content.record, content.model or known))

    def _fail(self, name: str, error: Exception) -> None:
        """Tell once that a tracker failed, on the terminal and in sweep.log. This call asks the tracker no more."""
        if name in self._failed:
            return
        self._failed.add(name)
        reason = concealed(without_password(f"{type(error).__name__}: {first_line(error)}"))
        text = f"{name}: runs can't be logged ({reason}). The sweep goes on without {name}. "
        text += "Start the same command again later: it logs the missing runs."
        log.warning(text)
        self._note(f"  warning: {text}")
