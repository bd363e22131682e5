"""4x4 Sudoku with a unique solution."""

from __future__ import annotations

import random
from itertools import permutations

from nemodiff_core.analysis.example import Example, Grade

NAME = "sudoku"
_ASK = ("Solve this 4x4 Sudoku:", "Fill in this Sudoku:", "Complete the grid:", "Finish this 4x4 Sudoku:", "Solve the puzzle:")
Grid = tuple[tuple[int, ...], ...]


def _valid(grid: Grid) -> bool:
    full = {1, 2, 3, 4}
    boxes = ({grid[r + i][c + j] for i in (0, 1) for j in (0, 1)} for r in (0, 2) for c in (0, 2))
    return all(set(row) == full for row in (*grid, *zip(*grid))) and all(box == full for box in boxes)


def _all_grids() -> list[Grid]:
    rows = list(permutations((1, 2, 3, 4)))
    grids = []
    for a in rows:
        for b in rows:
            if {*a[:2], *b[:2]} != {1, 2, 3, 4}:
                continue
            for c in rows:
                if any(x in column for x, column in zip(c, zip(a, b))):
                    continue
                for d in rows:
                    if _valid((a, b, c, d)):
                        grids.append((a, b, c, d))
    return grids


GRIDS = _all_grids()  # all 288 of them


def _show(grid: Grid, blanks: set[int]) -> str:
    return "\n".join(" ".join("_" if 4 * r + c in blanks else str(n) for c, n in enumerate(row)) for r, row in enumerate(grid))


def _unique(grid: Grid, blanks: set[int]) -> bool:
    given = [(r, c) for r in range(4) for c in range(4) if 4 * r + c not in blanks]
    return sum(all(other[r][c] == grid[r][c] for r, c in given) for other in GRIDS) == 1


def generate(rng: random.Random) -> Example:
    """A grid with four to eight blanks and one solution."""
    while True:
        grid = rng.choice(GRIDS)
        blanks = set(rng.sample(range(16), rng.randint(4, 8)))
        if _unique(grid, blanks):
            break
    puzzle = _show(grid, blanks)
    prompt = f"{rng.choice(_ASK)}\n{puzzle}"
    return Example(NAME, "4x4", prompt, _show(grid, set()), {"key": puzzle, "puzzle": puzzle})


def check(example: Example, text: str) -> Grade:
    """Sixteen digits that keep the givens and satisfy rows, columns and boxes."""
    lines = [line.split() for line in text.strip().splitlines()]
    if [len(line) for line in lines] != [4] * 4 or any(cell not in "1234" for line in lines for cell in line):
        return Grade(False, "not four rows of four digits from 1 to 4")
    givens = example.facts["puzzle"].split()
    cells = [cell for line in lines for cell in line]
    if any(given not in ("_", cell) for given, cell in zip(givens, cells)):
        return Grade(False, "a given digit was changed")
    right = _valid(tuple(tuple(int(cell) for cell in line) for line in lines))
    return Grade(right, "valid" if right else "a row, column or box repeats a digit")
