"""Logged rows in TensorBoard."""

import contextlib
from collections.abc import Iterator

from keras_binclf.callbacks.adam_moments._memory import Record
from keras_binclf.callbacks.adam_moments._quantities import QUANTITIES


class TensorBoard:
    """Scalars for TensorBoard, tagged `adam/column/variable`, without the histograms.

    Args:
        path: str, directory.
        quantities: tuple of str, names of the quantities.

    Raises:
        OSError: if the directory cannot be written.
    """

    def __init__(self, path: str, quantities: tuple[str, ...]) -> None:
        from tensorboard import summary  # the import takes a second

        try:
            with _raising_os_errors():
                self.writer = summary.Writer(path)
        except OSError as error:
            raise OSError(
                "`log_dir` of AdamMomentLogger must be a directory that can be written. Received: "
                f"log_dir={path!r}. {error}"
            ) from error
        self.columns = [
            (column, QUANTITIES[name].scalar)
            for name in quantities
            for column in QUANTITIES[name].columns
        ]

    def add(self, record: Record) -> None:
        """Write the scalars of a record."""
        for variable, values in zip(record.variables, record.values, strict=True):
            for (column, scalar), value in zip(self.columns, values, strict=True):
                if scalar:
                    with _raising_os_errors():
                        self.writer.add_scalar(f"adam/{column}/{variable}", value, record.step)

    def flush(self) -> None:
        """Write the scalars that were added."""
        with _raising_os_errors():
            self.writer.flush()

    def close(self) -> None:
        """Write the scalars that were added, and close the file."""
        with _raising_os_errors():
            self.writer.close()


@contextlib.contextmanager
def _raising_os_errors() -> Iterator[None]:
    """Raise errors of TensorFlow's file system, which TensorBoard uses if it is there, as OSError.

    A full disk is a `ResourceExhaustedError` of TensorFlow.
    """
    from tensorboard.compat import tf

    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
