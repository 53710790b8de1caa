"""What `describe` says of a file, against the model that Keras loads from it."""

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import contract
import h5py
import hostile_files
import keras
import numpy as np
import pytest
import zoo
from keras import layers

import keras_binclf
from keras_binclf import BinaryHead, MLPBlock, binary_classifier, find_head
from keras_binclf.__main__ import main
from keras_binclf._data.heads import list_heads
from keras_binclf._registry import REGISTERED
from keras_binclf.saving import describe
from keras_binclf.saving.files import _archive

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
    for place, head in enumerate(list_heads(model)):
        head.threshold = 0.11 + 0.2 * place


# Of a frozen model inside, Keras makes an optimizer without the state that it saved.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_description_is_what_the_loaded_model_says(make, tmp_path):
    model, *_ = make()
    model.optimizer.build(model.trainable_variables)
    set_thresholds(model)
    description = describe(save(model, tmp_path))
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert description.num_parameters == loaded.count_params()
    assert description.model_name == loaded.name
    assert description.model_class.split(">")[-1] == type(loaded).__name__
    assert description.keras_version == keras.__version__
    assert description.compiled
    assert description.loss.endswith("BinaryCrossentropy")
    assert description.optimizer == type(model.optimizer).__name__
    if make is zoo.subclassed:
        assert description.heads == ()
        assert description.notes == (
            "The file does not list the layers of tests>Subclassed, which may hold more heads.",
        )
        return
    assert description.notes == ()
    assert description.keras_binclf_version == keras_binclf.__version__
    assert description.num_outputs == len(loaded.outputs)
    assert {one.name: (one.shape, one.dtype) for one in description.inputs} == {
        one.name: (one.shape, one.dtype) for one in loaded.inputs
    }
    assert {
        (one.path.split("/")[-1], one.threshold, one.activation) for one in description.heads
    } == {(head.name, head.threshold, head.activation) for head in list_heads(loaded)}
    assert len(description.heads) == len(list_heads(loaded))


def two_classifiers():
    """Two nested models whose heads have the same name, and other thresholds."""
    inputs = keras.Input((3,))
    nested = [binary_classifier(3, hidden_units=None, name=name) for name in ("left", "right")]
    return keras.Model(inputs, [model(inputs) for model in nested])


def test_heads_of_one_name_in_two_nested_models_are_told_apart(tmp_path):
    model = two_classifiers()
    for name, threshold in (("left", 0.2), ("right", 0.7)):
        find_head(model.get_layer(name)).threshold = threshold
    found = {head.path: head.threshold for head in describe(save(model, tmp_path)).heads}
    assert found == {"left/binary_head": 0.2, "right/binary_head": 0.7}


def test_head_that_is_used_twice_is_one_head(tmp_path):
    head, inputs = BinaryHead(name="shared"), keras.Input((3,))
    model = keras.Model(inputs, [head(inputs), head(layers.Dense(3)(inputs))])
    head.threshold = 0.3
    description = describe(save(model, tmp_path))
    assert [one.threshold for one in description.heads] == [0.3]
    assert description.num_outputs == 2


def test_threshold_is_that_of_the_weights_not_that_of_the_config(tmp_path):
    model = binary_classifier(3)
    find_head(model).threshold = 0.3
    path = save(model, tmp_path)
    config = read_config(path)
    config["config"]["layers"][-1]["config"]["threshold"] = 0.9
    rewrite(path, config__json=json.dumps(config))
    assert describe(path).heads[0].threshold == 0.3
    assert find_head(keras.models.load_model(path, compile=False)).threshold == 0.3


@keras.saving.register_keras_serializable(package="tests")
class OwnHead(BinaryHead):
    """A head of somebody else's, with a number more."""

    def build(self, input_shape):
        super().build(input_shape)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")


@keras.saving.register_keras_serializable(package="tests")
class Holder(keras.Model):
    """Lists its head in its config, under a key that is not the name of the attribute."""

    def __init__(self, head=None, **kwargs):
        super().__init__(**kwargs)
        self.own = head or BinaryHead(name="inside")

    def call(self, inputs):
        return self.own(inputs)

    def get_config(self):
        head = keras.saving.serialize_keras_object(self.own)
        return {**super().get_config(), "head": head}


