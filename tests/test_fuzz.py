"""Whatever a file holds, loading and describing it ends in a model, a description or an error.

`tests/fuzz.py` does it at length.
"""

import os
import sys
from pathlib import Path

import fuzz
import pytest

pytestmark = pytest.mark.once
CASES = int(os.environ.get("KERAS_BINCLF_FUZZ", "150"))


@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory in the way of Linux")
def test_no_file_crashes_hangs_runs_code_or_writes_elsewhere(tmp_path, record_property):
    results = fuzz.run(CASES, 1, tmp_path)
    report = "\n".join(fuzz.tally(results))
    record_property("fuzz", report)
    assert len(results) == CASES
    assert not any(result["faults"] for result in results), report


@pytest.fixture
def watch(tmp_path):
    (tmp_path / "tmp").mkdir()
    found = fuzz.Watch(tmp_path)
    yield found
    found.seen = None


def test_watch_sees_what_a_file_must_not_do(watch, tmp_path):
    with watch.open() as seen:
        (tmp_path / "tmp" / "allowed").write_text("")
        os.system("true")
        with pytest.raises(OSError, match="nowhere"):
            Path("/nowhere/evil").write_text("")
    assert [event.split()[0] for event in seen] == ["os.system", "open"]
    os.system("true")
    assert len(seen) == 2


def test_what_is_left_behind_is_a_fault(tmp_path):
    for name in ("outside", "cwd"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "evil").write_text("")
    found = {"load": "ValueError", "describe": "KeyError"}
    assert list(fuzz.list_faults(found, tmp_path)) == ["left outside/evil", "describe: KeyError"]
    assert list(fuzz.list_faults({**found, "describe": "ValueError"}, tmp_path)) == []
