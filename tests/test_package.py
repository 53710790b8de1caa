"""The package as a whole: what it exports, who imports whom, what importing it costs."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

import keras_binclf

pytestmark = pytest.mark.once
ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_binclf"
# A module imports only from rooms above it (docs/design.md).
ROOMS = [
    ("_version",),
    ("_missing", "_registry", "_validation"),
    ("_layer_state",),
    ("layers",),
    ("metrics",),
    ("_data",),
    ("decision",),
    ("callbacks",),
    ("models",),
    ("training",),
    ("evaluation",),
    ("serving",),
    ("saving",),
    ("tuner",),
    ("sklearn",),
    ("plots",),
    ("report",),
    ("__main__",),
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module):
    """The room's place in the order, from a dotted name below the package."""
    name = module.removeprefix("keras_binclf.").split(".")[0]
    return next(place for place, names in enumerate(ROOMS) if name in names)


def imports_of(path):
    """What a file imports of the package: dotted names of modules, or of objects in them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_binclf"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("keras_binclf"))


def name_module(path):
    """Dotted name of a file's module; that of a folder for its `__init__`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def find_hidden(importer, imported):
    """The private part of a dotted name that `importer` may not see, or None.

    A private module or object is for the folder that holds it, and for what is below that folder.
    """
    parts = imported.split(".")
    for i, part in enumerate(parts):
        if not part.startswith("_") or part.startswith("__"):
            continue
        # An object's folder is that of its module.
        is_module = (ROOT / "/".join(parts[: i + 1])).with_suffix(".py").exists()
        is_folder = (ROOT / "/".join(parts[: i + 1])).is_dir()
        in_file = (ROOT / "/".join(parts[:i])).with_suffix(".py").exists()
        is_object = in_file and not (is_module or is_folder)
        # A module at the top is a room of its own.
        folder = parts[: i - 1] if is_object and i > 2 else parts[:i]
        own = importer.split(".")
        if own[: len(folder)] != folder:
            return part
    return None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_from_rooms_above_only(path):
    own = name_module(path)
    if own == "keras_binclf":
        return
    for imported in imports_of(path):
        if imported.count(".") == 1 and imported.split(".")[1] in keras_binclf.__all__:
            continue  # in the example of a docstring or by a lazy import of a public name
        same_room = imported.split(".")[1] == own.split(".")[1]
        assert same_room or room_of(imported) < room_of(own), f"{own} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_name_crosses_a_room(path):
    hidden = {name: find_hidden(name_module(path), name) for name in imports_of(path)}
    assert {name for name, part in hidden.items() if part} == set()


def test_a_private_name_of_another_room_is_found():
    assert find_hidden("keras_binclf.tuner.x", "keras_binclf.metrics._histogram") == "_histogram"
    assert find_hidden("keras_binclf.tuner.x", "keras_binclf.models._wire") == "_wire"
    assert find_hidden("keras_binclf.tuner.x", "keras_binclf.layers.mlp_block._Step") == "_Step"
    assert find_hidden("keras_binclf.metrics.x", "keras_binclf.metrics._histogram.add") is None
    assert find_hidden("keras_binclf.tuner.x", "keras_binclf._data.heads.find_head") is None


def test_every_module_stands_in_a_room():
    for path in MODULES:
        if path.parent == PACKAGE and path.stem != "__init__":
            room_of(path.stem)


