"""The test images that no trial of a search sees: their share, from the config, the data and earlier trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.common.errors import ConfigError, DataError
from harness.config.search import Search
from harness.config.sweep import SweepConfig
from harness.data.samples import Split
from harness.metrics.validation import holdout_part, validation_part
from harness.planning.prepare import Prepared
from harness.results.store import ResultFolder

SHARE = 0.3  # the default
ENOUGH = 40  # test images of each class in each category, for the default


def with_holdout(prepared: Prepared) -> tuple[Prepared, str]:
    """Decide which share of the test images the search holds out.

    Args:
        prepared: a sweep with `search:` in its config.

    Returns:
        The sweep with the share in its config, and a sentence for the user. A classification has no share and no
        sentence.

    Raises:
        ConfigError: the share does not fit the task, the data or the earlier trials.
        StoreError: search.json is damaged.
    """
    search = prepared.config.search
    assert search is not None
    splits = [split for split in prepared.splits.values() if isinstance(split, Split)]
    if not splits:
        if search.holdout is not None:
            raise ConfigError(
                f"search.holdout: {search.holdout:g} found, but the metrics of a classification are out of fold and "
                "need no test images; expected no such key. Remove it. A labelled test set tests the best trial."
            )
        return prepared, ""
    share = _earlier_share(search, prepared.folder)
    begun = share is not None
    if share is None:
        share = search.holdout if search.holdout is not None else _default_share(prepared.config, search, splits)
    if share and (problems := _problems(prepared.config, share, search.seed, splits)):
        raise ConfigError(problems)
    config = prepared.config.model_copy(update={"search": search.model_copy(update={"holdout": share})})
    return replace(prepared, config=config), _sentence(prepared.config, share, begun)


def _earlier_share(search: Search, folder: ResultFolder) -> float | None:
    """The share that the trials of earlier calls hold out; None without such trials."""
    content = folder.read_search() or {}
    if not content.get("trials"):
        return None
    # Earlier versions held out no images, and wrote no such key.
    earlier = content.get("holdout") or {"share": 0.0, "seed": search.seed}
    reason = "so that all trials are tested on the same images. Change the key, or choose another name"
    if search.holdout not in (None, earlier["share"]):
        raise ConfigError(
            f"search.holdout: {search.holdout:g} found, but the trials in {folder.search} have {earlier['share']:g}; "
            f"expected {earlier['share']:g}, {reason}."
        )
    if search.seed != earlier["seed"]:
        raise ConfigError(
            f"search.seed: {search.seed} found, but the trials in {folder.search} hold out the images of seed "
            f"{earlier['seed']}; expected {earlier['seed']}, {reason}."
        )
    return float(earlier["share"])


def _default_share(config: SweepConfig, search: Search, splits: Sequence[Split]) -> float:
    """`SHARE` where all categories have enough images, otherwise 0."""
    for split in splits:
        anomalous = sum(sample.label for sample in split.real_test)
        if min(anomalous, len(split.real_test) - anomalous) < ENOUGH:
            return 0.0
    # Many types of defect with a single image each may leave nothing to hold out.
    return 0.0 if _problems(config, SHARE, search.seed, splits) else SHARE


def _problems(config: SweepConfig, share: float, seed: int, splits: Sequence[Split]) -> list[str]:
    """A sentence for each category with too few test images."""
    problems = []
    for split in splits:
        try:
            held_out = holdout_part(split.real_test, share, seed)
            if config.threshold.method == "f1_on_val":
                rest = [sample for sample, out in zip(split.real_test, held_out, strict=True) if not out]
                validation_part(rest, config.threshold.share, config.threshold.seed)
        except DataError as error:
            problems += [f"{split.root}: {problem}" for problem in error.problems]
    return problems


def _sentence(config: SweepConfig, share: float, begun: bool) -> str:
    assert config.search is not None
    if share:
        of_grid = " Runs of the grid saw these images, so the search does not use them." if config.grid else ""
        return (
            f"Held out: {share:.0%} of the test images (seed {config.search.seed}). No trial sees them, and they test "
            f"the best trial.{of_grid}"
        )
    reason = ""
    if config.search.holdout is None:
        reason = f", because a category has fewer than {ENOUGH} test images of a class"
        if begun:
            reason = ", because the earlier trials of this search saw all test images"
    return f"Held out: no test images{reason}. The metric of the best trial will be too good."
