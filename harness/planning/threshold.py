"""The method of the thresholds, where the config names none; it is the same for all runs of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from harness.backends.base import AnySplit, Signature
from harness.common.errors import ConfigError
from harness.config.sweep import SweepConfig
from harness.config.threshold import CROSS_CONFORMAL, HELD_OUT, Threshold
from harness.data.base import DataOptions
from harness.data.samples import Split
from harness.planning.plan import Signatures
from harness.registry import metric


def with_method(config: SweepConfig, signatures: Signatures, backend: str) -> tuple[SweepConfig, list[str]]:
    """Choose the method of the thresholds and the share of held-out images, where the config leaves them out.

    All runs of a sweep have the same method, so that they learn from the same images.

    Args:
        config: of the sweep.
        signatures: function from a backend and a model to the model's parameters.
        backend: default of the axis `backend`.

    Returns:
        The config with `threshold.method` and `data.val`; and notes for readers of the results, one sentence each.

    Raises:
        ConfigError: the method needs scores that a model does not have.
    """
    if not isinstance(config.data, DataOptions):
        return config, []
    models = list(_models(config, signatures, backend))
    without = [f"{model.name} ({name})" for name, model in models if model.folds is None]
    several = len(without) < len(models)
    threshold, notes = config.threshold, []
    method = threshold.method or (CROSS_CONFORMAL if threshold.folds is not None else None)
    if method == CROSS_CONFORMAL and without:
        key = "method: cross_conformal" if threshold.method else f"folds: {threshold.folds}"
        raise ConfigError(
            f"threshold.{key} found with {without[0]}, which has no out-of-fold scores; expected only models that "
            "have them. Set threshold.method to held_out and remove threshold.folds."
        )
    if method is None:
        method = HELD_OUT if without or config.data.val or config.data.validated else CROSS_CONFORMAL
        if without and several and not config.data.val and not config.data.validated:
            notes = [
                f"Threshold method {HELD_OUT} for all runs: {without[0]} has no out-of-fold scores, and all runs must "
                "learn from the same images."
            ]
    if method == CROSS_CONFORMAL:
        notes += _search_notes(config)
        if config.data.validated:
            notes.append(
                f"The validation images of {config.data.kind} are not used: threshold method {CROSS_CONFORMAL} takes "
                "the training images."
            )
    val = 0.0 if method == CROSS_CONFORMAL else config.data.held_out_share
    data = config.data.model_copy(update={"val": val})
    resolved = Threshold.model_validate({**threshold.model_dump(exclude_unset=True), "method": method})
    return config.model_copy(update={"threshold": resolved, "data": data}), notes


def with_notes(split: AnySplit, notes: Sequence[str]) -> AnySplit:
    """Add notes to the notes of a split, which the terminal, the records and the reports show.

    Args:
        split: of one category.
        notes: one sentence each.
    """
    return replace(split, notes=(*split.notes, *notes)) if isinstance(split, Split) else split


def _models(config: SweepConfig, signatures: Signatures, backend: str) -> Iterator[tuple[str, Signature]]:
    """The backend and the parameters of each model in the grid and in the search."""
    mappings: list[Mapping[str, Sequence[Any]]] = [*config.grid]
    if config.search is not None:
        examples = {name: domain.examples() for name, domain in config.search.domains.items()}
        mappings.append({**{name: [value] for name, value in config.search.fixed.items()}, **examples})
    for mapping in mappings:
        for name, model in itertools.product(mapping.get("backend", [backend]), mapping.get("model", [])):
            # The plan reports an unknown model, with its place in the config.
            with suppress(ConfigError):
                yield name, signatures(name, model)


def _search_notes(config: SweepConfig) -> list[str]:
    """The note on a search whose metric has no value before the end of a training."""
    search = config.search
    if search is None or not search.stop_early or search.metric is None or not metric(search.metric).at_threshold:
        return []
    return [
        f"search.stop_early has no effect: {search.metric} needs a threshold, and {CROSS_CONFORMAL} has one at the end "
        f"of a training only. With threshold.method {HELD_OUT}, trainings stop early."
    ]
