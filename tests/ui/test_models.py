"""The host's models: loaded once, kept within their memory, never taken from a run, and gone without a trace when cancelled."""

from __future__ import annotations

import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nemodiff_core import checkpoint, fit, placement
from nemodiff_core.checkpoint import read_config
from nemodiff_core.errors import NemodiffError
from nemodiff_core.model import TriModeModel
from nemodiff_core.request import parse_request
from nemodiff_core.serving.manifest import Offer, Preset
from tests.hub import Hub, hub
from ui import loader as loading
from ui.loader import Cancelled, ModelChoice
from ui.models import Models, offered

ID = "someone/a-model"
NEVER = threading.Event()
ASK = {"prompt": "hi", "mode": "diffusion", "max_new_tokens": 4, "block_length": 4}


@pytest.fixture
def copies(model: Path) -> Callable[..., Path]:
    """Copies of the small model under other names."""
    return lambda name: Path(shutil.copytree(model, model.parent / name))


@pytest.fixture
def make(model: Path, copies: Callable[..., Path]) -> Callable[..., Models]:
    """A registry over copies: the page's own and further ones, with room for `room` models where it is given."""

    def made(*names: str, room: float | None = None, **options: Any) -> Models:
        choices = [ModelChoice(str(copies(name)), device="cpu", title=name) for name in names]
        ticks = iter(range(10**6))
        one = fit.need_of(read_config(model), None, "cpu").total
        budget = None if room is None else int(room * one)
        models = Models(choices, **options, budget_bytes=budget, clock=lambda: float(next(ticks))).start()
        assert models.own.wait(60) and models.own.engine is not None, models.own.problem
        return models

    return made


@pytest.fixture
def online(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub(monkeypatch, tmp_path / "cache") as server:
        server.models[ID] = model
        yield server


def use(models: Models, name: str) -> Any:
    """What the model answers, as text of its trace."""
    with models.lease(name, NEVER) as engine:
        run = engine.run(parse_request(ASK))
        for _ in run:
            pass
        run.close()
        return run.trace().model["id"]


def there(models: Models) -> set[str]:
    return {name for name in models.names if models.ready(name) is not None}


def load_of(models: Models, name: str, who: str = "me") -> loading.Loader:
    """A model's loader, when loading has ended."""
    found = models.want(name, who)
    assert found.wait(60)
    return found


# -- sharing -------------------------------------------------------------------------------------------


def test_a_model_is_loaded_once_however_many_ask(make: Callable[..., Models], monkeypatch: pytest.MonkeyPatch):
    models, loads, load = make("own", "a"), [], checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda *args, **options: loads.append(args[0].id) or load(*args, **options))

    def engine(_: int) -> int:
        with models.lease("a", NEVER) as engine:
            return id(engine)

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(engine, range(6)))) == 1
    assert loads == ["a"]


def test_two_visitors_are_answered_by_different_models_at_once(make: Callable[..., Models]):
    models, met = make("own", "a"), threading.Barrier(2, timeout=60)

    def visit(name: str) -> str:
        with models.lease(name, NEVER) as engine:
            met.wait()  # both hold theirs
            run = engine.run(parse_request(ASK))
            list(run)
            return run.trace().model["id"]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(visit, ["", "a"])) == ["own", "a"]


def test_an_offer_says_how_it_is_loaded_and_what_it_is(model: Path):
    offer = Offer(source=str(model), dtype="bfloat16", device="cpu", adapter=False, title="Small", licence="mine", about="A small one.")
    models = Models((ModelChoice.of(Offer()), ModelChoice.of(offer)))
    assert models.names == ["the bundled model", "Small"]
    loader = load_of(models, "Small")
    assert (loader.about["dtype"], loader.licence, loader.choice.origin) == ("bfloat16", "mine", "a folder of this host")
    assert ModelChoice.of(Offer()).origin == "shipped with nemodiff"
    assert ModelChoice("a/b", "v1").origin == "Hugging Face, a/b at v1"


def test_the_command_line_stands_for_the_manifests_models_or_joins_them():
    preset = Preset(models=(Offer(), Offer(source="a/b", dtype="int8")))
    assert [choice.name for choice in offered(preset)] == ["the bundled model", "a/b"]
    assert [choice.name for choice in offered(preset, ModelChoice("c/d"), (ModelChoice("e/f"),))] == ["c/d", "e/f"]
    own, other = offered(preset, ModelChoice(device="cpu", dtype="float32"))
    assert (own.source, own.device, own.dtype, other.device, other.dtype) == (None, "cpu", "float32", None, "int8")


# -- memory --------------------------------------------------------------------------------------------


