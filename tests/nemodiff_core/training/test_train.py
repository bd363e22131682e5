"""The recipe end to end, very small: it learns, stops, resumes, and its result loads like any checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nemodiff_core.checkpoint import load
from nemodiff_core.errors import NemodiffError
from nemodiff_core.training.train import TrainSettings, train
from nemodiff_core.training.vocabulary import MASK, carry_rows, train_vocabulary

SMALL = TrainSettings(
    minutes=10, vocabulary=420, hidden=32, layers=1, intermediate=48, heads=2, kv_heads=1, head_dim=16, positions=256
)


@pytest.fixture(scope="module")
def vocabulary():
    return train_vocabulary(420, examples=300)


def test_vocabulary_has_the_family_layout(vocabulary) -> None:
    assert vocabulary.fast.token_to_id("<|im_end|>") == 11 == vocabulary.eos_id
    assert vocabulary.fast.token_to_id("<SPECIAL_100>") == MASK == 100
    assert len(vocabulary.encode("4711")) == 4, "digits are tokens of their own"
    text = vocabulary.decode(vocabulary.chat([{"role": "user", "content": "Hello"}]), skip_special=False)
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_words_that_answers_copy_are_one_token_in_both_forms() -> None:
    vocabulary = train_vocabulary(1600, examples=3000)
    for text in ('"Anna"', " Anna", '"drum"', " drum", " 7", "7"):
        assert len(vocabulary.encode(text.strip('"'))) == 1, text


def test_carried_rows_follow_their_tokens(vocabulary) -> None:
    larger = train_vocabulary(500, examples=300)
    rows = torch.arange(vocabulary.vocab_size).float()[:, None].expand(-1, 3)
    carried = carry_rows(rows, vocabulary, larger)
    assert carried.shape == (larger.vocab_size, 3)
    old, new = vocabulary.fast.get_vocab(), larger.fast.get_vocab()
    shared = sorted(old.keys() & new.keys())
    assert len(shared) > 300
    assert [carried[new[t], 0].item() for t in shared] == [old[t] for t in shared]
    fresh = next(i for t, i in new.items() if t not in old and t.lstrip("Ġ") not in old and "Ġ" + t not in old)
    pieces = vocabulary.encode_plain(larger.decode([fresh]))
    assert carried[fresh, 0].item() == pytest.approx(sum(pieces) / len(pieces))


def test_train_learns_stops_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemodiff_core.training.train.train_vocabulary", lambda size, seed: train_vocabulary(size, 300, seed))
    seen = []
    first = train(SMALL, tmp_path, max_steps=12, listen=seen.append)
    assert [p.step for p in seen] == list(range(1, 13))
    assert seen[-1].ar_loss < seen[0].ar_loss
    assert first.tokens > 0 and first.examples > 0
    weights = load(tmp_path).model.state_dict()["diffusion_head.weight"]
    second = train(SMALL, tmp_path, resume=True, max_steps=14)
    assert second.step == 14 and second.examples > first.examples and second.elapsed > first.elapsed
    assert not torch.equal(weights, load(tmp_path).model.state_dict()["diffusion_head.weight"])
    assert json.loads((tmp_path / "training.json").read_text())["result"]["step"] == 14
    onward = train(SMALL, tmp_path / "onward", start=tmp_path, max_steps=1)
    assert onward.ar_loss < seen[0].ar_loss, "a new run begins with the weights it is given"
    larger = replace(SMALL, vocabulary=440)
    train(larger, tmp_path / "grown", start=tmp_path, new_vocabulary=True, max_steps=0)
    before, after = load(tmp_path).model.state_dict(), load(tmp_path / "grown").model.state_dict()
    assert len(after["diffusion_head.weight"]) == 440
    assert all(torch.equal(before[name], after[name]) for name in before if "layers" in name)


def test_part_of_the_batches_may_train_the_causal_half_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemodiff_core.training.train.train_vocabulary", lambda size, seed: train_vocabulary(size, 300, seed))
    causal = train(replace(SMALL, joint_share=0.0, joint_from=1.0), tmp_path, max_steps=2)
    assert causal.ar_loss > 0 and causal.masked_loss != causal.masked_loss, "no noisy half was seen"


def test_a_spent_budget_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemodiff_core.training.train.train_vocabulary", lambda size, seed: train_vocabulary(size, 300, seed))
    result = train(TrainSettings.preset("cpu", **{**vars(SMALL), "minutes": 0.02}), tmp_path)
    assert result.elapsed >= result.budget
    assert not (tmp_path / "training.pt").exists()
    assert load(tmp_path).config.block_size == SMALL.block


def test_bad_settings_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NemodiffError, match="nothing|no interrupted"):
        train(SMALL, tmp_path, resume=True)
    with pytest.raises(NemodiffError, match="preset"):
        TrainSettings.preset("tpu")
