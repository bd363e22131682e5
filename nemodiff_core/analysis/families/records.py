"""JSON from a sentence, and a sentence from JSON."""

from __future__ import annotations

import json
import random
import re

from nemodiff_core.analysis.example import Example, Grade

NAME = "json"
_PEOPLE = "Mia Tom Lily Ben Sara Leo Anna Max Emma Paul Nora Oscar Ruby Hugo Ella Sam Rosa Jack Ida Finn".split()
_CITIES = "Rome Paris Oslo Lima Cairo Delhi Tokyo Berlin Madrid Vienna Dublin Quito".split()
_COLORS = "red blue green yellow white black brown pink".split()
_THINGS = "ball kite hat lamp cup drum book coat chair box boat bell".split()
_ANIMALS = "dog cat fox bird horse rabbit duck goat mouse bear".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_JOBS = "baker doctor farmer teacher painter sailor singer driver".split()
_PLACES = "school park library market garden harbor station museum".split()

# field -> how a value is drawn; schema -> fields with the clause that says each of them
_SCHEMAS = {
    "person": ("{name} is {rest}.", {"age": "{} years old", "city": "from {}", "job": "a {}"}),
    "pet": ("{name} is {rest}.", {"animal": "a {}", "color": "{}", "age": "{} years old"}),
    "order": ("{name} orders {rest}.", {"count": "{} pieces", "item": "of the {}", "color": "in {}", "price": "for {} dollars"}),
    "event": ("{name} has a party {rest}.", {"day": "on {}", "hour": "at {}", "place": "in the {}"}),
}
_ASK_JSON = ("Turn this into JSON: {x}", "Write JSON for: {x}", "Extract the facts as JSON: {x}", "Give me JSON for this sentence: {x}", "Convert to JSON: {x}")
_ASK_TEXT = ("Turn this JSON into a sentence: {x}", "Write a sentence for: {x}", "Say this in words: {x}", "Put this JSON into a sentence: {x}", "Describe this: {x}")


def _value(rng: random.Random, field: str) -> str | int:
    drawn = {
        "age": lambda: rng.randint(2, 80),
        "count": lambda: rng.randint(2, 40),
        "price": lambda: rng.randint(5, 99),
        "hour": lambda: rng.randint(1, 12),
        "city": lambda: rng.choice(_CITIES),
        "job": lambda: rng.choice(_JOBS),
        "animal": lambda: rng.choice(_ANIMALS),
        "color": lambda: rng.choice(_COLORS),
        "item": lambda: rng.choice(_THINGS),
        "day": lambda: rng.choice(_DAYS),
        "place": lambda: rng.choice(_PLACES),
    }
    return drawn[field]()


def _sentence(schema: str, record: dict[str, str | int]) -> str:
    frame, clauses = _SCHEMAS[schema]
    parts = [clauses[field].format(value) for field, value in record.items() if field != "name"]
    if schema in ("person", "pet"):
        rest = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    else:
        rest = " ".join(parts)
    return frame.format(name=record["name"], rest=rest)


def generate(rng: random.Random) -> Example:
    """A record of two to five fields in one of four schemas."""
    schema = rng.choice(list(_SCHEMAS))
    fields = list(_SCHEMAS[schema][1])
    if schema in ("person", "pet"):
        fields = rng.sample(fields, rng.randint(1, len(fields)))
    else:
        keep = set(rng.sample(fields, rng.randint(2, len(fields)))) | ({"count", "item"} if schema == "order" else set())
        fields = [field for field in fields if field in keep]
    record: dict[str, str | int] = {"name": rng.choice(_PEOPLE)}
    record.update((field, _value(rng, field)) for field in fields)
    text, data = _sentence(schema, record), json.dumps(record)
    facts = {"key": data, "record": record}
    if rng.random() < 0.6:
        return Example(NAME, "to_json", rng.choice(_ASK_JSON).format(x=text), data, facts)
    return Example(NAME, "to_sentence", rng.choice(_ASK_TEXT).format(x=data), text, facts | {"sentence": text})


def check(example: Example, text: str) -> Grade:
    """JSON must parse to exactly the record; a sentence must name every value."""
    record = example.facts["record"]
    if example.kind == "to_json":
        try:
            data = json.loads(text)
        except ValueError as error:
            return Grade(False, f"not JSON: {error}")
        right = data == record and list(data) == list(record)
        return Grade(right, "exact" if right else f"expected {json.dumps(record)}")
    words = set(re.findall(r"\w+", text))
    missing = [str(v) for v in record.values() if str(v) not in words]
    if missing or not text.strip().endswith("."):
        return Grade(False, f"missing {', '.join(missing)}" if missing else "no sentence end")
    extra = len(words) > len(set(re.findall(r"\w+", example.facts["sentence"]))) + 3
    return Grade(not extra, "says more than the record" if extra else "every value is there")
