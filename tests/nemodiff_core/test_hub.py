"""Downloads, by the hub's own client from a hub on this machine: sizes, disk, progress, and cancelling."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from nemodiff_core import sources
from nemodiff_core.checkpoint import load
from nemodiff_core.errors import CheckpointError, NemodiffError
from tests.hub import COMMIT, Hub, hub

ID = "someone/a-model"


@pytest.fixture
def served(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (model / sources.CARD).write_text("---\nlicense: other\nlicense_name: a-licence\n---\nHello.\n")
    (model / "modeling_x.py").write_text("raise SystemExit")
    with hub(monkeypatch, tmp_path / "cache") as server:
        server.models[ID] = model
        yield server


def test_a_model_comes_with_its_progress_and_once(served: Hub, model: Path):
    said: list[tuple[str, float]] = []
    checkpoint = load(ID, device="cpu", progress=lambda what, share: said.append((what, share)))
    assert (checkpoint.id, checkpoint.revision) == (ID, COMMIT)
    assert sources.licence(checkpoint.path) == "a-licence"
    assert "modeling_x.py" not in served.asked and sorted(served.asked) == sorted(set(served.asked))
    assert said[0] == (f"finding {ID}", 0.0) and any(what.startswith(f"downloading {ID}, 0.0 MB of ") for what, _ in said)
    served.asked.clear()
    load(ID, device="cpu")
    assert served.asked == []


def test_nothing_is_fetched_that_the_disk_cannot_take(served: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9 + 1000))
    with pytest.raises(CheckpointError, match=r"download of .*1\.0 GB free .* larger disk\.$"):
        load(ID)
    assert served.asked == []


def test_raising_in_progress_ends_a_download_and_the_next_one_takes_up_what_is_complete(served: Hub, model: Path):
    class Enough(NemodiffError):
        pass

    def progress(what: str, share: float) -> None:
        if share > 0:
            raise Enough("Enough.")

    with served.held():
        with pytest.raises(Enough):
            load(ID, progress=progress)
        assert served.halfway.is_set()
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    assert not list(cache.rglob("*.incomplete"))
    complete = {path.name for path in cache.rglob("*") if path.is_symlink() or path.is_file()}
    assert "config.json" in complete and "model.safetensors" not in complete
    served.asked.clear()
    assert load(ID, device="cpu").id == ID
    assert "config.json" not in served.asked and served.asked.count("model.safetensors") == 1


def test_what_the_hub_refuses_is_said_with_what_to_do(served: Hub):
    served.gated.add(ID)
    with pytest.raises(CheckpointError, match="licence to be accepted; do so on its hub page and run `hf auth login`"):
        load(ID)
    with pytest.raises(CheckpointError, match="no public model someone/else; check the spelling"):
        load("someone/else")


def test_a_stranger_asks_without_the_owners_login(served: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    sources.find_on_hub(ID, weights=False, token=False)
    assert served.tokens == {None}
    sources.find_on_hub(ID, weights=False)
    assert "Bearer hf_secret" in served.tokens


@pytest.mark.parametrize("text", ["", "/etc", "../tests", "a/../b", "a/b/c", "https://elsewhere/x/y", "a/b\n", "tiny", "ä/b", "a/" + "b" * 100])
def test_only_ids_are_looked_for_on_the_hub(served: Hub, text: str):
    with pytest.raises(CheckpointError, match="is no Hugging Face id"):
        sources.find_on_hub(text)
    assert served.tokens == set()


def test_a_folder_of_this_machine_is_no_hub_id(served: Hub, model: Path, monkeypatch: pytest.MonkeyPatch):
    (model.parent / "own").mkdir()
    shutil.copytree(model, model.parent / "own" / "secret")
    monkeypatch.chdir(model.parent)
    assert sources.find("own/secret").path == model.parent / "own" / "secret"
    with pytest.raises(CheckpointError, match="no public model own/secret"):
        sources.find_on_hub("own/secret")


@pytest.mark.parametrize("card", ["---\nlicense: [\n---\n", "---\n- a\n---\n", "no front matter", "---\nlicense: {a: b}\n---\n"])
def test_a_model_card_without_a_licence_that_can_be_read(model: Path, card: str):
    (model / sources.CARD).write_text(card)
    assert sources.licence(model) is None
    (model / sources.CARD).unlink()
    assert sources.licence(model) is None
