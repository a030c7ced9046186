"""The wheel: tools on PATH, a tag that holds, the same bytes again."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile

from . import ROOT, Case, needs


@needs("hatchling", "elftools")
class Wheel(Case):
    def build(self, name: str) -> "os.PathLike[str]":
        out = self.at / name
        environment = {**os.environ, "FLOWLENS_STAGE": str(self.at / "stage"), "SOURCE_DATE_EPOCH": "1700000000"}
        words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out]
        done = subprocess.run(words, cwd=ROOT / "scripts/python", env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return next(out.iterdir())

    def test_two_builds_are_one_wheel_that_holds_the_tools(self) -> None:
        tool = self.at / "stage/bin/tool"
        tool.parent.mkdir(parents=True)
        shutil.copy("/bin/true", tool)
        page = self.at / "stage/share/man/man1/tool.1"
        page.parent.mkdir(parents=True)
        page.write_text(".TH TOOL 1\n")
        wheel = self.build("a")
        os.utime(tool)
        digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, self.build("b"))}
        self.assertEqual(len(digests), 1)
        self.assertRegex(wheel.name, r"-py3-none-manylinux_2_[0-9]+_(x86_64|aarch64)\.whl$")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            stem = wheel.name.split("-py3")[0]
            self.assertTrue({f"{stem}.data/scripts/tool", f"{stem}.data/data/share/man/man1/tool.1", "flowlens/py.typed"} <= set(names))
            self.assertFalse([name for name in names if "tests" in name or "pycache" in name])
            metadata = archive.read(f"{stem}.dist-info/METADATA").decode()
        self.assertEqual(re.findall(r"^Requires-Dist: (\w+)[^;\n]*$", metadata, re.MULTILINE), ["blake3", "numpy", "zstandard"])
