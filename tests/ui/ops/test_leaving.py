"""A visitor who leaves takes everything with them."""

from __future__ import annotations

import re
import time

import pytest

from nemodiff_core.errors import NemodiffError
from tests.ui.ops.conftest import Live


def test_what_is_held_for_a_visitor_goes_when_they_leave(live: Live):
    held = live.page.state_holder.session_data
    with live.client.stream("GET", "gradio_api/heartbeat/leaves"):
        run = re.search(r'run\W+([\w-]{24})', live.run("leaves", prompt="hello"))[1]
        live.run("stays", prompt="hello")
        assert live.app.store.get(run).log and "leaves" in held
    end = time.monotonic() + 60
    while "leaves" in held and time.monotonic() < end:
        time.sleep(0.05)
    assert "leaves" not in held and "stays" in held
    with pytest.raises(NemodiffError):
        live.app.store.get(run)
