"""`tune`: check what may be proposed, then let Ray Tune try it; and what `plan` says of it."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.chatter import chatter_to
from harness.config import SweepConfig, as_yaml
from harness.errors import ConfigError, HarnessError
from harness.landing import Tally
from harness.launch.connect import require_ray
from harness.launch.options import LaunchOptions
from harness.prepare import PlannedRun, Prepared, backend, check
from harness.progress import SweepProgress
from harness.search.history import History
from harness.search.points import Space
from harness.store import write_atomic


def search(prepared: Prepared, console: Console, verbose: bool, launch: LaunchOptions) -> Tally | None:
    """Try settings until there are as many as were asked for; gives None where there are already.

    Raises:
        HarnessError: what is wrong with the space, the cluster or the data.
    """
    config, folder = prepared.config, prepared.folder
    require_ray("tune")
    space = Space(config, prepared.splits)
    begun = False
    try:
        examples = space.check()
        history = History(folder, space, prepared.records)
        console.print(headline(config, space, history))
        if len(history.known) >= space.search.num_samples:
            return None
        left = space.search.num_samples - len(history.known)
        with SweepProgress(left, live=console.is_terminal and not verbose) as progress:
            progress.start("checking models, backbones and weights", stage="")
            said = io.StringIO()
            link = launch.link(folder, config.device, _modules(examples))
            link.begin()
            try:
                with chatter_to(said, verbose):
                    check(examples, launch.device(config.device))
                    link.ready()
                begun = True
                folder.create()
                prepared.index.save()
                write_atomic(folder.config, as_yaml(config))
                with folder.claim("search") as mine:
                    if not mine:
                        raise ConfigError(
                            f"{folder.root}: another process searches there; expected one at a time. Choose another "
                            "name or --output."
                        )
                    with folder.open_log() as log:
                        log.write(said.getvalue())
                        with chatter_to(log, verbose):
                            from harness.search.tuner import Tuning

                            return Tuning(prepared, space, history, link, progress, launch.retries).run()
            finally:
                link.stop()
    except HarnessError:
        if not begun:
            prepared.discard_made_data()
        raise


def show(prepared: Prepared, console: Console, checked: bool) -> None:
    """What would be searched; nothing is tried.

    Raises:
        HarnessError: what is wrong with the space.
    """
    space = Space(prepared.config, prepared.splits)
    examples = space.check()
    if checked:
        with chatter_to(io.StringIO(), show=False):
            check(examples, prepared.config.device)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("axis", "values"):
        table.add_column(name, overflow="fold")
    for axis, value in space.search.fixed.items():
        table.add_row(escape(axis), escape("+".join(map(str, value)) if isinstance(value, list) else str(value)))
    for axis, domain in space.domains.items():
        table.add_row(escape(axis), escape(str(domain)))
    console.print(table)
    console.print(headline(prepared.config, space, History(prepared.folder, space, prepared.records)))


def headline(config: SweepConfig, space: Space, history: History) -> str:
    """What is searched, and how far it is."""
    search_ = space.search
    axes = ", ".join(f"{name} ({domain})" for name, domain in space.domains.items())
    known = len(history.known)
    return escape(
        f"{config.name}: a search for the {'largest' if search_.mode == 'max' else 'smallest'} {space.metric}, "
        f"{search_.num_samples} trials, {known} known, over {axes}."
    )


def _modules(runs: Sequence[PlannedRun]) -> list[str]:
    """What takes long to import, for the nodes."""
    return [backend(name).heavy for name in dict.fromkeys(run.spec.backend for run in runs)]
