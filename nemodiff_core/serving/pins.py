"""requirements.txt: the project's direct needs and theirs, at the versions that are installed here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from nemodiff_core.errors import ConfigError

FILE = "requirements.txt"
HEADING = "# What a Space and `make run` install: the direct needs of pyproject.toml and theirs, pinned (`nemodiff deploy --write`).\n"
# Every build of torch asks for its own accelerator's libraries, in exact versions: pinning those of this machine's
# build would force them upon all others.
_OF_A_BUILD = re.compile(r"(nvidia|cuda|triton|pytorch-triton|intel|onemkl)(-|$)")


def direct_needs(root: Path) -> list[str]:
    """The requirements that pyproject.toml in `root` names. Raises ConfigError."""
    path = root / "pyproject.toml"
    try:
        return tomllib.loads(path.read_text("utf-8"))["project"]["dependencies"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); run this in a checkout of the repository.") from error


def pinned(needs: Iterable[str], python: str) -> dict[str, str]:
    """Name -> version of `needs` and everything they need on Linux with this Python ("3.12"), as installed here.

    Raises ConfigError where something is not installed or does not fit.
    """
    environment = {**default_environment(), **_linux(python)}
    found: dict[str, _Package] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(need), "nemodiff") for need in needs]
    while waiting:
        need, asker = waiting.pop()
        if need.marker is not None and not need.marker.evaluate(environment | {"extra": ""}):
            continue
        name = canonicalize_name(need.name)
        package = found.get(name) or _installed(need.name, asker)
        if not need.specifier.contains(package.version, prereleases=True):
            raise ConfigError(f"{asker} needs {need}, but {package.version} is installed; install one that fits.")
        found[name] = package
        # The plain package first, then each of its extras, once.
        for extra in ("", *sorted(need.extras)):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [(theirs, package.name) for theirs in package.needs(extra, environment)]
    return {package.name: package.version for package in found.values()}


def render(pins: dict[str, str]) -> str:
    """The file's text: `name==version` lines in order."""
    lines = (f"{name}=={version}" for name, version in pins.items())
    return HEADING + "\n".join(sorted(lines, key=str.lower)) + "\n"


def differences(there: str, wanted: str) -> list[str]:
    """What has to go from one file's text and come in to make it the other's: `- line` and `+ line`."""
    old, new = ({line for line in text.splitlines() if line and not line.startswith("#")} for text in (there, wanted))
    return [f"- {line}" for line in sorted(old - new)] + [f"+ {line}" for line in sorted(new - old)]


@dataclass(frozen=True)
class _Package:
    """What is installed; reading it from its files takes longer than everything else here."""

    name: str
    version: str  # without the part that names a build
    asks: tuple[str, ...]

    def needs(self, extra: str, environment: dict[str, str]) -> list[Requirement]:
        """What it needs; with an extra, only what that adds."""
        needs = []
        for need in map(Requirement, self.asks):
            if self.name == "torch" and _OF_A_BUILD.match(canonicalize_name(need.name)):
                continue
            applies = not extra if need.marker is None else need.marker.evaluate(environment | {"extra": extra})
            need.marker = None
            if applies:
                needs.append(need)
        return needs


def _installed(name: str, asker: str) -> _Package:
    try:
        package = distribution(name)
    except PackageNotFoundError as error:
        raise ConfigError(f"{asker} needs {name}, which is not installed here; install it, so that its version can be pinned.") from error
    about = package.metadata
    return _Package(about["Name"], Version(about["Version"]).public, tuple(about.get_all("Requires-Dist") or ()))


def _linux(python: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
