"""The roofline: known floors, how they grow, where speculation stops paying, and measured runs beside them."""

from __future__ import annotations


import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff_core.analysis.probe import measure_device
from nemodiff_core.analysis.roofline import (
    DEVICES,
    Device,
    Geometry,
    Load,
    break_even,
    floor,
    known_device,
    load_of,
    overlay,
    streams_that_fit,
    tokens_per_second,
    tpf_of,
)
from nemodiff_core.config import ModelConfig
from nemodiff_core.engine import Engine
from nemodiff_core.errors import NemodiffError
from nemodiff_core.metrics import time_by_phase
from nemodiff_core.request import DecodeRequest
from nemodiff_core.trace import Trace

H200 = DEVICES["h200-measured"]


def released(layers: int, hidden: int, intermediate: int) -> Geometry:
    """A released checkpoint's geometry (facts §1)."""
    return Geometry.of(ModelConfig(131072, hidden, intermediate, layers, 32, 8, 128))


B3, B8, B14 = released(26, 3072, 9216), released(34, 4096, 14336), released(40, 5120, 16384)


def test_geometries_count_the_models_own_weights(tiny_engine: Engine) -> None:
    checkpoint = tiny_engine.checkpoint
    assert Geometry.of(checkpoint.config).parameters == checkpoint.model.parameter_count()
    assert [round(g.parameters / 1e9, 2) for g in (B3, B8, B14)] == [3.83, 8.49, 13.51]
    assert [g.cached * g.width / 1024 for g in (B3, B8, B14)] == [104, 136, 160], "KiB a token"
    with pytest.raises(NemodiffError, match="int8"):
        Geometry.of(checkpoint.config, "int8")


@pytest.mark.parametrize(
    ("geometry", "gigabytes", "milliseconds", "ar", "faster"),
    [
        (B3, 6.9, 1.6, 617, {2.6: 1604, 3.4: 2098, 6: 3702}),
        (B8, 15.9, 3.7, 268, {2.6: 696, 3.4: 911, 6: 1607}),
        (B14, 25.7, 6.0, 166, {2.6: 433, 3.4: 566, 6: 998}),
    ],
)
def test_the_known_floors_of_one_h200(geometry: Geometry, gigabytes: float, milliseconds: float, ar: float, faster: dict) -> None:
    one, block = load_of("ar"), load_of("diffusion", block_length=32)
    assert geometry.weight_bytes / 1e9 == pytest.approx(gigabytes, abs=0.05)
    assert 1000 * floor(H200, geometry, one).seconds == pytest.approx(milliseconds, abs=0.06)
    assert floor(H200, geometry, block).seconds == floor(H200, geometry, one).seconds, "a block of 32 is free"
    assert tokens_per_second(H200, geometry, one) == pytest.approx(ar, rel=0.01)
    for tpf, speed in faster.items():
        assert tokens_per_second(H200, geometry, block, tpf) == pytest.approx(speed, rel=0.01)


def test_compute_catches_up_with_memory_at_184_rows() -> None:
    bounds = [floor(H200, B8, Load(rows)).bound for rows in range(1, 257)]
    assert 1 + bounds.index("compute") == pytest.approx(184, abs=2)
    assert bounds == sorted(bounds, reverse=True), "memory first, then compute"


def test_a_forward_counted_by_hand() -> None:
    geometry = Geometry(layers=100, head=20, embedding=20, cached=6, attention=8, dtype="float32")
    device = Device("slow", "vendor", bandwidth=10.0, peak={"float32": 5.0})
    found = floor(device, geometry, Load(queries=3, context=7, streams=2, head_rows=1))
    assert found.memory == pytest.approx(4 * (120 + 2 * 7 * 6) / 10)
    assert found.compute == pytest.approx(2 * 2 * (3 * 100 + 20 + 2 * 3 * 10 * 8) / 5)
    assert found.seconds == found.compute and found.bound == "compute"


SIZES = st.integers(1, 4096)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 512), st.integers(0, 10**5), SIZES, st.sampled_from(["queries", "context", "streams"]), SIZES)
def test_more_work_never_takes_less_time(queries: int, context: int, streams: int, what: str, more: int) -> None:
    asked = {"queries": queries, "context": context, "streams": streams}
    before = floor(H200, B8, Load(**asked))
    after = floor(H200, B8, Load(**{**asked, what: asked[what] + more}))
    assert after.seconds >= before.seconds and after.memory >= before.memory and after.compute > before.compute


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(["diffusion", "linear_spec", "quadratic_spec"]), st.integers(5, 160).map(lambda n: n / 10), st.integers(2, 32), st.integers(0, 10**5))
def test_speculation_pays_below_the_break_even_and_not_from_there(mode: str, tpf: float, block: int, context: int) -> None:
    def pays(streams: int) -> bool:
        mine = load_of(mode, block_length=block, context=context, streams=streams)
        return tokens_per_second(H200, B8, mine, tpf) > tokens_per_second(H200, B8, load_of("ar", context=context, streams=streams))

    end = break_even(H200, B8, mode, tpf, block_length=block, context=context)
    if end is None:
        assert all(pays(2**n) for n in range(21))
        return
    assert end == 1 or pays(end - 1)
    assert not any(pays(end * 2**n) for n in range(8))


