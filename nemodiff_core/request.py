"""One decoding request: every knob, validated once, and the limits of the host it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nemodiff_core.errors import RequestError

Mode = Literal["ar", "diffusion", "linear_spec", "quadratic_spec", "refine", "infill"]
Policy = Literal["threshold", "schedule", "entropy_budget", "margin", "leftmost", "sampler"]

_SPEC = ("linear_spec", "quadratic_spec")
_FILLING = ("diffusion", "refine", "infill")  # modes that fill blocks of masks by a commit policy
# The modes in which a knob does something; elsewhere it must stay at its default.
_KNOBS: dict[str, tuple[str, ...]] = {
    "threshold": (*_FILLING, "linear_spec"),
    "steps": _FILLING,
    "policy": _FILLING,
    "entropy_bound": _FILLING,
    "margin_bound": _FILLING,
    "max_forwards_per_block": _FILLING,
    "max_forwards": ("diffusion",),
    "revise_rounds": ("diffusion", "refine"),
    "revise_bound": ("diffusion", "refine"),
    "revise_rank": ("diffusion", "refine"),
    "remask_bound": _FILLING,
    "pins": ("diffusion", "refine"),
    "draft": ("refine",),
    "template": ("infill",),
    "verification": ("linear_spec",),
    "adaptive_block": ("linear_spec",),
    "adapter": ("linear_spec",),
    "max_thinking_tokens": ("ar", "diffusion", *_SPEC),
}
# Which bound belongs to which policy.
_BOUNDS = {
    "threshold": ("threshold", "sampler"),
    "steps": ("schedule", "leftmost"),
    "entropy_bound": ("entropy_budget",),
    "margin_bound": ("margin",),
}


class Limits(BaseModel):
    """What a host allows, whatever a request asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_prompt_tokens: int = Field(2048, ge=1)
    max_new_tokens: int = Field(1024, ge=1)
    max_block_length: int = Field(64, ge=2, le=64)
    max_candidates: int = Field(16, ge=0, le=16)
    max_seconds: float = Field(300.0, gt=0)
    max_batch: int = Field(8, ge=1, le=256)  # requests decoded together
    max_prompt_characters: int = Field(20_000, ge=1)
    max_sweep_runs: int = Field(400, ge=1)  # runs of one sweep that a visitor starts
    max_steps: int = Field(64, ge=1, le=256)  # forwards that may fill a block, and rounds that may revise it
    max_lanes: int = Field(4, ge=2, le=4)  # of a race
    max_waiting: int = Field(64, ge=1)  # runs that wait for the device, everybody's together
    max_waiting_per_visitor: int = Field(2, ge=1)
    max_runs_per_minute: int = Field(60, ge=1)  # of one visitor


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

    # How a block is filled (decode/commit.py). None: `schedule` where steps are given, else `threshold`.
    policy: Policy | None = None
    entropy_bound: float | None = Field(None, ge=0, le=100)  # nats that the cells of one step may have together
    margin_bound: float | None = Field(None, ge=0, le=1)  # lead of the first candidate over the second
    max_forwards_per_block: int | None = Field(None, ge=1, le=256)  # denoising forwards, revisions included
    max_forwards: int | None = Field(None, ge=2, le=65_536)  # NFE of the whole answer
    # What is looked at again (decode/refine.py).
    revise_rounds: int = Field(0, ge=0, le=64)
    revise_bound: float = Field(0.1, ge=0, le=1)  # causal probability below which a token is doubted
    revise_rank: int | None = Field(None, ge=1)  # or: ranked k-th or worse by the causal pass, 0 being its choice
    remask_bound: float | None = Field(None, ge=0, le=1)  # probability, given all other cells, below which a cell reopens
    # What is given (decode/infill.py): offsets behind the prompt and the tokens that stay there.
    pins: tuple[tuple[Annotated[int, Field(ge=0, le=4096)], Annotated[int, Field(ge=0, lt=2**31)]], ...] = ()
    draft: str | None = Field(None, min_length=1)  # refine: the text to revise
    template: str | None = Field(None, min_length=1)  # infill: text with gaps
    # Speculation (decode/linear_spec.py).
    verification: Literal["match", "ratio"] = "match"  # how sampled drafts are judged; greedy: the same
    adaptive_block: bool = False  # draft length from the recent acceptance
    adapter: bool = True  # draft with the checkpoint's adapter, where it has one
    max_thinking_tokens: int | None = Field(None, ge=0)  # then </think> is written

    @model_validator(mode="after")
    def _fits_together(self) -> DecodeRequest:
        if self.steps is not None and self.threshold is not None:
            raise ValueError("steps and threshold are two ways to choose commits; give one of them")
        for name, modes in _KNOBS.items():
            if self.mode not in modes and getattr(self, name) != DecodeRequest.model_fields[name].default:
                raise ValueError(f"{name} does nothing in mode {self.mode}; leave it out")
        if self.policy is not None:
            for name, policies in _BOUNDS.items():
                if getattr(self, name) is not None and self.policy not in policies:
                    raise ValueError(f"{name} belongs to the policy {policies[0]}, not to {self.policy}; leave it out")
        if self.policy == "schedule" and self.steps is None:
            raise ValueError("the policy schedule needs steps; give them")
        if self.policy is None and (self.entropy_bound is not None or self.margin_bound is not None):
            raise ValueError("entropy_bound and margin_bound need their policy; give policy entropy_budget or margin")
        if self.mode == "refine" and self.draft is None:
            raise ValueError("mode refine needs the draft to revise; give draft")
        if self.mode == "infill" and self.template is None:
            raise ValueError("mode infill needs a text with gaps; give template")
        if len({offset for offset, _ in self.pins}) < len(self.pins):
            raise ValueError("two pins are at the same offset; keep one of them")
        if any(offset >= self.max_new_tokens for offset, _ in self.pins):
            raise ValueError(f"a pin lies outside the canvas of {self.max_new_tokens} tokens; move it or raise max_new_tokens")
        return self

    def check(self, limits: Limits) -> None:
        """Hold the request against a host's limits. Raises RequestError."""
        for name, asked, allowed in (
            ("max_new_tokens", self.max_new_tokens, limits.max_new_tokens),
            ("block_length", self.block_length, limits.max_block_length),
            ("candidates", self.candidates, limits.max_candidates),
            ("steps", self.steps or 0, limits.max_steps),
            ("revise_rounds", self.revise_rounds, limits.max_steps),
            ("max_forwards_per_block", self.max_forwards_per_block or 0, max(256, limits.max_steps)),
        ):
            if asked > allowed:
                raise RequestError(f"{name} is {asked}, but this host allows at most {allowed}; choose a smaller value.")
        for name in ("prompt", "draft", "template"):
            if len(getattr(self, name) or "") > limits.max_prompt_characters:
                raise RequestError(
                    f"the {name} has {len(getattr(self, name))} characters, but this host allows at most "
                    f"{limits.max_prompt_characters}; shorten it."
                )


def changed_request(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> DecodeRequest:
    """A recorded request with some knobs changed; knobs that do nothing any more fall away. Raises RequestError.

    The ways to choose commits exclude each other, so a change of one of them drops the others.
    """
    merged = {name: value for name, value in {**fields, **changes}.items() if name in DecodeRequest.model_fields}
    if set(changes) & {"threshold", "steps", "policy"}:
        merged |= dict.fromkeys({"threshold", "steps", "policy", "entropy_bound", "margin_bound"} - set(changes))
    elif "mode" in changes and changes["mode"] != fields.get("mode"):
        # A threshold of diffusion fills blocks, one of self-speculation refines drafts: neither means the other.
        merged |= {"threshold": None}
    for name, modes in _KNOBS.items():
        if merged.get("mode") not in modes:
            merged[name] = DecodeRequest.model_fields[name].default
    return parse_request(merged)


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
