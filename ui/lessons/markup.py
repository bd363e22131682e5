"""A lesson's text as a tree that the browser builds from elements: paragraphs, lists, emphasis, code, formulas, facts.

A node is a string or `[tag, attributes, children]`, and its tags are those of TAGS: there is no way to write any other.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from latex2mathml.converter import convert

from ui.lessons.problem import LessonError

Node = str | list[Any]
_MATH = "math mrow mi mo mn mtext mspace msub msup msubsup munder mover munderover mfrac msqrt mstyle mtable mtr mtd".split()
TAGS = frozenset(["p", "ul", "li", "em", "strong", "code", *_MATH])
_ATTRIBUTES = frozenset("display stretchy width mathvariant movablelimits form".split())
_INLINE = re.compile(r"(\*\*.+?\*\*|\*.+?\*|`.+?`|\$.+?\$|\{.+?\})")


def blocks(text: str, say: Callable[[str], str]) -> list[Node]:
    """Paragraphs and lists. `say` gives what stands for an expression in braces."""
    nodes: list[Node] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in block.strip().splitlines()]
        if not lines:
            continue
        if all(re.match(r"- |  ", line) for line in block.strip().splitlines()):
            items = re.split(r"\n?- ", " \n".join(lines).replace(" \n", "\n"))[1:]
            nodes.append(["ul", {}, [["li", {}, inline(" ".join(item.split()), say)] for item in items]])
        elif len(lines) == 1 and (match := re.fullmatch(r"\$\$(.+)\$\$", lines[0])):
            nodes.append(formula(match[1], "block"))
        else:
            nodes.append(["p", {}, inline(" ".join(lines), say)])
    return nodes


def inline(text: str, say: Callable[[str], str]) -> list[Node]:
    """A line's nodes. What an expression says is text, never markup."""
    nodes: list[Node] = []
    for part in _INLINE.split(text):
        if not part:
            continue
        if len(part) > 4 and part[:2] == part[-2:] == "**":
            nodes.append(["strong", {}, inline(part[2:-2], say)])
        elif len(part) > 2 and part[0] == part[-1] == "*":
            nodes.append(["em", {}, inline(part[1:-1], say)])
        elif len(part) > 2 and part[0] == part[-1] == "`":
            inner = part[1:-1]
            nodes.append(["code", {}, [say(inner[1:-1]) if inner[0] == "{" and inner[-1] == "}" else inner]])
        elif len(part) > 2 and part[0] == part[-1] == "$":
            nodes.append(formula(part[1:-1], "inline"))
        elif part[0] == "{" and part[-1] == "}":
            nodes.append(say(part[1:-1]))
        else:
            nodes.append(part)
    return nodes


@lru_cache(maxsize=256)
def formula(tex: str, display: str) -> Node:
    """TeX as MathML. Raises LessonError for what the library does not know."""
    try:
        return _tree(ET.fromstring(convert(tex, display=display)))
    except LessonError:
        raise
    except Exception as error:  # the library has many exceptions of its own and no common one
        raise LessonError(f"the formula “{tex}” cannot be read ({type(error).__name__}).") from error


def _tree(element: ET.Element) -> Node:
    tag = element.tag.rpartition("}")[2]
    if tag not in TAGS or (element.text or "").startswith("\\"):
        raise LessonError(f"a formula uses {element.text or tag}, which lessons do not have.")
    attributes = {key: found for key, found in element.attrib.items() if key in _ATTRIBUTES}
    return [tag, attributes, [*([element.text] if element.text else []), *map(_tree, element)]]