def test_head_that_a_subclassed_model_lists_is_found_by_its_name(tmp_path):
    model = Holder()
    model(np.zeros((1, 3)))
    model.own.threshold = 0.4
    description = describe(save(model, tmp_path))
    assert [(head.path, head.threshold) for head in description.heads] == [("inside", 0.4)]
    assert description.custom_classes == ("tests>Holder",)


def test_threshold_that_is_not_certain_is_unknown(tmp_path):
    model = keras.Sequential([keras.Input((3,)), OwnHead(threshold=0.2)])
    description = describe(save(model, tmp_path))
    assert [(head.class_name, head.threshold) for head in description.heads] == [
        ("tests>OwnHead", None)
    ]
    assert "threshold unknown" in str(description)


def test_classes_are_told_by_whose_they_are(tmp_path):
    block = MLPBlock(4, activation=contract.scaled_tanh)
    model = keras.Sequential([keras.Input((3,)), block, contract.Scaled(), BinaryHead()])
    model.compile("adam", loss="mse", metrics=[keras_binclf.BrierScore(), "accuracy"])
    description = describe(save(model, tmp_path))
    assert description.package_classes == (
        "keras_binclf>BinaryHead",
        "keras_binclf>BrierScore",
        "keras_binclf>MLPBlock",
    )
    assert description.custom_classes == ("tests>Scaled", "tests>scaled_tanh")
    assert description.loss == "mse"


def test_head_says_its_classes_and_prior(tmp_path):
    model = binary_classifier(3, prior=0.25, activation_out=None, compile=False)
    find_head(model).class_names = ("stays", "leaves")
    description = describe(save(model, tmp_path))
    (head,) = description.heads
    assert (head.class_names, head.prior, head.activation) == (("stays", "leaves"), 0.25, None)
    assert not description.compiled
    assert (description.optimizer, description.loss) == (None, None)
    assert (
        "  head        binary_head: logits, threshold 0.5, classes 'stays', 'leaves', prior 0.25"
        in str(description).splitlines()
    )


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_quantized_model_is_described(tmp_path):
    model = binary_classifier(3, compile=False)
    model.quantize("int8")
    find_head(model).threshold = 0.2
    path = save(model, tmp_path)
    description = describe(path)
    assert description.heads[0].threshold == 0.2
    assert description.num_parameters == keras.models.load_model(path).count_params()


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="writes classes of its own")
def test_backend_is_known_where_the_file_tells(tmp_path):
    assert describe(save(binary_classifier(3), tmp_path)).backend == "torch"


@pytest.mark.parametrize(
    "path", sorted(FIXTURES.rglob("*.keras")), ids=lambda path: str(path.relative_to(FIXTURES))
)
def test_files_of_every_release_are_described(path):
    entry = json.loads((path.parent / "manifest.json").read_text())["models"][path.stem]
    description = describe(path)
    assert [head.threshold for head in description.heads] == (
        [entry["threshold"]] if "threshold" in entry else []
    )
    assert description.inputs[0].shape == (None, len(entry["inputs"][0]))
    if "table" in entry:
        assert [column.name for column in description.columns] == list(entry["table"])
    assert set(description.package_classes) <= set(REGISTERED)


def test_page_shows_what_the_command_prints(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parent.parent / "docs" / "saving.md").read_text()
    shown = re.search(r"^    \$ python -m keras_binclf describe .*\n((?:    .*\n)+)", page, re.M)[1]
    model = binary_classifier(4)
    find_head(model).threshold = 0.2
    save(model, tmp_path)
    monkeypatch.chdir(tmp_path)
    main(["describe", "model.keras"])
    changing = re.compile(r"\d+\.\d+\.\d+(\.dev\d+)?|[-\d]+@[:\d]+| on torch")
    assert changing.sub("", textwrap.dedent(shown)) == changing.sub("", capsys.readouterr().out)


# ---- damaged and foreign files


@pytest.fixture
def saved(tmp_path):
    return save(binary_classifier(3), tmp_path)


def edit_config(path, **changes):
    rewrite(path, config__json=json.dumps(read_config(path) | changes))


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.keras"):
        describe(tmp_path / "no.keras")


def test_folder(tmp_path):
    with pytest.raises(ValueError, match="It is a folder"):
        describe(tmp_path)


