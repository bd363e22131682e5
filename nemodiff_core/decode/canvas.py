"""What the decoders share: the block being filled, and the recorder that turns forwards into Steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import torch

from nemodiff_core.decode.sampling import Look
from nemodiff_core.trace import Candidates, Score, Step, TokenEvent

Clock = Callable[[], int]  # nanoseconds since the run began


class Block:
    """B positions on the host and their preallocated copy on the device.

    One transfer brings the cells and the offsets to look at, the masked ones first. The host side is pinned,
    so that the transfer waits for nothing; it is written again only after `read` has waited for the forward
    that used it.
    """

    def __init__(self, length: int, mask_id: int, device: torch.device) -> None:
        self.mask_id = mask_id
        self.cells: list[int] = [mask_id] * length
        self.reach = length  # cells from here on are context: their masks wait for nothing
        self.masked: list[int] = []  # offsets that still wait for a token
        self.offsets: list[int] = []  # every offset, the masked ones first
        self._host = torch.zeros((2, length), dtype=torch.long, pin_memory=device.type == "cuda")
        self._written = self._host.numpy()
        self._device = self._host if device.type == "cpu" else torch.zeros_like(self._host, device=device)
        self.tensor = self._device[:1]  # [1, B]

    def begin(self, seed: int, pins: Mapping[int, int] = MappingProxyType({}), reach: int | None = None) -> None:
        """All masks but the seed, which the causal pass already decided (facts §4.2 step 3), and `pins` by offset."""
        self.cells[:] = [self.mask_id] * len(self.cells)
        self.reach = len(self.cells) if reach is None else reach
        known = {0: seed, **pins}
        self.fill(list(known), list(known.values()))

    def fill(self, offsets: Sequence[int], tokens: Sequence[int]) -> None:
        """Give these cells their tokens, here and on the device."""
        for offset, token in zip(offsets, tokens, strict=True):
            self.cells[offset] = token
        self.masked = [i for i, token in enumerate(self.cells[: self.reach]) if token == self.mask_id]
        waiting = set(self.masked)
        self.offsets = self.masked + [i for i in range(len(self.cells)) if i not in waiting]
        self._written[0], self._written[1] = self.cells, self.offsets
        if self._device is not self._host:
            self._device.copy_(self._host, non_blocking=True)

    def rows(self, count: int) -> torch.Tensor:
        """The first `count` of `offsets` as an index on the device, for the model's `rows`."""
        return self._device[1, :count]


class Recorder:
    """Numbers the steps and stamps them with the run's clock."""

    def __init__(self, clock: Clock, candidates: int = 16) -> None:
        self.clock = clock
        self.candidates = candidates  # recorded of every look; a policy may have needed more
        self.count = 0

    def step(
        self,
        phase: str,
        start: int,
        end: int,
        block: int,
        events: Sequence[TokenEvent] = (),
        looks: Iterable[tuple[int, Look]] = (),
        scores: Iterable[Score] = (),
    ) -> Step:
        """The Step of the forward that has just ended; `looks` are (position, look) for the candidates."""
        k = self.candidates
        candidates = tuple(
            Candidates(p, look.ids[:k], look.probabilities[:k], look.entropy) for p, look in looks if look.ids[:k]
        )
        step = Step(self.count, phase, (start, end), block, self.clock(), tuple(events), candidates, tuple(scores))
        self.count += 1
        return step


def event(kind: str, position: int, look: Look, forced: bool = False) -> TokenEvent:
    """A chosen token as an event."""
    return TokenEvent(position, look.token, kind, min(look.confidence, 1.0), max(look.entropy, 0.0), forced)
