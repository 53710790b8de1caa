"""Files that are written over: whole, or as they were."""

import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import types

import keras
import keras_tuner
import pytest

from keras_binclf import binary_classifier, build_best
from keras_binclf.saving import replacing
from keras_binclf.saving.replacing import write_and_replace


@pytest.fixture
def earlier(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("earlier")
    return path


def test_new_contents_take_the_place_of_the_earlier_ones(earlier):
    with write_and_replace(earlier, "test") as path:
        path.write_text("new")
        assert path.name == earlier.name
        assert earlier.read_text() == "earlier"
    assert earlier.read_text() == "new"
    assert list(earlier.parent.iterdir()) == [earlier]


def test_a_path_that_is_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with write_and_replace("model.keras", "test") as path:
        path.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_earlier_contents_and_nothing_else(earlier, error):
    def write():
        with write_and_replace(earlier, "test") as path:
            path.write_text("ne")
            raise error("midway")

    with pytest.raises(error, match="midway"):
        write()
    assert earlier.read_text() == "earlier"
    assert list(earlier.parent.iterdir()) == [earlier]


def test_folders_and_several_files_move(tmp_path):
    with write_and_replace(tmp_path / "model.xml", "test") as path:
        path.mkdir()
        (path / "inside").write_text("1")
        path.with_suffix(".bin").write_text("2")
    assert (tmp_path / "model.xml" / "inside").read_text() == "1"
    assert (tmp_path / "model.bin").read_text() == "2"


@pytest.mark.skipif(os.name == "nt", reason="has no such modes")
def test_mode_stays_and_links_are_followed(earlier):
    earlier.chmod(0o640)
    link = earlier.with_name("link.keras")
    link.symlink_to(earlier)
    with write_and_replace(link, "test") as path:
        path.write_text("new")
    assert link.is_symlink()
    assert earlier.read_text() == "new"
    assert stat.S_IMODE(earlier.stat().st_mode) == 0o640


def test_contents_are_on_the_disk_before_they_move(earlier, monkeypatch):
    events = []
    monkeypatch.setattr(os, "fsync", lambda _: events.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda *_: events.append("replace"))
    with write_and_replace(earlier, "test") as path:
        path.write_text("new")
    assert events == ["fsync", "replace", "fsync"]


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "none" / "model.keras"
    with (
        pytest.raises(FileNotFoundError, match=r"build_best cannot write to .*none': No such file"),
        write_and_replace(path, "build_best"),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signal")
def test_a_process_that_is_killed_leaves_the_earlier_contents(earlier):
    program = f"""
        import importlib.util, os, signal
        spec = importlib.util.spec_from_file_location("replacing", {replacing.__file__!r})
        replacing = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(replacing)
        with replacing.write_and_replace({str(earlier)!r}, "test") as path:
            path.write_text("ne")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert earlier.read_text() == "earlier"


@pytest.fixture
def tuner():
    """A search whose best model is small."""
    trial = types.SimpleNamespace(status="COMPLETED", score=0.9, trial_id="0")
    oracle = types.SimpleNamespace(
        trials={"0": trial}, objective=keras_tuner.Objective("val_auc", "max")
    )
    model = binary_classifier(4, hidden_units=None, compile=False)
    return types.SimpleNamespace(oracle=oracle, load_model=lambda trial: model)


def test_the_best_model_of_a_search_replaces_an_earlier_one(tuner, earlier):
    build_best(tuner, earlier)
    assert keras.models.load_model(earlier).count_params() == 6
    assert list(earlier.parent.iterdir()) == [earlier]


def test_the_best_model_of_a_search_is_not_written_in_place(tuner, earlier, monkeypatch):
    def save(model, path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", save)
    with pytest.raises(OSError, match="No space left"):
        build_best(tuner, earlier)
    assert earlier.read_text() == "earlier"
    assert list(earlier.parent.iterdir()) == [earlier]


def test_the_best_model_of_a_search_goes_to_other_places_as_keras_writes_it(tuner, monkeypatch):
    places = []
    monkeypatch.setattr(keras.Model, "save", lambda model, path: places.append(path))
    build_best(tuner, "gs://bucket/best.keras")
    assert places == ["gs://bucket/best.keras"]


@pytest.mark.skipif(sys.platform != "linux", reason="bounds files in the way of Linux")
def test_a_full_disk_leaves_the_earlier_contents(earlier):
    model = binary_classifier(4, hidden_units=(100, 100), compile=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"), write_and_replace(earlier, "test") as path:
            model.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert earlier.read_text() == "earlier"
    assert list(earlier.parent.iterdir()) == [earlier]
