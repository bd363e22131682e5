"""Starts the web app; this is also the file that Hugging Face Spaces runs. Arguments, nothing else."""

from __future__ import annotations

import argparse

from ui.app import ServeSettings, launch
from ui.loader import ModelChoice


def arguments() -> ServeSettings:
    """What was asked for on the command line; without arguments, the bundled model on Gradio's own port."""
    parser = argparse.ArgumentParser(description="nemodiff: watch a tri-mode language model write.")
    parser.add_argument("--model", help="checkpoint folder or Hugging Face id; default: the bundled model")
    parser.add_argument("--revision", help="branch, tag or commit of a Hugging Face id")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16, or int8 or int4 for the weights alone; default: what suits the device")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    parser.add_argument("--host", help="address to listen on; 0.0.0.0 for every network")
    parser.add_argument("--port", type=int, help="port to listen on; default: the first free one from 7860")
    parser.add_argument("--root-path", help="path under which a reverse proxy shows the app")
    parser.add_argument("--open", action="store_true", help="open a browser window")
    given = parser.parse_args()
    model = ModelChoice(given.model, given.revision, given.dtype, given.device)
    return ServeSettings(model, given.host, given.port, given.root_path, given.open)


if __name__ == "__main__":
    launch(arguments())
