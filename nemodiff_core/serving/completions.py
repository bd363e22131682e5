"""One streamed answer of an OpenAI-compatible server: what is asked, what is accepted, and what each chunk says.

Nothing that the server says beside its answer is passed on: an error's text may repeat the key it was called with.
"""

from __future__ import annotations

import codecs
import math
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nemodiff_core.serving.sse import Events, StreamError
from nemodiff_core.trace_reader import MAX_PIECE

MAX_STREAM_BYTES = 16 * 2**20
MAX_LINE_BYTES = 256 * 2**10
MAX_DELTA = 64 * 2**10  # characters of one chunk
MAX_PIECES = 4096  # of one chunk
CONNECT_S = 10.0
_DONE = "[DONE]"
_EVENTS = "text/event-stream"
_UNKNOWN_FIELD = (400, 422)  # how servers refuse a field that they do not know
_STATUS = {
    400: "refused the request; change its temperature or its length",
    401: "did not accept its key; the operator has to set another",
    403: "did not accept its key; the operator has to set another",
    404: "has no such address or model; the operator has to mend them in the manifest",
    422: "refused the request; change its temperature or its length",
    429: "has too much to do; run again in a moment",
}


class _Chunk(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Token(_Chunk):
    token: str
    logprob: float | None = None
    bytes: list[Annotated[int, Field(ge=0, le=255)]] | None = None


class _Logprobs(_Chunk):
    content: list[_Token] | None = None


class _Delta(_Chunk):
    content: str | None = None
    reasoning_content: str | None = None  # as SGLang and vLLM call what is thought before the answer
    reasoning: str | None = None


class _Choice(_Chunk):
    index: int = 0
    delta: _Delta
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(_Chunk):
    prompt_tokens: int = Field(ge=0, lt=2**31)
    completion_tokens: int = Field(ge=0, lt=2**31)


class _Event(_Chunk):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the text: one token where the server tells its tokens, with the probability it had."""

    text: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """The text of one chunk, `at_ns` after the request was sent. `tokens`: each piece is one token."""

    at_ns: int
    pieces: tuple[Piece, ...]
    tokens: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """How the server says the answer ended, and its count of tokens where it gives one."""

    reason: str
    prompt_tokens: int | None
    tokens: int | None


@dataclass(frozen=True)
class Call:
    """Where to ask, with what. `bodies` are tried in turn while the server refuses what one of them names."""

    url: str
    headers: Mapping[str, str]
    bodies: Sequence[Mapping[str, Any]]
    patience_s: float  # without a byte


async def stream(call: Call) -> AsyncIterator[Arrival | Ending]:
    """The chunks that hold text, in order, and then the ending. Raises StreamError."""
    timeout = httpx.Timeout(call.patience_s, connect=min(CONNECT_S, call.patience_s))
    try:
        # Neither proxies nor passwords of the environment, nor any place but the one that was given.
        async with httpx.AsyncClient(timeout=timeout, trust_env=False, follow_redirects=False) as client:
            for left, body in zip(reversed(range(len(call.bodies))), call.bodies):
                began = time.perf_counter_ns()
                async with client.stream("POST", call.url, json=body, headers=call.headers) as response:
                    if left and response.status_code in _UNKNOWN_FIELD:
                        continue
                    _accept(response)
                    async for item in _answer(response, began):
                        yield item
                    return
    except httpx.ConnectTimeout as error:
        raise StreamError("did not answer the connection; run again later") from error
    except httpx.TimeoutException as error:
        raise StreamError(f"sent nothing for {call.patience_s:g} seconds; run again later") from error
    except httpx.ConnectError as error:
        raise StreamError("cannot be reached; run again later") from error
    except httpx.HTTPError as error:
        raise StreamError("broke off the connection; run again") from error


def _accept(response: httpx.Response) -> None:
    """Refuse what is no stream, before a byte of it is read."""
    status = response.status_code
    if status != 200:
        if 300 <= status < 400:
            what = "sends elsewhere, which is not followed; the operator has to give the final address"
        else:
            what = _STATUS.get(status, "failed; run again later" if status >= 500 else "answered what nobody expects; tell the operator")
        raise StreamError(f"{what} (HTTP {status})")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _EVENTS or response.headers.get("content-encoding", "identity") != "identity":
        raise StreamError("does not answer with a stream of events; the operator has to mend its address in the manifest")


async def _answer(response: httpx.Response, began: int) -> AsyncIterator[Arrival | Ending]:
    events = Events(max_line=MAX_LINE_BYTES, max_bytes=MAX_STREAM_BYTES)
    reason: str | None = None
    usage: _Usage | None = None
    async for more in response.aiter_raw():
        at = (time.perf_counter_ns() - began) // 1000 * 1000
        for data in events.feed(more):
            if data == _DONE:
                if reason is None:
                    raise StreamError("ended its stream without saying why")
                yield Ending(reason, *((usage.prompt_tokens, usage.completion_tokens) if usage else (None, None)))
                return
            event = _event(data)
            usage = event.usage or usage
            for choice in event.choices or ():
                if choice.index == 0:
                    reason = choice.finish_reason or reason
                    pieces, tokens = _pieces(choice)
                    if pieces:
                        yield Arrival(at, pieces, tokens)
    raise StreamError("broke off before the end of its answer; run again")


def _event(data: str) -> _Event:
    try:
        event = _Event.model_validate_json(data)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        what = "what is no JSON" if wrong["type"] == "json_invalid" else f"a chunk whose {'.'.join(map(str, wrong['loc'])) or 'shape'} is wrong"
        raise StreamError(f"sent {what}; it is no server of this kind") from None
    if event.error is not None:
        raise StreamError("reported an error in the middle of its answer; run again")
    if event.choices is None and event.usage is None:
        raise StreamError("sent a chunk without choices; it is no server of this kind")
    return event


def _pieces(choice: _Choice) -> tuple[tuple[Piece, ...], bool]:
    """The text of a chunk in pieces, and whether they are its tokens."""
    delta = choice.delta
    text = (delta.reasoning_content or delta.reasoning or "") + (delta.content or "")
    if len(text) > MAX_DELTA:
        raise StreamError(f"sent a chunk of more than {MAX_DELTA >> 10} thousand characters")
    if not text:
        return (), True
    told = (choice.logprobs.content if choice.logprobs else None) or []
    written = _split(text, told)
    if written is not None and all(len(piece) <= MAX_PIECE for piece in written):
        pieces = tuple(Piece(piece, _probability(token.logprob)) for piece, token in zip(written, told))
    else:
        written, pieces = None, tuple(Piece(text[at : at + MAX_PIECE]) for at in range(0, len(text), MAX_PIECE))
    if len(pieces) > MAX_PIECES:
        raise StreamError(f"sent more than {MAX_PIECES} tokens at once")
    return pieces, written is not None


def _split(text: str, told: Sequence[_Token]) -> list[str] | None:
    """What each token wrote of a text; None where they do not add up to it. An end token behind the text wrote nothing."""
    for spelled in (_texts(told), _decoded(told)):
        whole = ""
        for count, piece in enumerate(spelled, 1):
            whole += piece
            if whole == text:
                return spelled[:count]
            if not text.startswith(whole):
                break
    return None


def _texts(told: Sequence[_Token]) -> list[str]:
    return [token.token for token in told]


def _decoded(told: Sequence[_Token]) -> list[str]:
    """Tokens may end within a character: it counts to the token that completes it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(bytes(token.bytes or ())) for token in told]


def _probability(logprob: float | None) -> float | None:
    return None if logprob is None else min(1.0, math.exp(min(0.0, logprob)))


def readable(reason: str) -> str:
    """A reason that a server gave, if it is a word; it is shown to people."""
    return reason if re.fullmatch(r"[a-z_]{1,40}", reason) else "unknown"