def test_break_evens_known_or_reported() -> None:
    # Without a cache to read: 3 · t(weights) = 2 · streams · 32 · weights / peak, at 3 · 184 / 32 streams.
    assert break_even(H200, B8, "diffusion", 3.0, context=0) == pytest.approx(3 * 184 / 32, abs=1)
    assert break_even(H200, B8, "diffusion", 1.0) == 1, "no gain to lose"
    assert break_even(H200, B8, "linear_spec", 31.9, context=100_000) is None, "AR waits for its keys and values"
    ends = [break_even(H200, B8, "linear_spec", tpf_of("linear_spec", a)) for a in (3, 6, 9, 12)]
    assert ends == sorted(ends)
    quadratic, linear = (break_even(H200, B8, mode, tpf_of(mode, 7.0)) for mode in ("quadratic_spec", "linear_spec"))
    assert quadratic < linear, "quadratic has the better TPF and the larger forward"


def test_modes_and_their_loads() -> None:
    assert (load_of("ar").queries, load_of("linear_spec").queries, load_of("quadratic_spec").queries) == (1, 32, 1056)
    assert (tpf_of("linear_spec", 6.0), tpf_of("quadratic_spec", 6.0)) == (3.0, 6.0)
    with pytest.raises(NemodiffError, match="no acceptance length"):
        tpf_of("diffusion", 3.0)
    with pytest.raises(NemodiffError, match="infill"):
        load_of("infill")


def test_devices_are_labelled_and_complete() -> None:
    assert known_device("H200") is DEVICES["h200"]
    for device in DEVICES.values():
        assert device.source in ("vendor", "measured")
        assert device.bandwidth > 1e11 and device.memory > 1e10 and min(device.peak.values()) > 1e12
    assert DEVICES["h200"].bandwidth > H200.bandwidth and DEVICES["h200"].peak["bfloat16"] > H200.peak["bfloat16"]
    with pytest.raises(NemodiffError, match="abacus"):
        known_device("abacus")
    with pytest.raises(NemodiffError, match="bfloat16"):
        floor(DEVICES["t4"], B8, Load(1))


def test_streams_that_fit_leave_room_for_the_weights() -> None:
    fit = streams_that_fit(H200, B8, 1024)
    assert fit == int((141e9 - 2 * B8.parameters) // (136 * 1024 * 1024))
    assert streams_that_fit(DEVICES["t4"], B14, 1024) == 0
    assert streams_that_fit(Device("here", "measured", 1.0, {}), B8, 1024) is None


def test_a_device_is_measured_in_one_dtype() -> None:
    device = measure_device("float32", "cpu", working_set=1)
    assert device.source == "measured" and set(device.peak) == {"float32"}
    assert 1e6 < device.bandwidth < 1e14 and 1e6 < device.peak["float32"] < 1e16
    with pytest.raises(NemodiffError, match="int8"):
        measure_device("int8")


def decoded(engine: Engine, **knobs: object) -> Trace:
    run = engine.run(DecodeRequest(prompt="Hello there.", max_new_tokens=8, stop_at_eos=False, **knobs))
    list(run)
    return run.trace()


def test_measured_forwards_stand_beside_their_floor(tiny_engine: Engine) -> None:
    geometry = Geometry.of(tiny_engine.checkpoint.config, "float32")
    device = Device("here", "measured", 1e10, {"float32": 1e11})
    traces = [decoded(tiny_engine, mode="ar"), decoded(tiny_engine, mode="diffusion", block_length=4, steps=2)]
    points = {(point.phase, point.queries): point for point in overlay(traces, device, geometry)}
    prompt = len(traces[0].prompt.ids)
    assert points.keys() == {("prefill", prompt), ("ar", 1), ("denoise", 4), ("commit", 4)}
    assert sum(point.forwards for point in points.values()) == sum(len(trace.steps) for trace in traces)
    assert points["prefill", prompt].context == 0 and points["ar", 1].context == prompt + 3
    for point in points.values():
        assert point.ratio == point.seconds / point.floor > 0
    times = time_by_phase(traces[0])
    assert points["ar", 1].seconds <= times["ar"]
    with pytest.raises(NemodiffError, match="leave it out"):
        overlay(traces, device, Geometry.of(tiny_engine.checkpoint.config, "bfloat16"))


def test_the_forwards_of_quadratic_speculation_count_every_group(tiny_engine: Engine) -> None:
    trace = decoded(tiny_engine, mode="quadratic_spec", block_length=4)
    geometry = Geometry.of(tiny_engine.checkpoint.config, "float32")
    points = overlay([trace], Device("here", "measured", 1e10, {"float32": 1e11}), geometry)
    assert max(point.queries for point in points if point.phase == "verify") == load_of("quadratic_spec", block_length=4).queries
