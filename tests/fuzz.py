"""Damaged and malicious files: load and describe each, in processes that may die of it.

    python tests/fuzz.py [--cases 3000] [--seed 0] [--keep FOLDER]

Prints what came of the files, by kind. Every file must lead to a model or a description, or to an
exception; a process that dies or hangs, code that is run, a file that is written elsewhere, and a
description that takes more than two seconds or 200 MiB are faults, of which the file is kept. Exits
with 1 if there are any. Files of the kind "hostile" are only described: loading one builds all that
it asks for.
"""

import argparse
import collections
import contextlib
import json
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import fuzz_mutations

CASE_SECONDS = 20
"""Far more than a small model takes to load, on a busy machine too."""
START_SECONDS = 120
MEMORY = 2 * 2**30
"""What a case may take on top of the backend. A number in a file may ask for any amount."""
MORE_MEMORY = 4 * MEMORY
DESCRIBE_SECONDS = 2
"""Of the processor: the files are small."""
DESCRIBE_MEMORY = 200 * 2**20
SENTINEL = """
from pathlib import Path

def touch(*args, **kwargs):
    (Path(__file__).parent.parent / "outside" / "ran").write_text("")

class Touch:
    __init__ = touch
    from_config = classmethod(touch)

touch()
"""
ALARMING = {
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.symlink", "os.link", "os.chmod"),
    *("subprocess.Popen", "socket.connect", "socket.getaddrinfo", "urllib.Request"),
    *("pickle.find_class", "code.__new__", "ctypes.dlopen"),
}
WRITING = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}


# ---- the process that loads


class TimeLimitError(BaseException):
    """Not an `Exception`, which Keras would catch and go on."""


class Watch:
    """An audit hook, which sees what Python does while a file is loaded."""

    def __init__(self, folder):
        self.allowed = (f"{folder}/", "/dev/null", "/dev/shm/", "/proc/self/clear_refs")
        self.seen = None
        sys.addaudithook(self.see)

    def see(self, event, arguments):
        if self.seen is None:
            return
        if event in ALARMING:
            self.seen.append(f"{event} {arguments[:1]!r}")
        if event in WRITING or (event == "open" and self.writes(*arguments)):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if not path.startswith(self.allowed):
                self.seen.append(f"{event} {path}")

    @staticmethod
    def writes(path, mode, flags):
        return not isinstance(path, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    @contextlib.contextmanager
    def open(self):
        self.seen = seen = []
        try:
            yield seen
        finally:
            self.seen = None


def work(folder, seed, first, cases, memory):
    """Do cases one after the other, and print a line about each."""
    import keras

    from keras_binclf.saving import describe

    def raise_time_limit(*_):
        raise TimeLimitError

    signal.signal(signal.SIGALRM, raise_time_limit)
    corpus = {path.stem: path.read_bytes() for path in sorted((folder / "corpus").iterdir())}
    watch = Watch(folder)
    # Imports what loading needs, with files that are whole.
    for path in (folder / "corpus").iterdir():
        keras.models.load_model(path)
        describe(path)
    print(json.dumps("ready"), flush=True)
    for case in range(first, cases):
        bound_memory(memory)
        kind, content = fuzz_mutations.make_case(corpus, folder, f"{seed}/{case}")
        path = folder / f"case-{case}.keras"
        path.write_bytes(content)
        found = {"case": case, "kind": kind, "load": "not tried", "faults": []}
        with watch.open() as seen:
            if kind != "hostile":
                found["load"] = attempt(keras.models.load_model, path)
            found["describe"], *faults = measure(describe, path)
        found["faults"] += [*seen, *faults]
        found["faults"] += list_faults(found, folder)
        keras.utils.clear_session(free_memory=False)
        print(json.dumps(found), flush=True)
        if not found["faults"]:
            path.unlink()


def bound_memory(memory):
    """Leave the same to each case, whatever the backend has kept of those before."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, hard))


def attempt(function, path):
    signal.alarm(CASE_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return f"a {type(function(path)).__name__}"
    except TimeLimitError:
        return "time limit"
    except Exception as error:
        return type(error).__name__
    except BaseException as error:
        return f"fault: {type(error).__name__}"
    finally:
        signal.alarm(0)


def measure(function, path):
    """Return what comes of a file, and the faults in what it costs."""
    Path("/proc/self/clear_refs").write_text("5")  # from here on, `VmHWM` is a new maximum
    before, start = read_memory("VmRSS"), time.process_time()
    yield attempt(function, path)
    seconds, memory = time.process_time() - start, read_memory("VmHWM") - before
    if seconds > DESCRIBE_SECONDS:
        yield f"describe: {seconds:.1f} seconds"
    if memory > DESCRIBE_MEMORY:
        yield f"describe: {memory // 2**20} MiB"


def read_memory(key):
    """Return a figure of the process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+)", status)[1]) * 1024


