"""`nemodiff roofline`: the most tokens/s a checkpoint can write on a device, by mode and concurrency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from nemodiff_cli.sweep import wide_console
from nemodiff_core.analysis.probe import measure_device
from nemodiff_core.analysis.roofline import (
    Device,
    Geometry,
    break_even,
    floor,
    known_device,
    load_of,
    overlay,
    streams_that_fit,
    tokens_per_second,
    tpf_of,
)
from nemodiff_core.checkpoint import bundled_path, find, read_config
from nemodiff_core.errors import NemodiffError
from nemodiff_core.placement import parse_device
from nemodiff_core.trace import Trace

MEASURE = "measure"


def run_roofline(
    model: str | None,
    revision: str | None,
    dtype: str | None,
    device: str,
    *,
    tpf: Sequence[float],
    acceptance: Sequence[float],
    streams: Sequence[int],
    block_length: int | None,
    context: int,
    traces: Sequence[Path] = (),
) -> None:
    """Print the prediction, and measured forwards beside it where traces are given. Raises NemodiffError."""
    chosen = None if device == MEASURE else known_device(device)
    config = read_config(find(model or bundled_path(), revision, weights=False).path)
    if chosen is None and dtype is None and parse_device(None).type == "cpu":
        dtype = "float32"  # as a checkpoint is loaded on a CPU
    geometry, block_length = Geometry.of(config, dtype), block_length or config.block_size
    _check(tpf, acceptance, streams, block_length, context)
    if chosen is None:
        chosen = measure_device(geometry.dtype, working_set=geometry.weight_bytes)
    recorded = [Trace.load(path) for path in _files(traces)]
    console = wide_console()
    console.print(_heading(chosen, geometry, context))
    console.print(predictions(chosen, geometry, tpf, acceptance, streams, block_length, context))
    if recorded:
        console.print("", _measured(recorded, chosen, geometry), sep="\n")


def predictions(
    device: Device,
    geometry: Geometry,
    tpf: Sequence[float],
    acceptance: Sequence[float],
    streams: Sequence[int],
    block_length: int,
    context: int,
) -> Table:
    """A line for `ar`, for each TPF in the modes whose forwards hold a block, and for each acceptance length."""
    lines = [("ar", 1.0, None)]
    lines += [("diffusion", each, None) for each in tpf]
    lines += [(mode, tpf_of(mode, each), each) for each in acceptance for mode in ("linear_spec", "quadratic_spec")]
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="dim")
    table.add_column("mode", no_wrap=True)
    for name in ("TPF", "acceptance", "ms/forward", *(f"tokens/s at {n}" for n in streams), "no gain from"):
        table.add_column(name, justify="right")
    for mode, rate, length in lines:
        loads = [load_of(mode, block_length=block_length, context=context, streams=n) for n in streams]
        end = "" if mode == "ar" else break_even(device, geometry, mode, rate, block_length=block_length, context=context)
        table.add_row(
            mode,
            f"{rate:.2f}",
            "" if length is None else f"{length:.2f}",
            f"{1000 * floor(device, geometry, loads[0]).seconds:.3g}",
            *(f"{tokens_per_second(device, geometry, load, rate):,.0f}" for load in loads),
            "never" if end is None else str(end),
        )
    return table


def _heading(device: Device, geometry: Geometry, context: int) -> str:
    fit = streams_that_fit(device, geometry, context)
    room = "" if fit is None else f"; memory for {fit:,} streams"
    return (
        f"{device.name} ({device.source}): {device.bandwidth / 1e9:,.0f} GB/s, "
        f"{device.peak_for(geometry.dtype) / 1e12:.3g} TFLOP/s in {geometry.dtype}\n"
        f"{geometry.parameters:,} weights, {geometry.weight_bytes / 1e9:.3g} GB read per forward, context {context:,}{room}\n"
    )


def _measured(traces: Sequence[Trace], device: Device, geometry: Geometry) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("phase")
    for name in ("queries", "forwards", "context", "ms measured", "ms floor", "ratio"):
        table.add_column(name, justify="right")
    for point in overlay(traces, device, geometry):
        figures = (f"{1000 * point.seconds:.3g}", f"{1000 * point.floor:.3g}", f"{point.ratio:.2f}")
        table.add_row(point.phase, str(point.queries), str(point.forwards), f"{point.context:.0f}", *figures)
    return table


def _check(
    tpf: Sequence[float], acceptance: Sequence[float], streams: Sequence[int], block_length: int, context: int
) -> None:
    for name, value, least in (
        *(("--tpf", each, 0.01) for each in tpf),
        *(("--acceptance", each, 1.0) for each in acceptance),
        *(("--concurrency", each, 1) for each in streams),
        ("--block-length", block_length, 2),
        ("--context", context, 0),
    ):
        if not value >= least:
            raise NemodiffError(f"{name} is {value:g}; give at least {least:g}.")
    if max(acceptance, default=0) > block_length:
        raise NemodiffError(f"--acceptance cannot be above the block length, {block_length}; lower it.")


def _files(paths: Sequence[Path]) -> list[Path]:
    """Trace files, those of a folder (a sweep's `traces`, say) included."""
    found = []
    for path in paths:
        found += sorted([*path.glob("*.json.gz"), *path.glob("*.json")]) if path.is_dir() else [path]
    return found
