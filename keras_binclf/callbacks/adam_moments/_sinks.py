"""The places outside of memory that rows are written to, none of which may end a training."""

import contextlib
import warnings
from collections.abc import Callable

from keras_binclf.callbacks.adam_moments._files import File
from keras_binclf.callbacks.adam_moments._memory import Record
from keras_binclf.callbacks.adam_moments._tensorboard import TensorBoard


class Sink:
    """A file or a directory of logs; the first failure to write is a warning, not an error.

    A `File` tries again with the next rows. A `TensorBoard` does not: the thread that writes its
    events has ended.

    Args:
        target: File or TensorBoard, open.
        name: str, the argument of the logger that holds the path.
        path: str.
    """

    def __init__(self, target: File | TensorBoard, name: str, path: str) -> None:
        self.target, self.name, self.path = target, name, path
        self.has_failed = self.is_closed = False

    def add(self, record: Record) -> None:
        """Add the rows of a record."""
        self._try(lambda: self.target.add(record))

    def flush(self) -> None:
        """Write the rows that were added."""
        self._try(self.target.flush)

    def close(self) -> None:
        """Write the rows that were added, and close."""
        self._try(self.target.close)

    def abandon(self) -> None:
        """Close after a training that ended with an error; the rows of its last epoch are lost."""
        if isinstance(self.target, TensorBoard):
            self.close()

    def _try(self, write: Callable[[], None]) -> None:
        if self.is_closed:
            return
        try:
            write()
        except OSError as error:
            self._warn(error)
            if isinstance(self.target, TensorBoard):
                self.is_closed = True
                with contextlib.suppress(OSError):
                    self.target.close()

    def _warn(self, error: OSError) -> None:
        if self.has_failed:
            return
        self.has_failed = True
        if isinstance(self.target, File):
            rest = "tries again at the end of each epoch"
        else:
            rest = "writes nothing more there"
        warnings.warn(
            f"AdamMomentLogger could not write to {self.name}={self.path!r}: "
            f"{error.strerror or error}. The training goes on, and the logger {rest}; its "
            "`history` has all rows.",
            stacklevel=2,
        )


def open_sinks(
    filepath: str | None,
    log_dir: str | None,
    columns: tuple[str, ...],
    quantities: tuple[str, ...],
) -> list[Sink]:
    """Open the file and the directory of a training, where they are given.

    Args:
        filepath: str, path of a file, or None.
        log_dir: str, path of a directory for TensorBoard, or None.
        columns: tuple of str, names of the columns.
        quantities: tuple of str, names of the quantities.

    Raises:
        OSError: if one of them cannot be written.
    """
    sinks = []
    if filepath is not None:
        sinks.append(Sink(File(filepath, columns), "filepath", filepath))
    if log_dir is not None:
        sinks.append(Sink(TensorBoard(log_dir, quantities), "log_dir", log_dir))
    return sinks
