"""Acceptance on the device against the decoder's own rule on the host."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import reference
from nemodiff_core.decode.sampling import Look
from nemodiff_core.decode.thinking import ThinkingBudget
from nemodiff_core.decode.verification import verify
from nemodiff_core.request import DecodeRequest

STOP, END_THINK = 1, 2
tokens = st.integers(0, 4)  # few, so that drafts are often right and stop tokens common
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def settle(operation, block, picks, start, device, **named) -> tuple[list[int], int]:
    """The record of one row, and the length left behind."""
    length = torch.tensor([start], dtype=torch.int32, device=device)
    made = operation(torch.tensor([block], device=device), torch.tensor([picks], device=device), length, **named)
    assert made.dtype == torch.int32 and made.shape == (1, 4 + len(block))
    return made[0].tolist(), length.item()


@st.composite
def cycles(draw):
    """A block, its picks, where it starts, where the answer ends and where a thought must end."""
    n = draw(st.integers(1, 9))
    block = draw(st.lists(tokens, min_size=n, max_size=n))
    picks = draw(st.lists(tokens, min_size=n, max_size=n))
    for i in range(draw(st.integers(0, n - 1))):
        picks[i] = block[i + 1]
    start = draw(st.integers(0, 50))
    end = start + draw(st.integers(1, 14))
    due = draw(st.sampled_from([-1, start + n, start + 1, start, 0]))
    return block, picks, start, end, due


@quick
@given(cycles(), st.sampled_from([STOP, -1]))
def test_any_cycle_equals_the_reference(ops, device, cycle, stop_id):
    block, picks, start, end, due = cycle
    named = dict(end=end, stop_id=stop_id, due=due, forced_id=END_THINK)
    assert settle(ops.verify_commit, block, picks, start, device, **named) == settle(
        reference.verify_commit, block, picks, start, device, **named
    )


@quick
@given(cycles(), st.booleans())
def test_the_reference_equals_the_decoder(device, cycle, thinking):
    """The decoder is only called for unfinished rows, and with blocks that end before a forced token."""
    block, picks, start, end, _ = cycle
    due = start + len(block) if thinking else -1
    if block[0] == STOP or start + 1 >= end:
        return
    budget = ThinkingBudget(DecodeRequest(prompt="-", max_thinking_tokens=due if thinking else None), END_THINK, 0)
    looks = [Look(token, 0.5, 0.1) for token in picks]
    verdict = verify(start, block[1:], looks, end, STOP, budget)
    record, length = settle(
        reference.verify_commit, block, picks, start, device, end=end, stop_id=STOP, due=due, forced_id=END_THINK
    )
    written = [e.token for e in verdict.events if e.kind != "reject"]
    accepted = [e for e in verdict.events if e.kind == "accept"]
    assert record[:4] == [len(accepted), verdict.emitted, start + verdict.emitted, verdict.pending]
    assert record[4 : 4 + len(written)] == written and set(record[4 + len(written) :]) <= {-1}
    assert length == start + verdict.emitted


def test_a_finished_row_stays_as_it_is(ops, device):
    assert settle(ops.verify_commit, [STOP, 3], [3, 3], 7, device, end=20, stop_id=STOP) == ([0, 0, 7, STOP, -1, -1], 7)
    assert settle(ops.verify_commit, [4, 3], [3, 3], 19, device, end=20, stop_id=STOP) == ([0, 0, 19, 4, -1, -1], 19)


@pytest.mark.parametrize("kind", [torch.float32, torch.int32, torch.int64])
def test_picks_may_be_a_column_of_a_packed_table(ops, device, kind):
    torch.manual_seed(0)
    block = torch.randint(0, 131072, (3, 8), device=device)
    table = torch.zeros(3, 8, 5, device=device, dtype=kind)
    table[:, :-1, 0] = block[:, 1:].to(kind)
    table[1, 4, 0] += 1
    length = torch.tensor([5, 6, 7], dtype=torch.int32, device=device)
    other = length.clone()
    got = ops.verify_commit(block, table[..., 0], length, end=1000)
    assert torch.equal(got, reference.verify_commit(block, table[..., 0], other, end=1000))
    assert got[:, 0].tolist() == [7, 4, 7] and torch.equal(length, other)


def test_shapes_that_do_not_fit_are_refused(ops, device):
    block = torch.zeros(2, 4, dtype=torch.int64, device=device)
    with pytest.raises(ValueError, match="do not fit"):
        ops.verify_commit(block, block[:, :3], torch.zeros(2, dtype=torch.int32, device=device), end=9)
