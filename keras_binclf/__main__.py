"""`python -m keras_binclf describe model.keras`: print a description of a saved model."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TextIO

from keras_binclf._version import __version__
from keras_binclf.saving import describe
from keras_binclf.saving.files.text import escape


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: those of the command line, or None for those of the process. Defaults to `None`.

    Returns:
        0, or 1 for a file that could not be read. Wrong arguments exit with 2.
    """
    options = _make_parser().parse_args(arguments)
    try:
        description = describe(options.file)
    except (OSError, ValueError) as error:
        _print(f"keras_binclf: {escape(' '.join(str(error).split()))}", sys.stderr)
        return 1
    fields = dataclasses.asdict(description)
    _print(json.dumps(fields, indent=1) if options.json else str(description), sys.stdout)
    return 0


def _print(text: str, stream: TextIO) -> None:
    """Print text, with escapes for the characters that the stream's encoding does not have."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m keras_binclf")
    parser.add_argument("--version", action="version", version=f"keras_binclf {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    command = commands.add_parser("describe", help="describe a .keras file without loading it")
    command.add_argument("file", help="a file that model.save wrote")
    command.add_argument("--json", action="store_true", help="print JSON rather than text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