def test_legacy_file(saved):
    keras.models.load_model(saved, compile=False).save(saved.with_suffix(".h5"))
    with pytest.raises(ValueError, match=r"It is an HDF5 file: load it, and save it as `\.keras`"):
        describe(saved.with_suffix(".h5"))


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
def test_no_archive(saved, content):
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=r"It is no zip archive, or one that was cut off"):
        describe(saved)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_cut_off(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="cut off"):
        describe(saved)


@pytest.mark.parametrize("content", [None, b"[]", b"null", b'{"class_name": "Functional"}'])
def test_archive_without_a_model(saved, content):
    rewrite(saved, config__json=content)
    with pytest.raises(ValueError, match=r"no config\.json with a model"):
        describe(saved)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xff", b"[" * 10**5, b"1" * 10**5, b'{"class_name": '],
    ids=["empty", "open", "bytes", "deep", "long", "cut"],
)
def test_damaged_json(saved, content):
    rewrite(saved, config__json=content)
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        describe(saved)


def test_deeply_nested_config(saved):
    depth = 20_000
    opening = '{"class_name": "A", "config": {"a": '
    rewrite(saved, config__json=f"{depth * opening}1{2 * depth * '}'}")
    with pytest.raises(ValueError, match="is damaged: maximum recursion depth"):
        describe(saved)


def test_changed_weights(saved):
    content = saved.read_bytes()
    place = content.index(b"HDF\r\n") + 3000
    saved.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"model\.weights\.h5 of .* is damaged: Bad CRC-32"):
        describe(saved)


def test_weights_that_are_no_hdf5(saved):
    rewrite(saved, model__weights__h5=b"no HDF5")
    with pytest.raises(ValueError, match=r"model\.weights\.h5 is damaged"):
        describe(saved)


def test_without_weights_or_metadata(saved):
    rewrite(saved, model__weights__h5=None, metadata__json=None)
    description = describe(saved)
    assert (description.num_parameters, description.keras_version) == (None, None)
    assert description.heads[0].threshold is None
    assert description.notes == ("The file holds no weights in the form of model.weights.h5.",)


def test_bomb(saved):
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * 2**26)
    with pytest.raises(
        ValueError, match=r"config\.json of .* is too large.*2,097,152 bytes.*67,108,864"
    ):
        describe(saved)


def test_large_weights_are_not_read(saved, monkeypatch):
    monkeypatch.setattr(_archive, "MAX_WEIGHTS", 1000)
    description = describe(saved)
    assert description.heads[0].threshold is None
    assert description.notes[0].endswith("bytes and were not read.")


def test_links_to_other_files_are_not_followed(saved, tmp_path):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        variables = file.create_group("binary_head/vars")
        variables.attrs["name"] = "binary_head"
        variables["2"] = np.float32(0.9)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["layers"] = h5py.ExternalLink(str(other), "/")
        file.create_group("vars")["0"] = h5py.ExternalLink(str(other), "/binary_head/vars/2")
    rewrite(saved, model__weights__h5=content.getvalue())
    description = describe(saved)
    assert (description.heads[0].threshold, description.num_parameters) == (None, 0)


def test_numbers_of_other_files_are_not_counted(saved, tmp_path):
    layout = h5py.VirtualLayout((7,), "float32")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "numbers", (7,))
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_virtual_dataset("vars/0", layout)
    rewrite(saved, model__weights__h5=content.getvalue())
    assert describe(saved).num_parameters == 0


def test_class_of_a_newer_version_and_a_lambda_are_noted(saved):
    newer = {"class_name": "Gate", "config": {}, "registered_name": "keras_binclf>Gate"}
    function = {"class_name": "__lambda__", "config": {"value": "..."}}
    edit_config(saved, config={"layers": [newer], "activation": function})
    notes = describe(saved).notes
    assert f"keras_binclf>Gate is not in keras_binclf {keras_binclf.__version__}" in notes[0]
    assert "lambda" in notes[1]


def test_config_of_wrong_types_is_described_as_far_as_it_goes(saved):
    config = read_config(saved)["config"]
    layers = config["layers"]
    layers[1]["build_config"]["keras_binclf_version"] = ["1.0"]
    layers[-1]["config"] |= {"activation": 3, "prior": {}, "class_names": 1, "name": None}
    config |= {"name": [], "output_layers": 3}
    edit_config(saved, config=config, build_config=3, compile_config=[])
    description = describe(saved)
    (head,) = description.heads
    assert (head.activation, head.prior, head.class_names) == ("3", None, None)
    assert head.threshold is None
    assert (description.model_name, description.num_outputs) == (None, None)
    assert not description.compiled
    assert str(description)