def list_faults(found, folder):
    """Return what is wrong with an outcome, and what a case left in the folders."""
    for name in ("outside", "cwd"):
        for path in sorted((folder / name).iterdir()):
            yield f"left {name}/{path.name}"
            path.unlink()
    if not found["describe"].startswith("a FileDescription") and found["describe"] != "ValueError":
        yield f"describe: {found['describe']}"
    if found["load"].startswith("fault") or found["load"] == "time limit":
        yield f"load: {found['load']}"


# ---- the process that watches


def run(cases, seed, folder):
    """Return what came of each case; of those that ended a process, the line is made up here."""
    for name in ("corpus", "path", "outside", "cwd", "tmp"):
        (folder / name).mkdir()
    (folder / "path" / "fuzz_sentinel.py").write_text(SENTINEL)
    fuzz_mutations.save_corpus(folder / "corpus")
    results = []
    while len(results) < cases:
        results += run_until_it_dies(folder, seed, len(results), cases)
        if results[-1]["kind"] == "?":
            results[-1] = judge(folder, seed, results[-1])
    return results


def judge(folder, seed, result):
    """Do a case again by itself with more memory: TensorFlow may die of having too little."""
    case = result["case"]
    (again,) = run_until_it_dies(folder, seed, case, case + 1, MORE_MEMORY)
    return again if again["faults"] else {**again, "load": "out of memory, ends the process"}


def run_until_it_dies(folder, seed, first, cases, memory=MEMORY):
    command = [sys.executable, __file__, "--work", str(folder), f"--first={first}"]
    command += [f"--cases={cases}", f"--seed={seed}", f"--memory={memory}"]
    tests = str(Path(__file__).parent)
    path = os.pathsep.join([str(folder / "path"), tests, os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": path, "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    errors = (folder / "stderr").open("w+")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        cwd=folder / "cwd",
        env={**os.environ, **settings, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    lines = queue.Queue()
    threading.Thread(target=pass_on, args=(process.stdout, lines)).start()
    with errors, process:
        results = list(read_results(process, lines, first, cases))
        errors.seek(0)
        for result in results[-1:]:
            result["faults"] += errors.read().splitlines()[-3:] if result["kind"] == "?" else []
        return results


def pass_on(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put("")


def read_results(process, lines, first, cases):
    seconds = START_SECONDS
    for case in [None, *range(first, cases)]:
        try:
            line = lines.get(timeout=seconds)
        except queue.Empty:
            line = ""
            process.kill()
            ended = "hangs"
        else:
            ended = f"ends the process with {process.wait()}" if not line else ""
        if not line and case is None:
            said = (Path(process.args[3]) / "stderr").read_text()
            raise RuntimeError(f"the process that loads {ended} before the first case: {said}")
        if not line:
            yield {"case": case, "kind": "?", "load": ended, "describe": "?", "faults": [ended]}
            return
        if case is not None:
            yield json.loads(line)
        seconds = 3 * CASE_SECONDS


def tally(results):
    """Return how often each thing came of a file, as lines."""
    lines = [f"{len(results)} files"]
    for name in ("load", "describe"):
        counts = collections.Counter(result[name] for result in results)
        lines.append(f"{name}: " + ", ".join(f"{n} {what}" for what, n in counts.most_common()))
    counts = collections.Counter(result["kind"] for result in results)
    lines.append("made by: " + ", ".join(f"{n} {kind}" for kind, n in counts.most_common()))
    faulty = [result for result in results if result["faults"]]
    return [*lines, f"faults: {len(faulty)}", *(json.dumps(result) for result in faulty)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, default=MEMORY, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.seed, options.first, options.cases, options.memory)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results = run(options.cases, options.seed, folder)
        print("\n".join(tally(results)))
        if options.keep:
            options.keep.mkdir(exist_ok=True)
            for path in folder.glob("case-*.keras"):
                shutil.copy(path, options.keep)
    return any(result["faults"] for result in results)


if __name__ == "__main__":
    sys.exit(main())