def test_the_least_recently_used_makes_room_and_its_memory_comes_back(make: Callable[..., Models]):
    models = make("own", "a", "b", "c", room=3.5)
    assert [use(models, name) for name in ("a", "b", "a")] == ["a", "b", "a"]
    gone = weakref.ref(models.ready("b").checkpoint.model)
    assert use(models, "c") == "c"
    assert there(models) == {"own", "a", "c"} and gone() is None
    assert use(models, "b") == "b"  # it comes back by itself
    assert there(models) == {"own", "b", "c"}
    assert models.named({"id": "a", "dtype": "float32"}) == "a" and models.named({"id": "z"}) is None
    with pytest.raises(NemodiffError, match="made room for other models; choose it"):
        models.present("a")


def test_what_a_run_uses_stays_and_the_newcomer_is_told_to_wait(make: Callable[..., Models]):
    models = make("own", "a", "b", room=2.5)
    with models.lease("", NEVER), models.lease("a", NEVER) as engine:
        with pytest.raises(NemodiffError, match="models that are answering now leave .*; try again in a moment"):
            use(models, "b")
        assert models.ready("a") is engine
        del engine
    models.want("b", "me")
    assert use(models, "b") == "b" and there(models) == {"own", "b"}


def test_the_pages_own_model_makes_room_after_all_others(make: Callable[..., Models]):
    models = make("own", "a", "b", room=2.5)
    assert use(models, "a") == "a" and use(models, "") == "own" and use(models, "b") == "b"
    assert there(models) == {"own", "b"}
    models = make("first", "c", room=1.5)
    with models.lease("", NEVER):
        with pytest.raises(NemodiffError, match="try again in a moment"):
            use(models, "c")
    models.want("c", "me")
    assert use(models, "c") == "c" and there(models) == {"c"} and models.missing() is None
    assert use(models, "") == "first" and there(models) == {"first"}


def test_a_model_that_turns_out_bad_has_made_no_room(make: Callable[..., Models], model: Path):
    models = make("own", "a", room=1.5)
    own, weights = models.ready(""), model.parent / "a" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert load_of(models, "a").state == "failed" and models.ready("") is own


def test_the_pages_own_model_comes_back_when_the_newcomer_fails_late(make: Callable[..., Models], monkeypatch: pytest.MonkeyPatch):
    models, warm_up = make("own", "a", room=1.5), loading.warm_up

    def fail(engine: Any, tell: Any) -> None:
        if engine.checkpoint.id == "a":
            assert models.ready("") is None
            raise RuntimeError("the driver is gone")
        warm_up(engine, tell)

    monkeypatch.setattr(loading, "warm_up", fail)
    assert load_of(models, "a").state == "failed"
    assert models.own.wait(60) and there(models) == {"own"}


def test_what_can_never_fit_is_refused_before_its_download(make: Callable[..., Models], online: Hub, monkeypatch: pytest.MonkeyPatch):
    models = make("own", any_model=True)
    monkeypatch.setattr(fit, "need_of", lambda *_: fit.Need("float32", 28 * 10**9, 10**9))
    monkeypatch.setattr(placement, "free_memory", lambda: {"cpu": 12 * 10**9})
    loader = load_of(models, models.add(ID))
    assert loader.problem.startswith(f"{ID} needs 29.0 GB of memory, but this host can free 12.0 GB for it at most; choose a smaller model")
    assert not any(file.endswith(".safetensors") for file in online.asked)
    assert use(models, "") == "own"


