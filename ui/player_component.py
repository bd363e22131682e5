"""The player as a Gradio component: Python hands it messages, the browser does everything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import gradio as gr
from gradio.events import EventListener

PLAYER_FOLDER = Path(__file__).parent / "player"
PLAYER_ROUTE = "/nemodiff/player"

# Gradio diffs this template on every update; being static, it leaves the player's own DOM alone.
_TEMPLATE = '<div class="nd-mount" data-nemodiff="player"></div>'

# Runs once per mount. The page may live under a root path or inside a Space's frame, so only the path
# of Gradio's root is taken from the page's configuration, never its host.
_ON_LOAD = """
const root = element.querySelector('[data-nemodiff="player"]');
const base = new URL((window.gradio_config || {}).root || '/', window.location.href).pathname.replace(/[/]+$/, '');
import(base + '@ROUTE@/player.js').then((module) => {
  const player = module.mount(root, {
    id: '@ID@',
    base,
    resync: (query) => server.resync(query),
    // Gradio knows an event by its quoted name: 'fork', 'explain'.
    send: (name, data) => trigger(name, data),
    vote: (ballot) => server.vote(ballot),
    voted: () => trigger('voted'),
    next: (run) => trigger('nextprompt', { run }),
  });
  window.__nemodiff.handles = { ...window.__nemodiff.handles, '@ID@': player };
  const query = new URLSearchParams(window.location.search);
  const whole = (name) => (/^[0-9]{1,6}$/.test(query.get(name) || '') ? Number(query.get(name)) : undefined);
  const read = () => { if (props.value) player.receive(props.value); };
  watch('value', read);
  if (query.get('trace')) {
    // Links count steps and cells from one, as the page does.
    const less = (n) => (n === undefined ? undefined : n - 1);
    player.open('recorded-' + query.get('trace'), { lane: less(whole('lane')), step: less(whole('step')), cell: less(whole('cell')), panel: query.get('panel') || undefined });
  } else {
    read();
  }
  document.dispatchEvent(new CustomEvent('nd-ready', { detail: '@ID@' }));
}).catch((error) => {
  root.textContent = 'The player could not start (' + error.message + '). Reload the page; if it stays, ' +
    'check that the files under ui/player are complete.';
});
"""


class Player(gr.HTML):
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
        super().__init__(
            value,
            html_template=_TEMPLATE,
            js_on_load=_ON_LOAD.replace("@ROUTE@", PLAYER_ROUTE).replace("@ID@", elem_id),
            apply_default_css=False,
            elem_id=elem_id,
            server_functions=[answer, ballot],
            **gradio,
        )

    def raised(self, name: str) -> Any:
        """An event that the browser raises with `trigger(name)`, as `gr.on` takes it."""
        return MethodType(EventListener(name).listener, self)

    def postprocess(self, value: str | None) -> str | None:
        """Messages are data that nobody parses as HTML, so they pass as they are."""
        return value

    def api_info(self) -> dict[str, Any]:
        """Messages are text, so that other clients of the API can read them as well."""
        return {"type": "string", "description": "one message of the nemodiff live protocol, as JSON"}


def stylesheet() -> str:
    """All stylesheets of the player."""
    return "\n".join(path.read_text("utf-8") for path in sorted(PLAYER_FOLDER.glob("*.css")))
