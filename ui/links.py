"""Links that carry a view and its settings; a prompt only where its writer asked for that.

`?view=refine&mode=diffusion&threshold=0.7&prompt=…`. A value that is the usual one is left out. Which recorded
run, step and cell a link opens (`trace`, `lane`, `step`, `cell`, `panel`) is the browser's affair (player_component).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemodiff_core.errors import NemodiffError, RequestError
from nemodiff_core.request import Limits

from ui.controls import GENERAL, general_fields
from ui.mode_form import DEFAULTS, ModeForm
from ui.refine import request


@dataclass(frozen=True)
class Link:
    """What a link asks for; None or empty where it says nothing."""

    view: str | None
    prompt: str | None
    general: dict[str, Any]
    form: dict[str, Any]


def read(query: Mapping[str, str], views: Sequence[str], limits: Limits) -> Link:
    """The link behind a query string. Raises NemodiffError for settings that no run could have."""
    view = next((name for name in views if name.lower() == query.get("view")), None)
    prompt = query.get("prompt") or None
    general = {name: _value(name, query[name], usual) for name, usual in GENERAL.items() if name in query}
    form = {name: _value(name, query[name], usual) for name, usual in DEFAULTS.items() if name in query}
    if general or form or prompt:
        try:
            settings = {**GENERAL, **general}
            fields = general_fields(prompt or "-", list(settings.values()))
            request(fields, {**DEFAULTS, **form}).check(limits)
        except RequestError as error:
            raise NemodiffError(f"This link cannot be used as it is: {error}") from error
    return Link(view, prompt, general, form)


def _value(name: str, text: str, usual: Any) -> Any:
    if isinstance(usual, bool):
        return text == "true"
    if isinstance(usual, str):
        return text
    try:
        return float(text)
    except ValueError:
        raise NemodiffError(f"This link cannot be used as it is: {name} is “{text[:40]}” and no number.") from None


# Writes the link in the browser, from what the form holds, and puts it on the clipboard.
WRITE = (
    """
async (view, withPrompt, prompt, ...values) => {
  const usual = %s;
  const query = new URLSearchParams();
  query.set('view', view.toLowerCase());
  if (view === 'Refine') Object.entries(usual).forEach(([name, value], i) => {
    if (values[i] !== value && values[i] !== null) query.set(name, String(values[i]));
  });
  if (withPrompt && prompt) query.set('prompt', prompt);
  const player = (window.__nemodiff || { handles: {} }).handles['nd-player'];
  const seen = player ? player.selection : {};
  if (seen.run && seen.run.startsWith('recorded-')) {
    query.set('trace', seen.run.slice('recorded-'.length));
    if (seen.lane > 0) query.set('lane', String(seen.lane + 1));
    if (seen.step >= 0) query.set('step', String(seen.step + 1));
    if (seen.position !== null) query.set('cell', String(seen.position - player.store.lanes[seen.lane].start + 1));
    if (seen.panel) query.set('panel', seen.panel);
  }
  const address = new URL(window.location.href);
  address.search = query.toString();
  const p = document.createElement('p');
  p.className = 'nd-note';
  p.setAttribute('role', 'status');
  try {
    await navigator.clipboard.writeText(address.href);
    p.textContent = 'Copied: ' + address.href;
  } catch {
    p.textContent = 'Copy this link: ' + address.href;
  }
  return p.outerHTML;
}
"""
    % json.dumps({**GENERAL, **DEFAULTS})
)
