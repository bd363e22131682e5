"""The joint forward must be the decoders' forwards: causal AR, and a block denoised after a causal prefix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from nemodiff_core.config import ModelConfig, RopeConfig
from nemodiff_core.model import TriModeModel
from nemodiff_core.training.batches import NoiseSettings, collate, joint_mask, noise_block
from nemodiff_core.training.objective import joint_loss
from nemodiff_core.training.optimizer import Muon, orthogonalise, schedule

BLOCK, MASK, EOS, VOCABULARY = 4, 3, 2, 40


@pytest.fixture(scope="module")
def model() -> TriModeModel:
    torch.manual_seed(0)
    return TriModeModel(
        ModelConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            eos_token_id=EOS,
            mask_token_id=MASK,
            rope=RopeConfig(theta=1e4, original_max_position_embeddings=64),
        )
    )


def rows_of(seed: int, count: int) -> list[tuple[list[int], int]]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        prompt, answer = int(rng.integers(3, 9)), int(rng.integers(2, 14))
        rows.append(([*map(int, rng.integers(4, VOCABULARY, prompt + answer)), EOS], prompt))
    return rows


def batch_of(seed: int, count: int = 3):
    rows = rows_of(seed, count)
    return rows, collate(rows, BLOCK, MASK, EOS, NoiseSettings(), np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(4))
def test_joint_logits_equal_the_decoders_passes(model: TriModeModel, seed: int) -> None:
    rows, batch = batch_of(seed)
    with torch.no_grad():
        limit = int(batch.positions.max()) + 1
        logits = model.head(model.hidden(batch.tokens, batch.positions, limit, mask=batch.mask))
        clean = max(len(ids) for ids, _ in rows)
        width = batch.tokens.shape[1] - clean
        for n, (ids, _) in enumerate(rows):
            causal = model(torch.tensor([ids]), pattern="causal")
            torch.testing.assert_close(logits[n, width : width + len(ids)], causal[0], atol=1e-4, rtol=1e-4)
            for low in range(0, width, BLOCK):
                start = int(batch.positions[n, low])
                if start >= len(ids):
                    continue  # a padding block: its prefix does not exist
                cache = model.new_cache(64)
                model(torch.tensor([ids[:start]]), pattern="causal", cache=cache, write=True)
                block = batch.tokens[n : n + 1, low : low + BLOCK]
                denoised = model(block, pattern="bidirectional", cache=cache)
                torch.testing.assert_close(logits[n, low : low + BLOCK], denoised[0], atol=1e-4, rtol=1e-4)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_targets_are_the_text_and_prompts_are_never_masked(seed: int) -> None:
    rows, batch = batch_of(seed, count=4)
    total = batch.tokens.shape[1]
    flat = batch.tokens.flatten()
    assert (flat[batch.noisy_rows] == MASK).all()
    assert int((flat == MASK).sum()) == len(batch.noisy_rows)
    for row, target, weight in zip(batch.noisy_rows.tolist(), batch.noisy_targets.tolist(), batch.noisy_weights.tolist()):
        ids, answer = rows[row // total]
        position = int(batch.positions.flatten()[row])
        assert position >= answer and weight > 0
        assert target == (ids[position] if position < len(ids) else EOS)
    expected = [token for ids, answer in rows for token in ids[answer:]]
    assert batch.ar_targets.tolist() == expected
    assert batch.clean_tokens == sum(len(ids) for ids, _ in rows)


@given(
    visible=st.integers(0, 40), size=st.integers(2, 32), seed=st.integers(0, 1000), full=st.floats(0, 1), span=st.floats(0, 1)
)
@settings(max_examples=120, deadline=None)
def test_noise_masks_something_and_spares_the_prompt(visible: int, size: int, seed: int, full: float, span: float) -> None:
    noise = NoiseSettings(full=full * 0.5, span=span * 0.5)
    masked, weight = noise_block(visible, size, noise, np.random.default_rng(seed))
    assert masked.any()
    assert not masked[: min(visible, size - 1)].any()
    assert 1.0 <= weight <= 1 / noise.floor


def test_span_noise_leaves_a_visible_suffix() -> None:
    noise = NoiseSettings(full=0.0, span=1.0)
    for seed in range(50):
        masked, _ = noise_block(0, 16, noise, np.random.default_rng(seed))
        cells = np.flatnonzero(masked)
        assert not masked[-1]
        assert np.array_equal(cells, np.arange(cells[0], cells[-1] + 1))


def test_mask_rules() -> None:
    mask = joint_mask(torch.tensor([2]), width=4, clean=7, block=2)[0, 0]
    noisy, clean = slice(0, 4), slice(4, 11)
    assert mask[noisy, noisy].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert mask[noisy, clean].sum(1).tolist() == [2, 2, 4, 4]
    assert not mask[clean, noisy].any()
    assert torch.equal(mask[clean, clean], torch.ones(7, 7, dtype=torch.bool).tril())


def test_the_loss_teaches(model: TriModeModel) -> None:
    student = TriModeModel(model.config)
    student.load_state_dict(model.state_dict())
    _, batch = batch_of(7)
    optimizer = Muon([p for p in student.parameters() if p.dim() == 2], lr=0.02)
    first = joint_loss(student, batch, 0.5)
    for _ in range(30):
        loss = joint_loss(student, batch, 0.5)
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad()
    last = joint_loss(student, batch, 0.5)
    assert last.ar < first.ar / 2 and last.masked < first.masked / 2


@pytest.mark.parametrize("shape", [(3, 24, 8), (3, 8, 24), (2, 16, 16)])
def test_orthogonalise_evens_out_the_singular_values(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert 0.4 < values.min() and values.max() < 1.4


def test_schedule_warms_up_holds_and_decays() -> None:
    assert schedule(0.0, 0) < 0.05
    assert schedule(0.3, 1000) == 1.0
    assert schedule(1.0, 1000) == pytest.approx(0.02)
