"""The player's modules as one script.

A page opened from a file may not import modules by address, and a page of the app should not have to ask for ninety of
them, so the modules are joined when a run is exported and when the app starts.
Only what the player uses of the module syntax is understood: statements at the start of a line, relative names of
neighbours, no default exports, nothing that is exported and assigned again, no circles. Anything else is an error
here, which the tests see, and not one in the browser of whoever receives the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_NEIGHBOUR = r"['\"]\./([\w.-]+\.js)['\"]"
_NAMED = re.compile(rf"^import\s*\{{([^}}]*)\}}\s*from\s*{_NEIGHBOUR};?", re.M)
_WHOLE = re.compile(rf"^import\s*\*\s*as\s+(\w+)\s+from\s*{_NEIGHBOUR};?", re.M)
_PASSED_ON = re.compile(rf"^export\s*\{{([^}}]*)\}}\s*from\s*{_NEIGHBOUR};?", re.M)
_LISTED = re.compile(r"^export\s*\{([^}]*)\};?", re.M)
_DECLARED = re.compile(r"^export\s+(?=(?:const|async\s+function\*?|function\*?|class)\s*([\w$]+))", re.M)
_TAKEN_APART = re.compile(r"^export\s+(?=const\s*[\[{]([^\]}]*)[\]}]\s*=)", re.M)
_LATER = re.compile(rf"\bimport\(\s*{_NEIGHBOUR}\s*\)")
_LEFT_OVER = re.compile(r"^(?:import|export)\b(?!\s*\().*|^\s+(?:import|export)\s+[\w{*'\"].*", re.M)

_HEAD = """(() => {
'use strict';
const written = new Map();
const known = new Map();
const $use = (name) => {
  if (!known.has(name)) {
    const module = written.get(name);
    if (!module) throw new Error(`there is no module ${name}`);
    const $exported = {};
    known.set(name, $exported);
    module($exported);
  }
  return known.get(name);
};
const $later = async (name) => $use(name);
"""


class BundleError(ValueError):
    """A module says something that cannot be joined."""


def bundle(folder: Path, entries: Sequence[str], start: str) -> str:
    """One script that runs the JavaScript `start`, in which `$use('name.js')` gives a module's exports.

    Holds `entries`, what they import, and what any of these imports later where that exists. Safe inside a
    script element. Raises BundleError.
    """
    parts: dict[str, _Module] = {}
    for entry in entries:
        _collect(folder, entry, parts, ())
    for module in parts.values():
        for other, name in module.wants:
            if name not in parts[other].exports:
                raise BundleError(f"{module.name} wants {name} of {other}, which does not seem to export it")
    body = [f"written.set('{module.name}', ($exported) => {{\n{module.source}\n}});" for module in parts.values()]
    script = "\n".join([_HEAD, *body, start, "})();\n"])
    # In strings, templates and expressions the backslash changes nothing; without it the element would end there.
    return re.sub(r"<(/script|!--)", r"<\\\1", script, flags=re.I)


@dataclass
class _Module:
    """A module rewritten as the body of a function over `$exported`."""

    name: str
    source: str = ""
    exports: dict[str, str] = field(default_factory=dict)  # their name -> what to read
    wants: list[tuple[str, str]] = field(default_factory=list)  # (module, name)
    needs: list[str] = field(default_factory=list)  # modules that must run before it
    later: list[str] = field(default_factory=list)  # modules it asks for while it runs


def _collect(folder: Path, name: str, parts: dict[str, _Module], above: tuple[str, ...]) -> None:
    if name in above:
        raise BundleError(f"the modules import one another in a circle: {' → '.join((*above, name))}")
    if name in parts:
        return
    module = _rewrite(name, (folder / name).read_text("utf-8"))
    for other in module.needs:
        _collect(folder, other, parts, (*above, name))
    parts[name] = module
    for other in module.later:
        if (folder / other).is_file():
            _collect(folder, other, parts, ())


def _rewrite(name: str, source: str) -> _Module:
    module = _Module(name)

    def wanted(match: re.Match[str]) -> list[tuple[str, str]]:
        pairs = _pairs(match[1], r"\s+as\s+")
        module.needs.append(match[2])
        module.wants += [(match[2], theirs) for theirs, _ in pairs]
        return pairs

    def named(match: re.Match[str]) -> str:
        return f"const {{ {', '.join(f'{theirs}: {ours}' for theirs, ours in wanted(match))} }} = $use('{match[2]}');"

    def whole(match: re.Match[str]) -> str:
        module.needs.append(match[2])
        return f"const {match[1]} = $use('{match[2]}');"

    def passed_on(match: re.Match[str]) -> str:
        for theirs, ours in wanted(match):
            module.exports[ours] = f"$use('{match[2]}').{theirs}"
        return ""

    def listed(match: re.Match[str]) -> str:
        module.exports |= {theirs: ours for ours, theirs in _pairs(match[1], r"\s+as\s+")}
        return ""

    def declared(match: re.Match[str]) -> str:
        module.exports[match[1]] = match[1]
        return ""

    def taken_apart(match: re.Match[str]) -> str:
        module.exports |= {ours: ours for _, ours in _pairs(match[1], ":")}
        return ""

    rules = (
        (_NAMED, named), (_WHOLE, whole), (_PASSED_ON, passed_on), (_LISTED, listed), (_DECLARED, declared), (_TAKEN_APART, taken_apart),
    )  # fmt: skip
    for pattern, replace in rules:
        source = pattern.sub(replace, source)
    module.later = _LATER.findall(source)
    source = _LATER.sub(r"$later('\1')", source).replace("import.meta.url", "document.baseURI")
    if left := _LEFT_OVER.search(source):
        raise BundleError(f"{name}: the exported page cannot hold “{left[0].strip()}”")
    exports = ", ".join(f"{theirs}: {ours}" for theirs, ours in module.exports.items())
    module.source = f"{source}\nObject.assign($exported, {{ {exports} }});"
    return module


def _pairs(names: str, between: str) -> list[tuple[str, str]]:
    """`a, b as c` → [(a, a), (b, c)]."""
    parts = [re.split(between, name.strip()) for name in names.split(",") if name.strip()]
    return [(part[0].strip(), part[-1].strip()) for part in parts]
