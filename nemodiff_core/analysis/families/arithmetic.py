"""Sums, differences and products, worked digit by digit from the right."""

from __future__ import annotations

import random
import re

from nemodiff_core.analysis.example import Example, Grade

NAME = "arithmetic"
_ASK = {
    "add": ("What is {a} + {b}?", "Add {a} and {b}.", "Compute {a} + {b}.", "Find the sum of {a} and {b}.", "How much is {a} plus {b}?"),
    "sub": ("What is {a} - {b}?", "Subtract {b} from {a}.", "Compute {a} - {b}.", "Find {a} minus {b}.", "How much is {a} minus {b}?"),
    "mul": ("What is {a} * {b}?", "Multiply {a} by {b}.", "Compute {a} * {b}.", "Find the product of {a} and {b}.", "How much is {a} times {b}?"),
}


def generate(rng: random.Random) -> Example:
    """One problem; operands of mostly two digits, results never negative."""
    kind = rng.choice(("add", "add", "sub", "sub", "mul"))
    if kind == "mul":
        a, b = rng.randint(11, 99), rng.randint(2, 9)
    else:
        size = 999 if rng.random() < 0.3 else 99
        a, b = rng.randint(10, size), rng.randint(2, size)
        if kind == "sub" and b > a:
            a, b = b, a
    steps, result = {"add": _add, "sub": subtraction, "mul": _multiply}[kind](a, b)
    answer = " ".join((*steps, f"Answer: {result}"))
    prompt = rng.choice(_ASK[kind]).format(a=a, b=b)
    return Example(NAME, kind, prompt, answer, {"key": f"{kind} {a} {b}", "result": result})


def _digits(n: int, width: int) -> list[int]:
    return [n // 10**i % 10 for i in range(width)]


def _add(a: int, b: int) -> tuple[list[str], int]:
    width, carry, steps = len(str(max(a, b))), 0, []
    for x, y in zip(_digits(a, width), _digits(b, width)):
        total = x + y + carry
        steps.append(f"{x} + {y} + {carry} = {total}, write {total % 10}, carry {total // 10}.")
        carry = total // 10
    return steps, a + b


def subtraction(a: int, b: int) -> tuple[list[str], int]:
    """Worked lines of a - b, digit by digit from the right, and the difference; needs a >= b."""
    width, borrow, steps = len(str(a)), 0, []
    for x, y in zip(_digits(a, width), _digits(b, width)):
        take = 1 if x - borrow < y else 0
        steps.append(f"{x} - {y} - {borrow} = {x - y - borrow + 10 * take}, borrow {take}.")
        borrow = take
    return steps, a - b


def _multiply(a: int, b: int) -> tuple[list[str], int]:
    tens, ones = a // 10 * 10, a % 10
    first, second = tens * b, ones * b
    return [f"{tens} * {b} = {first}, {ones} * {b} = {second}.", *_add(first, second)[0]], a * b


def check(example: Example, text: str) -> Grade:
    """The number after the last `Answer:` must be exact."""
    found = re.findall(r"Answer:\s*(-?\d+)", text)
    if not found:
        return Grade(False, "there is no 'Answer:' with a number")
    right = int(found[-1]) == example.facts["result"]
    return Grade(right, "exact" if right else f"{found[-1]} instead of {example.facts['result']}")