def test_columns_of_a_table_are_listed(tmp_path):
    schema = [
        {"name": "age", "kind": "number", "source": "text", "has_missing": True, "offset": 0.0},
        {"name": "job", "kind": "category", "source": "text", "categories": ["a", "b"]},
        {"name": 3, "kind": "boolean", "source": "boolean", "has_missing": False},
        {"name": "id", "kind": "ignored", "source": "text", "reason": "one value a row"},
    ]
    path = tmp_path / "model.keras"
    path.write_bytes(
        hostile_files.pack(hostile_files.model(layers=[hostile_files.encoder(schema)]))
    )
    description = describe(path)
    assert [one.name for one in description.columns] == ["age", "job", 3, "id"]
    assert [one.num_categories for one in description.columns] == [None, 2, None, None]
    assert {one.encoder for one in description.columns} == {"e"}
    assert [line.strip() for line in str(description).splitlines() if "  column " in line] == [
        "column      age: number, from text, with gaps",
        "column      job: category, 2 categories",
        "column      3: boolean, without gaps",
        "column      id: ignored, one value a row",
    ]
    fields = json.loads(json.dumps(dataclasses.asdict(description)))
    assert fields["columns"][1]["kind"] == "category"


def test_text_is_printable_whatever_the_names_are(saved, capsys):
    evil = "\x1b[2J\n\ud800"
    edit_config(saved, class_name=evil, registered_name=evil)
    assert describe(saved).model_class == evil
    assert r"  model       \x1b[2J\n\ud800 'binary_classifier'" in str(describe(saved)).splitlines()
    assert main(["describe", str(saved)]) == 0


# ---- files that would cost much


def read_memory(key):
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.once
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in the way of Linux")
@pytest.mark.parametrize("make", hostile_files.HOSTILE)
def test_hostile_file_costs_little_and_ends_in_text_or_one_line(make, tmp_path, capsys):
    path = tmp_path / "evil\x1b[2J.keras"
    path.write_bytes(hostile_files.HOSTILE[make]())
    assert path.stat().st_size < 1.1 * hostile_files.MEBIBYTE
    Path("/proc/self/clear_refs").write_text("5")  # from here on, `VmHWM` is a new maximum
    before, start = read_memory("VmRSS"), time.process_time()
    code = main(["describe", str(path)])
    assert time.process_time() - start < 2
    assert read_memory("VmHWM") - before < 100 * hostile_files.MEBIBYTE
    out, err = capsys.readouterr()
    assert (bool(out), err.count("\n")) == ((True, 0) if code == 0 else (False, 1))
    assert all(line.isprintable() for line in (out + err).splitlines())
    assert len(out + err) < 100_000


@pytest.fixture
def hostile(tmp_path):
    """Describe a hostile file by its name."""

    def describe_it(make):
        path = tmp_path / "hostile.keras"
        path.write_bytes(hostile_files.HOSTILE[make]())
        return describe(path)

    return describe_it


def test_numbers_that_no_model_has_are_unknown(hostile):
    description = hostile("far_numbers")
    assert {head.prior for head in description.heads} == {None}
    assert {one.shape for one in description.inputs} == {None}
    json.loads(json.dumps(dataclasses.asdict(description)), parse_constant=pytest.fail)


def test_objects_in_the_place_of_names_are_unknown(hostile):
    description = hostile("objects_as_names")
    (head,) = [one for one in description.heads if one.class_name == "keras_binclf>BinaryHead"]
    assert (head.path, head.class_names) == ("", None)
    assert description.model_name is None
    assert (description.keras_version, description.date_saved) == (None, None)


def test_long_texts_are_cut(hostile):
    description = hostile("long_texts")
    (head,) = description.heads
    texts = description.model_name, description.loss, description.optimizer, head.path
    assert {len(text) for text in (*texts, *head.class_names)} == {203}
    one, ignored = description.columns
    assert {len(text) for text in (one.name, one.kind, ignored.reason)} == {203}
    assert description.model_name.endswith("...")


def test_many_items_are_counted_and_cut(hostile):
    description = hostile("many_heads")
    assert len(description.heads) == 1000
    assert description.notes[-1] == "The file has 8,000 heads, of which 1,000 are described."
    lines = str(description).splitlines()
    assert sum(line.startswith("  head ") for line in lines) == 101
    assert "  head        and 900 more" in lines


