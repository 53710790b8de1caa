"""What `import keras_binclf` adds to `import keras`: milliseconds, modules, output.

python benchmarks/import_time.py                                   # TensorFlow and JAX
python benchmarks/import_time.py --backend torch --processes 15
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

TARGET_MILLISECONDS = 50
BACKENDS = ("tensorflow", "jax", "torch")
# What takes long to import, or what only an extra brings: reached lazily, where it is needed.
HEAVY = ("keras_tuner", "matplotlib", "sklearn", "pandas", "tensorboard")

# Runs in a fresh process. Output is caught at the file descriptors, since C++ writes there too.
# Keras itself imports scikit-learn, pandas and matplotlib where they are installed, so a look at
# sys.modules cannot tell whether we would: what our own modules ask for is noted as well.
CHILD = """
import builtins, json, os, sys, tempfile, time
import keras
before = set(sys.modules)
plain_import, asked = builtins.__import__, set()
def noting_import(name, globals=None, *rest):
    if (globals or {}).get("__name__", "").startswith("keras_binclf"):
        asked.add(name.split(".")[0])
    return plain_import(name, globals, *rest)
builtins.__import__ = noting_import
sys.stdout.flush(), sys.stderr.flush()
saved = os.dup(1), os.dup(2)
with tempfile.TemporaryFile() as caught:
    os.dup2(caught.fileno(), 1), os.dup2(caught.fileno(), 2)
    start = time.perf_counter()
    import keras_binclf
    seconds = time.perf_counter() - start
    sys.stdout.flush(), sys.stderr.flush()
    os.dup2(saved[0], 1), os.dup2(saved[1], 2)
    caught.seek(0)
    output = caught.read().decode(errors="replace")
modules = sorted(set(sys.modules) - before)
result = {"milliseconds": seconds * 1e3, "modules": modules, "output": output}
print(json.dumps({**result, "before": sorted(before), "asked": sorted(asked)}))
"""


def import_once(backend: str) -> dict[str, Any]:
    """Import in a fresh process, Keras first, and return what the second import did."""
    ran = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        raise SystemExit(f"The import failed on {backend}.\n{ran.stderr}")
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


def report(backend: str, processes: int) -> None:
    """Print the figures of one backend."""
    import_once(backend)  # fills the file cache and __pycache__, as any second start finds them
    results = [import_once(backend) for _ in range(processes)]
    times = sorted(result["milliseconds"] for result in results)
    last = results[-1]
    new = last["modules"]
    others = sorted({name.split(".")[0] for name in new} - {"keras_binclf"})
    ours = [name for name in HEAVY if name in {*new, *last["asked"]}]
    keras_own = [name for name in HEAVY if name in last["before"]]
    output = "".join(result["output"] for result in results)
    print(
        f"{backend}: import keras_binclf after import keras adds {statistics.median(times):.1f} ms "
        f"(median of {processes}, {times[0]:.1f} to {times[-1]:.1f}; "
        f"target under {TARGET_MILLISECONDS})\n"
        f"    new modules: {len(new)}, from other packages: {', '.join(others) or 'none'}"
        f"\n    of {', '.join(HEAVY)}: {', '.join(ours) or 'none'}"
        f" (Keras alone: {', '.join(keras_own) or 'none'})\n"
        f"    output: {output or 'none'}"
    )


def main() -> None:
    """Parse the command line and report on each backend."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="tensorflow,jax", help="of tensorflow, jax, torch")
    parser.add_argument("--processes", type=int, default=7, help="fresh processes per backend")
    arguments = parser.parse_args()
    backends = arguments.backend.split(",")
    if not set(backends) <= set(BACKENDS):
        parser.error(f"--backend must be of {', '.join(BACKENDS)}. Received: {arguments.backend}")
    for backend in backends:
        report(backend, arguments.processes)


if __name__ == "__main__":
    main()
