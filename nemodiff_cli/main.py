"""The commands. Each imports what it needs when it runs, so that `nemodiff --help` answers at once."""

from __future__ import annotations

import errno
import sys
from enum import Enum
from functools import partial
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
    quadratic_spec = "quadratic_spec"


Model = Annotated[Optional[str], Option("--model", "-m", help="Checkpoint folder or Hugging Face id; default: the bundled model.")]
Revision = Annotated[Optional[str], Option(help="Branch, tag or commit of a Hugging Face id.")]
Dtype = Annotated[Optional[str], Option(help="float32, bfloat16 or float16, or int8 or int4 for the weights alone; default: what suits the device.")]
Device = Annotated[Optional[str], Option(help="cpu, cuda, cuda:1, mps or auto; default: the best there is.")]
Json = Annotated[Optional[str], Option("--json", help="Save the trace here (.json or .json.gz); - prints it instead.")]
# Settings of every mode that fills blocks.
Block = Annotated[Optional[int], Option("--block-length", "-b", help="Positions filled together, 2 to 64.")]
Threshold = Annotated[Optional[float], Option(help="Confidence at which a cell commits, 0 to 1.")]
Steps = Annotated[Optional[int], Option(help="Even schedule: forwards per block.")]
Policy = Annotated[Optional[str], Option(help="threshold, schedule, entropy_budget, margin, leftmost or sampler.")]
EntropyBound = Annotated[Optional[float], Option(help="Policy entropy_budget: nats of a step's cells together.")]
MarginBound = Annotated[Optional[float], Option(help="Policy margin: lead of the first candidate over the second.")]
BlockForwards = Annotated[Optional[int], Option("--max-forwards-per-block", help="Denoising forwards a block may have.")]
ReviseBound = Annotated[Optional[float], Option(help="Causal probability below which a token is written again.")]
ReviseRank = Annotated[Optional[int], Option(help="Or: the causal pass ranks it so low; 1 is everything but its first choice.")]
RemaskBound = Annotated[Optional[float], Option(help="Reopen a cell once its block gives it less than this probability.")]


def _given(**fields: object) -> dict[str, object]:
    """Only what was asked for: a knob that does nothing in a mode stays at its default."""
    return {name: value for name, value in fields.items() if value is not None}


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
    also: Annotated[Optional[list[str]], Option("--also", help="Another checkpoint to offer; may be given several times.")] = None,
    keep_prompts: Annotated[bool, Option("--keep-prompts", help="Store the prompts of blind races with their votes.")] = False,
    cluster: Annotated[bool, Option("--cluster", help="Decode on Ray Serve replicas, one a GPU; without GPUs, two on the CPU.")] = False,
    replicas: Annotated[Optional[str], Option(help="How many: 2, or 1-8 for as many as are needed, or 0 for those that the cluster runs already.")] = None,
    ray_address: Annotated[Optional[str], Option(help="The cluster to join, as ray start has it; auto for this machine's node. Default: a cluster of this machine alone.")] = None,
) -> None:
    """Open the web app."""
    from ui.app import ServeSettings, launch
    from ui.loader import ModelChoice

    if not cluster and (replicas or ray_address):
        raise NemodiffError("--replicas and --ray-address belong to --cluster; give it.")
    others = tuple(ModelChoice(source, None, dtype, device) for source in also or ())
    settings = ServeSettings(
        ModelChoice(model, revision, dtype, device), host, port, root_path, open_browser,
        extra_models=others, keep_prompts=keep_prompts,
    )  # fmt: skip
    if cluster:
        from nemodiff_cli.cluster import run_cluster

        run_cluster(settings, replicas, ray_address)
    else:
        launch(settings)


