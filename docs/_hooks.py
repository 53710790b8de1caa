"""Make the figures of the pages: MkDocs runs the code that draws them, so none is committed."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
SAVED = re.compile(r'savefig\("([^"/]+\.png)"')
CUSTOMERS = Path(__file__).parent.parent / "examples" / "customers.py"
"""Writes the table that several pages read."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the figures that the Python blocks of a page save, beside the page."""
    for page in files.documentation_pages():
        blocks = BLOCK.findall(page.content_string)
        names = SAVED.findall("".join(blocks))
        for name, content in _draw(page.src_uri, blocks, names).items():
            path = (Path(page.src_uri).parent / name).as_posix()
            files.append(File.generated(config, path, content=content))
    return files


def _draw(page: str, blocks: list[str], names: list[str]) -> dict[str, bytes]:
    """Run the blocks of a page one after the other, in a process and a folder of their own."""
    if not names:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "page.py")
        code = "\n".join(blocks)
        script.write_text(code, encoding="utf-8")
        if "customers.csv" in code:
            _run(folder, page, CUSTOMERS, "customers.csv")
        _run(folder, page, script)
        return {name: Path(folder, name).read_bytes() for name in names}


def _run(folder: str, page: str, *command: str | Path) -> None:
    """Run a script in a folder."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise PluginError(f"The code of {page} fails:\n{done.stderr}")
