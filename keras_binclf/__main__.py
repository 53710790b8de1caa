"""`python -m keras_binclf describe model.keras`: what a file is and who wrote it."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from keras_binclf._version import __version__
from keras_binclf.saving import describe


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
        print(f"keras_binclf: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    fields = dataclasses.asdict(description)
    print(json.dumps(fields, indent=1) if options.json else description)
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m keras_binclf")
    parser.add_argument("--version", action="version", version=f"keras_binclf {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    command = commands.add_parser("describe", help="say what a .keras file is, without loading it")
    command.add_argument("file", help="a file that model.save wrote")
    command.add_argument("--json", action="store_true", help="print JSON rather than text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