def test_a_full_disk_is_noticed_before_its_download(make: Callable[..., Models], online: Hub, monkeypatch: pytest.MonkeyPatch):
    models = make("own", any_model=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    loader = load_of(models, models.add(ID))
    assert "free and" in loader.problem and "larger disk" in loader.problem and online.asked == []


# -- failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "header", "config"])
def test_a_corrupted_checkpoint_is_refused_and_the_old_model_answers_on(make: Callable[..., Models], model: Path, damage: str):
    models = make("own", "a")
    folder = model.parent / "a"
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    if damage == "config":
        (folder / "config.json").write_text("{")
    else:
        weights.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\xff" * 64 + content[64:])
    loader = load_of(models, "a")
    assert loader.state == "failed" and loader.problem.endswith("download it again.")
    assert use(models, "") == "own"
    with pytest.raises(NemodiffError, match="download it again"):
        use(models, "a")
    (folder / "config.json").write_text((model / "config.json").read_text())
    weights.write_bytes(content)
    assert load_of(models, "a").state == "ready"  # asking again tries again


def test_what_the_hub_refuses_reaches_the_page(make: Callable[..., Models], online: Hub):
    models = make("own", any_model=True)
    online.gated.add("someone/gated")
    assert "asks for its licence to be accepted" in load_of(models, models.add("someone/gated")).problem
    assert "no public model someone/missing" in load_of(models, models.add("someone/missing")).problem
    (online.models[ID] / "config.json").write_text('{"model_type": "llama"}')
    assert "model_type 'llama'" in load_of(models, models.add(ID)).problem
    assert use(models, "") == "own"


def test_an_unknown_failure_is_said_and_leaves_no_memory(make: Callable[..., Models], monkeypatch: pytest.MonkeyPatch):
    models, held = make("own", "a"), []

    def fail(engine: Any, tell: Any) -> None:
        held.append(weakref.ref(engine.checkpoint.model))
        raise RuntimeError("the driver is gone")

    monkeypatch.setattr(loading, "warm_up", fail)
    assert "RuntimeError: the driver is gone" in load_of(models, "a").problem
    assert held[0]() is None


# -- cancelling ----------------------------------------------------------------------------------------


def test_a_download_that_nobody_waits_for_ends(make: Callable[..., Models], online: Hub):
    models = make("own", any_model=True)
    name = models.add(ID)
    with online.held():
        loader = models.want(name, "me")
        models.want(name, "you")
        assert online.halfway.wait(60)
        models.leave("me")
        assert loader.state == "loading" and "downloading" in loader.status().lower()  # somebody else waits
        models.leave("you")
        assert loader.wait(60) and loader.state == "absent"
    assert load_of(models, name).state == "ready"
    assert online.asked.count("config.json") == 1


def test_cancelling_in_the_midst_of_the_weights_frees_them(make: Callable[..., Models], monkeypatch: pytest.MonkeyPatch):
    models, load, read, made = make("own", "a"), checkpoint.load, [], []

    def model(config: Any) -> Any:
        model = TriModeModel(config)
        made.append(weakref.ref(model))
        return model

    def cancelled(*args: Any, progress: Any, **options: Any) -> Any:
        def listen(what: str, share: float) -> None:
            read.append((what, share))
            if share > 0.5:
                models.leave("me")
            progress(what, share)

        return load(*args, progress=listen, **options)

    monkeypatch.setattr(checkpoint, "load", cancelled)
    monkeypatch.setattr(checkpoint, "TriModeModel", model)
    loader = load_of(models, "a")
    assert loader.state == "absent" and loader.problem is None and 0.5 < read[-1][1] < 1
    assert len(made) == 1 and made[0]() is None
    monkeypatch.setattr(checkpoint, "load", load)
    assert use(models, "a") == "a"


def test_a_run_that_is_stopped_waits_for_its_model_no_longer(make: Callable[..., Models], online: Hub):
    models, stop = make("own", any_model=True), threading.Event()
    name = models.add(ID)
    with online.held(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: ExitStack().enter_context(models.lease(name, stop)))
        assert online.halfway.wait(60)
        stop.set()
        with pytest.raises(Cancelled):
            waiting.result(60)
        assert models.loader(name).wait(60) and models.loader(name).state == "absent"


# -- names from browsers -------------------------------------------------------------------------------


def test_visitors_name_models_only_where_the_host_allows_it(make: Callable[..., Models], online: Hub):
    models = make("own")
    with pytest.raises(NemodiffError, match="its own models only"):
        models.add(ID)
    for name in (ID, "nobody", ["own"], {"own"}, 7):
        with pytest.raises(NemodiffError, match="does not offer"):
            models.loader(name)


@pytest.mark.parametrize("text", ["", "/etc/passwd", "../own", "a/../own", "https://elsewhere.example/a/b", "a/b/c", "own", "~/own", "a\\b", "a/b?c"])
def test_only_hub_ids_are_taken(text: str):
    models = Models((ModelChoice("own"),), any_model=True)
    with pytest.raises(NemodiffError, match="is no Hugging Face id"):
        models.add(text)


def test_a_typed_name_never_opens_a_folder_of_the_host(make: Callable[..., Models], model: Path, online: Hub, monkeypatch: pytest.MonkeyPatch):
    models = make("own", any_model=True)
    monkeypatch.chdir(model.parent.parent)
    name = models.add(f"{model.parent.name}/{model.name}")
    assert Path(name).is_dir()
    assert f"no public model {name}" in load_of(models, name).problem


def test_names_that_nobody_uses_are_forgotten(make: Callable[..., Models], monkeypatch: pytest.MonkeyPatch, online: Hub):
    monkeypatch.setattr("ui.models.TYPED", 3)
    models = make("own", any_model=True)
    assert models.add(f" {ID} ") == models.add(ID) == ID
    load_of(models, ID)
    for number in range(6):
        models.add(f"a/{number}")
    assert models.loader(ID).state == "ready" and models.loader("a/5") is not None
    with pytest.raises(NemodiffError, match="does not offer"):
        models.loader("a/0")
