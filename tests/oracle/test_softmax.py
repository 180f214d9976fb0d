# SPDX-License-Identifier: Apache-2.0
"""The softmax family and cross-entropy against torch, afresh: new numbers from other seeds, replayed by the test program."""
import os
import pathlib
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = pathlib.Path(os.environ.get("ATTN_BUILD", HERE.parent.parent / "build")) / "tests/test_softmax_oracle"

try:
    import torch
except ImportError:
    torch = None


@unittest.skipIf(torch is None, "torch is not importable")
@unittest.skipUnless(PROGRAM.exists(), "test_softmax_oracle is not built")
class Softmax(unittest.TestCase):
    def test_numbers_from_other_seeds_agree(self):
        import make_softmax

        for seed in range(2, 6):
            with self.subTest(seed=seed), tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "softmax.txt"
                make_softmax.write(path, seed)
                done = subprocess.run([PROGRAM], env={**os.environ, "ATTN_ORACLE_SOFTMAX": str(path)}, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
