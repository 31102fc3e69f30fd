"""A workbook of numbers without styles by openpyxl alone, in its usual mode.

`python -m benchmarks.plain_workbook ROWS COLUMNS FILE`
"""

from __future__ import annotations

import sys

from openpyxl import Workbook

if __name__ == "__main__":
    rows, columns = map(int, sys.argv[1:3])
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in range(rows):
        sheet.append([row + column / 8 for column in range(columns)])
    book.save(sys.argv[3])
