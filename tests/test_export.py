"""Exported models, served by other runtimes in a process without the package."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import serve_elsewhere
import zoo

from keras_binclf import BinaryHead, binary_classifier, find_head, predict_labels
from keras_binclf._data.inputs import read_inputs
from keras_binclf.saving import export
from keras_binclf.saving.artefacts._formats import FORMATS
from keras_binclf.saving.artefacts._sample import make_up_batches

BACKEND = keras.backend.backend()
SUFFIXES = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite", "openvino": ".xml"}
RUNTIMES = {
    "tf_saved_model": "tensorflow",
    "onnx": "onnxruntime",
    "litert": "ai_edge_litert",
    "openvino": "openvino",
}
AVAILABLE = [name for name, module in RUNTIMES.items() if importlib.util.find_spec(module)]
ROWS = 2_000


def list_cases():
    """Kinds of models by formats.

    All formats are converted from one function, which is made of any structure in the same way: a
    structure is tried in one format, and what layers and dtypes are made of in each.
    """
    if BACKEND != "tensorflow":  # Each takes a process of ten seconds.
        yield from ((zoo.functional, "litert"), (zoo.classifier, "onnx"))
        yield zoo.subclassed, "tf_saved_model"
        return
    for name in SUFFIXES:
        yield zoo.functional, name  # GELU, embedding, two inputs, logits
        yield zoo.classifier, name  # scaler
    yield zoo.sequential, "tf_saved_model"
    yield zoo.nested, "litert"
    yield zoo.subclassed, "onnx"
    yield zoo.nested_with_its_head, "tf_saved_model"
    yield zoo.own_train_step, "tf_saved_model"
    yield zoo.classifier_with_lora, "onnx"
    yield zoo.time_distributed_block, "onnx"
    yield zoo.convolutional, "litert"
    yield zoo.masked_steps, "onnx"
    yield zoo.masked_gru, "openvino"


CASES = [(make, name) for make, name in list_cases() if name in AVAILABLE]
PARAMETERS = [
    pytest.param(
        *(make, name),
        id=f"{make.__name__}-{name}",
        marks=pytest.mark.skipif(name not in AVAILABLE, reason=f"no {RUNTIMES[name]} here"),
    )
    for make, name in list_cases()
]


def draw_rows(x):
    """Return many rows like those of a model of the zoo."""
    rng = np.random.default_rng(0)

    def draw(values):
        drawn = np.asarray(values)[rng.integers(0, len(values), ROWS)]
        if drawn.dtype.kind != "f":
            return drawn
        return (drawn + rng.normal(0, np.std(values), drawn.shape)).astype("float32")

    return {name: draw(values) for name, values in x.items()} if isinstance(x, dict) else draw(x)


def name_inputs(model, x):
    if isinstance(x, dict):
        return x
    known = getattr(model, "inputs", None)
    return {known[0]._keras_history.operation.name if known else "inputs": x}


def cut_between_scores(model, x):
    """Put the threshold where no row is within rounding of it; return the probabilities."""
    head = find_head(model)
    probabilities = zoo.to_numpy(head.probabilities(model.predict(x, verbose=0)))
    scores, counts = np.unique(probabilities, return_counts=True)
    # Many rows may have the same score, where all units of a layer are off.
    shares = 1 - np.cumsum(counts)[:-1] / counts.sum()
    gaps = np.where((shares > 0.25) & (shares < 0.75), np.diff(scores), 0)
    widest = gaps.argmax()
    assert gaps[widest] > 1e-5
    head.threshold = scores[widest : widest + 2].mean()
    return probabilities


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What the model gives and what each artefact gives, by kind and format."""
    folder = tmp_path_factory.mktemp("artefacts")
    given = {}
    kinds = dict.fromkeys(make for make, _ in CASES)
    for make in kinds:
        model, x, _ = make()
        x = draw_rows(x)
        expected = cut_between_scores(model, x)
        head = find_head(model)
        head.class_names = ("stays", "leaves")
        labels = predict_labels(model, x)
        assert 0.2 < labels.mean() < 0.8
        name = make.__name__
        inputs = name_inputs(model, x)
        # Keras takes integers of any size, other runtimes those of the model.
        if isinstance(x, dict):
            inputs = {**inputs, "city": inputs["city"].astype("float32")}
        elif x.dtype.kind != "f":
            inputs = {key: value.astype("float32") for key, value in inputs.items()}
        np.savez(folder / f"{name}.npz", **inputs)
        for kind in [kind for other, kind in CASES if other is make]:
            exported = export(model, folder / f"{name}{SUFFIXES[kind]}", kind, sample=x)
            given[name, kind] = expected, labels, head.threshold, exported
    assert {path.suffix for path in folder.iterdir()} <= {".npz", ".bin", *SUFFIXES.values()}
    zoo.run_python(serve_elsewhere.__file__, folder, backend="tensorflow", cwd=folder)
    return folder, given


