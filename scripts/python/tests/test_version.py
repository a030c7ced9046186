"""One version: the package's is the workspace's."""

import re
import unittest

import flowlens

from . import ROOT


class Version(unittest.TestCase):
    def test_it_is_that_of_the_workspace(self) -> None:
        found = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
        self.assertIsNotNone(found)
        self.assertEqual(flowlens.__version__, found[1])
