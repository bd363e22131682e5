"""The learned sampler: its examples, its training, its file, and its use as a policy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemodiff_core.checkpoint import SAMPLER, load, save
from nemodiff_core.decode.learned import TOP, CommitSampler, Learned, load_sampler, save_sampler
from nemodiff_core.decode.sampling import Look
from nemodiff_core.engine import Engine
from nemodiff_core.errors import CheckpointError, NemodiffError, RequestError
from nemodiff_core.request import DecodeRequest
from nemodiff_core.training.sampler import SamplerSettings, examples_of, loss_of, train_sampler


def look(offset: int, p: float = 0.6) -> Look:
    return Look(5 + offset, p, 0.4, (5 + offset, 9, 12), (p, 0.2, 0.1))


@pytest.fixture
def net() -> CommitSampler:
    torch.manual_seed(0)
    return CommitSampler.for_embeddings(torch.randn(384, 48), projected=8, hidden=16, layers=1, heads=2).eval()


def test_examples_are_the_masked_cells_and_what_became_of_them(tiny_engine) -> None:
    run = tiny_engine.run(
        DecodeRequest(prompt="hello", mode="diffusion", steps=8, block_length=8, candidates=TOP, max_new_tokens=24, stop_at_eos=False)
    )
    list(run)
    trace = run.trace()
    found = examples_of([trace])
    denoised = [step for step in trace.steps if step.phase == "denoise"]
    assert len(found.final) == len(denoised)
    # The surest cell commits its first candidate, so a forward whose only masked cell is left was always right.
    last = (~found.absent).sum(1) == 1
    assert last.any() and bool((found.final[last][:, 0] == 1).all())
    assert int((~found.absent).sum(1)[0]) == 7, "all cells but the seed"
    start = len(trace.prompt.ids)
    first = denoised[0]
    expected = [float(c.ids[0] == trace.output.ids[c.position - start]) for c in first.candidates if c.position > first.span[0]]
    assert found.final[0, ~found.absent[0]].tolist() == expected


def test_runs_without_candidates_teach_nothing(tiny_engine) -> None:
    run = tiny_engine.run(DecodeRequest(prompt="hello", mode="ar", max_new_tokens=3))
    list(run)
    with pytest.raises(NemodiffError, match="no denoising forward"):
        examples_of([run.trace()])


def test_padding_changes_nothing(net) -> None:
    ids, p, e, o = torch.randint(0, 384, (1, 4, TOP)), torch.rand(1, 4, TOP), torch.rand(1, 4), torch.arange(4)[None]
    alone = net(ids, p, e, o)
    pad = lambda t: torch.cat((t, torch.zeros_like(t)), 1)  # noqa: E731
    absent = torch.tensor([[False] * 4 + [True] * 4])
    torch.testing.assert_close(net(pad(ids), pad(p), pad(e), pad(o), absent)[:, :4], alone, atol=1e-5, rtol=1e-4)


def test_a_policy_commits_what_the_network_believes(net) -> None:
    looks, offsets = [look(i) for i in range(6)], list(range(1, 7))
    everything = Learned(net, 0.0).choose(looks, 0, offsets)
    nothing = Learned(net, 1.0).choose(looks, 0, offsets)
    assert everything == list(range(6)) and len(nothing) == 1


def test_training_learns_and_the_result_decodes(tiny_engine, tmp_path: Path) -> None:
    folder = save(tiny_engine.checkpoint.model, tiny_engine.checkpoint.tokenizer, tmp_path / "checkpoint")
    with pytest.raises(RequestError, match="no learned sampler"):
        tiny_engine.run(DecodeRequest(prompt="x", policy="sampler"))
    said = []
    settings = SamplerSettings(prompts=4, minutes=0.05, batch=32)
    result = train_sampler(tiny_engine, settings, folder / SAMPLER, lambda what, done, of: said.append(what))
    assert {"writing answers", "training"} == set(said)
    assert 0 <= result.accuracy <= 1 and result.loss > 0 and result.cells > 0
    loaded = load(folder)
    assert not any("sampler" in name for name in loaded.model.state_dict()), "no part of the model's weights"
    run = Engine(loaded).run(DecodeRequest(prompt="hello", policy="sampler", threshold=0.5, max_new_tokens=24, candidates=1))
    steps = list(run)
    assert run.trace().output.ids
    assert {len(c.ids) for step in steps for c in step.candidates} == {1}, "what the policy needs is not recorded"


def test_the_loss_falls(tiny_engine) -> None:
    run = tiny_engine.run(
        DecodeRequest(prompt="hello", mode="diffusion", steps=8, block_length=8, candidates=TOP, max_new_tokens=48, stop_at_eos=False)
    )
    list(run)
    part = examples_of([run.trace()])
    torch.manual_seed(0)
    net = CommitSampler.for_embeddings(tiny_engine.checkpoint.model.encoder.embed_tokens.weight.detach())
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss, _ = loss_of(net, part)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_sampler_survives_its_file_and_damage_is_one_sentence(net, tmp_path: Path) -> None:
    save_sampler(net, tmp_path)
    again = load_sampler(tmp_path, 384, 48)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values()))
    with pytest.raises(CheckpointError, match="belongs to a model with 384"):
        load_sampler(tmp_path, 500, 48)
    (tmp_path / "sampler.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="cannot be read") as told:
        load_sampler(tmp_path, 384, 48)
    assert "\n" not in str(told.value)
