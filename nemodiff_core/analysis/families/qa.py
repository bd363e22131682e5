"""A question about two given sentences."""

from __future__ import annotations

import random

from nemodiff_core.analysis.example import Example, Grade

NAME = "qa"
_PEOPLE = "Mia Tom Lily Ben Sara Leo Anna Max Emma Paul Nora Oscar Ruby Hugo Ella Sam Rosa Jack Ida Finn".split()
_THINGS = "ball kite hat lamp cup drum book coat key box boat bell".split()
_COLORS = "red blue green yellow white black brown pink".split()
_PLACES = "garden kitchen park school cellar attic barn library station market".split()
_LEAD = ("Read: {x} {q}", "{x} {q}", "Here are two facts. {x} {q}", "Answer from the text. {x} {q}", "{x} Now tell me: {q}")


def generate(rng: random.Random) -> Example:
    """Two people, two things, and one question that one of the sentences answers."""
    (p, q), (a, b) = rng.sample(_PEOPLE, 2), rng.sample(_THINGS, 2)
    (ca, cb), (x, y) = rng.sample(_COLORS, 2), rng.sample(_PLACES, 2)
    kind = rng.choice(("where", "who", "what", "color"))
    if kind == "color":
        text = f"{p} has a {ca} {a}. {q} has a {cb} {b}."
        question, answer = rng.choice(
            ((f"What color is the {a}?", f"The {a} is {ca}."), (f"What color is the {b}?", f"The {b} is {cb}."))
        )
    else:
        verb = rng.choice(("put the {} in the {}", "took the {} to the {}", "left the {} in the {}"))
        text = f"{p} {verb.format(a, x)}. {q} {verb.format(b, y)}."
        who, thing, place = rng.choice(((p, a, x), (q, b, y)))
        question, answer = {
            "where": (f"Where is the {thing}?", f"The {thing} is in the {place}."),
            "who": (f"Who had the {thing}?", f"{who} had the {thing}."),
            "what": (f"What is in the {place}?", f"The {thing} is in the {place}."),
        }[kind]
    prompt = rng.choice(_LEAD).format(x=text, q=question)
    return Example(NAME, kind, prompt, answer, {"key": f"{text} {question}", "answer": answer})


def check(example: Example, text: str) -> Grade:
    """The one right sentence; case and a final period do not matter."""
    right = text.strip().rstrip(".").lower() == example.facts["answer"].rstrip(".").lower()
    return Grade(right, "exact" if right else f"expected {example.facts['answer']}")
