"""The file knows which version wrote it, and a file from a newer version says so when it fails."""

import copy
import json
import zipfile

import contract
import keras
import numpy as np
import pytest
import zoo

import keras_binclf
from keras_binclf import BinaryHead, MLPBlock, binary_classifier
from keras_binclf._registry import REGISTERED, VERSION_KEY

VERSION = keras_binclf.__version__
NEWER = rf"keras-binclf {VERSION} does not know the config keys 'gate', 'noise'\. The file is from"


def serialized_layers(serialized):
    """Every layer of ours in a config, however deep."""
    if isinstance(serialized, dict):
        if str(serialized.get("registered_name")).startswith("keras_binclf>"):
            yield serialized
        for value in serialized.values():
            yield from serialized_layers(value)
    elif isinstance(serialized, list | tuple):
        for value in serialized:
            yield from serialized_layers(value)


def edit(path, change):
    """Change the config in a `.keras` file in place."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def read_config(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


# ---- who wrote it


@pytest.mark.parametrize(
    "make",
    [zoo.sequential, zoo.functional, zoo.nested, zoo.time_distributed_head, zoo.own_train_step],
    ids=lambda make: make.__name__,
)
def test_every_layer_of_ours_carries_the_version(make, tmp_path):
    model, *_ = make()
    model.save(tmp_path / "model.keras")
    for config in (read_config(tmp_path / "model.keras"), json.loads(model.to_json())):
        found = [one for one in serialized_layers(config) if "build_config" in one]
        assert found
        assert {one["build_config"][VERSION_KEY] for one in found} == {VERSION}
        assert not any(VERSION_KEY in one["config"] for one in found)


@pytest.mark.parametrize("layer", [BinaryHead(), MLPBlock(3)], ids=["head", "block"])
def test_build_config_builds(layer):
    assert layer.get_build_config() is None
    layer.build((None, 4))
    again = type(layer).from_config(layer.get_config())
    again.build_from_config(json.loads(json.dumps(layer.get_build_config())))
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in layer.weights]


def test_layer_that_was_not_built_is_not_built_when_loaded():
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(MLPBlock(3)))
    assert not again.built


@pytest.mark.parametrize("version", ["0.0.1", "99.0", None])
def test_file_of_another_version_loads_where_it_uses_nothing_unknown(version, tmp_path):
    model = zoo.with_random_head(binary_classifier(3, hidden_units=2, compile=False))
    path = tmp_path / "model.keras"
    model.save(path)

    def change(config):
        for layer in serialized_layers(config["config"]):
            layer["build_config"][VERSION_KEY] = version
            layer["build_config"]["something"] = {"newer": 1}

    edit(path, change)
    x = np.ones((2, 3))
    again = keras.models.load_model(path)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert {
        one["build_config"][VERSION_KEY]
        for one in serialized_layers(keras.saving.serialize_keras_object(again)["config"])
    } == {VERSION}


# ---- a file from a newer version


@pytest.mark.parametrize("cls", REGISTERED.values(), ids=lambda cls: cls.__name__)
def test_unknown_keys_of_every_registered_class_are_named(cls):
    case = contract.CASES[cls][0]
    config = cls(**copy.deepcopy(case.arguments)).get_config()
    assert type(cls.from_config(config)) is cls
    with pytest.raises(ValueError, match=f"^{cls.__name__} of {NEWER}"):
        cls.from_config({**config, "gate": 1, "noise": None})


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("make", [zoo.classifier, zoo.two_heads, zoo.time_distributed_block])
def test_newer_file_says_what_to_do(make, suffix, tmp_path, monkeypatch):
    model, *_ = make()
    path = tmp_path / f"model{suffix}"
    get_config = MLPBlock.get_config
    with monkeypatch.context() as newer:
        newer.setattr(
            MLPBlock, "get_config", lambda self: {**get_config(self), "gate": 1, "noise": 2}
        )
        model.save(path)
    with pytest.raises(ValueError, match=f"^MLPBlock of {NEWER}.*pip install --upgrade"):
        keras.models.load_model(path)


def test_newer_metric_says_what_to_do(tmp_path):
    binary_classifier(3).save(tmp_path / "model.keras")

    def change(config):
        config["compile_config"]["metrics"][0]["config"] |= {"gate": 1, "noise": 2}

    edit(tmp_path / "model.keras", change)
    with pytest.raises(ValueError, match=f"^ThresholdMetric of {NEWER}"):
        keras.models.load_model(tmp_path / "model.keras")


def test_error_about_a_value_stays_what_it_is():
    with pytest.raises(TypeError, match=r"`threshold` of BinaryHead must be a float in \(0, 1\)"):
        BinaryHead.from_config({"threshold": 7.0})
    with pytest.raises(ValueError, match="`num_bins` of BinaryAUC must be an int of at least"):
        keras_binclf.BinaryAUC.from_config({"num_bins": 1})


class Named(BinaryHead):
    """Names an argument of its own."""

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale


class Taking(BinaryHead):
    """Takes an argument that its signature does not name."""

    def __init__(self, **kwargs):
        self.scale = kwargs.pop("scale", 1.0)
        super().__init__(**kwargs)


class OwnMetric(keras_binclf.BrierScore):
    """Takes an argument that its signature does not name."""

    def __init__(self, **kwargs):
        self.scale = kwargs.pop("scale", 1.0)
        super().__init__(**kwargs)


@pytest.mark.parametrize("cls", [Named, Taking, OwnMetric])
def test_classes_derived_from_ours_take_arguments_of_their_own(cls):
    assert cls.from_config({"scale": 3.0, "name": "own", "dtype": "float32"}).scale == 3.0
    with pytest.raises(ValueError, match=f"^{cls.__name__} of .* does not know .* 'gate'"):
        cls.from_config({"scale": 3.0, "gate": 1})


def test_wrong_value_of_a_derived_class_is_not_taken_for_an_unknown_key():
    with pytest.raises(TypeError, match="`threshold` of Taking must be"):
        Taking.from_config({"scale": 3.0, "threshold": 7})


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`:UserWarning")
@pytest.mark.parametrize("cls", [BinaryHead, MLPBlock, Named])
def test_arguments_of_keras_layers_are_known(cls):
    config = {"name": "n", "trainable": False, "dtype": "float32", "autocast": False}
    layer = cls.from_config({**config, "activity_regularizer": "l2", "input_shape": [3]})
    assert (layer.name, layer.trainable) == ("n", False)
    with pytest.raises(TypeError, match="Error when deserializing"):
        cls.from_config({**config, "input_shape": "wrong", "dtype": "wrong"})
