"""The graded tasks: every reference answer passes, damage fails, and the splits never meet."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from nemodiff_core.analysis.families.sandbox import Program, Refused
from nemodiff_core.analysis.tasks import FAMILIES, examples_for, generate, grade, split_of, stream


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_answers_pass_and_damaged_ones_fail(family: str) -> None:
    rng = random.Random(5)
    for _ in range(150):
        example = generate(family, rng)
        assert grade(example, example.answer).correct, (example.prompt, example.answer)
        assert grade(example, example.answer + "\n").correct
        assert not grade(example, "").correct
        assert not grade(example, "I do not know.").correct
        if family == "story":
            for item in example.facts["must"]:
                assert not grade(example, example.answer.replace(item, "stone").replace(item.capitalize(), "Stone")).correct
        else:
            half = example.answer[: len(example.answer) // 2]
            assert not grade(example, half).correct, (example.answer, half)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_deterministic_and_phrased_in_several_ways(family: str) -> None:
    a = [generate(family, random.Random(n)) for n in range(40)]
    assert a == [generate(family, random.Random(n)) for n in range(40)]
    assert len({example.prompt.split()[0] + str(len(example.prompt.split())) for example in a}) >= 4
    assert all(example.prompt.isascii() and example.answer.isascii() for example in a)


def test_train_and_test_never_share_a_problem() -> None:
    train = {(e.family, e.facts["key"]) for e in islice(stream("train", 3), 4000)}
    test = {(e.family, e.facts["key"]) for e in examples_for("test", 30)}
    assert not train & test
    assert all(split_of(e) == "test" for e in examples_for("test", 5, seed=9))
    assert len(test) == 30 * len(FAMILIES)


def test_wrong_numbers_and_orders_are_wrong() -> None:
    rng = random.Random(1)
    for _ in range(60):
        sum_ = generate("arithmetic", rng)
        assert not grade(sum_, sum_.answer + "1").correct
        items = generate("list", rng)
        parts = items.answer.split(", ")
        assert not grade(items, ", ".join([*parts[1:], parts[0]])).correct or len(set(parts)) == 1
        grid = generate("sudoku", rng)
        flipped = grid.answer.translate(str.maketrans("12", "21"))
        assert not grade(grid, flipped).correct
        record = generate("json", rng)
        if record.kind == "to_json":
            assert not grade(record, record.answer.replace('"name"', '"Name"')).correct


HOSTILE = [
    "import os\nprint(os.system('true'))",
    "print(__import__('os'))",
    "def f(x):\n    return ().__class__.__bases__\n\nprint(f(1))",
    "def f(x):\n    return open('/etc/passwd')\n\nprint(f(1))",
    "def f(x):\n    return f(x)\n\nprint(f(1))",
    "def f(x):\n    while True:\n        x = x\n\nprint(f(1))",
    "def f(x):\n    return 9 ** 9 ** 9\n\nprint(f(1))",
    "def f(x):\n    return 'a' * 1000000000\n\nprint(f(1))",
    "def f(x):\n    for a in [1, 2, 3, 4, 5, 6, 7, 8, 9]:\n        x = x * x + x * x\n    return x\n\nprint(f(99))",
    "def f(x):\n    return [[[[x for a in y] for b in y] for c in y] for y in [[1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6]] for d in y]\n\nprint(f(1))",
    "f = lambda x: x\nprint(f(1))",
    "def f(x):\n    return x.format(x)\n\nprint(f('{0.__class__}'))",
    "((((" * 500,
    "\x00",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_hostile_programs_are_refused(source: str) -> None:
    with pytest.raises(Refused):
        Program(source).printed()
    example = next(e for e in stream("train", 0, ["code"]))
    assert not grade(example, source).correct


def test_the_sandbox_agrees_with_python() -> None:
    source = (
        "def f(items):\n    best = items[0]\n    for x in items:\n        if x > best:\n            best = x\n    return best\n\n"
        "print(f([3, 9, 2]))\nprint([x * 2 for x in [1, 2, 3] if x > 1], 'ab'.upper(), len('abc'), 7 // 2, [1, 2, 3][::-1])"
    )
    assert Program(source).printed() == ["9", "[4, 6] AB 3 3 [3, 2, 1]"]
