"""A Hugging Face Space of this project: which files it consists of, and their upload."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from nemodiff_core.errors import ConfigError, NemodiffError
from nemodiff_core.hub import is_id
from nemodiff_core.serving import manifest, pins
from nemodiff_core.serving.manifest import Manifest, Preset
from nemodiff_core.sources import one_line

README = "README.md"
# What the app runs from, and the README's picture: neither tests nor what only developers and operators of other
# machines need.
SHIPPED = (
    "app.py", manifest.FILE, "pyproject.toml", "LICENSE", "docs/screenshot.png",
    "kernels", "nemodiff_cli", "nemodiff_core", "ui",
)  # fmt: skip
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)


@dataclass(frozen=True)
class Space:
    """What goes to the hub: the Space's name, its preset, and the checkout `root` that it is made from."""

    name: str  # owner/name
    preset_name: str
    root: Path
    manifest: Manifest

    def __post_init__(self) -> None:
        if not is_id(self.name):
            raise ConfigError(f"{self.name!r} names no Space; give owner/name.")
        if not self.preset.hardware:
            offered = [name for name, preset in self.manifest.presets.items() if preset.hardware]
            raise ConfigError(f"the preset {self.preset_name} is for no Space; choose one of {', '.join(offered)}.")

    @property
    def preset(self) -> Preset:
        return self.manifest.preset(self.preset_name)

    @property
    def variables(self) -> dict[str, str]:
        """What the Space's environment says beside the hub's own variables."""
        return {"NEMODIFF_PRESET": self.preset_name}

    def build(self, folder: Path) -> list[Path]:
        """Put into an empty `folder` exactly what is uploaded; its files in order. Raises ConfigError."""
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty; give a new folder.")
        for name in tracked(self.root):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / name, target)
        text = (self.root / README).read_text("utf-8")
        (folder / README).write_text(with_front_matter(text, self.manifest, self.preset), "utf-8")
        (folder / pins.FILE).write_text(pins.render(requirements(self.root, self.manifest, self.preset)), "utf-8")
        return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())

    def upload(self, folder: Path, private: bool = False, tell: Callable[[str], None] = lambda what: None) -> str:
        """Create or update the Space from a built `folder`; its address. Raises NemodiffError.

        What an older version had and this one has not is removed. Hardware is asked for last, so that a machine
        that costs money never waits for an upload.
        """
        hub = huggingface_hub.HfApi()
        with _one_sentence(f"{self.name} could not be uploaded"):
            hub.whoami()
            tell(f"Creating {self.name}")
            address = hub.create_repo(self.name, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True)
            for name, value in self.variables.items():
                hub.add_space_variable(self.name, name, value)
            tell(f"Uploading to {self.name}")
            hub.upload_folder(
                repo_id=self.name, repo_type="space", folder_path=folder, delete_patterns="*",
                commit_message=f"nemodiff for {self.preset_name}",
            )  # fmt: skip
        with _one_sentence(f"{self.name} is uploaded, but the hub did not give it {self.preset.hardware}"):
            tell(f"Asking for {self.preset.hardware}")
            if hub.get_space_runtime(self.name).requested_hardware != self.preset.hardware:
                hub.request_space_hardware(self.name, self.preset.hardware)
        return str(address)


def requirements(root: Path, whole: Manifest, preset: Preset | None = None) -> dict[str, str]:
    """Name -> version of what the app needs, with what a preset adds. Raises ConfigError."""
    extra = preset.requirements if preset else ()
    return pins.pinned([*pins.direct_needs(root), *extra], whole.space.python_version)


def with_front_matter(readme: str, whole: Manifest, preset: Preset) -> str:
    """The README with a Space's front matter at its top, in place of one that it had."""
    block = yaml.safe_dump(whole.front_matter(preset), sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{block}---\n\n{_FRONT_MATTER.sub('', readme)}"


def tracked(root: Path) -> list[str]:
    """The files of SHIPPED that git keeps in `root`: what lies around there by chance never reaches the hub. Raises ConfigError."""
    names = [name for name in _git_files(root, "--cached") if (root / name).is_file()]
    if missing := [name for name in SHIPPED if not any(path == name or path.startswith(f"{name}/") for path in names)]:
        raise ConfigError(f"git keeps no {missing[0]} in {root}; run this in a whole checkout, and commit what is new.")
    return names


def untracked(root: Path) -> list[str]:
    """Files in the folders of SHIPPED that git neither keeps nor ignores, and that are therefore left out. Raises ConfigError."""
    return _git_files(root, "--others", "--exclude-standard")


def _git_files(root: Path, *which: str) -> list[str]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z", *which, "--", *SHIPPED], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"git does not know the files of {root}; run this in a checkout of the repository.") from error
    return [name for name in listed.stdout.decode().split("\0") if name]


@contextlib.contextmanager
def _one_sentence(what: str) -> Iterator[None]:
    """Turns what the hub or the network raises into a NemodiffError that begins with `what`."""
    try:
        yield
    except NemodiffError:
        raise
    except Exception as error:  # for the reader one thing went wrong
        raise NemodiffError(f"{what}: {_cure(error)}.") from error


def _cure(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, LocalTokenNotFoundError):
        return "no token is on this machine; run `hf auth login` or set HF_TOKEN to one that may write"
    if isinstance(error, HfHubHTTPError) and status == 401:
        return "the hub does not accept the token; run `hf auth login` again"
    if isinstance(error, HfHubHTTPError) and status == 402:
        return "it has to be paid for; add a way to pay in the owner's settings or choose another preset"
    if isinstance(error, HfHubHTTPError) and status == 403:
        return "the token has no right to do that there; use one that may write for this owner, or choose the hardware in the Space's settings"
    if isinstance(error, HfHubHTTPError) and status == 404:
        return "there is no such owner, or the token may not see it; check the name"
    return f"{one_line(error)}; try again"