@app.command()
def decode(
    prompt: Annotated[list[str], Argument(help="What to ask; - reads it from standard input. Several are decoded as one batch.")],
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
    adapter: Annotated[Optional[bool], Option("--adapter/--no-adapter", help="Draft with the checkpoint's adapter, where it has one (linear_spec only).")] = None,
    verification: Annotated[Optional[str], Option(help="Rule for sampled drafts: match or ratio (linear_spec only).")] = None,
    adaptive_block: Annotated[
        Optional[bool], Option("--adaptive-block/--fixed-block", help="Block length from the recent acceptance (linear_spec only).")
    ] = None,
    max_thinking_tokens: Annotated[Optional[int], Option(help="Tokens of thought, after which </think> is written.")] = None,
    policy: Policy = None,
    entropy_bound: EntropyBound = None,
    margin_bound: MarginBound = None,
    max_forwards_per_block: BlockForwards = None,
    max_forwards: Annotated[Optional[int], Option(help="Forwards (NFE) of the whole answer, diffusion only.")] = None,
    revise_rounds: Annotated[Optional[int], Option(help="Rounds of revision a block may have, diffusion only.")] = None,
    revise_bound: ReviseBound = None,
    revise_rank: ReviseRank = None,
    remask_bound: RemaskBound = None,
    pin: Annotated[Optional[list[str]], Option(help="OFFSET=ID: a token that stays at that offset of the answer; repeat for several.")] = None,
    json_path: Json = None,
) -> None:
    """Decode a prompt and watch it in the terminal; several prompts share their forwards, and each has a trace of its own."""
    from nemodiff_cli.decode import check_target, run_batch, run_decode
    from nemodiff_core.request import parse_request

    fields = {
        "mode": mode.value,
        "chat": chat,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        "stop_at_eos": stop_at_eos,
        "candidates": candidates,
    } | _given(
        block_length=block_length,
        threshold=threshold,
        steps=steps,
        adapter=adapter,
        verification=verification,
        adaptive_block=adaptive_block,
        max_thinking_tokens=max_thinking_tokens,
        policy=policy,
        entropy_bound=entropy_bound,
        margin_bound=margin_bound,
        max_forwards_per_block=max_forwards_per_block,
        max_forwards=max_forwards,
        revise_rounds=revise_rounds,
        revise_bound=revise_bound,
        revise_rank=revise_rank,
        remask_bound=remask_bound,
        pins=_pins(pin) if pin else None,
    )
    # Mistakes are told before a model is loaded.
    requests = [parse_request({"prompt": sys.stdin.read() if text == "-" else text} | fields) for text in prompt]
    check_target(json_path)
    engine = _engine(model, revision, dtype, device)
    if len(requests) == 1:
        run_decode(requests[0], engine, json_path)
    else:
        run_batch(requests, engine, json_path)


def _pins(pairs: list[str]) -> list[tuple[int, int]]:
    try:
        return [(int(offset), int(token)) for offset, token in (pair.split("=") for pair in pairs)]
    except ValueError:
        raise NemodiffError("--pin wants OFFSET=ID, two whole numbers; for example --pin 12=345.") from None


@app.command()
def refine(
    draft: Annotated[str, Argument(help="The text to revise; - reads it from standard input.")],
    prompt: Annotated[str, Option("--prompt", "-p", help="What the text answers.")],
    keep: Annotated[Optional[list[str]], Option(help="A part of the draft that stays as it is; repeat for several.")] = None,
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    chat: Annotated[bool, Option("--chat/--plain", help="Wrap the prompt in the chat template, or take it as it is.")] = True,
    block_length: Block = None,
    revise_rounds: Annotated[Optional[int], Option(help="Rounds of revision a block may have.")] = None,
    revise_bound: ReviseBound = None,
    revise_rank: ReviseRank = None,
    threshold: Threshold = None,
    steps: Steps = None,
    policy: Policy = None,
    max_forwards_per_block: BlockForwards = None,
    max_new_tokens: Annotated[int, Option("--max-new-tokens", "-n", help="Longest text.")] = 512,
    candidates: Annotated[int, Option(help="Candidates recorded for every cell looked at, 0 to 16.")] = 0,
    json_path: Json = None,
) -> None:
    """Revise a text: what the causal pass doubts is written again, the rest stays."""
    from nemodiff_cli.decode import check_target
    from nemodiff_cli.fill import read_argument, run_refine

    fields = _given(
        draft=read_argument(draft),
        prompt=prompt,
        chat=chat,
        block_length=block_length,
        revise_rounds=revise_rounds,
        revise_bound=revise_bound,
        revise_rank=revise_rank,
        threshold=threshold,
        steps=steps,
        policy=policy,
        max_forwards_per_block=max_forwards_per_block,
        max_new_tokens=max_new_tokens,
        candidates=candidates,
    )
    check_target(json_path)
    run_refine(fields, keep or [], lambda: _engine(model, revision, dtype, device), json_path)