# The functions for which Keras has no name of its own: to compile, and to read a value that stays.
BACKEND_IMPORTS = {
    ("_compiling.py", "_compile", "jax"),
    ("_compiling.py", "_compile", "torch"),
    *(("_compiling.py", f, "tensorflow") for f in ("compile_reading", "copy_all", "read_variable")),
    ("_compiled_model.py", "_compile_on_tensorflow", "tensorflow"),
    ("_compiled_model.py", "_compile_on_jax", "jax"),
    ("_compiled_model.py", "_compile_on_torch", "torch"),
    ("_compiled_model.py", "_trace_on_torch", "torch"),
    # What they keep of each training, for which Keras has no name.
    ("memory.py", "_read_registry", "tensorflow"),
    ("memory.py", "forget_compiled", "jax"),
    # Artefacts are written by TensorFlow, and a SavedModel is run by it.
    ("_serving_function.py", "make_function", "tensorflow"),
    ("_saved_model.py", "run", "tensorflow"),
    ("_saved_model.py", "_rename_inputs", "tensorflow"),
    ("_onnx.py", "_read_tables", "tensorflow"),
    ("_litert.py", "write", "tensorflow"),
    ("_graph_encoder.py", "_add_table", "tensorflow"),
}


def test_backend_modules_are_imported_only_where_they_are_needed():
    found = set()
    for path in MODULES:
        for function in ast.walk(ast.parse(path.read_text())):
            body = getattr(function, "body", None)
            for node in body if isinstance(body, list) else []:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                for name in {"tensorflow", "jax", "torch"} & {n.split(".")[0] for n in names}:
                    found.add((path.name, find_function(path, node.lineno), name))
    assert found == BACKEND_IMPORTS


def find_function(path, line):
    """Name of the function in which a line stands, None for the module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= node.end_lineno:
            return node.name
    return None


# Private attributes of Keras and its backends, each with the one function that touches it.
PRIVATE = {
    "_flatten_layers": {"iterate_layers"},
    "_keras_history": {"_emits"},
    "_direction": {"get_direction"},
    "_velocity_hats": {"_list_all"},
    # That of an optimizer, and that of a layer.
    "_trainable_variables": {"_list_all", "list_parts"},
    "_non_trainable_variables": {"list_parts"},
    "_layers": {"list_parts"},
    "_value": {"_read_values"},
    "_iterations": {"get_counter"},
    "_u_product": {"get_product"},
    "_jax_state": {"__call__"},
    "_jax_state_synced": {"__call__"},
    "_registry": {"_read_registry"},
}
NOT_PRIVATE = {"_replace", "_repr_png_"}  # of named tuples, and of IPython


def private_attributes_of(path):
    """Private attributes that a file reads of objects of others: name and line."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found = [
        (node.attr, node.lineno)
        for node in attributes
        if getattr(node.value, "id", None) not in ("self", "cls")
    ]
    found += [
        (node.args[1].value, node.lineno)
        for node in nodes
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", None) in ("getattr", "hasattr")
        and isinstance(node.args[1], ast.Constant)
    ]
    is_private = re.compile(r"_[a-z]").match
    yield from ((n, line) for n, line in found if is_private(n) and n not in own | NOT_PRIVATE)


