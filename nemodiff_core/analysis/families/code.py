"""Small Python functions with a printed result, checked by running them in a sandbox."""

from __future__ import annotations

import random
import re

from nemodiff_core.analysis.example import Example, Grade
from nemodiff_core.analysis.families.sandbox import Program, Refused

NAME = "code"
_ASK = (
    "Write a Python function that {task}. Call it with {call}.",
    "Write {name} in Python, which {task}, and print it for {call}.",
    "In Python, define {name}: it {task}. Show the result for {call}.",
    "Give me a Python function {name} that {task}. Print its value for {call}.",
    "Code a function that {task} and call it with {call}.",
)
_WORDS = "apple ball cake egg fish kite lamp moon owl shoe tree milk".split()
# kind -> (what it does, name, parameter, body, argument type); {n} is a drawn constant
_KINDS = {
    "add": ("adds {n} to a number", "add_{n}", "x", "return x + {n}", "int"),
    "times": ("multiplies a number by {n}", "times_{n}", "x", "return x * {n}", "int"),
    "less": ("takes {n} away from a number", "minus_{n}", "x", "return x - {n}", "int"),
    "even": ("tells whether a number is even", "is_even", "x", "return x % 2 == 0", "int"),
    "bigger": ("tells whether a number is greater than {n}", "more_than_{n}", "x", "return x > {n}", "int"),
    "total": ("adds up a list", "total", "items", "return sum(items)", "list"),
    "largest": ("finds the largest item of a list", "largest", "items", "return max(items)", "list"),
    "smallest": ("finds the smallest item of a list", "smallest", "items", "return min(items)", "list"),
    "last": ("returns the last item of a list", "last", "items", "return items[-1]", "list"),
    "first": ("returns the first item of a list", "first", "items", "return items[0]", "list"),
    "size": ("counts the items of a list", "size", "items", "return len(items)", "list"),
    "turn": ("reverses a list", "turn", "items", "return items[::-1]", "list"),
    "shift": ("adds {n} to every item of a list", "add_all", "items", "return [x + {n} for x in items]", "list"),
    "upper": ("writes a word in capital letters", "shout", "word", "return word.upper()", "str"),
    "twice": ("writes a word twice", "twice", "word", "return word + word", "str"),
}
_TRIALS = {"int": (0, 3, 8, 14), "list": ([4, 1], [2, 9, 5], [7]), "str": ("moon", "a")}


def generate(rng: random.Random) -> Example:
    """One function with one call."""
    kind = rng.choice(list(_KINDS))
    task, name, parameter, body, argument = _KINDS[kind]
    n = rng.randint(2, 9)
    task, name, body = (text.format(n=n) for text in (task, name, body))
    value = {
        "int": lambda: rng.randint(1, 20),
        "list": lambda: [rng.randint(1, 9) for _ in range(rng.randint(2, 4))],
        "str": lambda: rng.choice(_WORDS),
    }[argument]()
    call = str(value) if argument != "str" else f'"{value}"'
    source = f"def {name}({parameter}):\n    {body}\n\nprint({name}({call}))"
    result = Program(source).printed()[0]
    prompt = rng.choice(_ASK).format(task=task, name=name, call=call)
    facts = {"key": f"{kind} {n} {call}", "kind": kind, "n": n, "name": name, "named": name in prompt, "call": call}
    return Example(NAME, kind, prompt, f"{source}  # {result}", facts)


def check(example: Example, text: str) -> Grade:
    """The function must behave like the reference, and the comment must be what its call prints."""
    facts = example.facts
    _, name, parameter, body, argument = _KINDS[facts["kind"]]
    model = Program(f"def {name.format(n=facts['n'])}({parameter}):\n    {body.format(n=facts['n'])}")
    try:
        program = Program(text)
        if len(program.functions) != 1:
            return Grade(False, "there must be exactly one function")
        (own,) = program.functions
        if facts["named"] and own != facts["name"]:
            return Grade(False, f"the function must be called {facts['name']}")
        for trial in _TRIALS[argument]:
            if program.call(own, trial) != model.call(facts["name"], trial):
                return Grade(False, f"wrong result for {trial!r}")
        printed = program.printed()
    except (Refused, RecursionError) as refusal:
        return Grade(False, str(refusal))
    said = re.findall(r"#\s*(.+)", text)
    if f"({facts['call']})" not in text.replace("print", "", 1) or len(printed) != 1:
        return Grade(False, f"it must print the call with {facts['call']}")
    right = bool(said) and said[-1].strip() == printed[0]
    return Grade(right, "runs and prints what it says" if right else f"it prints {printed[0]}")
