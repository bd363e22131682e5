"""The bundled model's tokenizer: byte-level BPE on the generated corpus, digits one by one, ChatML.

A digit takes the space before it along, and every word that an answer copies is one token with and without
a space before it: `"drum"` and ` drum` differ by one row of the embedding, not by how many tokens they are.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain, islice

import torch
from tokenizers import AddedToken, Regex, Tokenizer as FastTokenizer, decoders, models, pre_tokenizers, trainers

from nemodiff_core.analysis.tasks import stream
from nemodiff_core.tokenizer import Tokenizer

# Ids as in the family (facts §2): placeholders <SPECIAL_n> at id n, the named ones in their places.
SPECIALS = 128
NAMED = {0: "<unk>", 1: "<s>", 2: "</s>", 10: "<|im_start|>", 11: "<|im_end|>", 12: "<think>", 13: "</think>"}
EOS, MASK = 11, 100
_SPACE = "Ġ"  # what byte-level BPE writes for a space
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


def train_vocabulary(size: int = 2048, examples: int = 60_000, seed: int = 0) -> Tokenizer:
    """Learn `size` tokens from `examples` training examples; deterministic for a seed."""
    fast = FastTokenizer(models.BPE(unk_token=None))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(" ?[0-9]"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    fast.decoder = decoders.ByteLevel()
    specials = [NAMED.get(i, f"<SPECIAL_{i}>") for i in range(SPECIALS)]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [text for e in islice(stream("train", seed), examples) for text in (e.prompt, e.answer)]
    # (space, word) -> how often; a word used in both forms counts in either as often as in both together.
    forms = Counter(form for text in texts for form in re.findall("( ?)([A-Za-z]+)", text))
    paired = {form: n for form, n in forms.items() if forms["", form[1]] and forms[" ", form[1]]}
    extra = (text for (_, word), n in paired.items() for text in (word, f" {word}") * n)
    fast.train_from_iterator(chain(texts, extra), trainer)
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


def carry_rows(rows: torch.Tensor, old: Tokenizer, new: Tokenizer) -> torch.Tensor:
    """Embedding or head rows [new vocabulary, hidden] for `new`, made of `rows` [old vocabulary, hidden] of `old`.

    A token both have keeps its row. Another one starts from its form with or without the space before it, or
    else from the mean of what `old` makes of its text.
    """
    known, made = old.fast.get_vocab(), []
    for index in range(new.vocab_size):
        token = new.fast.id_to_token(index)
        twin = token[1:] if token.startswith(_SPACE) else _SPACE + token
        if token in known or twin in known:
            made.append(rows[known[token if token in known else twin]])
        else:
            made.append(rows[old.encode_plain(new.decode([index]))].mean(0))
    return torch.stack(made)