@pytest.mark.parametrize(("make", "format"), PARAMETERS)
def test_artefact_gives_what_the_model_gives(served, make, format):
    folder, given = served
    name = make.__name__
    expected, labels, threshold, exported = given[name, format]
    found = np.load(folder / f"{name}{SUFFIXES[format]}.served.npz")
    assert found["probability"].dtype == np.float32
    assert found["label"].dtype == np.int32
    assert found["probability"].shape == expected.shape
    np.testing.assert_allclose(found["probability"], expected, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(found["label"], labels)
    assert exported.num_rows == ROWS
    assert exported.num_disagreements == 0
    assert exported.max_difference <= 2e-6
    notes = json.loads(str(found["notes"]))
    assert notes["threshold"] == threshold
    assert notes["class_names"] == ["stays", "leaves"]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere it is not written")
def test_signature_is_what_tensorflow_serving_reads(served, capsys):
    """Names, shapes and types, as TensorFlow's own command shows them."""
    from tensorflow.python.tools import saved_model_cli

    folder, _ = served
    place = ["--dir", str(folder / "functional")]
    signature = ["--tag_set", "serve", "--signature_def", "serving_default"]
    arguments = saved_model_cli.create_parser().parse_args(["show", *place, *signature])
    arguments.func()
    shown = capsys.readouterr().out
    found = re.findall(r"\['(\w+)'\] tensor_info:\s+dtype: (\w+)\s+shape: (\(.*?\))", shown)
    assert sorted(found) == [
        ("amount", "DT_FLOAT", "(-1, 6)"),
        ("city", "DT_FLOAT", "(-1)"),
        ("label", "DT_INT32", "(-1, 1)"),
        ("probability", "DT_FLOAT", "(-1, 1)"),
    ]
    assert "Method name is: tensorflow/serving/predict" in shown


# What cannot be


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (lambda: "model", {}, TypeError, r"`model` of export must be a keras\.Model"),
        (lambda: keras.Sequential([keras.Input((2,))]), {}, ValueError, "has no BinaryHead"),
        (lambda: zoo.two_heads()[0], {}, ValueError, "has 2 heads: .* Say which one"),
        (lambda: keras.Sequential([BinaryHead()]), {}, ValueError, "export needs a built model"),
        (
            lambda: binary_classifier(2),
            {"format": "onxx"},
            ValueError,
            r"one of 'tf_saved_model', 'onnx', 'litert', 'openvino'.*Did you mean 'onnx'\?",
        ),
        (
            lambda: binary_classifier(2),
            {"format": "onnx"},
            ValueError,
            r"a path that ends in '\.onnx' for 'onnx'.*As in '.*model\.onnx'",
        ),
        (
            lambda: binary_classifier(2),
            {"sample": np.zeros((3, 4))},
            ValueError,
            r"`sample` of export must be of shape \(n, 2\)\. Received: shape \(3, 4\)",
        ),
        (lambda: binary_classifier(2), {"verify": 1}, TypeError, "`verify` of export must be"),
    ],
)
def test_what_cannot_be_exported(make, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        export(make(), tmp_path / "model", **options)
    assert list(tmp_path.iterdir()) == []


def test_path_that_exists_stays_as_it_is(tmp_path):
    path = tmp_path / "model"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"writes to a new path.*Remove it"):
        export(binary_classifier(2), path)
    assert path.read_text() == "mine"


def test_weights_beside_an_openvino_path_stay_as_they_are(tmp_path):
    pytest.importorskip("openvino")
    (tmp_path / "model.bin").write_text("mine")
    with pytest.raises(FileExistsError, match=r"model\.bin' exists"):
        export(binary_classifier(2), tmp_path / "model.xml", "openvino")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"export cannot write to '.*file'"):
        export(binary_classifier(2), tmp_path / "file" / "model")


def test_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "onnx" in name else find_spec(name)
    )
    message = r'needs onnx and tf2onnx and onnxruntime: `pip install "keras-binclf\[onnx\]"`'
    with pytest.raises(ImportError, match=message):
        export(binary_classifier(2), tmp_path / "model.onnx", "onnx")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="comparing is the same on each backend")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": 0.01}, r"other probabilities .*differ by up to 1\.0e-02, at most 1e-06"),
        ({"label": 1}, "other labels than the model for 256 of 256 rows"),
        ({"probability": np.nan}, "other probabilities"),
    ],
)
def test_artefact_that_differs_is_refused_and_removed(tmp_path, monkeypatch, change, message):
    target = FORMATS["tf_saved_model"]
    run = target.run

    def differ(*arguments):
        return {name: value + change.get(name, 0) for name, value in run(*arguments).items()}

    monkeypatch.setattr(target, "run", differ)
    with pytest.raises(RuntimeError, match=message):
        export(zoo.with_random_head(binary_classifier(2)), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere it takes a process")
def test_what_a_format_has_no_place_for_leaves_nothing(tmp_path):
    pytest.importorskip("ai_edge_litert")
    model, x, _ = zoo.masked_gru()
    with pytest.raises(RuntimeError, match="could not write 'sequential' as 'litert'"):
        export(model, tmp_path / "model.tflite", "litert", sample=x)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(BACKEND == "tensorflow", reason="written by this process")
def test_error_of_the_other_process_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p).name != "tests"])
    with pytest.raises(RuntimeError, match="No module named 'zoo_classes'"):
        export(zoo.subclassed()[0], tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(BACKEND == "tensorflow", reason="written by this process")
def test_class_of_a_script_is_named(tmp_path, monkeypatch):
    model = zoo.subclassed()[0]
    monkeypatch.setattr(type(model), "__module__", "__main__")
    with pytest.raises(RuntimeError, match=r"Subclassed is a class of the script .* Move it to a"):
        export(model, tmp_path / "model")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere it takes a process")
def test_rows_are_made_up_where_the_scaler_expects_them(tmp_path):
    scaler = keras.layers.Normalization()
    scaler.adapt(np.random.default_rng(0).normal([1e6, -50], [1e3, 0.01], (100, 2)))
    model = zoo.with_random_head(binary_classifier(2, scaler=scaler))
    assert export(model, tmp_path / "model").max_difference <= 1e-6
    (batch,) = make_up_batches(model, read_inputs(model, "export"), {}, "export")
    rows = batch["features"]
    assert np.std(model.predict(rows, verbose=0)) > 0.05
