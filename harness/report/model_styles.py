"""The style of models in all figures: a colour and a symbol for a model, a fill for a backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.report.results import Results
from harness.results.record import RunRecord

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart. Grey and black
# are for what belongs to no model. A dark background needs lighter colours.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DARK_PALETTE = ("#56b4e9", "#f08a4b", "#2bc79b", "#e3a3c8", "#e69f00", "#f0e442")
# Several lines of one model have its colour in several shades: the share that is mixed with the colour of text, or, if
# negative, with the colour of the background. Their lines differ too, so that all lines of a figure differ.
SHADES = (0.0, 0.5, -0.45, 0.75, -0.7)
LINES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
# Of more lines in a figure, the best ones have a style of their own.
NAMED = 6


@dataclass(frozen=True)
class ModelStyles:
    """The styles of the models of a result folder.

    Attributes:
        models: names of all models, sorted, so that another run of a known model changes no colour.
        backends: names of all backends, sorted.
    """

    models: tuple[str, ...]
    backends: tuple[str, ...]

    @classmethod
    def of(cls, results: Results) -> ModelStyles:
        """The styles of all finished runs.

        Args:
            results: of the result folder.
        """
        specs = [record.spec for record in results.ok()]
        models, backends = ({str(spec[name]) for spec in specs} for name in ("model", "backend"))
        return results.once("model styles", lambda: cls(tuple(sorted(models)), tuple(sorted(backends))))

    def style(self, record: RunRecord) -> dict[str, int]:
        """The style of a finished run, for the page: the places of its model and of its backend.

        Args:
            record: the run.
        """
        spec = record.spec
        return {"model": self.models.index(str(spec["model"])), "backend": self.backends.index(str(spec["backend"]))}


def styles_for_scripts() -> dict[str, Any]:
    """Colours, shades and lines for the scripts of the page."""
    return {"light": PALETTE, "dark": DARK_PALETTE, "shades": SHADES, "lines": LINES, "named": NAMED}
