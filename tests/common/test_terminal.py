"""What the terminal shows."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from harness.common.terminal import LONG_TABLE, print_rows


def test_a_long_table_has_the_text_of_a_short_one() -> None:
    def shown(count: int) -> list[str]:
        console = Console(file=StringIO(), width=60)
        print_rows(console, ("", "state", "run"), [(str(i), "to do", f"run-[{i}]") for i in range(1, count + 1)])
        assert isinstance(console.file, StringIO)
        return [line.rstrip() for line in console.file.getvalue().splitlines()]

    short, long = shown(LONG_TABLE), shown(LONG_TABLE + 1)
    assert len(long) == LONG_TABLE + 2
    assert short == long[: LONG_TABLE + 1]
    assert short[7] == "7    to do  run-[7]"
