# SPDX-License-Identifier: Apache-2.0
"""What the tests of the program share: running it, and a folder of arrays that is gone after the test."""
import os
import pathlib
import pty
import subprocess
import tempfile
import unittest

import numpy as np

ATTN = os.environ.get("ATTN", str(pathlib.Path(__file__).resolve().parents[2] / "build" / "attn"))


class ProgramTest(unittest.TestCase):
    """Each test runs in an empty folder of its own."""

    def setUp(self):
        self._folder = tempfile.TemporaryDirectory(prefix="attn-test-")
        self.addCleanup(self._folder.cleanup)
        self.folder = pathlib.Path(self._folder.name)

    def open_terminal(self):
        """Two ends of a terminal; the test is skipped where there is none to be had (a chroot without /dev/pts)."""
        try:
            return pty.openpty()
        except OSError as error:
            self.skipTest(f"this machine gives no terminals: {error}")

    def run_attn(self, *words, stdin=b"", env=None):
        """Runs attn with these words (strings, numbers, paths); bytes out and in."""
        if isinstance(stdin, str):
            stdin = stdin.encode()
        return subprocess.run([ATTN, *map(str, words)], input=stdin, capture_output=True, cwd=self.folder,
                              env={**os.environ, **(env or {})}, timeout=120)

    def good(self, *words, **options):
        """The standard output of a run that has to succeed without a word on stderr."""
        done = self.run_attn(*words, **options)
        self.assertEqual((done.returncode, done.stderr.decode()), (0, ""), f"attn {' '.join(map(str, words))}")
        return done.stdout

    def bad(self, code, *words, says="", **options):
        """A run that has to fail with this exit code, one error line that holds `says`, and nothing on stdout."""
        done = self.run_attn(*words, **options)
        message = done.stderr.decode()
        where = f"attn {' '.join(map(str, words))}: {done.returncode} {message}"
        self.assertEqual(done.returncode, code, where)
        self.assertTrue(message.startswith("attn: error: "), where)
        self.assertEqual(message.count("\n"), 1, where)
        self.assertIn(says, message)
        self.assertEqual(done.stdout, b"", where)
        self.assertEqual([f for f in self.folder.iterdir() if f.suffix == ".tmp"], [], where)
        return message

    def save(self, name, array):
        """Saves an array and returns the name to give to attn."""
        np.save(self.folder / name, array)
        return name

    def load(self, name):
        return np.load(self.folder / name)