def test_columns_are_counted_and_cut(hostile):
    description = hostile("many_columns")
    assert len(description.columns) == 1000
    assert "The file has 5,005 columns, of which 1,000 are described." in description.notes
    lines = str(description).splitlines()
    assert sum(line.startswith("  column ") for line in lines) == 101
    assert "  column      and 900 more" in lines


def test_columns_of_wrong_types_are_unknown(hostile):
    description = hostile("many_columns")
    assert {(one.name, one.kind, one.num_categories) for one in description.columns[:5]} == {
        (None, None, None)
    }
    assert str(description.columns[0]) == "(no name): unknown"
    assert description.columns[5].num_categories == 1
    note = "It holds a TabularEncoder that knows no columns: it was saved before `adapt`."
    assert note in description.notes


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        ("deep_groups", "groups deeper than 200 levels"),
        ("many_groups", "more than 20,000 groups and variables"),
        ("wide_group", "groups of more than 5,000 members"),
        ("declared_numbers", "shapes of more numbers than the file can hold"),
        ("long_layer_names", "names of layers of more than 1,000 characters"),
    ],
)
def test_weights_beyond_bounds_are_not_read(hostile, make, reason):
    description = hostile(make)
    assert description.notes[0] == f"The weights were not read. They have {reason}."
    assert description.num_parameters is None
    assert description.heads[0].threshold is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("deep_lists", "nested deeper than 500 levels"),
        ("bzip2_bomb", "is compressed, but not by deflate"),
        ("understated_size", "is damaged: Bad CRC-32"),
        ("overstated_size", "is too large"),
        ("weights_bomb", "is too large"),
        ("two_configs", r"it holds config\.json 2 times"),
    ],
)
def test_archive_beyond_bounds_is_an_error(hostile, make, message):
    with pytest.raises(ValueError, match=message):
        hostile(make)


def test_groups_that_hold_each_other_are_walked_once(saved):
    expected = describe(saved)
    content = io.BytesIO(zipfile.ZipFile(saved).read("model.weights.h5"))
    with h5py.File(content, "r+") as file:
        file["layers/again"] = file["layers"]
        file["layers/binary_head/root"] = file["/"]
    rewrite(saved, model__weights__h5=content.getvalue())
    assert describe(saved) == expected


def test_threshold_that_is_no_number_is_unknown(saved):
    content = io.BytesIO(zipfile.ZipFile(saved).read("model.weights.h5"))
    with h5py.File(content, "r+") as file:
        file["layers/binary_head/vars/2"][()] = np.nan
    rewrite(saved, model__weights__h5=content.getvalue())
    assert describe(saved).heads[0].threshold is None


def test_compressed_file_is_described(saved):
    expected = describe(saved)
    members = {
        name: zipfile.ZipFile(saved).read(name) for name in zipfile.ZipFile(saved).namelist()
    }
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert describe(saved) == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.keras")
    with pytest.raises(ValueError, match="It is a pipe or a device"):
        describe(tmp_path / "pipe.keras")


# ---- the command


def test_command_prints_the_description(saved, capsys):
    assert main(["describe", str(saved)]) == 0
    assert capsys.readouterr().out == f"{describe(saved)}\n"


def test_command_prints_json(saved, capsys):
    assert main(["describe", "--json", str(saved)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(dataclasses.asdict(describe(saved))))


@pytest.mark.parametrize("name", ["no.keras", "."])
def test_command_says_what_is_wrong_on_one_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["describe", name]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("keras_binclf: ")
    assert err.count("\n") == 1


def test_command_prints_on_a_terminal_that_has_few_letters(tmp_path, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    path = tmp_path / "model.keras"
    path.write_bytes(hostile_files.pack(hostile_files.model(name="Müller")))
    assert main(["describe", str(path)]) == 0
    terminal.flush()
    assert rb"M\xfcller" in terminal.buffer.getvalue()


@pytest.mark.parametrize("arguments", [[], ["tell"], ["describe"], ["describe", "a", "b"]])
def test_wrong_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_package_is_a_command(saved):
    command = [sys.executable, "-m", "keras_binclf", "describe", str(saved)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout) == (0, f"{describe(saved)}\n")
