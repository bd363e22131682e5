"""Text to ids and back, the chat template, and how a single token is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as FastTokenizer

from nemodiff_core.errors import CheckpointError

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


class Tokenizer:
    """A checkpoint's tokenizer.json with its chat template."""

    def __init__(
        self, fast: FastTokenizer, config: dict[str, Any], template: str | None, *, mask_id: int, eos_id: int
    ) -> None:
        # A tokenizer.json may carry the truncation or padding of somebody's training run.
        fast.no_truncation()
        fast.no_padding()
        self.fast = fast
        self.config = config
        self.template = template
        self.mask_id = mask_id
        self.eos_id = eos_id
        self._special = {i for i, token in fast.get_added_tokens_decoder().items() if token.special}
        self._piece = lru_cache(maxsize=1 << 17)(self._make_piece)

    @classmethod
    def from_folder(cls, folder: str | Path, *, mask_id: int = 100, eos_id: int = 11) -> Tokenizer:
        """Read tokenizer.json, tokenizer_config.json and chat_template.jinja. Raises CheckpointError."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{folder} has no tokenizer.json; download the complete checkpoint folder.")
        try:
            fast = FastTokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every kind of damage
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} cannot be read ({reason}); download the checkpoint again.") from error
        config: dict[str, Any] = {}
        if (folder / "tokenizer_config.json").is_file():
            try:
                config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
            except (ValueError, RecursionError) as error:
                raise CheckpointError(f"{folder}/tokenizer_config.json is not JSON ({error}).") from error
            if not isinstance(config, dict):
                raise CheckpointError(f"{folder}/tokenizer_config.json is no JSON object; download it again.")
        template_file = folder / "chat_template.jinja"
        try:
            template = template_file.read_text("utf-8") if template_file.is_file() else config.get("chat_template")
        except ValueError as error:
            raise CheckpointError(f"{template_file} is not UTF-8 text; download it again.") from error
        if template is not None and not isinstance(template, str):
            template = None  # a list of named templates: none of them is the family's
        return cls(fast, config, template, mask_id=mask_id, eos_id=eos_id)

    def save(self, folder: str | Path) -> None:
        """Write the same three files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.fast.save(str(folder / "tokenizer.json"))
        text = json.dumps(self.config, indent=2, ensure_ascii=False, sort_keys=True)
        (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")
        if self.template is not None:
            (folder / "chat_template.jinja").write_text(self.template, "utf-8")

    @property
    def vocab_size(self) -> int:
        return self.fast.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, with nothing added. Special tokens written out in the text are recognised."""
        return self.fast.encode(text, add_special_tokens=False).ids

    def encode_plain(self, text: str) -> list[int]:
        """Ids of `text` as data: `<|im_end|>` typed by a visitor stays ordinary characters."""
        return self._plain.encode(text, add_special_tokens=False).ids

    @cached_property
    def _plain(self) -> FastTokenizer:
        # A second tokenizer, because the switch is state and one tokenizer serves many threads.
        plain = FastTokenizer.from_str(self.fast.to_str())
        plain.encode_special_tokens = True
        return plain

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        names = sorted((self.fast.id_to_token(i) for i in self._special), key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else re.compile("(?!)()")

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of `ids`."""
        return self.fast.decode(list(ids), skip_special_tokens=skip_special)

    def chat(self, messages: Iterable[dict[str, str]], enable_thinking: bool = False) -> list[int]:
        """Ids of a conversation with the assistant's header opened, as the checkpoint's template has it.

        Message contents are data: markers of the template inside them do not become control tokens.
        """
        if self.template is None:
            raise CheckpointError("this checkpoint has no chat template; turn off chat and send plain text.")
        messages = [dict(m) for m in messages]
        # The template sees the real contents (it may trim or cut them), except that a character found
        # nowhere in them sits inside each of their markers; it goes away again once the template's own
        # markers have been told apart. Everything between two markers is encoded in one piece, as the
        # reference does it, since tokens may reach over the edge of a message.
        said = "".join(value for message in messages for value in message.values())
        guard = next(c for c in map(chr, range(0xE000, 0xF900)) if c not in said)
        for message in messages:
            for key, value in message.items():
                message[key] = self._marks.sub(lambda mark: mark[0][:1] + guard + mark[0][1:], value)
        ids: list[int] = []
        for n, part in enumerate(self._marks.split(self._render(messages, enable_thinking))):
            if n % 2:
                ids.append(self.fast.token_to_id(part))
            elif part:
                ids += self.encode_plain(part.replace(guard, ""))
        bos = self.bos_id
        # A template that writes the BOS itself, tokenized by a tokenizer that adds one, would double it.
        while bos is not None and ids[:2] == [bos, bos]:
            del ids[0]
        return ids

    def _render(self, messages: list[dict[str, str]], enable_thinking: bool) -> str:
        def special(key: str) -> str:
            value = self.config.get(key)
            return value.get("content", "") if isinstance(value, dict) else (value or "")

        try:
            return _compiled(self.template).render(
                messages=messages,
                add_generation_prompt=True,
                enable_thinking=enable_thinking,
                tools=None,
                bos_token=special("bos_token"),
                eos_token=special("eos_token"),
            )
        except Exception as error:  # a template is somebody else's program: it can fail in any way
            reason = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint's chat template cannot be used ({reason}).") from error

    @property
    def bos_id(self) -> int | None:
        value = self.config.get("bos_token")
        text = value.get("content") if isinstance(value, dict) else value
        return self.fast.token_to_id(text) if text else None

    @property
    def end_think_id(self) -> int | None:
        """The token that ends the model's thinking; None where the vocabulary has none."""
        return self.fast.token_to_id("</think>")

    def piece(self, token: int) -> str:
        """What one token shows on its own: its text, byte fragments as ⟨E2⟩, special tokens by name."""
        return self._piece(token)

    def _make_piece(self, token: int) -> str:
        if token == self.mask_id:
            return "[MASK]"
        name = self.fast.id_to_token(token)
        if name is None:
            return f"⟨{token}⟩"
        if token in self._special:
            return name
        text = self.fast.decode([token], skip_special_tokens=False)
        raw = [_BYTES.get(character) for character in name]
        # Only a byte fragment decodes to the replacement character without being that character.
        if "\ufffd" not in text or bytes(b or 0 for b in raw) == text.encode():
            return text
        if any(byte is None for byte in raw):
            return name
        return "".join(chr(b) if 32 <= b < 127 else f"⟨{b:02X}⟩" for b in raw)


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    """A chat template in the settings that transformers renders it with."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _byte_characters() -> dict[str, int]:
    """The printable stand-ins that byte-level BPE uses for the 256 bytes (GPT-2's table), inverted."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in plain}
    spare = 256
    for byte in range(256):
        if byte not in plain:
            table[chr(spare)] = byte
            spare += 1
    return table


_BYTES = _byte_characters()
