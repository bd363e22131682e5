"""Sort, reverse and deduplicate short lists."""

from __future__ import annotations

import random

from nemodiff_core.analysis.example import Example, Grade

NAME = "list"
WORDS = (
    "apple ball cake drum egg fish goat hat ink jar kite lamp moon nest owl pen queen ring shoe tent "
    "unit van wolf yard zoo ant bell coat door ear fork gate hill ice jam key leaf milk nut"
).split()
_ASK = {
    "sort": ("Sort these {t}: {x}", "Put these {t} in order: {x}", "Order this list: {x}", "Sort the list {x}", "Arrange these {t} from first to last: {x}"),
    "reverse": ("Reverse these {t}: {x}", "Write this list backwards: {x}", "Reverse the list {x}", "Turn this list around: {x}", "Give these {t} in reverse order: {x}"),
    "dedup": ("Remove duplicates from these {t}: {x}", "Remove repeated {t}: {x}", "Keep each of these {t} once: {x}", "Deduplicate the list {x}", "Drop the repeats in this list: {x}"),
}


def generate(rng: random.Random) -> Example:
    """Three to six items, numbers below 100 or words of one alphabetised set."""
    kind = rng.choice(("sort", "sort", "sort", "sort", "reverse", "reverse", "dedup"))
    numbers = rng.random() < 0.5
    count = rng.randint(3, 6)
    pool = [str(n) for n in range(1, 100)] if numbers else WORDS
    items = rng.sample(pool, count)
    if kind == "dedup":
        kept = items[: max(2, count - rng.randint(1, 2))]
        items = kept + [rng.choice(kept) for _ in range(count - len(kept) + 1)]
        rng.shuffle(items)
        result = list(dict.fromkeys(items))
    elif kind == "reverse":
        result = items[::-1]
    else:
        result = sorted(items, key=(lambda x: int(x)) if numbers else None)
    prompt = rng.choice(_ASK[kind]).format(t="numbers" if numbers else "words", x=", ".join(items))
    answer = ", ".join(result)
    return Example(NAME, kind, prompt, answer, {"key": f"{kind} {' '.join(items)}", "result": result})


def check(example: Example, text: str) -> Grade:
    """The items, in order, separated by commas; a final period is allowed."""
    items = [item.strip() for item in text.strip().rstrip(".").split(",")]
    right = items == example.facts["result"]
    return Grade(right, "exact" if right else f"expected {', '.join(example.facts['result'])}")
