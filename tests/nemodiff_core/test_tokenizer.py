"""The tokenizer: text survives, conversations keep their shape, visitors cannot forge control tokens."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from nemodiff_core.errors import CheckpointError
from nemodiff_core.tokenizer import Tokenizer

BOS, START, END, MASK = 1, 10, 11, 100
TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim('#') + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking %}{{- '<think>\\n' }}{% endif %}
{%- endif %}
"""


@cache
def trained() -> str:
    """A byte-level BPE tokenizer of the family's shape, learnt from a few lines, as JSON."""
    names = {0: "<unk>", 1: "<s>", START: "<|im_start|>", END: "<|im_end|>", 12: "<think>", 13: "</think>"}
    specials = [names.get(n, f"<SPECIAL_{n}>") for n in range(101)]
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[AddedToken(name, special=True) for name in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    fast.train_from_iterator(["the user said hello\n\n\n\nand the model said hello to the user\n\n"] * 50, trainer)
    return fast.to_str()


def make(template: str | None = TEMPLATE, **config) -> Tokenizer:
    config = {"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}, **config}
    return Tokenizer(FastTokenizer.from_str(trained()), config, template, mask_id=MASK, eos_id=END)


SHARED = make()
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MARKS = ["<|im_end|>", "<|im_start|>", "<s>", "<SPECIAL_100>", "<", "|im_end|>", "\n", "\ue000"]
hostile = st.lists(st.one_of(anything, st.sampled_from(MARKS)), max_size=8).map("".join)


@given(anything)
def test_text_survives(text):
    assert SHARED.decode(SHARED.encode(text), skip_special=False) == text


@given(hostile)
@settings(max_examples=200)
def test_plain_text_survives_without_a_single_special_token(text):
    ids = SHARED.encode_plain(text)
    assert SHARED.decode(ids) == text
    assert all(token > MASK for token in ids)


def test_specials_written_by_us_are_recognised():
    assert SHARED.encode("<|im_start|><|im_end|><SPECIAL_100>") == [START, END, MASK]
    assert SHARED.decode([START, *SHARED.encode("hello"), END]) == "hello"
    assert SHARED.decode([START, *SHARED.encode("hello"), END], skip_special=False) == "<|im_start|>hello<|im_end|>"


@given(anything.filter(lambda text: "<" not in text))
def test_a_conversation_is_the_rendered_text_encoded_once(text):
    """As the reference does it: render, then encode, tokens reaching over the edges of a message."""
    for content in (text, "\n" + text + "\n\n", "##" + text):
        said = content.strip("#")
        expected = SHARED.encode(f"<s><|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n")
        assert SHARED.chat([{"role": "user", "content": content}]) == expected


@given(hostile, hostile)
@settings(max_examples=200)
def test_markers_in_messages_stay_data(first, second):
    ids = SHARED.chat([{"role": "system", "content": first}, {"role": "user", "content": second}])
    assert [token for token in ids if token <= MASK] == [BOS, START, END, START, END, START]
    content = SHARED.decode(ids[ids.index(END) + 1 :])
    assert content == "\nuser\n" + second.strip("#") + "\nassistant\n"


def test_markers_in_a_role_stay_data():
    ids = SHARED.chat([{"role": "user<|im_end|>", "content": "hello"}])
    assert [token for token in ids if token <= MASK] == [BOS, START, END, START]


def test_bos_is_never_doubled():
    messages = [{"role": "user", "content": "hello"}]
    assert make().chat(messages).count(BOS) == 1
    doubled = make("<s>" + TEMPLATE)
    assert doubled.chat(messages) == make().chat(messages)
    assert make(TEMPLATE.replace("{{- bos_token }}\n", "")).chat(messages).count(BOS) == 0


def test_thinking_is_off_unless_asked_for():
    messages = [{"role": "user", "content": "hello"}]
    assert 12 not in SHARED.chat(messages)
    thinking = SHARED.chat(messages, enable_thinking=True)
    assert 12 in thinking and SHARED.decode(thinking[-1:]) == "\n"


def test_messages_are_not_changed():
    messages = [{"role": "user", "content": "<|im_end|>"}]
    SHARED.chat(messages)
    assert messages == [{"role": "user", "content": "<|im_end|>"}]


def test_templates_may_leave_loops():
    template = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    messages = [{"role": "user", "content": word} for word in ("one", "two")]
    assert SHARED.decode(make(template).chat(messages)) == "one"


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for %}",
        "{{ raise_exception('roles must\nalternate') }}",
        "{{ messages[0].content + 1 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ 1 // 0 }}",
    ],
)
def test_templates_that_cannot_be_used(template):
    with pytest.raises(CheckpointError, match="chat template") as caught:
        make(template).chat([{"role": "user", "content": "hello"}])
    assert "\n" not in str(caught.value)


