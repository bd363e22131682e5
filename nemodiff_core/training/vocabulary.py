"""The bundled model's tokenizer: byte-level BPE on the generated corpus, digits one by one, ChatML."""

from __future__ import annotations

from itertools import islice

from tokenizers import AddedToken, Tokenizer as FastTokenizer, decoders, models, pre_tokenizers, trainers

from nemodiff_core.analysis.tasks import stream
from nemodiff_core.tokenizer import Tokenizer

# Ids as in the family (facts §2): placeholders <SPECIAL_n> at id n, the named ones in their places.
SPECIALS = 128
NAMED = {0: "<unk>", 1: "<s>", 2: "</s>", 10: "<|im_start|>", 11: "<|im_end|>", 12: "<think>", 13: "</think>"}
EOS, MASK = 11, 100
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def train_vocabulary(size: int = 1280, examples: int = 60_000, seed: int = 0) -> Tokenizer:
    """Learn `size` tokens from `examples` training examples; deterministic for a seed."""
    fast = FastTokenizer(models.BPE(unk_token=None))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    fast.decoder = decoders.ByteLevel()
    specials = [NAMED.get(i, f"<SPECIAL_{i}>") for i in range(SPECIALS)]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (text for e in islice(stream("train", seed), examples) for text in (e.prompt, e.answer))
    fast.train_from_iterator(texts, trainer)
    config = {
        "bos_token": NAMED[1],
        "eos_token": NAMED[EOS],
        "mask_token": specials[MASK],
        "pad_token": NAMED[0],
        "model_max_length": 2048,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
    }
    return Tokenizer(fast, config, CHAT_TEMPLATE, mask_id=MASK, eos_id=EOS)
