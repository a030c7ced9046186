"""Tests of the package: `python -m unittest discover -t scripts/python -s scripts/python/tests`.

FLOWLENS_BIN names a directory of built tools; what is compared with them is skipped without it.
"""

import importlib.util
import os
import pathlib
import subprocess
import tempfile
import unittest
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests/fixtures"
BIN = os.environ.get("FLOWLENS_BIN")


def needs(*modules: str) -> Any:
    """Skips a test where a package is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return unittest.skipIf(missing, f"{', '.join(missing)} is not installed")


needs_tools = unittest.skipUnless(BIN, "FLOWLENS_BIN names no directory of built tools")


def run(tool: str, *words: object) -> str:
    """What a tool prints; a run that does not end with 0 fails the test."""
    done = subprocess.run([f"{BIN}/{tool}", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{tool} ended with {done.returncode}: {done.stderr}")
    return done.stdout


class Case(unittest.TestCase):
    """A test with a directory of its own."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.at = pathlib.Path(directory.name)
