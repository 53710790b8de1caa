"""What test_search.py runs in other processes: one search, a chief's, a worker's, or one killed.

Usage: search_elsewhere.py FOLDER MAX_TRIALS [TRIAL_TO_DIE_IN]
"""

import json
import os
import signal
import sys

import keras
import keras_tuner
from searching import Eager, X, Y


class Die(keras.callbacks.Callback):
    """Kill the process, as the system does where memory runs out, in the middle of a trial."""

    def __init__(self, trial_id):
        super().__init__()
        self.trial_id = trial_id

    def on_train_begin(self, logs=None):
        trials = [path for path in os.listdir(self.folder) if path.startswith("trial_")]
        self.armed = f"trial_{self.trial_id}" in trials

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1 and self.armed:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder, max_trials, die_in=None):
    hypermodel = Eager(3, space={"num_layers": 1, "units": [4, 8], "batch_size": 64})
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        hypermodel.objective,
        max_trials=int(max_trials),
        seed=3,
        directory=folder,
        project_name="project",
    )
    callbacks = []
    if die_in is not None:
        callbacks = [Die(die_in)]
        callbacks[0].folder = tuner.project_dir
    tuner.search(X, Y, validation_split=0.3, epochs=3, verbose=0, callbacks=callbacks)
    print("finished", os.environ.get("KERASTUNER_TUNER_ID", "alone"))
    if hasattr(tuner.oracle, "trials"):
        print(json.dumps({k: t.status for k, t in tuner.oracle.trials.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
