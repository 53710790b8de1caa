"""Every row of the tables in docs/errors.md is run; damaged and foreign files."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_binclf import BinaryHead, binary_classifier

PAGE = (Path(__file__).parent.parent / "docs" / "errors.md").read_text()
SETUP = re.search(r"^```python\n(.*?)^```", PAGE, re.M | re.S)[1]
ROWS = re.findall(r"^\| `(.*)` \| (TypeError|ValueError) \| `` (.*) `` \|$", PAGE, re.M)


@pytest.fixture(scope="module")
def names():
    namespace = {}
    exec(SETUP, namespace)
    return namespace


def test_the_tables_are_read():
    assert len(ROWS) == PAGE.count("Error | `` ") > 120


@pytest.mark.parametrize(("code", "error", "message"), ROWS, ids=[row[0] for row in ROWS])
def test_says_what_is_wrong(names, code, error, message):
    with pytest.raises((TypeError, ValueError)) as raised:
        eval(code, names)
    assert type(raised.value).__name__ == error
    # Where objects live in memory is not part of a message, nor is the version.
    said = re.sub(r"0x[0-9a-f]+", "0x…", str(raised.value))
    assert re.sub(r"keras-binclf \d[\w.]*", "keras-binclf …", said) == message


def test_refused_threshold_leaves_the_old_one():
    head = BinaryHead(threshold=0.3)
    head.build((None, 2))
    with pytest.raises(ValueError, match=r"Received: threshold=0\.0"):
        head.threshold = 0.0
    assert head.threshold == 0.3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    model = binary_classifier(2)
    model.fit(np.zeros((3, 2)), np.zeros(3), verbose=0)
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    model.save(path)
    return path


@pytest.fixture
def saved(trained, tmp_path):
    """A file of its own for each test that damages one."""
    return Path(shutil.copy(trained, tmp_path))


def test_loading_without_the_package_names_the_class(saved):
    h5 = saved.with_suffix(".h5")
    keras.models.load_model(saved).save(h5)
    code = f"""
import sys, traceback
import keras
for path in {str(saved)!r}, {str(h5)!r}:
    try:
        keras.models.load_model(path)
    except Exception:
        print("raised")
        traceback.print_exc(file=sys.stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    _, of_keras, of_h5 = done.stdout.split("raised\n")
    assert "TypeError: Could not locate class 'MLPBlock'" in of_keras
    assert "keras_binclf>MLPBlock" in of_keras
    assert "ValueError: Unknown layer: 'keras_binclf>MLPBlock'" in of_h5


def damaged(path, how):
    whole = path.read_bytes()
    if how == "truncated":
        return whole[: len(whole) // 2]
    if how == "empty":
        return b""
    # Change bytes in the middle of the stored weights, so that the archive still opens.
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("model.weights.h5")
    start = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    return (
        whole[:start]
        + bytes(255 - byte for byte in whole[start : start + 60])
        + whole[start + 60 :]
    )


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("truncated", ValueError, "accessible `.keras` zip file"),
        ("empty", ValueError, "accessible `.keras` zip file"),
        ("corrupted", zipfile.BadZipFile, "Bad CRC-32 for file 'model.weights.h5'"),
    ],
)
def test_damaged_file_is_an_error_and_stays_as_it_is(saved, how, error, message):
    content = damaged(saved, how)
    saved.write_bytes(content)
    with pytest.raises(error, match=re.escape(message)):
        keras.models.load_model(saved)
    assert saved.read_bytes() == content
