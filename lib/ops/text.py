"""Text for logs, terminals and .txt files."""

import re
from collections.abc import Sequence
from itertools import zip_longest


def counted(number: int, noun: str) -> str:
    """'1 frame', '2 frames'."""
    return f"{number} {noun}" + "s" * (number != 1)


def natural_key(name: str) -> list[int | str]:
    """Sort key that compares numbers in names by their value: 'a2' before 'a10'."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


def text_table(rows: Sequence[Sequence[object]]) -> str:
    """Format rows of cells: first column left aligned, others right aligned, two spaces between columns.

    A column is as wide as its widest cell. Rows may have different lengths; an empty row gives an empty line.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    lines = []
    for row in cells:
        aligned = [f"{cell:{'<' if k == 0 else '>'}{widths[k]}}" for k, cell in enumerate(row)]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)
