"""Small files that would cost a reader much: far-fetched numbers, depths, lengths and types.

Each function returns the bytes of a `.keras` file of at most about a megabyte.
"""

import functools
import io
import itertools
import json
import struct
import zipfile

import h5py
import numpy as np

HEAD = {"class_name": "H", "registered_name": "keras_binclf>BinaryHead", "config": {"name": "h"}}
MEBIBYTE = 2**20


def pack(config, weights=None, compression=zipfile.ZIP_DEFLATED, metadata="{}"):
    """A file with that config, as JSON or as an object, and those weights."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression, compresslevel=1) as archive:
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("metadata.json", metadata)
        if weights is not None:
            archive.writestr("model.weights.h5", weights)
    return content.getvalue()


def model(**config):
    return {"class_name": "M", "config": config}


def head(**config):
    return {**HEAD, "config": {**HEAD["config"], **config}}


def make_weights(fill, **options):
    content = io.BytesIO()
    with h5py.File(content, "w", **options) as file:
        fill(file)
    return content.getvalue()


# ---- the config


def many_heads():
    def fill(file):
        for place in range(1000):
            file.create_group(f"layers/{place}/vars").attrs["name"] = "h"

    return pack(model(layers=8000 * [HEAD]), make_weights(fill))


def deep_objects():
    """Heads under a chain of objects with long names."""
    opening = '{"class_name": "A", "config": {"name": "%s", "a": ' % (1000 * "n")
    return pack(f"{240 * opening}{json.dumps(5000 * [HEAD])}{240 * '}}'}")


def deep_lists():
    return pack(f'{{"class_name": "M", "config": {800 * "["}{800 * "]"}}}')


def very_deep_lists():
    return pack(f'{{"class_name": "M", "config": {10**6 * "["}', compression=zipfile.ZIP_STORED)


def empty_lists():
    """JSON of few bytes takes much memory."""
    return pack(f'{{"class_name": "M", "config": [{400_000 * "[],"}[]]}}')


def small_objects():
    small = '{"class_name": "a>b", "config": {}},'
    return pack(f'{{"class_name": "M", "config": [{50_000 * small}[]]}}')


def deep_outputs():
    """A structure of tensors, to be taken apart without copying it at each level."""
    tensors = json.dumps(30_000 * [["layer", 0, 0]])
    outputs = f"{400 * '['}{tensors}{400 * ']'}"
    return pack(json.dumps(model(output_layers="*")).replace('"*"', outputs))


def objects_as_names():
    inner = {"class_name": "function", "module": model(), "config": {"name": model()}}
    many = json.loads(json.dumps(1000 * [inner]))
    return pack(
        {
            **model(name=many, layers=[head(name=many, activation=many, class_names=many)]),
            "registered_name": many,
            "module": many,
            "build_config": {"keras_binclf_version": many, "shapes_dict": many},
            "compile_config": {"optimizer": many, "loss": {"a": many}},
        },
        metadata=json.dumps({"keras_version": many, "date_saved": many}),
    )


def long_texts():
    long = "\x1b[2J\u202e" + 900_000 * "n"
    text = json.dumps(
        {
            "class_name": "*",
            "registered_name": "a>*",
            "config": {
                "name": "*",
                "layers": [
                    head(name="*", activation="*", class_names=["*", "*"]),
                    {"class_name": "InputLayer", "config": {"name": "*", "dtype": "*"}},
                    encoder([{"name": "*", "kind": "*"}, {"kind": "ignored", "reason": "*"}]),
                ],
            },
            "compile_config": {"optimizer": "*", "loss": {"*": ["*"]}},
            "build_config": {"keras_binclf_version": "*"},
        }
    )
    short = json.dumps(long[:100_000])[1:-1]
    return pack(text.replace("*", short), metadata=json.dumps({"keras_version": long}))


def many_names():
    """Thousands of classes, versions, inputs and losses, each with a name of its own."""
    objects = [
        {
            "class_name": f"C{place}",
            "registered_name": f"{package}>C{place}",
            "config": {},
            "build_config": {"keras_binclf_version": f"0.{place}"},
        }
        for package, place in itertools.product(("keras_binclf", "theirs"), range(1500))
    ]
    inputs = [
        {"class_name": "InputLayer", "config": {"name": f"i{place}", "batch_shape": 40 * [2**70]}}
        for place in range(1500)
    ]
    losses = {f"loss {place}": "mse" for place in range(1500)}
    return pack({**model(layers=[*inputs, *objects]), "compile_config": {"loss": losses}})


def far_numbers():
    numbers = "1" + 400 * "0", "-1" + 4000 * "0", "NaN", "Infinity", "-1e999", "1e308"
    inputs = [
        {"class_name": "InputLayer", "config": {"name": f"i{place}", "batch_shape": ["*"]}}
        for place in range(len(numbers))
    ]
    parts = json.dumps(model(layers=[*len(numbers) * [head(prior="*")], *inputs])).split('"*"')
    pairs = itertools.zip_longest(parts, 2 * numbers, fillvalue="")
    return pack("".join(text for pair in pairs for text in pair))


def many_columns():
    """Encoders of thousands of columns, some of which are none, under long names."""
    odd = [None, [], "a", {"name": 2**70, "kind": ["category"]}, {"name": {}, "categories": "abc"}]
    deep = {"class_name": "A", "config": {"name": 1000 * "n"}}
    for _ in range(100):
        deep = {"class_name": "A", "config": {"name": 1000 * "n", "a": deep}}
    columns = [{"name": f"c{i}", "kind": "category", "categories": [i]} for i in range(5000)]
    return pack(model(layers=[encoder(odd), encoder(columns), encoder(3), deep, encoder(None)]))


def many_encoders():
    """Encoders of one column each under a chain of objects with long names."""
    opening = '{"class_name": "A", "config": {"name": "%s", "a": ' % (1000 * "n")
    inner = json.dumps(3000 * [encoder([{"name": "a", "kind": "number"}])])
    return pack(f"{240 * opening}{inner}{240 * '}}'}")


def encoder(columns):
    return {
        "class_name": "E",
        "registered_name": "keras_binclf>TabularEncoder",
        "config": {"name": "e", "columns": columns},
    }


# ---- the archive


def config_bomb():
    return pack(" " * 30 * MEBIBYTE)


def bzip2_bomb():
    return pack(json.dumps(model()) + " " * 50 * MEBIBYTE, compression=zipfile.ZIP_BZIP2)


def weights_bomb():
    return pack(model(), bytes(50 * MEBIBYTE))


def set_sizes(content, name, **sizes):
    """Let the directory of an archive give other sizes of a member."""
    changed = bytearray(content)
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(name))
    for key, place in (("stored", 20), ("size", 24)):
        if key in sizes:
            struct.pack_into("<I", changed, entry + place, sizes[key])
    return bytes(changed)


def understated_size():
    """A member that goes on far beyond its size."""
    return set_sizes(pack(" " * 150 * MEBIBYTE), b"config.json", size=1000)


def overstated_size():
    """A bomb that says that it takes many bytes in the file."""
    return set_sizes(pack(" " * 30 * MEBIBYTE), b"config.json", stored=2**30)


def many_members():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("config.json", json.dumps(model()))
        for place in range(9000):
            archive.writestr(f"{place}", "")
    return content.getvalue()


def two_configs():
    content = io.BytesIO(pack(model()))
    with zipfile.ZipFile(content, "a") as archive:
        # As `writestr`, which warns.
        archive.NameToInfo.clear()
        archive.writestr("config.json", json.dumps(model(name="other")))
    return content.getvalue()


# ---- the weights


def deep_groups():
    def fill(group):
        for _ in range(1500):
            group = group.create_group("a")

    return pack(model(layers=[HEAD]), make_weights(fill, libver="latest"))


def many_groups():
    def fill(file):
        for place in range(21_000):
            file.create_group(f"{place // 3000}/{place}")

    return pack(model(layers=[HEAD]), make_weights(fill, libver="latest"))


def wide_group():
    def fill(file):
        for place in range(6000):
            file[f"{place}"] = h5py.SoftLink("/nothing")

    return pack(model(layers=[HEAD]), make_weights(fill))


def circles():
    def fill(file):
        layers = file.create_group("layers")
        for place in range(200):
            layers[f"root {place}"] = file["/"]
            layers[f"layers {place}"] = layers
            layers[f"soft {place}"] = h5py.SoftLink("/layers")
            layers[f"elsewhere {place}"] = h5py.ExternalLink("/dev/zero", "/")

    return pack(model(layers=[HEAD]), make_weights(fill))


def declared_numbers():
    """Shapes of which the file does not hold a number."""

    def fill(file):
        variables = file.create_group("h/vars")
        variables.attrs["name"] = "h"
        variables.create_dataset("0", (2**40, 2**20), "float32", chunks=(2**10, 2**4))
        variables.create_dataset("1", tuple(32 * [3]), "float32")
        variables.create_dataset("2", (), "float32", fillvalue=np.nan)

    return pack(model(layers=[HEAD]), make_weights(fill))


def long_layer_names():
    def fill(file):
        for place in range(40):
            variables = file.create_group(f"{place}/vars")
            variables.attrs["name"] = 20_000 * "n" if place % 2 else np.bytes_(20_000 * b"n")

    return pack(model(layers=[head(name=20_000 * "n")]), make_weights(fill))


def odd_layer_names():
    def fill(file):
        for place, name in enumerate((3.5, [1, 2], np.zeros(7000), h5py.Empty("S9"), b"\xff", "")):
            file.create_group(f"{place}/vars").attrs["name"] = name

    return pack(model(layers=[HEAD]), make_weights(fill))


HOSTILE = {
    function.__name__: functools.cache(function)
    for function in (
        *(
            many_heads,
            deep_objects,
            deep_lists,
            very_deep_lists,
            empty_lists,
            small_objects,
            deep_outputs,
        ),
        *(objects_as_names, long_texts, many_names, far_numbers, many_columns, many_encoders),
        *(config_bomb, bzip2_bomb, weights_bomb, understated_size, overstated_size),
        *(many_members, two_configs),
        *(
            deep_groups,
            many_groups,
            wide_group,
            circles,
            declared_numbers,
            long_layer_names,
            odd_layer_names,
        ),
    )
}
