"""Files of every release so far load, on every backend, and give what they gave."""

import copy
import hashlib
import json
import re
from pathlib import Path

import contract  # noqa: F401  (registers what the saved cases use)
import keras
import numpy as np
import pytest
from keras import ops

import keras_binclf
from keras_binclf._registry import REGISTERED

FOLDER = Path(__file__).parent / "fixtures"
FORMATS = (".keras", ".h5", ".weights.h5")
MANIFESTS = {path.parent: json.loads(path.read_text()) for path in FOLDER.glob("*/*/manifest.json")}


def version(text):
    return tuple(int(part) for part in text.split(".")[:3])


def loadable():
    """Every file that this Keras can read: Keras reads older files, not newer ones."""
    for folder, manifest in MANIFESTS.items():
        if version(manifest["keras"]) <= version(keras.__version__):
            for name, entry in manifest["models"].items():
                for suffix in FORMATS:
                    path = folder / f"{name}{suffix}"
                    yield pytest.param(path, entry, id=str(path.relative_to(FOLDER)))


def load(path, entry):
    if path.name.endswith(".weights.h5"):
        model = keras.saving.deserialize_keras_object(entry["config"])
        model.load_weights(path)
        return model
    return keras.models.load_model(path, compile=path.suffix == ".keras")


# Keras up to 3.9 wrote the one input of a functional model as a list, which later ones remark on.
@pytest.mark.filterwarnings("ignore:(?s).*The structure of `inputs` doesn't match:UserWarning")
@pytest.mark.parametrize(("path", "entry"), list(loadable()))
def test_file_loads_and_gives_what_it_gave(path, entry):
    model = load(path, entry)
    x = np.array(entry["inputs"], "float32")  # Where the manifest has null, NaN.
    rows = x
    if "table" in entry:
        rows = {name: np.array(values, object) for name, values in entry["table"].items()}
        (encoder,) = [one for one in model.layers if isinstance(one, keras_binclf.TabularEncoder)]
        np.testing.assert_array_equal(encoder.encode(rows), x)
    # Backends add up at most 6 float32 terms a layer in different orders.
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), entry["outputs"], atol=1e-6)
    assert len(model.weights) == entry["num_weights"]
    if "threshold" in entry:
        assert keras_binclf.find_head(model).threshold == entry["threshold"]
        np.testing.assert_array_equal(keras_binclf.predict_labels(model, rows), entry["labels"])
    if "evaluation" in entry and path.suffix == ".keras":
        labels = np.array(entry["labels_true"])
        evaluation = model.evaluate(x, labels, verbose=0, return_dict=True)
        assert set(evaluation) == set(entry["evaluation"])
        for name, value in evaluation.items():
            # A bin of the logit may end between two backends' roundings.
            np.testing.assert_allclose(value, entry["evaluation"][name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "folder", list(MANIFESTS), ids=lambda folder: str(folder.relative_to(FOLDER))
)
def test_files_are_those_that_were_written(folder):
    entries = MANIFESTS[folder]["models"].values()
    recorded = {name: digest for entry in entries for name, digest in entry["sha256"].items()}
    files = {path.name: path for path in folder.iterdir() if path.name != "manifest.json"}
    assert set(recorded) == set(files)
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == recorded[name], name


@pytest.mark.parametrize("registered_name", list(REGISTERED))
def test_every_registered_class_has_files_of_every_format(registered_name):
    name = registered_name.split(">")[1]
    saved = [
        manifest["models"][name] for manifest in MANIFESTS.values() if name in manifest["models"]
    ]
    assert saved, f"run `python tests/generate_fixtures.py` for {registered_name}"
    for entry in saved:
        assert set(entry["sha256"]) == {f"{name}{suffix}" for suffix in FORMATS}


def test_registered_names_that_were_released_are_still_there():
    released = {
        name
        for folder in MANIFESTS
        for name in re.findall(r"keras_binclf>\w+", (folder / "manifest.json").read_text())
    }
    assert len(released) >= 7
    assert released <= set(REGISTERED)


CONFIGS = json.loads((FOLDER / "0.1.0" / "configs.json").read_text())
CONFIGS_KERAS = "3.15.1"
"""The Keras that wrote them."""


@pytest.mark.once
@pytest.mark.skipif(
    version(keras.__version__) < version(CONFIGS_KERAS),
    reason="Keras reads older configs of its own objects, not newer ones",
)
@pytest.mark.parametrize("name", sorted({name for name, _ in CONFIGS}))
def test_arguments_that_a_release_took_are_taken_from_its_files(name):
    """Also where the constructor has become stricter since."""
    cls = getattr(keras_binclf, name)
    for config in [config for one, config in CONFIGS if one == name]:
        again = cls.from_config(copy.deepcopy(config)).get_config()
        if name != "BinaryClassifierHyperModel":  # Its scaler has another form since.
            plain = json.loads(json.dumps(again, default=keras.saving.serialize_keras_object))
            assert {key: plain[key] for key in config} == config


@pytest.mark.parametrize("cost", [1e-320, 1e-40, 1e35, 1e40, 1e308])
def test_costs_of_a_release_are_computed_as_far_as_floats_reach(cost):
    config = {"score": "cost", "cost_fp": cost, "cost_fn": 0.0}
    metric = keras_binclf.ThresholdMetric.from_config(config)
    with np.errstate(over="ignore"):
        value = float(metric([0, 0, 1, 1], [0.9, 0.1, 0.8, 0.7]))
    expected = float(np.float32(cost / 4)) if cost < 1e38 else np.inf
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-38)
    with pytest.raises(ValueError, match="from 1e-30 to 1e"):
        keras_binclf.ThresholdMetric(**config)
