# SPDX-License-Identifier: Apache-2.0
"""The programs of examples/python, each in a small configuration, and their types."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

from drop_in import BUILD, ROOT, missing

EXAMPLES = ROOT / "examples/python"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(BUILD / "python"), "OMP_NUM_THREADS": "1"}


def run(case, name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    case.assertEqual(done.returncode, 0, done.stderr)
    return done.stdout


@unittest.skipIf(missing, missing)
class Examples(unittest.TestCase):
    @unittest.skipUnless(importlib.util.find_spec("transformers"), "transformers is not importable")
    def test_see_bert(self):
        with tempfile.TemporaryDirectory() as folder:
            picture = pathlib.Path(folder, "map.svg")
            said = run(self, "see_bert.py", "--length", "512", "-o", str(picture))
            rows = [line.split() for line in said.splitlines() if re.match(r" +\d+ +\d+ ", line)]
            self.assertEqual([row[:2] for row in rows], [[str(layer), str(head)] for layer in (1, 2) for head in (1, 2, 3, 4)])
            for row in rows:
                self.assertTrue(0 < float(row[2]) < 6.24, row)  # the logarithm of 512
            self.assertIn("512 tokens: the peak of memory grew by", said)
            drawn = xml.etree.ElementTree.parse(picture).getroot()
            cells = [each for each in drawn if each.tag.endswith("rect")]
            self.assertEqual(len(cells), 1 + 8 * 120)
            self.assertGreater(len({each.get("fill") for each in cells}), 20)

    def test_train_with_patch(self):
        said = run(self, "train_with_patch.py", "--steps", "4", "--length", "64", "--batch", "2")
        for side in ("torch", "attn"):
            self.assertRegex(said, rf"(?m)^{side} +[\d.]+ +[\d.]+ +[\d.]+ ms +\d+ MiB$")
        self.assertLess(float(re.search(r"differ by at most (\S+)", said)[1]), 1e-3)

    def test_bahdanau(self):
        said = run(self, "bahdanau.py", "--steps", "10", "--word", "queue")
        losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", said)]
        self.assertLess(losses[-1], losses[0])
        self.assertEqual(len(said.split("\n\n")[1].splitlines()), 6)

    def test_sparsemax_attention(self):
        said = run(self, "sparsemax_attention.py", "--epochs", "1")
        shares = {kind: re.search(rf"(?m)^{kind} +([\d.]+)% +([\d.]+)%", said).groups() for kind in ("softmax", "sparsemax")}
        self.assertEqual(float(shares["softmax"][1]), 0)
        self.assertGreater(float(shares["sparsemax"][1]), 30)
        for accuracy, _ in shares.values():
            self.assertGreater(float(accuracy), 30)

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not importable")
    def test_types_hold(self):
        files = [str(path) for path in sorted(EXAMPLES.glob("*.py"))]
        command = [sys.executable, "-m", "mypy", "--config-file", str(EXAMPLES / "mypy.ini"), "--no-error-summary", *files]
        environment = {**os.environ, "MYPYPATH": str(BUILD / "python")}
        done = subprocess.run(command, env=environment, cwd=BUILD, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
