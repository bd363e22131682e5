"""Weekdays, dates and unit conversions, each worked in a line or two."""

from __future__ import annotations

import random
import re

from nemodiff_core.analysis.example import Example, Grade
from nemodiff_core.analysis.families.arithmetic import subtraction

NAME = "date_unit"
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = {"January": 31, "March": 31, "April": 30, "May": 31, "June": 30, "July": 31, "August": 31, "September": 30, "October": 31, "November": 30, "December": 31}
UNITS = {"weeks": ("days", 7), "hours": ("minutes", 60), "meters": ("centimeters", 100), "kilograms": ("grams", 1000), "days": ("hours", 24), "minutes": ("seconds", 60), "years": ("months", 12)}
_ASK = {
    "weekday": ("What day is {n} days after {d}?", "Today is {d}. What day is it in {n} days?", "Count {n} days on from {d}.", "Which weekday comes {n} days after {d}?", "It is {d}. Name the day {n} days later."),
    "between": ("How many days are there from {m} {a} to {m} {b}?", "Count the days between {m} {a} and {m} {b}.", "How long is it from {m} {a} to {m} {b} in days?", "Days from {m} {a} to {m} {b}?", "It is {m} {a}. How many days until {m} {b}?"),
    "next": ("What is the day after {m} {a}?", "Which date follows {m} {a}?", "What date comes after {m} {a}?", "Today is {m} {a}. What is tomorrow?", "Give the next date after {m} {a}."),
    "convert": ("How many {v} are {n} {u}?", "Convert {n} {u} to {v}.", "Write {n} {u} in {v}.", "Change {n} {u} into {v}.", "{n} {u} is how many {v}?"),
}


def generate(rng: random.Random) -> Example:
    """One small problem about time or measures."""
    kind = rng.choice(("weekday", "between", "next", "convert"))
    if kind == "weekday":
        n, day = rng.randint(1, 27), rng.randrange(7)
        rest, target = n % 7, DAYS[(day + n) % 7]
        walk = " ".join(DAYS[(day + i) % 7] for i in range(rest + 1))
        knobs = {"n": n, "d": DAYS[day]}
        answer = f"{n} = {n // 7} weeks + {rest} days. {walk}. Answer: {target}"
        result = target
    elif kind == "convert":
        u = rng.choice(list(UNITS))
        v, factor = UNITS[u]
        n = rng.randint(2, 99 if factor in (100, 1000) else 12)
        knobs, result = {"n": n, "u": u, "v": v}, f"{n * factor} {v}"
        answer = f"1 {u[:-1]} = {factor} {v}. {n} * {factor} = {n * factor}. Answer: {result}"
    else:
        m = rng.choice(list(MONTHS))
        last = MONTHS[m]
        if kind == "between":
            a, b = sorted(rng.sample(range(1, last + 1), 2))
            knobs, result = {"m": m, "a": a, "b": b}, f"{b - a} days"
            answer = " ".join((*subtraction(b, a)[0], f"Answer: {result}"))
        else:
            a = last if rng.random() < 0.25 else rng.randint(1, last)
            names = [*MONTHS]
            following = {"January": "February"}.get(m) or names[(names.index(m) + 1) % len(names)]
            result = f"{following} 1" if a == last else f"{m} {a + 1}"
            knobs, answer = {"m": m, "a": a}, f"{m} has {last} days. Answer: {result}"
    prompt = rng.choice(_ASK[kind]).format(**knobs)
    return Example(NAME, kind, prompt, answer, {"key": f"{kind} {sorted(knobs.items())}", "result": result})


def check(example: Example, text: str) -> Grade:
    """What follows the last `Answer:` must be exact."""
    found = re.findall(r"Answer:\s*([^\n]+)", text)
    if not found:
        return Grade(False, "there is no 'Answer:'")
    right = found[-1].strip().rstrip(".") == example.facts["result"]
    return Grade(right, "exact" if right else f"expected {example.facts['result']}")
