"""The hosting manifest, `spaces.yml`: what a host offers, to whom, and within which limits.

One file names the presets; a host runs one of them. Whatever the page shows, the server holds every request
against the preset's limits again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nemodiff_core.errors import ConfigError
from nemodiff_core.hub import is_id
from nemodiff_core.request import Limits

FILE = "spaces.yml"
LOCAL = "local"  # the preset of `make run`
SPACE = "cpu-basic"  # the preset of a Space that says nothing else
ZERO = "zero-gpu"
_NAME = r"[a-z0-9][a-z0-9-]*"
_COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is there: ten times as fast


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Offer(_Data):
    """A checkpoint that visitors may choose."""

    source: str = Field("tiny", min_length=1)  # a folder, a hub id, or "tiny", the bundled model
    revision: str | None = None  # of a hub id
    title: str | None = None  # what the picker calls it; default: its source
    dtype: Literal["float32", "bfloat16", "float16", "int8", "int4"] | None = None  # None: what suits the device
    device: str | None = None
    adapter: bool = True  # draft with its adapter, where it has one
    licence: str | None = None
    about: str | None = None  # one sentence


class Remote(_Data):
    """An OpenAI-compatible server whose answers may be lanes of a race."""

    name: str = Field(pattern=_NAME)
    url: str = Field(pattern=r"https?://[^\s/?#@]+(/[^\s?#@]*)?")  # base address, /v1 included
    model: str = Field(min_length=1)  # as that server calls it
    kind: Literal["openai", "vllm", "sglang"] = "openai"  # what details it may send
    key_env: str | None = Field(None, pattern=r"[A-Z][A-Z0-9_]*")  # environment variable with its key
    title: str | None = Field(None, min_length=1, max_length=80)
    statistics: str | None = None  # where this machine sees the stats_file of an SGLang fork; read after every run


class Features(_Data):
    """What a host switches on or off."""

    any_model: bool = False  # a free field beside the models on offer
    sweeps: bool = True  # of the Budget view
    exports: bool = True  # films, pages and tables of a run, which cost processor time
    votes: bool = True  # blind races
    api: bool = True  # named endpoints (ui/api.py)
    mcp: bool = False  # the same for agents, where gradio's extra is installed


class Preset(_Data):
    """One kind of machine and what is offered there."""

    hardware: str | None = None  # as Hugging Face calls it; None: not a Space
    gpu_gb: float | None = Field(None, gt=0)  # memory of its GPU in GiB; None: it has none, or nobody knows
    ram_gb: float | None = Field(None, gt=0)
    models: tuple[Offer, ...] = Field((Offer(),), min_length=1)  # the first one is loaded at the start
    remotes: tuple[Remote, ...] = ()
    limits: Limits = Limits()
    features: Features = Features()
    memory_gb: float | None = Field(None, gt=0)  # that loaded models may take together; None: what is free
    runs_at_once: int = Field(1, ge=1)  # where the host lends every run a device of its own (ZeroGPU)
    requirements: tuple[str, ...] = ()  # packages beside those of every host; `nemodiff deploy` pins them

    @property
    def zero_gpu(self) -> bool:
        """Whether a GPU is there only while a decorated function runs (Hugging Face ZeroGPU)."""
        return (self.hardware or "").startswith("zero-")

    @model_validator(mode="after")
    def _makes_sense(self) -> Preset:
        titles = [offer.title or offer.source for offer in self.models]
        if len(set(titles)) < len(titles):
            raise ValueError(f"two models are called {next(t for t in titles if titles.count(t) > 1)!r}; give one of them a title")
        if len({remote.name for remote in self.remotes}) < len(self.remotes):
            raise ValueError("two remotes have the same name; rename one of them")
        # Weights must be in place before the server answers, where ZeroGPU packs them away.
        if self.zero_gpu and (len(self.models) > 1 or self.features.any_model):
            raise ValueError("ZeroGPU loads weights at the start alone; offer one model and leave any_model out")
        return self


class Card(_Data):
    """The Space's front matter (Hugging Face's configuration reference)."""

    title: str
    emoji: str
    color_from: str = Field(alias="colorFrom")
    color_to: str = Field(alias="colorTo")
    sdk: Literal["gradio"] = "gradio"
    sdk_version: str
    python_version: str
    app_file: str = "app.py"
    pinned: bool = False
    license: str
    short_description: Annotated[str, Field(max_length=60)]
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    startup_duration_timeout: str | None = None

    @model_validator(mode="after")
    def _is_shown(self) -> Card:
        for name in ("color_from", "color_to"):
            if getattr(self, name) not in _COLOURS:
                raise ValueError(f"a Space's colours are {', '.join(_COLOURS)}; choose one of them")
        return self


class Manifest(_Data):
    """The whole file."""

    schema_: Literal["nemodiff.spaces/1"] = Field("nemodiff.spaces/1", alias="schema")
    space: Card
    presets: dict[Annotated[str, Field(pattern=_NAME)], Preset] = Field(min_length=1)

    def preset(self, name: str) -> Preset:
        """A preset by its name. Raises ConfigError."""
        if name not in self.presets:
            raise ConfigError(f"{FILE} has no preset {name!r}; choose one of {', '.join(self.presets)}.")
        return self.presets[name]

    def front_matter(self, preset: Preset) -> dict[str, Any]:
        """The block at the top of a Space's README.md, as plain data."""
        card = plain(self.space)
        if preset.hardware:
            card["suggested_hardware"] = preset.hardware
        first = preset.models[0].source
        # Fetched while the Space is built, so that its start does not wait for gigabytes.
        if is_id(first):
            card["preload_from_hub"] = [first]
        return card


def read(path: Path | None = None) -> Manifest:
    """The manifest at `path`; default: NEMODIFF_MANIFEST, else the repository's own. Raises ConfigError."""
    path = path or Path(os.environ.get("NEMODIFF_MANIFEST") or Path(__file__).parents[2] / FILE)
    try:
        content = yaml.load(path.read_text("utf-8"), Loader=_LOADER)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}); mend it or set NEMODIFF_MANIFEST.") from error
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        if first["type"] == "value_error":  # our own, which says what to do
            raise ConfigError(f"{path.name}: {where}: {first['msg'].removeprefix('Value error, ')}.") from error
        raise ConfigError(f"{path.name}: {where}: {first['msg'][:1].lower()}{first['msg'][1:]}; mend it.") from error


def chosen(environment: Mapping[str, str] = os.environ) -> str:
    """The name of the preset that this machine runs: NEMODIFF_PRESET, else what a Space says of itself."""
    if name := environment.get("NEMODIFF_PRESET"):
        return name
    if environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "true"):
        return ZERO
    return SPACE if environment.get("SPACE_ID") else LOCAL


def this_host(environment: Mapping[str, str] = os.environ) -> Preset:
    """What this machine offers; without a manifest (an installation from a wheel) the bundled model alone. Raises ConfigError."""
    given = environment.get("NEMODIFF_MANIFEST")
    own = Path(__file__).parents[2] / FILE
    if not given and not own.is_file():
        return Preset(features=Features(any_model=True))
    return read(Path(given) if given else own).preset(chosen(environment))


def plain(value: Any) -> Any:
    """A part of the manifest as plain data under the file's own names."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)