def test_pieces():
    euro = SHARED.encode("€")
    assert [SHARED.piece(token) for token in euro] == ["⟨E2⟩", "⟨82⟩", "⟨AC⟩"]
    assert SHARED.piece(MASK) == "[MASK]" and SHARED.piece(END) == "<|im_end|>" and SHARED.piece(BOS) == "<s>"
    assert SHARED.piece(10**6) == "⟨1000000⟩"
    text = " the user\n\nsaid hello"
    ids = SHARED.encode(text)
    assert "".join(map(SHARED.piece, ids)) == text and any(SHARED.piece(token) == " the" for token in ids)


@given(st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=40))
def test_pieces_of_plain_ascii_join_to_the_text(text):
    assert "".join(SHARED.piece(token) for token in SHARED.encode_plain(text)) == text


def test_every_piece_is_printable_text():
    for token in range(SHARED.vocab_size):
        piece = SHARED.piece(token)
        assert piece and "\ufffd" not in piece


def test_a_replacement_character_that_is_meant_is_shown():
    fast = json.loads(trained())
    stand_ins = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("\ufffd")[0][0]
    fast["model"]["vocab"][stand_ins] = 420
    tokenizer = Tokenizer(FastTokenizer.from_str(json.dumps(fast)), {}, None, mask_id=MASK, eos_id=END)
    assert tokenizer.piece(420) == "\ufffd"


def test_truncation_and_padding_of_somebodys_training_run_are_dropped():
    fast = FastTokenizer.from_str(trained())
    fast.enable_truncation(4)
    fast.enable_padding(length=64)
    tokenizer = Tokenizer(fast, {}, None, mask_id=MASK, eos_id=END)
    text = "hello hello hello hello hello hello hello"
    assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode_plain(text)) == text
    assert len(tokenizer.encode("hello")) < 64


def test_round_trip_through_a_folder(tmp_path):
    SHARED.save(tmp_path / "new")
    again = Tokenizer.from_folder(tmp_path / "new", mask_id=MASK, eos_id=END)
    messages = [{"role": "user", "content": "the user said <|im_end|>"}]
    assert again.chat(messages) == SHARED.chat(messages)
    assert (again.bos_id, again.eos_id, again.mask_id, again.vocab_size) == (BOS, END, MASK, SHARED.vocab_size)


def test_a_template_in_the_config_is_used(tmp_path):
    make(None, chat_template="{{ messages[0].content }}").save(tmp_path)
    assert not (tmp_path / "chat_template.jinja").exists()
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.decode(tokenizer.chat([{"role": "user", "content": "hello"}])) == "hello"


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("tokenizer.json", None, "no tokenizer.json"),
        ("tokenizer.json", b"{}", "cannot be read"),
        ("tokenizer.json", b"\xff", "cannot be read"),
        ("tokenizer_config.json", b"{", "not JSON"),
        ("tokenizer_config.json", b"[1]", "no JSON object"),
        ("tokenizer_config.json", b"\xff", "not JSON"),
        ("chat_template.jinja", b"\xff", "not UTF-8"),
    ],
)
def test_damaged_folders(tmp_path, file, content, match):
    SHARED.save(tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as caught:
        Tokenizer.from_folder(tmp_path)
    assert "\n" not in str(caught.value)
