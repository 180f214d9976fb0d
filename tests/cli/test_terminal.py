# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal sees: arrays as tables, and no waiting for input that nobody will type."""
import os
import subprocess
import unittest

import numpy as np

from program import ATTN, ProgramTest


class TerminalTest(ProgramTest):
    def on_terminal(self, *words):
        """The exit code and what a terminal would show of stdout, with the terminal as stdin, too."""
        master, slave = self.open_terminal()
        process = subprocess.Popen([ATTN, *words], stdin=slave, stdout=slave, stderr=subprocess.PIPE, cwd=self.folder)
        os.close(slave)
        shown = b""
        try:
            while piece := os.read(master, 65536):
                shown += piece
        except OSError:  # the other side is closed
            pass
        os.close(master)
        message = process.stderr.read().decode()
        process.stderr.close()
        return process.wait(), shown.decode().replace("\r\n", "\n"), message

    def test_an_array_is_shown_as_a_table(self):
        self.save("x.npy", np.log(np.array([[1, 3], [1, 1]], "f8")))
        expected = "float64 [2, 2]\n        0.25        0.75\n         0.5         0.5\n"
        self.assertEqual(self.on_terminal("softmax", "x.npy"), (0, expected, ""))
        self.assertEqual(self.on_terminal("softmax", "x.npy", "-o", "-"), (0, expected, ""))

    def test_the_middle_of_large_axes_is_left_out(self):
        self.save("x.npy", np.zeros((8, 300, 400), "f4"))
        code, shown, _ = self.on_terminal("softmax", "x.npy")
        self.assertEqual(code, 0)
        self.assertTrue(shown.startswith("float32 [8, 300, 400]\n[0, ...]\n"))
        self.assertIn("[7, ...]\n", shown)
        self.assertLess(len(shown.splitlines()), 160)
        self.assertLess(max(map(len, shown.splitlines())), 130)

    def test_scalars_and_empty_arrays(self):
        self.assertEqual(self.on_terminal("softmax", self.save("x.npy", np.zeros(1)), "--op", "logsumexp"),
                         (0, "float64 []\n           0\n", ""))
        self.assertEqual(self.on_terminal("softmax", self.save("x.npy", np.zeros((2, 0)))), (0, "float64 [2, 0]\n", ""))

    def test_softmax_does_not_wait_for_somebody_to_type_rows(self):
        code, shown, message = self.on_terminal("softmax")
        self.assertEqual((code, shown), (2, ""))
        self.assertIn("echo 1 2 3 | attn softmax", message)


if __name__ == "__main__":
    unittest.main()
