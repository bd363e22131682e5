"""The learned sampler: a small network that says of every masked cell whether its first candidate is final.

Facts §5 and §6 (paper, "trained sampler"): a few bidirectional layers over the masked cells of a block, fed
with what the forward said about each of them. Trained by training/sampler.py, kept beside the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from nemodiff_core.decode.sampling import Look
from nemodiff_core.errors import CheckpointError

CONFIG, WEIGHTS = "sampler_config.json", "sampler.safetensors"
TOP = 3  # candidates a cell is described by
DEFAULT_BOUND = 0.7
DROPOUT = 0.1  # in training only


@dataclass(frozen=True)
class SamplerConfig:
    """Geometry of the network and of the model it belongs to."""

    vocab_size: int
    model_hidden: int
    projected: int = 16  # dimensions of a candidate's embedding that the network sees
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    longest: int = 64  # offsets it can tell apart


class CommitSampler(nn.Module):
    """Logits that a cell's first candidate is the token that will stand there in the end."""

    def __init__(self, config: SamplerConfig) -> None:
        super().__init__()
        self.config = config
        # The model's own embeddings in their principal directions: fixed, so that few weights have to be learned.
        self.register_buffer("embeddings", torch.zeros(config.vocab_size, config.projected))
        self.enter = nn.Linear(TOP * config.projected + TOP + 3, config.hidden)
        self.offsets = nn.Embedding(config.longest, config.hidden)
        layer = nn.TransformerEncoderLayer(
            config.hidden, config.heads, 2 * config.hidden, dropout=DROPOUT, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.leave = nn.Linear(config.hidden, 1)
        # A fresh network says what the model's own probability says; what it learns is where that is wrong.
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @classmethod
    def for_embeddings(cls, embeddings: torch.Tensor, **geometry: int) -> CommitSampler:
        """A fresh network for a model with these token embeddings [vocab, hidden]."""
        config = SamplerConfig(*embeddings.shape, **geometry)
        net = cls(config)
        centred = embeddings.float() - embeddings.float().mean(0)
        # The right singular vectors are the principal directions.
        directions = torch.linalg.svd(centred, full_matrices=False).Vh[: config.projected]
        projected = centred @ directions.T
        net.embeddings[:, : projected.shape[1]] = projected / projected.std().clamp_min(1e-6)
        return net

    def forward(
        self,
        ids: torch.Tensor,  # [batch, cells, TOP] int64
        probabilities: torch.Tensor,  # [batch, cells, TOP]
        entropy: torch.Tensor,  # [batch, cells] nats
        offsets: torch.Tensor,  # [batch, cells] int64, within the block
        absent: torch.Tensor | None = None,  # [batch, cells] bool, True = padding
    ) -> torch.Tensor:
        """Logits [batch, cells]."""
        share = torch.full_like(entropy, entropy.shape[1]) if absent is None else (~absent).sum(1, keepdim=True).expand_as(entropy)
        margin = probabilities[..., 0] - probabilities[..., 1]
        features = torch.cat(
            (
                self.embeddings[ids].flatten(-2),
                probabilities,
                torch.stack((margin, entropy, share / self.config.longest), -1),
            ),
            -1,
        )
        x = self.enter(features) + self.offsets(offsets.clamp_max(self.config.longest - 1))
        said = torch.logit(probabilities[..., 0], eps=1e-4)
        return said + self.leave(self.layers(x, src_key_padding_mask=absent))[..., 0]


@dataclass(frozen=True)
class Learned:
    """Every cell that the network calls final with at least probability `bound`, and the surest one in any case.

    Needs between 1 and as many steps as there are masks.
    """

    net: CommitSampler
    bound: float

    def choose(self, looks: Sequence[Look], step: int, offsets: Sequence[int] = ()) -> list[int]:
        with torch.inference_mode():
            ids = torch.tensor([[look.ids[:TOP] for look in looks]])
            probabilities = torch.tensor([[look.probabilities[:TOP] for look in looks]])
            entropy = torch.tensor([[look.entropy for look in looks]])
            final = self.net(ids, probabilities, entropy, torch.tensor([list(offsets)]))[0].sigmoid().tolist()
        best = max(range(len(final)), key=final.__getitem__)
        return [i for i, p in enumerate(final) if p >= self.bound or i == best]


def save_sampler(net: CommitSampler, folder: Path) -> None:
    """Write the network into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(asdict(net.config), indent=2) + "\n", "utf-8")


def load_sampler(folder: Path, vocab_size: int, model_hidden: int) -> CommitSampler:
    """Read the network that `save_sampler` wrote. Raises CheckpointError where it is damaged or of another model."""
    try:
        config = SamplerConfig(**json.loads((folder / CONFIG).read_text("utf-8")))
        if (config.vocab_size, config.model_hidden) != (vocab_size, model_hidden):
            raise CheckpointError(
                f"the sampler in {folder.name} belongs to a model with {config.vocab_size} tokens and {config.model_hidden} "
                f"dimensions, not {vocab_size} and {model_hidden}; train one with nemodiff train-sampler."
            )
        net = CommitSampler(config)
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    except (OSError, ValueError, TypeError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the sampler in {folder.name} cannot be read ({reason}); train it again or remove it.") from error
    return net.eval().requires_grad_(False)
