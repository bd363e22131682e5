"""Choosing a model: what the host offers, or any of the hub where it allows that, loaded while the old one answers on."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from nemodiff_core.errors import NemodiffError

from ui.loader import Loader, count
from ui.models import Models
from ui.parts import QUIET

OTHER = "Another model of Hugging Face"
# The panel is opened and closed in the browser; the attribute decides (theme.py).
_TURN = """
() => {
  const open = document.documentElement.toggleAttribute('data-nd-models');
  document.getElementById('nd-model-change').setAttribute('aria-expanded', String(open));
}
"""
_CLOSED = "() => document.getElementById('nd-model-change')?.setAttribute('aria-expanded', 'false')"


class Picker:
    """A button beside the status line, and the panel it opens. `choice` is the name of the visitor's model in `Models`.

    A host with one model shows none of it.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self.choice = gr.State(models.names[0])
        self.wanted = gr.State("")  # the name of the model that the visitor has asked for and waits for
        self.shown = models.any_model or len(models.names) > 1

    def button(self) -> None:
        """Make the button that opens the panel."""
        if self.shown:
            self.change = gr.Button("Models", size="sm", elem_id="nd-model-change")

    def panel(self) -> None:
        """Make the panel."""
        if not self.shown:
            return
        models = self.models
        with gr.Column(elem_id="nd-models", elem_classes="nd-card"):
            with gr.Row(elem_id="nd-model-row"):
                names = [*models.names, *([OTHER] if models.any_model else [])]
                self.name = gr.Dropdown(names, value=names[0], label="Model", filterable=False, elem_id="nd-model")
                self.hub_id = gr.Textbox(
                    "", label="Hugging Face id", placeholder="owner/name", max_lines=1, max_length=96, visible=False, elem_id="nd-model-id"
                )
                self.use = gr.Button("Use this model", variant="primary", interactive=False, elem_id="nd-model-use")
                self.cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="nd-model-cancel")
            self.about = gr.HTML(about(models, names[0]), elem_id="nd-model-about")
            self.said = gr.HTML("", elem_id="nd-model-said")
        self.timer = gr.Timer(0.4, active=False)

    def connect(self, page: gr.Blocks, status: Any, line: gr.HTML) -> None:
        """Wire the panel; `status(name)` is what the status `line` says of a model."""
        if not self.shown:
            return
        self.change.click(None, None, None, js=_TURN, **QUIET)
        page.load(None, None, None, js=_CLOSED, **QUIET)
        self.status = status
        seen = [self.name.input, self.change.click]
        gr.on(seen, self.look, [self.name, self.choice, self.wanted], [self.hub_id, self.about, self.use, self.said], **QUIET)
        outcome = [self.choice, self.wanted, self.timer, self.use, self.cancel, self.about, self.said, line]
        gr.on([self.use.click, self.hub_id.submit], self.ask, [self.name, self.hub_id, self.choice, self.wanted], outcome, **QUIET)
        self.timer.tick(self.follow, [self.name, self.choice, self.wanted], outcome, trigger_mode="once", **QUIET)
        self.cancel.click(self.give_up, [self.name, self.choice, self.wanted], outcome, **QUIET)

    # -- what the browser asks for --------------------------------------------------------------------

    def look(self, name: str, choice: str, wanted: str) -> list[Any]:
        """What there is to know of the model picked from the list, and whether it can be asked for."""
        other = name == OTHER
        free = not wanted and (other or name != choice)
        return [gr.update(visible=other), about(self.models, name), gr.update(interactive=free), gr.skip() if wanted else ""]

    def ask(self, name: str, hub_id: str, choice: str, wanted: str, request: gr.Request) -> list[Any]:
        """Use the picked model, loading it first if need be."""
        if wanted:
            return self.follow(name, choice, wanted, request)
        try:
            asked = self.models.add(hub_id or "") if name == OTHER else name
            self.models.want(asked, request.session_hash)
        except NemodiffError as error:
            return self._outcome(name, choice, "", _words(f"{error} {_stays(choice)}", failed=True))
        return self.follow(name, choice, asked, request)

    def follow(self, name: str, choice: str, wanted: str, request: gr.Request) -> list[Any]:
        """How far the model is that the visitor waits for; once it is there, it is theirs."""
        if not wanted:
            return self._outcome(name, choice, "", gr.skip())
        try:
            loader = self.models.loader(wanted)
            if loader.state == "absent":  # others have cancelled, or it made room again at once
                loader = self.models.want(wanted, request.session_hash)
        except NemodiffError as error:
            return self._outcome(name, choice, "", _words(f"{error} {_stays(choice)}", failed=True))
        if loader.state == "loading":
            said = f"{loader.status()} {_stays(choice)}"
            return self._outcome(name, choice, wanted, _words(said, loader.share))
        self.models.leave(request.session_hash)
        if loader.state == "ready":
            return self._outcome(name, wanted, "", _words(f"{_capital(wanted)} answers your runs from now on."))
        return self._outcome(name, choice, "", _words(f"{wanted}: {loader.problem} {_stays(choice)}", failed=True))

    def give_up(self, name: str, choice: str, wanted: str, request: gr.Request) -> list[Any]:
        """Wait for the model no longer."""
        self.models.leave(request.session_hash)
        return self._outcome(name, choice, "", _words(f"{_capital(wanted)} is not loaded: it was cancelled. {_stays(choice)}") if wanted else gr.skip())

    def _outcome(self, name: str, choice: str, wanted: str, said: Any) -> list[Any]:
        free = not wanted and (name == OTHER or name != choice)
        seen = wanted or (choice if name == OTHER else name)
        return [
            choice, wanted, gr.Timer(active=bool(wanted)), gr.update(interactive=free), gr.update(interactive=bool(wanted)),
            about(self.models, seen), said, self.status(choice),
        ]  # fmt: skip


def about(models: Models, name: str) -> str:
    """What a model is, as HTML: what the operator says of it, its licence, where it comes from, its size once that is known."""
    if name == OTHER:
        return "<p>A model of this family by its id, such as nvidia/Nemotron-Labs-Diffusion-3B; its licence is that of its model card.</p>"
    try:
        loader = models.loader(name)
    except NemodiffError as error:
        return f"<p>{html.escape(str(error))}</p>"
    lines = [loader.choice.about, " · ".join(_facts(loader))]
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)


def _facts(loader: Loader) -> list[str]:
    facts = [f"Licence: {loader.licence or ('not stated' if loader.need else 'on its model card')}", f"Source: {loader.choice.origin}"]
    if loader.about:
        facts += [f"{count(loader.about['parameters'])} parameters", loader.about["dtype"]]
    elif loader.choice.dtype:
        facts.append(loader.choice.dtype)
    there = {"ready": "in memory", "loading": "loading"}.get(loader.state, "not in memory")
    return [*facts, there]


def _stays(choice: str) -> str:
    return f"{_capital(choice)} goes on answering."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _words(sentence: str, share: float | None = None, failed: bool = False) -> str:
    if share is not None:  # no live region: it changes twice a second, and would be read out as often
        return f'<progress max="1" value="{share:.3f}" aria-label="Loading"></progress><p>{html.escape(sentence)}</p>'
    kind = ' class="nd-failed" role="alert"' if failed else ' role="status"'
    return f"<p{kind}>{html.escape(sentence)}</p>"
