"""What the decoders share: the block being filled, and the recorder that turns forwards into Steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from nemodiff_core.decode.sampling import Look
from nemodiff_core.trace import Candidates, Step, TokenEvent

Clock = Callable[[], int]  # nanoseconds since the run began


class Block:
    """B positions on the host and their one preallocated tensor [1, B] on the device."""

    def __init__(self, length: int, mask_id: int, device: torch.device) -> None:
        self.mask_id = mask_id
        self.cells: list[int] = [mask_id] * length
        self.tensor = torch.full((1, length), mask_id, dtype=torch.long, device=device)

    def begin(self, seed: int) -> None:
        """All masks but the seed, which the causal pass already decided (facts §4.2 step 3)."""
        self.cells[:] = [self.mask_id] * len(self.cells)
        self.cells[0] = seed
        self.upload()

    def upload(self) -> None:
        """Copy the cells to the device: one small transfer that waits for nothing."""
        self.tensor.copy_(torch.tensor([self.cells]))

    def masked(self) -> list[int]:
        """Offsets that still wait for a token."""
        return [i for i, token in enumerate(self.cells) if token == self.mask_id]


class Recorder:
    """Numbers the steps and stamps them with the run's clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.count = 0

    def step(
        self,
        phase: str,
        start: int,
        end: int,
        block: int,
        events: Sequence[TokenEvent] = (),
        looks: Iterable[tuple[int, Look]] = (),
    ) -> Step:
        """The Step of the forward that has just ended; `looks` are (position, look) for the candidates."""
        candidates = tuple(Candidates(p, look.ids, look.probabilities, look.entropy) for p, look in looks if look.ids)
        step = Step(self.count, phase, (start, end), block, self.clock(), tuple(events), candidates)
        self.count += 1
        return step


def event(kind: str, position: int, look: Look) -> TokenEvent:
    """A chosen token as an event."""
    return TokenEvent(position, look.token, kind, min(look.confidence, 1.0), max(look.entropy, 0.0))
