"""`nemodiff deploy`: a Hugging Face Space from this checkout, and the files that spaces.yml decides about."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nemodiff_core.errors import NemodiffError
from nemodiff_core.serving import manifest, pins, space
from nemodiff_core.serving.manifest import SPACE, Manifest
from nemodiff_core.serving.space import README, Space

ROOT = Path(__file__).parents[1]


def run_deploy(name: str, preset: str | None, dry_run: bool, out: Path | None, private: bool, root: Path = ROOT) -> None:
    """Build the Space, list it, and upload it unless it is a dry run. Raises NemodiffError."""
    made = Space(name, preset or SPACE, root, _manifest(root))
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="nemodiff-space-") as scratch:
        folder = out or Path(scratch)
        files = made.build(folder)
        if dry_run:
            console.print(_listing(folder, files))
        total = sum((folder / file).stat().st_size for file in files)
        variables = ", ".join(f"{name}={value}" for name, value in made.variables.items())
        console.print(f"{len(files)} files, {_size(total)} · {made.preset.hardware} · {variables}")
        if left := space.untracked(root):
            console.print(f"Left out, because git does not keep them: {', '.join(left)}")
        if dry_run:
            return
        address = made.upload(folder, private, lambda what: console.print(f"{what}…"))
    console.print(f"It starts at {address}")


def run_write(root: Path = ROOT) -> None:
    """Write README.md's front matter and requirements.txt anew where they do not agree with spaces.yml. Raises NemodiffError."""
    wanted = _wanted(root)
    for name, text in wanted.items():
        path = root / name
        same = path.read_text("utf-8") == text
        if not same:
            path.write_text(text, "utf-8")
        print(f"{name}: {'unchanged' if same else 'written'}")


def run_check(root: Path = ROOT) -> None:
    """Raise NemodiffError, one sentence, where README.md's front matter or requirements.txt does not agree."""
    wanted = _wanted(root)
    if (root / README).read_text("utf-8") != wanted[README]:
        raise NemodiffError(f"{README}'s front matter does not agree with {manifest.FILE}; run nemodiff deploy --write.")
    if (text := (root / pins.FILE).read_text("utf-8")) != wanted[pins.FILE]:
        changes = pins.differences(text, wanted[pins.FILE]) or ["its heading or order"]
        some = ", ".join(changes[:4]) + (f" and {len(changes) - 4} more" if len(changes) > 4 else "")
        raise NemodiffError(f"{pins.FILE} does not agree with what is installed ({some}); run nemodiff deploy --write.")
    print(f"{README} and {pins.FILE} agree with {manifest.FILE}.")


def _wanted(root: Path) -> dict[str, str]:
    """The text that README.md and requirements.txt should have."""
    whole = _manifest(root)
    pinned = space.requirements(root, whole)
    if pinned["gradio"] != whole.space.sdk_version:
        raise NemodiffError(
            f"{manifest.FILE} says sdk_version {whole.space.sdk_version}, but gradio {pinned['gradio']} is installed; change one of them."
        )
    readme = (root / README).read_text("utf-8")
    return {README: space.with_front_matter(readme, whole, whole.preset(SPACE)), pins.FILE: pins.render(pinned)}


def _manifest(root: Path) -> Manifest:
    return manifest.read(root / manifest.FILE)


def _listing(folder: Path, files: Sequence[Path]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", style="dim", no_wrap=True)
    for file in files:
        table.add_row(file.as_posix(), _size((folder / file).stat().st_size))
    return table


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
