"""Example prompts by task: held-out problems of the bundled model's families, always the same ones."""

from __future__ import annotations

from functools import lru_cache

from nemodiff_core.analysis.tasks import FAMILIES, examples_for

PER_FAMILY = 8
SEED = 2


@lru_cache(maxsize=1)
def examples() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(task, prompts) in a fixed order. The prompts are from the test split: training never saw them."""
    families: dict[str, list[str]] = {}
    for example in examples_for("test", PER_FAMILY, SEED):
        families.setdefault(FAMILIES[example.family].title, []).append(example.prompt)
    return tuple((title, tuple(prompts)) for title, prompts in families.items())


def following(task: str | None, prompt: str) -> str:
    """The example after `prompt` within a task, round and round; the first when `prompt` is another text."""
    listed = dict(examples())
    prompts = listed.get(task or "") or examples()[0][1]
    return prompts[(prompts.index(prompt) + 1) % len(prompts)] if prompt in prompts else prompts[0]
