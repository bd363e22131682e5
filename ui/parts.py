"""Small things that every form uses."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

QUIET = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}  # handlers that take no device

# An accordion's state when the page has loaded: closed on a phone, where it would stand before the stage.
FOLD_ON_PHONES = "() => ({ __type__: 'update', open: window.innerWidth > 900 })"


def slider(low: float, high: float, **settings: Any) -> gr.Slider:
    """A slider without Gradio's reset button, which has no room beside a label."""
    return gr.Slider(low, high, buttons=[], **settings)


def whole(value: Any) -> Any:
    """Sliders answer 16.0 as readily as 16; anything else is left for the request's own check."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_object(sent: Any) -> dict[str, Any]:
    """What a browser sent, which should be an object; anything else says nothing."""
    return sent if isinstance(sent, dict) else {}


def notice(sentence: str, calm: bool = False) -> str:
    """One sentence in the page's notice area."""
    return f'<p class="{"nd-note" if calm else "nd-error"}" role="{"status" if calm else "alert"}">{html.escape(sentence)}</p>'
