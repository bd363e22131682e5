"""Training a draft adapter: the passes are the decoder's, the loss is the paper's, the model's weights stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nemodiff_core.analysis.tasks import examples_for
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.lora import load_adapter
from nemodiff_core.training import draft_adapter
from nemodiff_core.training.draft_adapter import AdapterSettings, acceptance, new_adapter, train_adapter
from nemodiff_core.training.draft_objective import DraftBatch, draft_batch, draft_loss, lk_hybrid, slot_mask
from nemodiff_core.training.vocabulary import EOS, MASK
from tests.conftest import random_model

BLOCK = 5
SETTINGS = AdapterSettings(minutes=10, rank=4, alpha=8, block=BLOCK, rows=2, slots=2, prompts=1, longest=2000)


def random_rows(count: int = 3, seed: int = 0) -> list[tuple[list[int], int]]:
    rng = np.random.default_rng(seed)
    return [([*map(int, rng.integers(128, 384, 20 + n)), EOS], 8 + n) for n in range(count)]


def batch_of(greedy: bool = False, seed: int = 0) -> DraftBatch:
    batch = draft_batch(random_rows(), 4, EOS, np.random.default_rng(seed))
    return DraftBatch(batch.tokens, batch.starts, torch.zeros_like(batch.sampled) if greedy else batch.sampled)


def loss_of(model, batch: DraftBatch, seed: int = 0):
    return draft_loss(model, batch, BLOCK, MASK, EOS, torch.Generator().manual_seed(seed))


def test_slots_start_anywhere_in_the_answer_and_most_are_sampled() -> None:
    rows = random_rows()
    batch = draft_batch(rows, 400, EOS, np.random.default_rng(0))
    for n, (ids, answer) in enumerate(rows):
        assert batch.tokens[n, : len(ids)].tolist() == ids and (batch.tokens[n, len(ids) :] == EOS).all()
        assert set(batch.starts[n].tolist()) == set(range(answer, len(ids) - 1))
    assert batch.sampled.float().mean() == pytest.approx(0.9, abs=0.03)


def test_mask_rules() -> None:
    starts = torch.tensor([[2, 4]])
    free, causal = (slot_mask(starts, 3, 6, kind)[0, 0] for kind in (False, True))
    assert free[:, :6].sum(1).tolist() == causal[:, :6].sum(1).tolist() == [2, 2, 2, 4, 4, 4]
    square = torch.ones(3, 3, dtype=torch.bool)
    assert torch.equal(free[:, 6:], torch.block_diag(square, square).bool())
    assert torch.equal(causal[:, 6:], torch.block_diag(square.tril(), square.tril()).bool())


def test_greedy_slots_are_cycles_of_the_decoder() -> None:
    """Acceptance and cross-entropy, found again slot by slot with the forwards that decoding uses."""
    model = random_model()
    model.draft_adapter = new_adapter(model, 4, 8.0, seed=1)
    with torch.no_grad():
        for layer in model.draft_adapter.layers:
            layer.b.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    # Untrained passes never agree: a head that leans to one token makes some drafts right and some wrong.
    model.diffusion_head.weight[200] += 3 * model.diffusion_head.weight.std()
    batch = batch_of(greedy=True)
    accepted, losses = [], []
    with torch.no_grad():
        for tokens, starts in zip(batch.tokens, batch.starts, strict=True):
            for start in starts.tolist():
                cache = model.new_cache(64)
                model(tokens[None, :start], pattern="causal", cache=cache, write=True)
                block = torch.full((1, BLOCK), MASK)
                block[0, 0] = tokens[start]
                q = model(block, pattern="bidirectional", cache=cache, draft=True)[0, 1:]
                q[:, MASK] = -1e9
                block[0, 1:] = q.argmax(-1)
                p = model(block, pattern="causal", cache=cache)[0, :-1]
                p[:, MASK] = -1e9
                matched = 0
                while matched < BLOCK - 1 and p[matched].argmax() == block[0, matched + 1] != EOS:
                    matched += 1
                active = min(matched + 1, BLOCK - 1)
                losses += torch.stack(lk_hybrid(p[:active], q[:active])).sum(0).tolist()
                accepted.append(matched + 1)
    found = loss_of(model, batch)
    assert found.accepted.item() == pytest.approx(np.mean(accepted))
    assert found.total.item() == pytest.approx(np.mean(losses), rel=1e-3)


def test_the_loss_by_the_book() -> None:
    """Both sides small enough that the support is the whole vocabulary."""
    torch.manual_seed(0)
    p, q = torch.randn(2, 6, 30)
    hybrid, cross_entropy = lk_hybrid(p, q)
    P, Q = (p / 3).softmax(-1), (q / 3).softmax(-1)
    weight = torch.exp(-0.5 * torch.minimum(P, Q).sum(-1))
    expected = weight * (P * (P / Q).log()).sum(-1) + (1 - weight) * 0.5 * (P - Q).abs().sum(-1)
    torch.testing.assert_close(hybrid, expected)
    torch.testing.assert_close(cross_entropy, -q.log_softmax(-1).gather(-1, p.argmax(-1, keepdim=True))[:, 0])
    same, _ = lk_hybrid(p, p)
    torch.testing.assert_close(same, torch.zeros(6), atol=1e-6, rtol=0)


def test_the_support_is_the_union_of_both_top_candidates() -> None:
    torch.manual_seed(1)
    p, q = 3 * torch.randn(2, 2, 900)
    hybrid, cross_entropy = lk_hybrid(p, q)
    for n in range(2):
        union = sorted({*p[n].topk(200).indices.tolist(), *q[n].topk(200).indices.tolist()})
        assert 200 < len(union) < 400
        P, Q = (p[n, union] / 3).softmax(-1), (q[n, union] / 3).softmax(-1)
        weight = torch.exp(-0.5 * torch.minimum(P, Q).sum())
        whole = weight * (P * (P / Q).log()).sum() + (1 - weight) * 0.5 * (P - Q).abs().sum()
        torch.testing.assert_close(hybrid[n], whole)
        torch.testing.assert_close(cross_entropy[n], q[n, union].logsumexp(-1) - q[n, p[n].argmax()])


def test_a_new_adapter_changes_nothing_and_steps_lower_the_loss() -> None:
    model = random_model()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    batch = batch_of()
    plain = loss_of(model, batch)
    model.draft_adapter = adapter = new_adapter(model, 4, 8.0, seed=0)
    first = loss_of(model, batch)
    assert first.total.item() == plain.total.item() and not plain.total.requires_grad
    halves = [half for layer in adapter.layers for half in (layer.a, layer.b)]
    optimizer = torch.optim.AdamW(halves, lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss_of(model, batch).total.backward()
        optimizer.step()
    last = loss_of(model, batch)
    assert last.total < 0.9 * first.total and last.cross_entropy < first.cross_entropy
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_training_reports_acceptance_and_leaves_the_model_alone(
    tiny_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_adapter, "MAX_NEW_TOKENS", 8)
    model = tiny_engine.checkpoint.model
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    seen, heard = [], []
    record = train_adapter(
        tiny_engine, SETTINGS, tmp_path, listen=seen.append, measured=lambda *told: heard.append(told), max_steps=3
    )
    assert [now.step for now in seen] == [1, 2, 3] and all(now.loss > 0 and now.accepted >= 1 for now in seen)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    stored = load_adapter(tmp_path, model.config)
    assert (stored.rank, stored.alpha) == (4, 8.0) and any(layer.b.abs().max() > 0 for layer in stored.layers)
    assert torch.equal(model.draft_adapter.layers[0].b, stored.layers[0].b)
    examples = examples_for("test", 1)
    assert record == json.loads((tmp_path / "adapter_training.json").read_text())
    assert record["acceptance"] == {
        "before": acceptance(tiny_engine, examples, BLOCK, adapter=False),
        "after": acceptance(tiny_engine, examples, BLOCK, adapter=True),
    }
    assert record["acceptance"]["before"]["acceptance_length"] >= 1
    assert {which for which, _, _ in heard} == {"without adapter", "with adapter"} and heard[-1][1:] == (len(examples),) * 2


def test_a_spent_budget_ends_the_run(tiny_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_adapter, "acceptance", lambda *a, **k: {})
    settings = AdapterSettings(**{**vars(SETTINGS), "minutes": 0.02})
    record = train_adapter(tiny_engine, settings, tmp_path)
    assert record["result"]["elapsed"] >= 1.2 and record["result"]["step"] > 0


def test_bad_settings_are_one_sentence(tiny_engine: Engine, tmp_path: Path) -> None:
    for bad in ({"rank": 0}, {"block": 65}, {"minutes": 0}, {"prompts": 0}, {"lr": float("nan")}):
        with pytest.raises(NemodiffError, match="change them"):
            AdapterSettings(**bad)
    tiny_engine.checkpoint.model.layer_devices = (torch.device("cpu"),) * 2
    with pytest.raises(NemodiffError, match="one device"):
        train_adapter(tiny_engine, SETTINGS, tmp_path)
