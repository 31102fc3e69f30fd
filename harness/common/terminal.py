"""The terminal: text of files, folders and errors is shown as text, whatever it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# A terminal takes these for commands: they move the cursor, change its title, or remove what stands there. The last
# ones turn the direction of reading round.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Text with control characters as Python writes them, such as \x1b; line breaks and tabs are kept."""
    return CONTROL.sub(lambda match: repr(match.group())[1:-1], text)


class Terminal(Console):
    """Rich's console, for text from elsewhere: control characters of it are shown, not obeyed.

    Args:
        file: the stream.
        wrap: whether long lines are broken at the width of the terminal.
        width: columns; None for those of the terminal.
    """

    def __init__(self, file: TextIO, wrap: bool = False, width: int | None = None) -> None:
        super().__init__(file=file, highlight=False, soft_wrap=not wrap, width=width)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Rich's own segments; see the class."""
        for segment in super().render(renderable, options):
            risky = not segment.control and CONTROL.search(segment.text)
            yield Segment(printable(segment.text), segment.style) if risky else segment