@app.command()
def infill(
    template: Annotated[Optional[str], Argument(help="Text with gaps: a ▢ for every token, or ▢{1,4}; - reads it from standard input.")] = None,
    prompt: Annotated[str, Option("--prompt", "-p", help="What the text answers.")] = "Fill in the gaps.",
    schema: Annotated[Optional[Path], Option(help="Instead of a template: a JSON Schema file, made into a skeleton.")] = None,
    longest: Annotated[int, Option(min=1, max=60, help="With --schema: the most tokens of a string.")] = 3,
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    chat: Annotated[bool, Option("--chat/--plain", help="Wrap the prompt in the chat template, or take it as it is.")] = True,
    block_length: Block = None,
    threshold: Threshold = None,
    steps: Steps = None,
    policy: Policy = None,
    max_forwards_per_block: BlockForwards = None,
    remask_bound: RemaskBound = None,
    max_new_tokens: Annotated[int, Option("--max-new-tokens", "-n", help="Longest text.")] = 512,
    candidates: Annotated[int, Option(help="Candidates recorded for every cell looked at, 0 to 16.")] = 0,
    json_path: Json = None,
) -> None:
    """Fill the gaps of a text, or of a JSON skeleton, with both sides of every gap in sight."""
    from nemodiff_cli.decode import check_target
    from nemodiff_cli.fill import read_argument, run_infill, schema_template

    if (template is None) == (schema is None):
        raise NemodiffError("give a template or --schema, one of them.")
    fields = _given(
        template=schema_template(schema, longest) if schema else read_argument(template),
        prompt=prompt,
        chat=chat,
        block_length=block_length,
        threshold=threshold,
        steps=steps,
        policy=policy,
        max_forwards_per_block=max_forwards_per_block,
        remask_bound=remask_bound,
        max_new_tokens=max_new_tokens,
        candidates=candidates,
    )
    check_target(json_path)
    run_infill(fields, lambda: _engine(model, revision, dtype, device), json_path)


@app.command()
def oracle(
    prompt: Annotated[Optional[str], Argument(help="What to ask; - reads it from standard input.")] = None,
    trace_path: Annotated[Optional[Path], Option("--trace", help="Instead of a prompt: a saved run of one commit a forward.")] = None,
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    chat: Annotated[bool, Option("--chat/--plain", help="Wrap the prompt in the chat template, or continue it as it is.")] = True,
    block_length: Annotated[Optional[int], Option("--block-length", "-b", help="Positions filled together, 2 to 64.")] = None,
    max_new_tokens: Annotated[Optional[int], Option("--max-new-tokens", "-n", help="Longest answer.")] = None,
    budget: Annotated[int, Option(min=0, help="Forwards of the search, per block.")] = 300,
    json_path: Annotated[Optional[str], Option("--json", help="Save the schedule as a trace (.json or .json.gz); - prints it instead.")] = None,
) -> None:
    """Find the fewest forwards that write the same answer: the speed of light."""
    from nemodiff_cli.decode import check_target
    from nemodiff_cli.oracle import run_oracle
    from nemodiff_core.request import parse_request
    from nemodiff_core.trace import Trace

    if (prompt is None) == (trace_path is None):
        raise NemodiffError("give a prompt or --trace, one of them.")
    knobs = {name: value for name, value in (("block_length", block_length), ("max_new_tokens", max_new_tokens)) if value is not None}
    if trace_path is not None and (knobs or not chat):
        raise NemodiffError("a recorded run keeps its settings; leave them out beside --trace.")
    if trace_path is not None:
        source = Trace.load(trace_path)
    else:
        source = parse_request({"prompt": sys.stdin.read() if prompt == "-" else prompt, "chat": chat} | knobs)
    check_target(json_path)
    run_oracle(source, lambda: _engine(model, revision, dtype, device), budget, json_path)


@app.command()
def regret(
    trace_path: Annotated[Path, Argument(metavar="TRACE", help="A saved run (.json or .json.gz).")],
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    json_path: Annotated[Optional[str], Option("--json", help="Save the trace with what was found (.json or .json.gz); - prints it instead.")] = None,
) -> None:
    """Find commits that were wrong, and tokens that the causal pass would not have written."""
    from nemodiff_cli.decode import check_target
    from nemodiff_cli.regret import run_regret
    from nemodiff_core.trace import Trace

    trace = Trace.load(trace_path)
    check_target(json_path)
    run_regret(trace, lambda: _engine(model, revision, dtype, device), json_path)


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


