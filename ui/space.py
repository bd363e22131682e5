"""What Gradio does by itself on a Hugging Face Space, and a host for strangers does without."""

from __future__ import annotations

import gradio as gr
from gradio import http_server


def keep_to_itself(page: gr.Blocks) -> None:
    """Let the page ask no other host, and the process open no second door; to be called before `page.launch`."""
    page.space_id = None  # with it, Gradio's script asks huggingface.co who owns the Space
    # On a Space, Gradio's server starts one more, on every network and without a password, which takes new source
    # code for the app and runs it: the hub's editor uses it.
    http_server.get_space = lambda: None
