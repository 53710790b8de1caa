"""What is saved on this backend answers the same on the others, and goes on training there."""

import importlib.util
import json
import os
import zipfile

import keras
import numpy as np
import pytest
import zoo

HERE = keras.backend.backend()
OTHERS = [backend for backend in ("tensorflow", "jax", "torch") if backend != HERE]
REQUIRED = os.environ.get("KERAS_BINCLF_REQUIRE_BACKENDS", "").split(",")
MAKES = (*zoo.PLAIN, *zoo.WITH_TABLES)
NAMES = [make.__name__ for make in MAKES]

WITHOUT_CURE = """
import sys
import keras, numpy, keras_binclf
file, rows, absent = sys.argv[1:]
rows = numpy.load(rows)
try:
    keras.models.load_model(file)
except TypeError as error:
    print("without PyTorch:", error)
sys.path.remove(absent)
model = keras.models.load_model(file)
model.predict(rows["x"], verbose=0)
try:
    model.fit(rows["x"], rows["y"], verbose=0)
except TypeError as error:
    print("with PyTorch:", error)
model = keras.models.load_model(file, compile=False)
model.compile("adam", loss=keras_binclf.find_head(model).loss())
print("compiled anew:", *model.fit(rows["x"], rows["y"], verbose=0).history["loss"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def trained(folder):
    return {make.__name__: zoo.train_and_save(make, folder) for make in MAKES}


@pytest.fixture(scope="module", params=OTHERS)
def there(request):
    """Another backend, that is installed."""
    if importlib.util.find_spec(request.param) is None:
        message = f"{request.param} is not installed"
        pytest.fail(message) if request.param in REQUIRED else pytest.skip(message)
    return request.param


@pytest.fixture(scope="module")
def absent(tmp_path_factory):
    """Return a folder that, in front of what is installed, hides PyTorch."""
    folder = tmp_path_factory.mktemp("absent")
    error = "ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
    (folder / "torch.py").write_text(f"raise {error}")
    return folder


@pytest.fixture(scope="module")
def loaded(there, trained, folder, absent):
    # Who gets a file from PyTorch may well not have it.
    path = absent if HERE == "torch" else None
    return zoo.load_in_fresh_process(folder, "--other-backend", backend=there, path=path)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_the_same_on_another_backend(there, trained, loaded, name, record_property):
    assert "error" not in loaded[name], str(loaded[name]["error"])
    assert set(loaded[name]) - {"losses"} == set(trained[name].answers)
    differences = [0.0]
    for key, value in trained[name].answers.items():
        if key.startswith("outputs/"):
            difference = np.abs(loaded[name][key].astype("float64") - value)
            differences.append(float(difference.max()))
        else:
            np.testing.assert_array_equal(loaded[name][key], value, err_msg=key)
    record_property("cross_backend", [HERE, there, max(differences)])
    # Sums of at most a few dozen float32 terms, in another order.
    assert max(differences) <= 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_training_continues_on_another_backend_as_it_does_here(there, trained, loaded, name):
    assert "error" not in loaded[name], str(loaded[name]["error"])
    losses = loaded[name]["losses"]
    assert np.all(np.isfinite(losses))
    if name not in zoo.TRAIN_ON_AT_RANDOM:
        # The mean over two steps, of which the second shows that the optimizer kept its state.
        # Gradients differ in their last bits; without that state it would be by 7e-5 or more.
        np.testing.assert_allclose(losses, trained[name].losses, rtol=1e-5)


def test_file_tells_how_this_backend_compiles(tmp_path):
    """Why `load_elsewhere` sets `jit_compile`; if it is "auto" one day, that can go."""
    zoo.train_and_save(zoo.classifier, tmp_path)
    with zipfile.ZipFile(tmp_path / "classifier.keras") as file:
        config = json.loads(file.read("config.json"))["compile_config"]
    assert isinstance(config["jit_compile"], bool)
    assert config["jit_compile"] or HERE != "jax"


@pytest.mark.skipif(HERE != "torch", reason="is about files from PyTorch")
def test_file_from_torch_does_not_train_elsewhere_without_cure(there, trained, folder, absent):
    """Why `load_elsewhere` names the optimizers; if this fails one day, that can go."""
    arguments = [folder / "classifier.keras", folder / "classifier.npz", absent]
    out = zoo.run_python("-c", WITHOUT_CURE, *arguments, backend=there, path=absent, cwd=folder)
    assert (
        "without PyTorch: Could not deserialize class 'Adam' because its parent module "
        "keras.src.backend.torch.optimizers.torch_adam cannot be imported."
    ) in out
    assert "with PyTorch: expected Tensor as element 0 in argument 0, but got " in out
    assert "compiled anew: 0." in out
