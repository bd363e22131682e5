"""What our Gradio components have in common: an element that a module of ui/player mounts itself into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

PLAYER_FOLDER = Path(__file__).parent / "player"

# The page may live under a root path or inside a Space's frame, so only the path of Gradio's root is taken from
# the page's configuration, never its host.
BASE = "const base = new URL((window.gradio_config || {}).root || '/', window.location.href).pathname.replace(/[/]+$/, '');"

# Runs once per mount. The modules have come with the page's own script (ui/script.py).
_ON_LOAD = """
const root = element.querySelector('.nd-mount');
@BASE@
try {
  const { module } = window.__nemodiff || {};
  if (!module) throw new Error('the script of this page has not come');
  const mounted = module('@MODULE@.js').mount(root, @OPTIONS@);
  const read = () => { if (props.value) mounted.receive(props.value); };
  watch('value', read);
  @START@
} catch (error) {
  root.textContent = 'The @MODULE@ could not start (' + error.message + '). Reload the page; if it stays, ' +
    'check that the files under ui/player are complete.';
}
"""


class Mounted(gr.HTML):
    """A component that the browser draws. Its value is a message for it, a JSON string."""

    def postprocess(self, value: str | None) -> str | None:
        """Messages are data that nobody parses as HTML, so they pass as they are."""
        return value


def mounting(module: str, options: str, start: str = "read();", **words: str) -> dict[str, Any]:
    """What a component needs so that `module`.js mounts itself into it, with `options` (JavaScript).

    `start` is what happens then. Each of `words` takes the place of its name, as in `@ID@`.
    """
    script = _ON_LOAD.replace("@OPTIONS@", options).replace("@START@", start)
    for name, word in {"BASE": BASE, "MODULE": module, **words}.items():
        script = script.replace(f"@{name}@", word)
    # Gradio diffs this template on every update; being static, it leaves alone what is drawn inside.
    return {"html_template": '<div class="nd-mount"></div>', "js_on_load": script, "apply_default_css": False}
