"""Ways to damage a saved model, or to put something into it, each from a seed."""

import base64
import copy
import io
import json
import marshal
import random
import zipfile

import h5py
import hostile_files

FOREIGN = [
    *(("fuzz_sentinel", name) for name in ("touch", "Touch", "none")),
    *(("builtins", name) for name in ("eval", "exec", "open", "__import__", "breakpoint")),
    *(("os", name) for name in ("system", "abort", "_exit", "remove")),
    *(("subprocess", "Popen"), ("shutil", "rmtree"), ("pickle", "loads"), ("sys", "exit")),
    *(("keras.utils", name) for name in ("get_file", "clear_session", "set_random_seed")),
    *(("keras.models", name) for name in ("load_model", "clone_model", "Model", "Sequential")),
    *(("keras.saving", name) for name in ("load_model", "save_model", "deserialize_keras_object")),
    *(("keras.config", name) for name in ("enable_unsafe_deserialization", "set_floatx")),
    *(("keras.layers", name) for name in ("Lambda", "TFSMLayer", "Dense", "StringLookup", "LSTM")),
    *(("keras.callbacks", name) for name in ("ModelCheckpoint", "CSVLogger")),
    *(("keras.src.utils.python_utils", name) for name in ("func_load", "marshal")),
    ("keras.src.saving.saving_lib", "DiskIOStore"),
    ("keras.src.utils.file_utils", "get_file"),
    *(("keras_binclf", name) for name in ("MLPBlock", "BinaryHead", "export", "_registry")),
    *(("tensorflow", "io"), ("torch", "load"), ("numpy", "load"), ("fuzz_missing", "Thing")),
]
REGISTERED = ["keras_binclf>MLPBlock", "keras_binclf>BinaryHead", "keras_binclf>BinaryAUC", ""]
SCALARS = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**9, 10**30, 1e308, float("nan"), float("inf")),
    *("", "relu", "a" * 10_000, "../../outside/evil", "\0", "\ud800", "__lambda__", "float16"),
]


def save_corpus(folder):
    """Save the models that are damaged."""
    import keras
    import numpy as np

    from keras_binclf import BinaryHead, MLPBlock, binary_classifier

    scaler = keras.layers.Normalization()
    scaler.adapt(np.arange(12.0).reshape(4, 3))
    functional = binary_classifier(3, hidden_units=(4, 2), scaler=scaler, prior=0.2)
    block = MLPBlock(3, normalization="batch", dropout_rate=0.1, activation=keras.layers.PReLU())
    sequential = keras.Sequential([keras.Input((3,)), block, BinaryHead(None)])
    sequential.compile("sgd", loss=sequential.layers[-1].loss(), metrics=["accuracy"])
    inputs = keras.Input((3,))
    nested = keras.Model(inputs, functional(keras.layers.Dense(3, activation="gelu")(inputs)))
    for name, model in {
        "functional": functional,
        "sequential": sequential,
        "nested": nested,
    }.items():
        model.save(folder / f"{name}.keras")


def make_case(corpus, folder, seed):
    """Return the name of a mutation, and the file that it made of one of the corpus."""
    rng = random.Random(seed)
    content = corpus[rng.choice(sorted(corpus))]
    mutation = rng.choice([*3 * list(CONFIG_MUTATIONS), *ARCHIVE_MUTATIONS])
    if mutation in CONFIG_MUTATIONS:
        return mutation, mutate_config(content, rng, CONFIG_MUTATIONS[mutation])
    return mutation, ARCHIVE_MUTATIONS[mutation](content, rng, folder)


# ---- the config


def mutate_config(content, rng, mutation):
    members = read(content)
    config = json.loads(members["config.json"])
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        mutation(config, rng)
    members["config.json"] = dump(config).encode("utf-8", "surrogatepass")
    return write(members)


