"""Figures of traces small enough to count by hand."""

from __future__ import annotations

import pytest

from nemodiff_core.metrics import first_divergence, pooled, summary
from nemodiff_core.trace import Step, TokenEvent, TokenText, Trace, fold

MS = 1_000_000


def made(mode: str, rows: list[tuple], stop_reason: str = "length") -> Trace:
    """A trace after a prompt of two tokens; a row is (phase, span, block, ms, 'kind position token' events)."""
    steps = []
    for index, (phase, span, block, ms, *events) in enumerate(rows):
        parts = [event.split() for event in events]
        happened = tuple(TokenEvent(int(position), int(token), kind) for kind, position, token in parts)
        steps.append(Step(index, phase, span, block, ms * MS, happened))
    output = fold(2, steps).output()
    return Trace(
        id="made",
        created="2026-01-01T00:00:00+00:00",
        model={},
        request={"mode": mode},
        prompt=TokenText([1, 2], ["a", "b"]),
        output=TokenText(output, ["x"] * len(output)),
        vocabulary={},
        steps=steps,
        stop_reason=stop_reason,
    )


AR = [("prefill", (0, 2), 0, 4, "commit 2 50"), ("ar", (2, 3), 0, 6, "commit 3 51"), ("ar", (3, 4), 0, 8, "commit 4 52")]
DIFFUSION = [
    ("prefill", (0, 2), 0, 4, "seed 2 50"),
    ("denoise", (2, 6), 0, 6, "commit 3 51", "commit 5 53"),
    ("denoise", (2, 6), 0, 9, "commit 4 52"),
    ("commit", (2, 6), 0, 10, "seed 6 54"),
    ("denoise", (6, 10), 1, 12, "commit 7 55", "commit 8 56", "commit 9 57"),
    ("commit", (6, 8), 1, 14, "reject 8 56", "reject 9 57"),
]
LINEAR = [
    ("prefill", (0, 2), 0, 4, "seed 2 50"),
    ("draft", (2, 5), 0, 6, "draft 3 51", "draft 4 52"),
    ("verify", (2, 5), 0, 8, "accept 3 51", "accept 4 52", "bonus 5 53"),
    ("draft", (5, 8), 1, 10, "draft 6 60", "draft 7 61"),
    ("verify", (5, 8), 1, 12, "reject 6 60", "reject 7 61", "bonus 6 54"),
]


def test_ar_counts_tokens() -> None:
    figures = summary(made("ar", AR))
    assert (figures["tokens"], figures["nfe"], figures["forwards"], figures["tpf"]) == (3, 3, 3, 1.0)
    assert figures["blocks"] == 0
    assert figures["time_by_phase"] == pytest.approx({"prefill": 0.004, "ar": 0.004})
    assert figures["tokens_per_second"] == pytest.approx(3 / 0.008)


def test_diffusion_leaves_the_prefill_out() -> None:
    figures = summary(made("diffusion", DIFFUSION))
    assert figures["tokens"] == 6, "the two cells behind the budget are not part of the text"
    assert (figures["nfe"], figures["forwards"]) == (5, 6)
    assert figures["tpf"] == pytest.approx(6 / 5)
    assert figures["blocks"] == 2
    assert (figures["acceptance_length"], figures["acceptance_lengths"]) == (None, [])
    assert figures["time_by_phase"] == pytest.approx({"prefill": 0.004, "denoise": 0.007, "commit": 0.003})
    assert (figures["prefill_seconds"], figures["decode_seconds"]) == pytest.approx((0.004, 0.010))


def test_self_speculation_counts_every_forward_and_the_bonus() -> None:
    figures = summary(made("linear_spec", LINEAR))
    assert (figures["tokens"], figures["nfe"], figures["forwards"]) == (5, 5, 5)
    assert (figures["acceptance_lengths"], figures["acceptance_length"]) == ([3, 1], 2.0)
    assert figures["blocks"] == 2


def test_a_run_stopped_between_draft_and_verify_counts_the_draft() -> None:
    figures = summary(made("linear_spec", LINEAR[:4], "cancelled"))
    assert (figures["tokens"], figures["nfe"], figures["acceptance_lengths"], figures["blocks"]) == (4, 4, [3], 2)


@pytest.mark.parametrize("mode", ["ar", "diffusion", "linear_spec"])
def test_a_run_that_never_began_divides_nothing_by_zero(mode: str) -> None:
    figures = summary(made(mode, [], "cancelled"))
    assert (figures["tokens"], figures["nfe"], figures["tpf"], figures["tokens_per_second"]) == (0, 0, None, None)
    assert (figures["seconds"], figures["decode_seconds"], figures["time_by_phase"]) == (0.0, 0.0, {})


@pytest.mark.parametrize(
    ("ours", "theirs", "place"), [([], [], None), ([1], [1], None), ([1, 2], [1, 3], 1), ([1], [1, 2], 1), ([1], [], 0)]
)
def test_first_divergence(ours: list[int], theirs: list[int], place: int | None) -> None:
    assert first_divergence(ours, theirs) == first_divergence(theirs, ours) == place


def test_pooled_figures_are_sums_over_sums() -> None:
    one, three = made("ar", AR[:1]), made("ar", AR)
    together = pooled([one, three])
    assert (together["tokens"], together["nfe"], together["forwards"], together["tpf"]) == (4, 4, 4, 1.0)
    assert together["tokens_per_second"] == pytest.approx(4 / (0.004 + 0.008)) and together["acceptance_length"] is None
    assert pooled([])["tpf"] is None and pooled([])["tokens_per_second"] is None
