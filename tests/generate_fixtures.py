"""Write one file per registered class and format, and a manifest of what they must give."""

import hashlib
import json
from pathlib import Path

import contract
import keras
import numpy as np
import zoo
from contract_layers import make_model
from contract_metrics import LABELS, make_monitored_model

import keras_binclf
from keras_binclf._registry import REGISTERED

FOLDER = Path(__file__).parent / "fixtures"
FORMATS = (".keras", ".h5", ".weights.h5")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_of(cls):
    """A model with the case of the contract that sets most arguments."""
    case = next(case for case in contract.CASES[cls] if case.name == "full")
    if issubclass(cls, keras.metrics.Metric):
        return make_monitored_model(cls, case)
    return make_model(cls, case)


def classifier():
    model = zoo.with_random_head(keras_binclf.binary_classifier(5, hidden_units=(4, 3), prior=0.2))
    head = keras_binclf.find_head(model)
    head.threshold = 0.125
    head.class_names = ("stays", "leaves")
    return model


def makers():
    classes = {name.split(">")[1]: cls for name, cls in REGISTERED.items()}
    return {
        **{name: lambda cls=cls: model_of(cls) for name, cls in classes.items()},
        "binary_classifier": classifier,
    }


def contract_metrics():
    return {cls.__name__ for cls in contract.CASES if issubclass(cls, keras.metrics.Metric)}


def write_model(name, model, folder):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8, 5)).astype("float32")
    if not model.compiled:
        model.compile("adam", "mse")
    # A trained model has moving averages and an optimizer state worth keeping.
    model.fit(x, rng.random(model.compute_output_shape(x.shape)).round(), verbose=0)
    entry = {
        "config": keras.saving.serialize_keras_object(model),
        "inputs": x.tolist(),
        "outputs": keras.ops.convert_to_numpy(model(x)).tolist(),
        "num_weights": len(model.weights),
        "sha256": {},
    }
    heads = [layer for layer in model.layers if isinstance(layer, keras_binclf.BinaryHead)]
    if heads:
        entry["threshold"] = heads[0].threshold
        entry["labels"] = keras_binclf.predict_labels(model, x).tolist()
    if name in contract_metrics():
        entry["labels_true"] = LABELS[:8].tolist()
        entry["evaluation"] = model.evaluate(x, LABELS[:8], verbose=0, return_dict=True)
    for suffix in FORMATS:
        path = folder / f"{name}{suffix}"
        if suffix == ".weights.h5":
            model.save_weights(path)
        else:
            model.save(path)
        entry["sha256"][path.name] = sha256(path)
    return entry


def main():
    folder = FOLDER / keras_binclf.__version__ / f"keras-{keras.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    manifest.setdefault("keras_binclf", keras_binclf.__version__)
    manifest.setdefault("keras", keras.__version__)
    manifest.setdefault("backend", keras.backend.backend())
    manifest.setdefault("numpy", np.__version__)
    manifest.setdefault("models", {})
    for name, make in makers().items():
        if name in manifest["models"]:
            print(f"{name}: there already, left as it is")
            continue
        keras.utils.set_random_seed(0)
        manifest["models"][name] = write_model(name, make(), folder)
        print(f"{name}: written to {folder.relative_to(FOLDER)}")
    path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
