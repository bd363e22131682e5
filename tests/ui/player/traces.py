"""Made-up runs for the player's tests: shaped like the decoders' own, without a model."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from nemodiff_core.metrics import summary
from nemodiff_core.trace import Candidates, Step, TokenEvent, TokenText, Trace

PROMPT = "Write a short story about Mira, a lantern and an old boat."
STORY = (
    "Mira found the lantern under the old boat. \"It still burns,\" she said, and held it up so that Tom could see.\n\n"
    "The harbour was quiet. They rowed past the mill, past the bridge and the sleeping geese, until the water was wide "
    "and nobody could hear them. Then the lantern went out.\n\n\"Now we count,\" said Tom. One, two, three: at forty-two "
    "the light came back, and in front of them lay the little island that was on no map. Mira laughed. They tied the boat "
    "to a stone and stayed until morning."
)
EOS, MASK = 11, 100
SPECIALS = {1: "<s>", 10: "<|im_start|>", EOS: "<|im_end|>", MASK: "<mask>"}


class Words:
    """A toy tokenizer: pieces of at most six characters, ids from 200 on."""

    def __init__(self) -> None:
        self.pieces: dict[int, str] = dict(SPECIALS)
        self._ids: dict[str, int] = {}

    def id(self, piece: str) -> int:
        if piece not in self._ids:
            self._ids[piece] = 200 + len(self._ids)
            self.pieces[self._ids[piece]] = piece
        return self._ids[piece]

    def encode(self, text: str) -> list[int]:
        parts = re.findall(r" ?\w{1,6}|[^\w\s]|\n\n|\s", text)
        return [self.id(part) for part in parts]


class Maker:
    """Writes `text` in any mode, with confidences and mistakes drawn from a seeded generator."""

    def __init__(self, text: str = STORY, seed: int = 0, candidates: int = 0, prompt: str = PROMPT) -> None:
        self.words = Words()
        self.prompt_text = prompt
        self.prompt = [1, 10, *self.words.encode(prompt), 10]
        self.answer = [*self.words.encode(text), EOS]
        self.random = random.Random(seed)
        self.k = candidates
        self.ns = 0
        self.steps: list[Step] = []

    @property
    def start(self) -> int:
        return len(self.prompt)

    def token(self, offset: int) -> int:
        """The id at an offset of the answer; some word behind its end."""
        return self.answer[offset] if offset < len(self.answer) else self.words.id(" and")

    def wrong(self) -> int:
        return self.words.id(self.random.choice([" light", " boat", ".", " the", " went", "ing", " extraordinary"]))

    def event(self, position: int, kind: str, token: int | None = None, sure: float | None = None) -> TokenEvent:
        confidence = sure if sure is not None else 1 - self.random.random() ** 2.2 * 0.8
        chosen = self.token(position - self.start) if token is None else token
        return TokenEvent(position, chosen, kind, confidence, (1 - confidence) * 3)

    def step(self, phase: str, span: tuple[int, int], block: int, events: Sequence[TokenEvent], cost_ms: float) -> None:
        self.ns += int(cost_ms * 1e6 * (0.85 + 0.3 * self.random.random()))
        looks = []
        for event in events if self.k else ():
            rest = sorted((self.random.random() for _ in range(self.k)), reverse=True)
            first = event.confidence or 0.5
            scale = (1 - first) / (sum(rest) + 0.2)
            ids = (event.token, *(self.wrong() for _ in range(self.k - 1)))
            looks.append(Candidates(event.position, ids, (first, *(r * scale for r in rest[1:])), event.entropy or 0.4))
        self.steps.append(Step(len(self.steps), phase, span, block, self.ns, tuple(events), tuple(looks)))

    def trace(self, mode: str, output: list[int], stop: str, name: str, **request: Any) -> Trace:
        pieces = self.words.pieces
        return Trace(
            id=name, created="2026-11-21T10:00:00Z",
            model={"id": "nemodiff/tiny", "revision": None, "parameters": 9_800_000, "dtype": "float32", "device": "cpu"},
            request={"prompt": self.prompt_text, "mode": mode, "candidates": self.k, "temperature": 0.0, **request},
            prompt=TokenText(self.prompt, [pieces[i] for i in self.prompt]),
            output=TokenText(output, [pieces[i] for i in output]),
            vocabulary={str(i): piece for i, piece in pieces.items()},
            steps=self.steps, stop_reason=stop, environment={"versions": {}},
        )  # fmt: skip

    def ar(self) -> Trace:
        for offset in range(len(self.answer)):
            position = self.start + offset
            span = (0, self.start) if offset == 0 else (position - 1, position)
            self.step("ar" if offset else "prefill", span, 0, [self.event(position, "commit")], 14 if offset else 22)
        return self.trace("ar", list(self.answer), "eos", "made-ar")

    def diffusion(self, size: int = 16, mistakes: float = 0.0) -> Trace:
        self.step("prefill", (0, self.start), 0, [self.event(self.start, "seed")], 22)
        at, number, total = self.start, 0, self.start + len(self.answer)
        final = {self.start: self.token(0)}
        while True:
            span, open_cells = (at, at + size), list(range(at + 1, at + size))
            while open_cells:
                picked = sorted(self.random.sample(open_cells, min(len(open_cells), self.random.randint(1, 5))))
                events = [
                    self.event(p, "commit", self.wrong() if p < total - 1 and self.random.random() < mistakes else None)
                    for p in picked
                ]
                final |= {e.position: e.token for e in events}
                open_cells = [p for p in open_cells if p not in picked]
                self.step("denoise", span, number, events, 19)
            finished = at + size >= total
            events = [TokenEvent(p, final[p], "reject") for p in range(total, at + size)]
            if not finished:
                events.append(self.event(at + size, "seed"))
                final[at + size] = events[-1].token
            self.step("commit", (at, min(at + size, total)), number, events, 16)
            if finished:
                break
            at, number = at + size, number + 1
        output = [final[p] for p in range(self.start, total)]
        return self.trace("diffusion", output, "eos", "made-diffusion", block_length=size, threshold=0.9)

    def linear_spec(self, size: int = 16) -> Trace:
        self.step("prefill", (0, self.start), 0, [self.event(self.start, "seed")], 22)
        at, cycle, total = self.start, 0, self.start + len(self.answer)
        while at + 1 < total:
            good = min(self.random.randint(1, size), total - at - 1)  # tokens this cycle emits, bonus included
            drafts = [
                self.event(p, "draft", None if p < at + good or p >= total else self.wrong())
                for p in range(at + 1, at + size)
            ]
            self.step("draft", (at, at + size), cycle, drafts, 19)
            accepts = [self.event(p, "accept") for p in range(at + 1, at + good)]
            rejects = [TokenEvent(d.position, d.token, "reject") for d in drafts[good - 1 :]]
            self.step("verify", (at, at + size), cycle, [*accepts, *rejects, self.event(at + good, "bonus")], 18)
            at, cycle = at + good, cycle + 1
        return self.trace("linear_spec", list(self.answer), "eos", "made-spec", block_length=size)


def race(candidates: int = 0, seed: int = 3) -> list[Trace]:
    """One answer in the three modes; diffusion makes a few mistakes of its own."""
    return [
        Maker(seed=seed, candidates=candidates).ar(),
        Maker(seed=seed + 1, candidates=candidates).diffusion(mistakes=0.06),
        Maker(seed=seed + 2, candidates=candidates).linear_spec(),
    ]


def noise(seed: int, length: int = 90, reach: int = 50) -> Trace:
    """Steps that follow no decoder: every kind of event anywhere in `reach` positions, spans that overlap, empty steps."""
    maker = Maker("", seed)
    draw = maker.random
    kinds = ["seed", "commit", "remask", "draft", "accept", "reject", "bonus", "pin"]
    phases = ["ar", "denoise", "commit", "draft", "verify", "revise"]
    for _ in range(length):
        low = maker.start + draw.randrange(reach - 10)
        span = (low, low + draw.randrange(1, 20))
        where = range(maker.start, maker.start + reach)
        events = [
            TokenEvent(draw.choice(where), draw.randrange(200, 206), draw.choice(kinds), draw.random(), draw.random())
            for _ in range(draw.randrange(6))
        ]
        maker.step(draw.choice(phases), span, 0, events, 5)
    trace = maker.trace("diffusion", [], "cancelled", f"noise-{seed}", block_length=16)
    return trace


def messages(traces: Sequence[Trace], run: str = "run-1", chunk: int = 5) -> list[dict[str, Any]]:
    """The traces as the messages of a live run."""
    made: list[dict[str, Any]] = []

    def put(lane: int, kind: str, **fields: Any) -> None:
        empty = {"head": None, "steps": [], "vocabulary": {}, "tail": None, "text": ""}
        made.append({"run": run, "seq": len(made), "type": kind, "lane": lane, "lanes": len(traces), **empty, **fields})

    for lane, trace in enumerate(traces):
        data = trace.to_dict()
        head = {k: v for k, v in data.items() if k not in ("steps", "output", "stop_reason", "vocabulary", "environment")}
        put(lane, "open", head=head, vocabulary=data["vocabulary"])
        for i in range(0, len(data["steps"]), chunk):
            put(lane, "steps", steps=data["steps"][i : i + chunk])
        put(lane, "end", tail=tail(trace, traces[0], lane))
    return made


def tail(trace: Trace, reference: Trace | None = None, lane: int = 0) -> dict[str, Any]:
    """What ends a lane: output, figures, and the verdict for self-speculation."""
    verdict = None
    if reference is not None and trace.request["mode"] == "linear_spec" and lane:
        a, b = reference.output.ids, trace.output.ids
        differing = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)
        verdict = {"to_lane": 0, "same": a == b, "first_divergence": differing}
    data = trace.to_dict()
    return {
        "output": data["output"], "stop_reason": trace.stop_reason, "metrics": summary(trace),
        "environment": trace.environment, "identical": verdict,
    }  # fmt: skip


Modes = dict[str, Callable[[Maker], Trace]]
MODES: Modes = {"ar": Maker.ar, "diffusion": Maker.diffusion, "linear_spec": Maker.linear_spec}
