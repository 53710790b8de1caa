"""What `describe` says of a file, against the model that Keras loads from it."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import contract
import h5py
import keras
import numpy as np
import pytest
import zoo
import zoo_classes
from keras import layers

import keras_binclf
from keras_binclf import BinaryHead, MLPBlock, binary_classifier, find_head
from keras_binclf.__main__ import main
from keras_binclf._registry import REGISTERED
from keras_binclf.decision.heads import _iterate_heads
from keras_binclf.saving import _archive, describe

FIXTURES = Path(__file__).parent / "fixtures"
# Without LoRA: of its two factors, which Keras merges, a file has none, the loaded model new ones.
MODELS = [make for make in zoo.PLAIN + zoo.WITH_OWN_CLASSES if "lora" not in make.__name__]


def save(model, folder):
    path = folder / "model.keras"
    model.save(path)
    return path


def rewrite(path, **members):
    """Replace members of an archive; those that are None go."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    kept |= {name.replace("__", "."): content for name, content in members.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in kept.items():
            if content is not None:
                archive.writestr(name, content)


def read_config(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def set_thresholds(model):
    for place, head in enumerate(_iterate_heads(model)):
        head.threshold = 0.11 + 0.2 * place


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_description_is_what_the_loaded_model_says(make, tmp_path):
    model, x, y = make()
    load_elsewhere_free = {"batch_size": zoo.load_elsewhere.BATCH_SIZE, "verbose": 0}
    model.fit(x, y, **load_elsewhere_free)
    set_thresholds(model)
    description = describe(save(model, tmp_path))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert description.num_parameters == loaded.count_params()
    assert description.model_name == loaded.name
    assert description.model_class.split(">")[-1] == type(loaded).__name__
    assert description.keras_version == keras.__version__
    assert description.compiled
    assert description.loss.endswith("BinaryCrossentropy")
    assert description.optimizer == type(loaded.optimizer).__name__
    if make is zoo.subclassed:
        assert description.heads == ()
        assert description.notes == (
            "The file does not list what tests>Subclassed holds, which may be more heads.",
        )
        return
    assert description.notes == ()
    assert description.keras_binclf_version == keras_binclf.__version__
    assert description.num_outputs == len(loaded.outputs)
    assert {one.name: (one.shape, one.dtype) for one in description.inputs} == {
        one.name: (one.shape, one.dtype) for one in loaded.inputs
    }
    assert {(one.path.split("/")[-1], one.threshold, one.activation) for one in description.heads} == {
        (head.name, head.threshold, head.activation) for head in _iterate_heads(loaded)
    }
    assert len(description.heads) == len(list(_iterate_heads(loaded)))
