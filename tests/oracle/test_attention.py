# SPDX-License-Identifier: Apache-2.0
"""Attention against torch, afresh: new problems from other seeds, replayed by the test program."""
import os
import pathlib
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = pathlib.Path(os.environ.get("ATTN_BUILD", HERE.parent.parent / "build")) / "tests/test_attention_oracle"

try:
    import torch
except ImportError:
    torch = None


@unittest.skipIf(torch is None, "torch is not importable")
@unittest.skipUnless(PROGRAM.exists(), "test_attention_oracle is not built")
class Attention(unittest.TestCase):
    def replay(self, seed):
        import make_attention

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "attention.bin")
            make_attention.write(path, seed)
            done = subprocess.run([PROGRAM], env={**os.environ, "ATTENTION_ORACLE": path}, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_problems_from_other_seeds_agree(self):
        for seed in range(2, 8):
            with self.subTest(seed=seed):
                self.replay(seed)


if __name__ == "__main__":
    unittest.main()
