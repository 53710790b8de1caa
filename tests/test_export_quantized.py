"""What LiteRT makes of a model with its own quantization."""

import copy
import json
import zipfile

import keras
import numpy as np
import pytest
import zoo
from sklearn.metrics import roc_auc_score

from keras_binclf import binary_classifier, find_head
from keras_binclf.saving import export
from keras_binclf.saving.artefacts import _verification
from keras_binclf.saving.artefacts._format import METADATA
from keras_binclf.saving.artefacts._formats import FORMATS

pytest.importorskip("ai_edge_litert")
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="elsewhere it takes a process"
)


@pytest.fixture(scope="module")
def trained():
    """A classifier with kernels of more than 1,024 weights, its rows and their labels."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (1000, 20)).astype("float32")
    hidden = x[:, 0] - 3 + (x[:, 1] - 3) * (x[:, 2] - 3) / 2
    y = (hidden + rng.normal(size=len(x)) > 0).astype("float32")
    scaler = keras.layers.Normalization()
    scaler.adapt(x)
    model = binary_classifier(20, scaler=scaler)
    model.fit(x, y, epochs=5, verbose=0)
    find_head(model).threshold = 0.4015
    return model, x, y


def read_notes(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(METADATA))


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """The classifier as a LiteRT file that is not quantized."""
    model, x, _ = trained
    path = tmp_path_factory.mktemp("whole") / "whole.tflite"
    return export(model, path, "litert", sample=x)


@pytest.mark.parametrize("quantization", FORMATS["litert"].quantizations)
@on_tensorflow
def test_quantized_model_is_smaller_and_ranks_nearly_as_well(
    trained, whole, quantization, tmp_path
):
    model, x, y = trained
    exported = export(
        model, tmp_path / "small.tflite", "litert", sample=x, quantization=quantization
    )
    assert exported.path.stat().st_size < 0.75 * whole.path.stat().st_size
    outputs = FORMATS["litert"].run(exported.path, {"features": x})
    assert outputs["probability"].dtype == np.float32
    assert outputs["label"].dtype == np.int32
    np.testing.assert_array_equal(outputs["label"], outputs["probability"] > np.float32(0.4015))
    expected = zoo.to_numpy(model.predict(x, verbose=0))
    difference = np.abs(outputs["probability"] - expected).max()
    assert exported.max_difference == pytest.approx(difference, abs=1e-5)
    assert 1e-5 < difference < 0.05
    assert exported.num_disagreements == ((expected > np.float32(0.4015)) != outputs["label"]).sum()
    area, quantized_area = roc_auc_score(y, expected), roc_auc_score(y, outputs["probability"])
    assert area > 0.8
    assert abs(quantized_area - area) < 0.005
    assert read_notes(exported.path)["quantization"] == quantization
    assert read_notes(whole.path)["quantization"] is None


@on_tensorflow
def test_float16_is_the_model_with_rounded_weights(tmp_path):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(1000, 20)).astype("float32")
    model = zoo.with_random_head(binary_classifier(20, compile=False))
    path = tmp_path / "half.tflite"
    export(model, path, "litert", quantization="float16", verify=False)
    rounded = copy.deepcopy(model)
    rounded.set_weights([w.astype("float16").astype("float32") for w in model.get_weights()])
    outputs = FORMATS["litert"].run(path, {"features": x})
    expected = rounded.predict(x, verbose=0)
    difference = np.abs(outputs["probability"] - expected).max()
    assert difference < 1e-6
    assert 10 * difference < np.abs(expected - model.predict(x, verbose=0)).max()


@on_tensorflow
def test_several_inputs_are_quantized(tmp_path):
    model, x, _ = zoo.functional()
    path = tmp_path / "m.tflite"
    exported = export(model, path, "litert", sample=x, quantization="dynamic_range")
    assert exported.max_difference < 0.05


@on_tensorflow
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`:UserWarning")
@pytest.mark.parametrize("format", ["tf_saved_model", "onnx"])
def test_model_that_keras_quantized_is_exported(trained, format, tmp_path):
    if format == "onnx":
        pytest.importorskip("tf2onnx")
    model, x, _ = trained
    small = copy.deepcopy(model)
    small.quantize("int8")
    exported = export(small, tmp_path / ("m.onnx" if format == "onnx" else "m"), format, sample=x)
    assert exported.num_disagreements == 0


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="written by this process")
def test_other_backends_quantize_through_the_other_process(trained, tmp_path):
    model, x, _ = trained
    path = tmp_path / "m.tflite"
    exported = export(model, path, "litert", sample=x, quantization="dynamic_range")
    assert read_notes(path)["quantization"] == "dynamic_range"
    assert 1e-5 < exported.max_difference < 0.05


@on_tensorflow
@pytest.mark.parametrize("prior", [0.5, 0.001])
def test_float16_refuses_a_scaler_of_numbers_that_it_has_not(prior, tmp_path):
    """Where the class is rare, all probabilities are small, and so are their differences."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(1e6, 3e5, (300, 4)).astype("float32")
    scaler = keras.layers.Normalization()
    scaler.adapt(x)
    model = zoo.with_random_head(binary_classifier(4, scaler=scaler, prior=prior))
    with pytest.raises(RuntimeError, match="gives other probabilities than the model"):
        export(model, tmp_path / "m.tflite", "litert", sample=x, quantization="float16")
    assert list(tmp_path.iterdir()) == []


@on_tensorflow
def test_what_is_no_longer_rounding_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(_verification, "QUANTIZED_SHARE", 1e-9)
    with pytest.raises(RuntimeError, match=r"differ on average by .*at most 1e-05 was expected"):
        export(trained[0], tmp_path / "m.tflite", "litert", quantization="float16")
    assert list(tmp_path.iterdir()) == []