@app.command()
def train_adapter(
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    out: Annotated[Path, Option(help="Folder for the adapter.")] = Path("checkpoints/linear_spec_lora"),
    minutes: Annotated[Optional[float], Option(help="Time budget of the training itself.")] = None,
    rank: Annotated[Optional[int], Option(help="Rank of the update of every layer.")] = None,
    alpha: Annotated[Optional[float], Option(help="Scale of the update, times its rank.")] = None,
    block_length: Annotated[Optional[int], Option("--block-length", "-b", help="Positions drafted together, 2 to 64.")] = None,
    rows: Annotated[Optional[int], Option(help="Conversations per step.")] = None,
    lr: Annotated[Optional[float], Option(help="Learning rate.")] = None,
    prompts: Annotated[Optional[int], Option(help="Held-out prompts per task family that measure the acceptance.")] = None,
    seed: Annotated[Optional[int], Option(help="Seed of data, drafts and weights.")] = None,
) -> None:
    """Train a draft adapter for a checkpoint and measure its acceptance before and after."""
    from nemodiff_cli.train_adapter import run_train_adapter
    from nemodiff_core.training.draft_adapter import AdapterSettings

    asked = {
        "minutes": minutes, "rank": rank, "alpha": alpha, "block": block_length,
        "rows": rows, "lr": lr, "prompts": prompts, "seed": seed,
    }  # fmt: skip
    settings = AdapterSettings(**{name: value for name, value in asked.items() if value is not None})
    run_train_adapter(_engine(model, revision, dtype, device), out, settings)


@app.command()
def train_sampler(
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    out: Annotated[Path, Option(help="Folder for the sampler; sampler/ inside a checkpoint is found by itself.")] = Path("checkpoints/sampler"),
    prompts: Annotated[Optional[int], Option(help="Training prompts whose answers it learns from.")] = None,
    minutes: Annotated[Optional[float], Option(help="Time budget of the training itself.")] = None,
    block_length: Block = None,
    seed: Annotated[Optional[int], Option(help="Seed of data and weights.")] = None,
) -> None:
    """Train the learned sampler of a checkpoint: the network that says which cells are final."""
    from nemodiff_cli.train_sampler import run_train_sampler
    from nemodiff_core.training.sampler import SamplerSettings

    settings = SamplerSettings(**_given(prompts=prompts, minutes=minutes, block=block_length, seed=seed))
    run_train_sampler(_engine(model, revision, dtype, device), out, settings)


@app.command(name="eval")
def evaluate(
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    prompts: Annotated[int, Option(help="Held-out prompts per task family.")] = 50,
    seed: Annotated[int, Option(help="Which prompts.")] = 0,
    only: Annotated[Optional[list[str]], Option(help="Only settings whose name begins so, ar for example; repeat for several.")] = None,
    json_path: Annotated[Optional[Path], Option("--json", help="Save the report here.")] = None,
    markdown_path: Annotated[Optional[Path], Option("--markdown", help="Save the table here.")] = None,
) -> None:
    """Measure exact answers against budget for every mode."""
    from nemodiff_cli.evaluate import run_evaluate

    if prompts < 1:
        raise NemodiffError("--prompts must be at least 1.")
    run_evaluate(_engine(model, revision, dtype, device), prompts, seed, only or [], json_path, markdown_path)


