"""The player as a Gradio component: Python hands it messages, the browser does everything else."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from gradio.events import EventListener

from ui.mounted import PLAYER_FOLDER, Mounted, mounting

_OPTIONS = """{
    id: '@ID@',
    base,
    resync: (query) => server.resync(query),
    // Gradio knows an event by its quoted name: 'fork', 'explain'.
    send: (name, data) => trigger(name, data),
    vote: (ballot) => server.vote(ballot),
    voted: () => trigger('voted'),
    next: (run) => trigger('nextprompt', { run }),
  }"""
_START = """window.__nemodiff.handles = { ...window.__nemodiff.handles, '@ID@': mounted };
  const query = new URLSearchParams(window.location.search);
  const whole = (name) => (/^[0-9]{1,6}$/.test(query.get(name) || '') ? Number(query.get(name)) : undefined);
  if (query.get('trace')) {
    // Links count steps and cells from one, as the page does.
    const less = (n) => (n === undefined ? undefined : n - 1);
    mounted.open('recorded-' + query.get('trace'), { lane: less(whole('lane')), step: less(whole('step')), cell: less(whole('cell')), panel: query.get('panel') || undefined });
  } else {
    read();
  }
  document.dispatchEvent(new CustomEvent('nd-ready', { detail: '@ID@' }));"""


class Player(Mounted):
    """The client-rendered player. Its value is always one message of the live protocol, as a JSON string."""

    def __init__(
        self,
        value: str | None = None,
        *,
        elem_id: str,
        resync: Callable[[Any], dict[str, Any]],
        vote: Callable[[Any], dict[str, Any]],
        **gradio: Any,
    ) -> None:
        # Gradio builds the component again when an update touches it, with arguments of its own.
        def answer(query: Any) -> dict[str, Any]:
            return resync(query)

        def ballot(query: Any) -> dict[str, Any]:
            return vote(query)

        # Gradio marks the functions and names them for the browser, which bound methods do not allow.
        answer.__name__, ballot.__name__ = "resync", "vote"
        made = {**mounting("player", _OPTIONS, _START, ID=elem_id), "server_functions": [answer, ballot], **gradio}
        super().__init__(value, elem_id=elem_id, **made)

    def raised(self, name: str) -> Any:
        """An event that the browser raises with `trigger(name)`, as `gr.on` takes it."""
        return MethodType(EventListener(name).listener, self)

    def api_info(self) -> dict[str, Any]:
        """Messages are text, so that other clients of the API can read them as well."""
        return {"type": "string", "description": "one message of the nemodiff live protocol, as JSON"}


def stylesheet() -> str:
    """All stylesheets of the player."""
    return "\n".join(path.read_text("utf-8") for path in sorted(PLAYER_FOLDER.glob("*.css")))