def test_private_attributes_of_keras_are_each_touched_in_one_function():
    found = {}
    for path in MODULES:
        for name, line in private_attributes_of(path):
            found.setdefault(name, set()).add(find_function(path, line))
    assert found == PRIVATE
    page = (ROOT / "docs" / "design.md").read_text()
    assert [name for name in found if f"{name}`" not in page] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_importing_a_module_brings_in_nothing_heavy(path):
    """Keras imports scikit-learn and pandas where they are, so only the source can tell."""
    for node in ast.parse(path.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in (name.split(".")[0] for name in names):
            light = {"keras", "keras_binclf", "numpy"} | sys.stdlib_module_names
            # The room itself is imported when it is asked for.
            assert name in light or (name == "keras_tuner" and "tuner" in path.parts), name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_evaluates_text_or_unpickles(path):
    """Nor makes a layer of code, or turns off what keeps Keras from running that of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert not {"pickle", "marshal", "dill", "joblib", "shelve"} & set(names)
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", None))
            assert called not in ("eval", "exec", "Lambda", "enable_unsafe_deserialization")
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            assert "safe_mode" not in given
            # NumPy unpickles arrays of objects only where it is told to.
            assert "allow_pickle" not in given


def test_all_is_what_can_be_reached():
    assert keras_binclf.__all__ == sorted(keras_binclf.__all__)
    for name in keras_binclf.__all__:
        assert getattr(keras_binclf, name) is not None
    exported = {
        name
        for name, value in vars(keras_binclf).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("keras_binclf.")
    }
    # Reached when they are asked for.
    exported |= {name for name, room in keras_binclf._LAZY.items() if room}
    assert exported == {name for name in keras_binclf.__all__ if not name.startswith("_")}


@pytest.mark.parametrize("name", [name for name in keras_binclf.__all__ if name[0] != "_"])
def test_every_public_name_is_reachable_by_its_room(name):
    item = getattr(keras_binclf, name)
    room = item.__module__.split(".")[1]
    # What is defined in a private room is public where people have always found it.
    room = importlib.import_module(f"keras_binclf.{ {'_data': 'decision'}.get(room, room) }")
    assert getattr(room, name) is item


def test_version_is_that_of_the_changelog():
    """After a release, as long as changes are unreleased, it is a `.dev` of a later one."""
    first, *rest = re.findall(r"^## \[([^]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    version = Version(keras_binclf.__version__)
    if first == "Unreleased":
        assert version.is_devrelease
        assert version > Version(rest[0])
    else:
        assert version == Version(first)


def run_fresh(code):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=environment,
    ).stdout


def test_import_is_silent_and_plots_are_there_when_asked_for():
    """And change nothing; plots are reached without matplotlib, until one is drawn."""
    code = """
import contextlib, io, json, sys
import keras
policy, state = keras.config.dtype_policy().name, keras.config.floatx()
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    import keras_binclf
assert (policy, state) == (keras.config.dtype_policy().name, keras.config.floatx())
heavy = ("keras_tuner", "keras_binclf.tuner", "keras_binclf.plots")
loaded = [name for name in heavy if name in sys.modules]
assert "plots" in dir(keras_binclf) and "plots" not in vars(keras_binclf)
sys.modules["matplotlib"] = None  # makes its import fail; Keras had its own before
assert keras_binclf.plots.__name__ == "keras_binclf.plots"
from keras_binclf import plots
assert plots is keras_binclf.plots
print(json.dumps([said.getvalue(), loaded]))
"""
    assert json.loads(run_fresh(code).splitlines()[-1]) == ["", []]


def test_missing_attribute_is_an_error_as_of_any_module():
    with pytest.raises(AttributeError, match="module 'keras_binclf' has no attribute 'plot'"):
        _ = keras_binclf.plot


@pytest.mark.parametrize("name", ["BinaryClassifierHyperModel", "build_best", "tuner"])
def test_search_without_keras_tuner_names_the_command_that_installs_it(monkeypatch, name):
    for module in [key for key in sys.modules if key.startswith("keras_binclf.tuner")]:
        monkeypatch.delitem(sys.modules, module)
    # Once imported, the room is an attribute of the package.
    monkeypatch.delattr(keras_binclf, "tuner", raising=False)
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    message = r"needs Keras Tuner .*installed: keras_tuner\. `pip install keras-tuner`"
    with pytest.raises(ModuleNotFoundError, match=message):
        getattr(keras_binclf, name)
    # Everything else is there.
    assert keras_binclf.Predictor is not None


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_missing_backend_names_the_command_and_the_other_backends(backend):
    from keras_binclf._missing import explain_missing

    error = explain_missing(ModuleNotFoundError(f"No module named {backend!r}", name=backend))
    assert error.name == backend
    assert f"`pip install {backend}`" in str(error)
    assert "KERAS_BACKEND" in str(error)
    assert str(error).count(repr(backend)) == 0


def test_import_without_the_backend_of_keras_names_the_command():
    code = """
import sys
sys.modules["tensorflow"] = None
try:
    import keras_binclf
except ModuleNotFoundError as error:
    print(error)
"""
    env = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert "keras_binclf needs tensorflow" in done.stdout
    assert "`pip install tensorflow`" in done.stdout
