"""The commands. Each imports what it needs when it runs, so that `nemodiff --help` answers at once."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer
from typer import Argument, Option

import nemodiff_core
from nemodiff_core.errors import NemodiffError

app = typer.Typer(
    name="nemodiff",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Mode(str, Enum):
    """The decoders."""

    ar = "ar"
    diffusion = "diffusion"
    linear_spec = "linear_spec"


Model = Annotated[Optional[str], Option("--model", "-m", help="Checkpoint folder or Hugging Face id; default: the bundled model.")]
Revision = Annotated[Optional[str], Option(help="Branch, tag or commit of a Hugging Face id.")]
Dtype = Annotated[Optional[str], Option(help="float32, bfloat16 or float16; default: what suits the device.")]
Device = Annotated[Optional[str], Option(help="cpu, cuda, cuda:1, mps or auto; default: the best there is.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"nemodiff {nemodiff_core.__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Watch a tri-mode language model write: one token at a time, block by block, or by speculating on itself."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def serve(
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    host: Annotated[Optional[str], Option(help="Address to listen on; 0.0.0.0 for every network.")] = None,
    port: Annotated[Optional[int], Option(help="Port; default: the first free one from 7860.")] = None,
    root_path: Annotated[Optional[str], Option(help="Path under which a reverse proxy shows the app.")] = None,
    open_browser: Annotated[bool, Option("--open", help="Open a browser window.")] = False,
) -> None:
    """Open the web app."""
    from ui.app import ServeSettings, launch
    from ui.loader import ModelChoice

    launch(ServeSettings(ModelChoice(model, revision, dtype, device), host, port, root_path, open_browser))


@app.command()
def decode(
    prompt: Annotated[str, Argument(help="What to ask; - reads it from standard input.")],
    mode: Annotated[Mode, Option(help="The decoder.")] = Mode.diffusion,
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    chat: Annotated[bool, Option("--chat/--plain", help="Wrap the prompt in the chat template, or continue it as it is.")] = True,
    block_length: Annotated[Optional[int], Option("--block-length", "-b", help="Positions filled together, 2 to 64.")] = None,
    threshold: Annotated[Optional[float], Option(help="Confidence at which a cell commits, 0 to 1.")] = None,
    steps: Annotated[Optional[int], Option(help="Even schedule: forwards per block (diffusion only).")] = None,
    temperature: Annotated[float, Option(help="0 takes the most likely token.")] = 0.0,
    top_p: Annotated[float, Option(help="Nucleus to sample from.")] = 1.0,
    seed: Annotated[int, Option(help="Seed of the run's own random numbers.")] = 0,
    max_new_tokens: Annotated[int, Option("--max-new-tokens", "-n", help="Longest answer.")] = 128,
    stop_at_eos: Annotated[bool, Option("--stop-at-eos/--ignore-eos", help="Stop at the end token, or write on.")] = True,
    candidates: Annotated[int, Option(help="Candidates recorded for every cell looked at, 0 to 16.")] = 0,
    json_path: Annotated[Optional[str], Option("--json", help="Save the trace here (.json or .json.gz); - prints it instead.")] = None,
) -> None:
    """Decode one prompt and watch it in the terminal."""
    from nemodiff_cli.decode import check_target, run_decode
    from nemodiff_core.request import parse_request

    # Only what was asked for goes into the request: a knob that does nothing in a mode stays at its default.
    fields = {
        "prompt": sys.stdin.read() if prompt == "-" else prompt,
        "mode": mode.value,
        "chat": chat,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        "stop_at_eos": stop_at_eos,
        "candidates": candidates,
    }
    optional = {"block_length": block_length, "threshold": threshold, "steps": steps}
    fields |= {name: value for name, value in optional.items() if value is not None}
    request = parse_request(fields)  # mistakes are told before a model is loaded
    check_target(json_path)
    run_decode(request, _engine(model, revision, dtype, device), json_path)


@app.command()
def train(
    out: Annotated[Path, Option(help="Folder for the checkpoint.")] = Path("checkpoints/tiny"),
    minutes: Annotated[Optional[float], Option(help="Time budget; default: the preset's.")] = None,
    preset: Annotated[str, Option(help="cpu or gpu.")] = "cpu",
    resume: Annotated[bool, Option("--resume", help="Continue an interrupted run in the same folder.")] = False,
    start: Annotated[Optional[str], Option("--from", help="Checkpoint whose weights the run begins with.")] = None,
    new_vocabulary: Annotated[bool, Option("--new-vocabulary", help="With --from: learn the tokenizer anew.")] = False,
    seed: Annotated[Optional[int], Option(help="Seed of data, noise and weights.")] = None,
    threads: Annotated[Optional[int], Option(help="Processor threads; default: all cores.")] = None,
) -> None:
    """Train the bundled model, from nothing or from another checkpoint of the family."""
    from nemodiff_cli.train import run_train

    run_train(out, preset=preset, minutes=minutes, resume=resume, start=start, new_vocabulary=new_vocabulary, seed=seed, threads=threads)


@app.command(name="eval")
def evaluate(
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    prompts: Annotated[int, Option(help="Held-out prompts per task family.")] = 50,
    seed: Annotated[int, Option(help="Which prompts.")] = 0,
    json_path: Annotated[Optional[Path], Option("--json", help="Save the report here.")] = None,
    markdown_path: Annotated[Optional[Path], Option("--markdown", help="Save the table here.")] = None,
) -> None:
    """Measure exact answers against budget for every mode."""
    from nemodiff_cli.evaluate import run_evaluate

    if prompts < 1:
        raise NemodiffError("--prompts must be at least 1.")
    run_evaluate(_engine(model, revision, dtype, device), prompts, seed, json_path, markdown_path)


@app.command()
def info(
    model: Annotated[Optional[str], Argument(help="Checkpoint folder or Hugging Face id; default: the bundled model.")] = None,
    revision: Revision = None,
    dtype: Dtype = None,
) -> None:
    """Describe a checkpoint: geometry, parameters, size, and whether it fits this machine."""
    from nemodiff_cli.info import run_info

    run_info(model, revision, dtype)


@app.command(hidden=True)
def record(
    model: Model = None,
    prompt: Annotated[Optional[str], Option(help="What to ask; default: the opening prompt.")] = None,
) -> None:
    """Decode the runs again that the page opens on (ui/recorded)."""
    from ui.opening import record as record_opening

    for path in record_opening(_engine(model, None, None, None), prompt):
        typer.echo(f"{path}  {path.stat().st_size / 1024:.0f} KB")


def _engine(model: str | None, revision: str | None, dtype: str | None, device: str | None):  # -> Engine
    from nemodiff_core.checkpoint import bundled_path, load
    from nemodiff_core.engine import Engine
    from nemodiff_core.placement import set_threads

    checkpoint = load(model or bundled_path(), dtype=dtype, device=device, revision=revision)
    set_threads(checkpoint.model.parameter_count())
    return Engine(checkpoint)


def run() -> None:
    """The console script: an error is one line on standard error and exit status 2."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except NemodiffError as error:
        _fail(str(error))
    except typer.TyperException as error:
        _fail(f"{error.format_message().rstrip('.')}; see nemodiff --help.")
    except KeyboardInterrupt:
        _fail("stopped.", status=130)
    except BrokenPipeError:  # `nemodiff decode … --json - | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}; check the path and its permissions.")


def _fail(sentence: str, status: int = 2) -> None:
    print("nemodiff: " + " ".join(sentence.split()), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    run()