@app.command()
def sweep(
    out: Annotated[Path, Option(help="Folder for rows and traces; the same command continues there.")],
    mode: Annotated[Optional[list[str]], Option(help="A decoder; repeat for several. Default: ar, diffusion, linear_spec.")] = None,
    block_length: Annotated[Optional[list[int]], Option("--block-length", "-b", help="Repeat for several.")] = None,
    threshold: Annotated[Optional[list[float]], Option(help="Repeat for several.")] = None,
    steps: Annotated[Optional[list[int]], Option(help="Repeat for several; one axis with the thresholds.")] = None,
    revise_rounds: Annotated[Optional[list[int]], Option(help="Repeat for several.")] = None,
    temperature: Annotated[Optional[list[float]], Option(help="Repeat for several.")] = None,
    max_new_tokens: Annotated[Optional[list[int]], Option("--max-new-tokens", "-n", help="Longest answer; default: 256.")] = None,
    knob: Annotated[Optional[list[str]], Option(help="NAME=VALUE: a value of any other setting; repeat for several.")] = None,
    prompts: Annotated[int, Option(help="Held-out prompts per task family.")] = 10,
    families: Annotated[Optional[list[str]], Option(help="Task families, repeated or with commas; default: all.")] = None,
    prompts_file: Annotated[Optional[Path], Option(help="Prompts from a text file instead, one a line, not graded.")] = None,
    seed: Annotated[int, Option(help="Which held-out prompts; a run's own seed is --knob seed=N.")] = 0,
    workers: Annotated[int, Option(help="Processes; each loads the model and computes with one thread.")] = 1,
    model: Model = None,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Run a grid of settings and show which of them no other one beats."""
    from nemodiff_cli.sweep import collect_knobs, collect_prompts, run_sweep
    from nemodiff_core.analysis.sweep import Source, make_grid
    from nemodiff_core.checkpoint import bundled_path

    named = {
        "mode": mode or ["ar", "diffusion", "linear_spec"],
        "block_length": block_length,
        "threshold": threshold,
        "steps": steps,
        "revise_rounds": revise_rounds,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens or [256],
    }
    grid = make_grid(collect_knobs(named, knob or []), collect_prompts(prompts_file, prompts, families or [], seed))
    run_sweep(Source(model or str(bundled_path()), revision, dtype, device), grid, out, workers)


@app.command()
def roofline(
    model: Model = None,
    revision: Revision = None,
    dtype: Annotated[Optional[str], Option(help="float32, bfloat16 or float16; default: the checkpoint's own.")] = None,
    device: Annotated[str, Option(help="A known device, h200 for example, or measure: probe this machine.")] = "measure",
    tpf: Annotated[Optional[list[float]], Option(help="Tokens per forward of diffusion; repeat for several. Default: 2, 3.")] = None,
    acceptance: Annotated[
        Optional[list[float]], Option(help="Acceptance length of self-speculation; repeat for several. Default: 4, 6.")
    ] = None,
    concurrency: Annotated[Optional[list[int]], Option(help="Streams at once; repeat for several. Default: 1, 8, 64.")] = None,
    block_length: Annotated[Optional[int], Option("--block-length", "-b", help="Default: the checkpoint's own.")] = None,
    context: Annotated[int, Option(help="Tokens in the cache of each stream.")] = 1024,
    traces: Annotated[Optional[list[Path]], Option(help="A trace, or a folder of them, to set beside the prediction.")] = None,
) -> None:
    """Predict the limits of speed of a checkpoint on a device, and where speculation stops paying."""
    from nemodiff_cli.roofline import run_roofline

    run_roofline(
        model,
        revision,
        dtype,
        device,
        tpf=tpf or [2.0, 3.0],
        acceptance=acceptance or [4.0, 6.0],
        streams=concurrency or [1, 8, 64],
        block_length=block_length,
        context=context,
        traces=traces or [],
    )


@app.command()
def info(
    model: Annotated[Optional[str], Argument(help="Checkpoint folder or Hugging Face id; default: the bundled model.")] = None,
    revision: Revision = None,
) -> None:
    """Describe a checkpoint: geometry, parameters, and where it fits in which --dtype. Downloads no weights."""
    from nemodiff_cli.info import run_info

    run_info(model, revision)


@app.command()
def export(
    traces: Annotated[list[Path], Argument(metavar="TRACE...", help="A saved run or race (.json or .json.gz); several files make a race.")],
    to: Annotated[Path, Option(help="What to write: .html plays anywhere offline; .gif, .mp4 or .csv.")],
    table: Annotated[Optional[str], Option(help="What a .csv holds: steps, tokens, cycles or metrics. Default: steps.")] = None,
    theme: Annotated[str, Option(help="Colours of a .gif or .mp4: light or dark.")] = "light",
) -> None:
    """Turn a saved run into a page that plays it, a film, or a table."""
    from nemodiff_cli.export import run_export

    run_export(traces, to, table, theme)


@app.command()
def bench(
    targets: Annotated[Optional[list[str]], Argument(metavar="[TARGET]...", help="player, page, trace, kernels, forward, decode, scale; default: all of these. By name only: crowd, soak.")] = None,
    model: Model = None,
    dtype: Dtype = None,
    device: Device = None,
    out: Annotated[Optional[Path], Option(help="Save the report here, and as Markdown beside it.")] = None,
    compare: Annotated[Optional[Path], Option(help="An older report: print the ratios new / old.")] = None,
    rounds: Annotated[int, Option(min=1, help="decode, trace: how often everything runs.")] = 5,
    prompts: Annotated[int, Option(min=1, help="decode, trace: held-out prompts of every task.")] = 1,
    max_new_tokens: Annotated[int, Option("--max-new-tokens", "-n", min=1, max=4096, help="decode, trace: longest answer.")] = 256,
    seconds: Annotated[float, Option(min=0, help="forward: for a geometry; scale: for a mode. What takes longer is unmeasured.")] = 60.0,
    geometry: Annotated[Optional[list[str]], Option(help="forward: tiny, 3B, 8B or 14B; default: all that fit.")] = None,
    compiles: Annotated[bool, Option("--compile", help="forward: beside torch.compile, whose start costs half a minute.")] = False,
    visitors: Annotated[int, Option(min=1, max=200, help="crowd: how many ask in the same moment.")] = 50,
    runs: Annotated[int, Option(min=1, help="soak: how many runs.")] = 2000,
) -> None:
    """Measure what must be fast on this machine: decoding, its forwards, recording, growth, the kernels, the player, the page, a crowd."""
    from nemodiff_cli.bench import Ask, run_bench

    ask = Ask(lambda: _engine(model, None, dtype, device), device, rounds, prompts, max_new_tokens, seconds, geometry or (), compiles, visitors, runs, model)
    run_bench(targets or [], ask, out, compare)


@app.command()
def deploy(
    space: Annotated[Optional[str], Option(help="OWNER/NAME of the Hugging Face Space to create or update.")] = None,
    preset: Annotated[Optional[str], Option(help="Preset of spaces.yml that the Space runs; default: cpu-basic.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="List what would be uploaded, and upload nothing.")] = False,
    out: Annotated[Optional[Path], Option(help="Leave what is uploaded in this new folder.")] = None,
    private: Annotated[bool, Option("--private", help="Create a Space that only its owner sees.")] = False,
    write: Annotated[bool, Option("--write", help="Make README.md's front matter and requirements.txt from spaces.yml and what is installed.")] = False,
    check: Annotated[bool, Option("--check", help="Say whether they agree.")] = False,
) -> None:
    """Put the app on a Hugging Face Space, or keep the files that describe it in order."""
    from nemodiff_cli.deploy import run_check, run_deploy, run_write

    if [bool(space), write, check].count(True) != 1:
        raise NemodiffError("give one of --space OWNER/NAME, --write and --check.")
    if not space and (preset or dry_run or out or private):
        raise NemodiffError("--preset, --dry-run, --out and --private belong to --space; give it.")
    if space:
        run_deploy(space, preset, dry_run, out, private)
    elif write:
        run_write()
    else:
        run_check()


@app.command(hidden=True)
def record(
    model: Model = None,
    prompt: Annotated[Optional[str], Option(help="What to ask; default: the opening prompt.")] = None,
    lessons_only: Annotated[bool, Option("--lessons-only", help="Leave alone what the page opens on.")] = False,
) -> None:
    """Decode the recorded runs again: those that the page opens on, and those of the lessons and the gallery (ui/recorded)."""
    from ui import gallery, lessons, opening

    engine = _engine(model, None, None, None)
    kinds = [] if lessons_only else [partial(opening.record, engine, prompt)]
    for record in (*kinds, partial(gallery.record, engine)):
        for path in record():
            typer.echo(f"{path}  {path.stat().st_size / 1024:.0f} KB")
    if problems := lessons.check():
        raise NemodiffError("the lessons no longer hold: " + " ".join(problems))


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
        if error.errno == errno.ENOSPC:
            _fail("the disk is full; free some space and run the same again, what was saved before is still there.")
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}; check the path and its permissions.")


def _fail(sentence: str, status: int = 2) -> None:
    print("nemodiff: " + " ".join(sentence.split()), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    run()
