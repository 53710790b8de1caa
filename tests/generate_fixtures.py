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
    """Return a model with the case of the contract that sets most arguments, and its inputs."""
    cases = contract.CASES[cls]
    case = next((case for case in cases if case.name == "full"), cases[0])
    if issubclass(cls, keras.metrics.Metric):
        return make_monitored_model(cls, case), make_rows()
    if case.adapt or case.codes:
        return make_model(cls, case), contract.make_inputs(case, rows=8)
    return make_model(cls, case), make_rows()


def make_rows():
    return np.random.default_rng(1).normal(size=(8, 5)).astype("float32")


def classifier():
    model = zoo.with_random_head(keras_binclf.binary_classifier(5, hidden_units=(4, 3), prior=0.2))
    head = keras_binclf.find_head(model)
    head.threshold = 0.125
    head.class_names = ("stays", "leaves")
    return model, make_rows()


def make_columns():
    """Return a table that JSON can hold, with a gap in each column that may have one."""
    random = np.random.default_rng(3)
    days = random.integers(0, 900, 60)
    columns = {
        "age": random.integers(18, 90, 60).tolist(),
        "balance": random.normal(1000, 300, 60).round(2).tolist(),
        "charge": [f"{value:.2f}" for value in random.gamma(2, 30, 60)],
        "city": random.choice(["Rome", "Oslo", "größer"], 60).tolist(),
        "plan": [f"p{number}" for number in random.permutation(np.arange(60) % 25)],
        "member": random.choice(["Yes", "no"], 60).tolist(),
        "since": [str(np.datetime64("2020-03-01T08:30") + np.timedelta64(d, "D")) for d in days],
        "country": ["IT"] * 60,
    }
    for place, name in enumerate(["balance", "charge", "city", "plan", "member", "since"]):
        columns[name][place] = None
    return columns


def table_classifier():
    """A classifier of tables, one layer of each kind inside, and a table with an unknown word."""
    columns = make_columns()
    encoder = keras_binclf.TabularEncoder(embedding="piecewise_linear", max_categories=20)
    encoder.adapt(read_columns(columns))
    model = keras_binclf.binary_classifier(encoder, hidden_units=(4, 3), prior=0.2)
    zoo.with_random_head(model)
    table = {name: values[:8] for name, values in columns.items()}
    table["city"][7] = "nowhere"
    return model, table


def read_columns(columns):
    return {name: np.array(values, object) for name, values in columns.items()}


def makers():
    classes = {name.split(">")[1]: cls for name, cls in REGISTERED.items()}
    return {
        **{name: lambda cls=cls: model_of(cls) for name, cls in classes.items()},
        "binary_classifier": classifier,
        "table_classifier": table_classifier,
    }


def contract_metrics():
    return {cls.__name__ for cls in contract.CASES if issubclass(cls, keras.metrics.Metric)}


def write_model(name, model, x, folder):
    """Write the files of one model; `x` are the rows as Keras takes them, or columns of a table."""
    entry = {"config": None, "inputs": None}
    table = None
    if isinstance(x, dict):
        table, entry["table"] = read_columns(x), x
        (encoder,) = [one for one in model.layers if isinstance(one, keras_binclf.TabularEncoder)]
        x = encoder.encode(table)
    if not model.compiled:
        model.compile("adam", "mse")
    # A trained model has moving averages and an optimizer state worth keeping.
    random = np.random.default_rng(2)
    model.fit(x, random.random(model.compute_output_shape(x.shape)).round(), verbose=0)
    entry |= {
        "config": keras.saving.serialize_keras_object(model),
        "inputs": np.where(np.isnan(x), None, x).tolist(),
        "outputs": keras.ops.convert_to_numpy(model(x)).tolist(),
        "num_weights": len(model.weights),
        "sha256": {},
    }
    heads = [layer for layer in model.layers if isinstance(layer, keras_binclf.BinaryHead)]
    if heads:
        entry["threshold"] = heads[0].threshold
        entry["labels"] = keras_binclf.predict_labels(model, x if table is None else table).tolist()
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
        manifest["models"][name] = write_model(name, *make(), folder)
        print(f"{name}: written to {folder.relative_to(FOLDER)}")
    path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
