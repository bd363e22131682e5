"""What Gradio keeps of every visitor, made small.

For its deep links, which this app does not offer, it copies the settings of every component for each visitor: 1 MB, and
a sixth of a second during which the server answers nobody. A class that comes at once would wait for that.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.state_holder import SessionState

_begin = SessionState.__init__


def keep_little() -> None:
    """From now on, sessions hold the values of `gr.State` and of components that were changed, and no copies."""

    def begin(self: SessionState, blocks: gr.Blocks) -> None:
        _begin(self, SimpleNamespace(default_config=blocks.default_config, blocks={}))

    def nothing(self: SessionState, *_: Any) -> None:
        """There is no copy to keep up."""

    SessionState.__init__, SessionState._update_config, SessionState._update_value_in_config = begin, nothing, nothing


def drop(page: gr.Blocks, visitor: str) -> None:
    """Take away what is held for a visitor who has left."""
    holder = page.state_holder
    with holder.lock:
        holder.session_data.pop(visitor, None)
        holder.time_last_used.pop(visitor, None)
