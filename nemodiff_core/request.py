"""One decoding request: every knob, validated once, and the limits of the host it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nemodiff_core.errors import RequestError

Mode = Literal["ar", "diffusion", "linear_spec"]


class Limits(BaseModel):
    """What a host allows, whatever a request asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_prompt_tokens: int = Field(2048, ge=1)
    max_new_tokens: int = Field(1024, ge=1)
    max_block_length: int = Field(64, ge=2, le=64)
    max_candidates: int = Field(16, ge=0, le=16)
    max_seconds: float = Field(300.0, gt=0)
    max_prompt_characters: int = Field(20_000, ge=1)


class DecodeRequest(BaseModel):
    """What to decode and how. A trace stores it whole, so that the run can be repeated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: str = Field(min_length=1)
    chat: bool = True  # render the chat template around the prompt; False sends it as plain text
    mode: Mode = "diffusion"
    block_length: int = Field(16, ge=2, le=64)
    threshold: float | None = Field(None, ge=0, le=1)  # diffusion: 0.9 unless steps are given; drafts: one shot
    steps: int | None = Field(None, ge=1, le=64)  # diffusion: an even schedule of so many steps a block
    temperature: float = Field(0.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = Field(0, ge=0, lt=2**63)
    max_new_tokens: int = Field(128, ge=1, le=4096)
    stop_at_eos: bool = True
    candidates: int = Field(0, ge=0, le=16)  # alternatives recorded for every cell looked at
    deadline_s: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> DecodeRequest:
        if self.steps is not None and self.threshold is not None:
            raise ValueError("steps and threshold are two ways to choose commits; give one of them")
        if self.steps is not None and self.mode != "diffusion":
            raise ValueError(f"steps is a knob of diffusion; leave it out in mode {self.mode}")
        if self.threshold is not None and self.mode == "ar":
            raise ValueError("threshold does nothing in mode ar; leave it out")
        return self

    def check(self, limits: Limits) -> None:
        """Hold the request against a host's limits. Raises RequestError."""
        for name, asked, allowed in (
            ("max_new_tokens", self.max_new_tokens, limits.max_new_tokens),
            ("block_length", self.block_length, limits.max_block_length),
            ("candidates", self.candidates, limits.max_candidates),
        ):
            if asked > allowed:
                raise RequestError(f"{name} is {asked}, but this host allows at most {allowed}; choose a smaller value.")
        if len(self.prompt) > limits.max_prompt_characters:
            raise RequestError(
                f"the prompt has {len(self.prompt)} characters, but this host allows at most "
                f"{limits.max_prompt_characters}; shorten it."
            )


def parse_request(fields: Mapping[str, Any]) -> DecodeRequest:
    """A request from plain data. Raises RequestError with one sentence about the first thing that is wrong."""
    if not isinstance(fields, Mapping):
        raise RequestError("a decoding request must be an object of named settings; send one with at least a prompt.")
    try:
        return DecodeRequest.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=True)[0]
        message = first["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in first["loc"])
        if where == "prompt" and first["type"] == "string_too_short":
            raise RequestError("the prompt is empty; write something for the model to answer.") from error
        if not where:
            raise RequestError(f"{message}.") from error
        if first["type"] == "missing":
            raise RequestError(f"{where} is missing; give it.") from error
        given = repr(first["input"])
        given = given if len(given) <= 60 else given[:57] + "…"
        if first["type"] == "extra_forbidden":
            raise RequestError(f"{where} is no setting of a decoding request; remove it.") from error
        raise RequestError(f"{where} is {given}: {message[:1].lower()}{message[1:]}; change it.") from error