def dump(config):
    """As JSON, also where a config is nested deeper than `json` writes."""
    deep = []

    def cut(node):
        if isinstance(node, Deep):
            deep.append(node)
            return f"deep {len(deep) - 1}"
        if isinstance(node, dict):
            return {key: cut(value) for key, value in node.items()}
        return [cut(value) for value in node] if isinstance(node, list) else node

    text = json.dumps(cut(config))
    for place, node in enumerate(deep):
        text = text.replace(f'"deep {place}"', node.text)
    return text


class Deep:
    """Stands for a value that is nested so many times."""

    def __init__(self, depth, opening, closing):
        self.text = f"{depth * opening}1{depth * closing}"


def places(node):
    """Yield each container in a config with each of its keys or indices."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield node, key
        if isinstance(value, dict | list):
            yield from places(value)


def pick(config, rng):
    found = list(places(config))
    return rng.choice(found) if found else ({"": None}, "")


def pick_object(config, rng):
    """Return a serialized object within a config, often one that is to be loaded."""
    found = [node[key] for node, key in places(config)]
    found = [one for one in found if isinstance(one, dict) and "class_name" in one]
    return rng.choice([config, *found])


def delete(config, rng):
    node, key = pick(config, rng)
    del node[key]


def duplicate(config, rng):
    node, key = pick(config, rng)
    other, _ = pick(config, rng)
    value = copy.deepcopy(node[key])
    if isinstance(other, list):
        other.insert(rng.randrange(len(other) + 1), value)
    else:
        other[str(key)] = value


def retype(config, rng):
    node, key = pick(config, rng)
    nothing = [{}, [], [[]], {"class_name": "Dense"}, {"class_name": None, "config": []}, "1", 3.5]
    node[key] = rng.choice(
        [rng.choice(SCALARS), copy.deepcopy(rng.choice(nothing)), str(node[key])]
    )


def rename(config, rng):
    node, key = pick(config, rng)
    if isinstance(node, dict):
        name = rng.choice([f"{key}_2", key[::-1], "", "name", "self", "cls", "config", "gate"])
        node[name] = node.pop(key)


def swap(config, rng):
    (a, key_a), (b, key_b) = pick(config, rng), pick(config, rng)
    a[key_a], b[key_b] = copy.deepcopy(b[key_b]), copy.deepcopy(a[key_a])


def enlarge(config, rng):
    numbers = [(n, k) for n, k in places(config) if isinstance(n[k], int | float)]
    node, key = rng.choice(numbers)
    node[key] = rng.choice([10**6, 10**8, 10**10, 2**31, 2**63, 10**400, -(10**9), 1e308])


def nest(config, rng):
    node, key = pick(config, rng)
    opening, closing = rng.choice(
        [("[", "]"), ('{"a": ', "}"), ('{"class_name": "Dense", "config": {"units": ', "}}")]
    )
    node[key] = Deep(rng.choice([50, 300, 480, 5000, 10**5]), opening, closing)


def make_foreign(rng):
    module, name = rng.choice(FOREIGN)
    function = rng.random() < 0.5
    arguments = rng.choice([{}, {"args": ["x"]}, {"value": "1"}, {"filepath": "../outside/evil"}])
    return {
        "module": module,
        "class_name": "function" if function else name,
        "config": name if function else arguments,
        "registered_name": rng.choice([name, None, f"{module}>{name}", *REGISTERED]),
    }


def name_foreign(config, rng):
    """Put another class or function in the place of one that is to be loaded."""
    pick_object(config, rng).update(make_foreign(rng))


def insert_foreign(config, rng):
    node, key = pick(config, rng)
    node[key] = make_foreign(rng)


def rename_class(config, rng):
    node = pick_object(config, rng)
    module, name = rng.choice(FOREIGN)
    node[rng.choice(["class_name", "module", "registered_name"])] = rng.choice(
        [module, name, f"{module}.{name}", *REGISTERED, *SCALARS]
    )


def insert_lambda(config, rng):
    node, key = pick(config, rng)
    code = compile("import fuzz_sentinel", "<lambda>", "exec")
    value = base64.b64encode(marshal.dumps(code)).decode()
    value = rng.choice([value, {"code": value, "defaults": None, "closure": None}, [value, None]])
    function = {"class_name": "__lambda__", "config": {"value": value}}
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": function}}
    node[key] = rng.choice([function, layer])


CONFIG_MUTATIONS = {
    function.__name__: function
    for function in (
        *(delete, duplicate, retype, rename, swap, enlarge, nest),
        *(name_foreign, insert_foreign, rename_class, insert_lambda),
    )
}

# ---- the archive


def read(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(members, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def flip(content, rng, folder=None):
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 100])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_end(content, rng, folder):
    """Change bytes in the directory of the archive."""
    start = content.rindex(b"PK\x01\x02", 0, content.rindex(b"PK\x05\x06"))
    return content[:start] + flip(content[start:], rng)


def cut(content, rng, folder):
    return content[: rng.randrange(len(content))]


def cut_out(content, rng, folder):
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randrange(1, 500) :]


def extend(content, rng, folder):
    return rng.choice([content + rng.randbytes(300), rng.randbytes(300) + content, 2 * content])


def swap_members(content, rng, folder):
    members = read(content)
    a, b = rng.sample(sorted(members), 2)
    members[a], members[b] = members[b], members[a]
    return write(members)


def rename_member(content, rng, folder):
    members = read(content)
    name = rng.choice(sorted(members))
    other = rng.choice(["model.weights.npz", "x", "config.json/", f"{name}/x", f"../{name}", " "])
    members[other] = members.pop(name)
    return write(members)


def climb(content, rng, folder):
    """Add members that would lie outside the folder that an archive is unpacked to."""
    members = read(content)
    outside = folder / "outside"
    names = [f"{n * '../'}outside/evil" for n in range(1, 7)]
    names += [f"{outside}/evil", f"assets/../../../{outside}/evil", "..\\..\\outside\\evil"]
    for name in rng.sample(names, 3):
        members[name] = b"evil"
    return write(members)


def deflate(content, rng, folder):
    members = read(content)
    members[rng.choice(sorted(members))] += bytes(rng.choice([0, 10**6, 3 * 10**7]))
    return write(members, zipfile.ZIP_DEFLATED)


def damage_weights(content, rng, folder):
    """Change bytes of the weights, with the checksum that goes with them."""
    members = read(content)
    members["model.weights.h5"] = rng.choice([flip, flip, cut_out])(
        members["model.weights.h5"], rng, folder
    )
    return write(members)


def relink_weights(content, rng, folder):
    """Put links, other shapes or other types in the place of variables."""
    members = read(content)
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        found = []
        file.visititems(lambda name, item: found.append(name) if "vars/" in name else None)
        name = rng.choice(found)
        del file[name]
        kind = rng.randrange(6)
        if kind < 2:
            link = h5py.ExternalLink("/etc/passwd", "/") if kind else h5py.SoftLink("/layers")
            file[name] = link
        elif kind == 2:
            file.create_dataset(name, (2**40,), "float32", chunks=(2**20,), compression="gzip")
        elif kind == 3:
            file[name] = "text"
        elif kind == 4:
            file[name] = file["layers"]
        else:
            file[name] = rng.choice([float("nan"), [[1.0, 2.0]], 7, -1.0])
    members["model.weights.h5"] = weights.getvalue()
    return write(members)


def hostile(content, rng, folder):
    """Take one of the files that would cost a reader much, perhaps with changed bytes."""
    content = hostile_files.HOSTILE[rng.choice(sorted(hostile_files.HOSTILE))]()
    return rng.choice([content, flip(content, rng)])


ARCHIVE_MUTATIONS = {
    function.__name__: function
    for function in (
        *(flip, flip_end, cut, cut_out, extend, swap_members, rename_member, climb, deflate),
        *(damage_weights, relink_weights, hostile),
    )
}
