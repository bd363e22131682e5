"""What the front end knows of a model that another process has: everything but its weights, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from tokenizers import Tokenizer as FastTokenizer

from nemodiff_core.config import ModelConfig
from nemodiff_core.errors import NemodiffError
from nemodiff_core.tokenizer import Tokenizer


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid")

    fast: str  # tokenizer.json
    config: dict[str, Any]
    template: str | None
    mask_id: int
    eos_id: int


class _About(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    revision: str | None
    parameters: int
    dtype: str
    device: str
    adapter: bool


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    about: _About
    weights: str | None  # a digest of some of them
    sampler: bool
    config: dict[str, Any]  # config.json
    tokenizer: _Words
    environment: dict[str, Any]


@dataclass(frozen=True)
class Outline:
    """Stands for a Checkpoint wherever no forward is run. `about` is what a trace says about the model."""

    about: dict[str, Any]
    weights: str | None
    has_sampler: bool
    config: ModelConfig
    tokenizer: Tokenizer
    environment: dict[str, Any]

    @property
    def id(self) -> str:
        """Name of the checkpoint."""
        return self.about["id"]

    @property
    def revision(self) -> str | None:
        """The hub commit; None for a folder."""
        return self.about["revision"]

    @property
    def has_adapter(self) -> bool:
        """Whether drafts can use an adapter."""
        return self.about["adapter"]

    @cached_property
    def device(self) -> torch.device:
        """Where this process keeps what it checks; the model's own device is in `about`."""
        return torch.device("cpu")

    def describe(self) -> dict[str, Any]:
        """What a trace says about the model."""
        return dict(self.about)

    @classmethod
    def of(cls, engine: Any) -> Outline:
        """That of an engine of this process."""
        checkpoint = engine.checkpoint
        return cls(
            checkpoint.describe(), engine.identity()["weights"], checkpoint.has_sampler, checkpoint.config, checkpoint.tokenizer,
            engine.environment(),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain data, megabytes where the vocabulary is large; `read` takes it back."""
        words = self.tokenizer
        return {
            "about": self.about,
            "weights": self.weights,
            "sampler": self.has_sampler,
            "config": self.config.to_dict(),
            "tokenizer": {
                "fast": words.fast.to_str(), "config": words.config, "template": words.template,
                "mask_id": words.mask_id, "eos_id": words.eos_id,
            },
            "environment": self.environment,
        }  # fmt: skip

    @classmethod
    def read(cls, data: Any) -> Outline:
        """An outline from plain data. Raises NemodiffError."""
        try:
            content = _Content.model_validate(data)
            fast = FastTokenizer.from_str(content.tokenizer.fast)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise _no_outline(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except Exception as error:  # tokenizers raises bare Exception for every kind of damage
            raise _no_outline(" ".join(str(error).split())[:200]) from error
        words = content.tokenizer
        tokenizer = Tokenizer(fast, words.config, words.template, mask_id=words.mask_id, eos_id=words.eos_id)
        config = ModelConfig.from_dict(content.config)
        return cls(content.about.model_dump(), content.weights, content.sampler, config, tokenizer, content.environment)


def _no_outline(why: str) -> NemodiffError:
    return NemodiffError(f"what the model's process says of its model cannot be read ({why}); run the same version on both sides.")
