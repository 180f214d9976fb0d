# SPDX-License-Identifier: Apache-2.0
"""Our model folders in Hugging Face's transformers: AutoModel and AutoTokenizer load them and give our answers.

Runs where torch, transformers and NumPy can be imported.
"""
import json
import math
import os
import pathlib
import random
import struct
import subprocess
import tempfile
import unittest
import warnings

try:
    import numpy as np
    import torch
    import transformers
except ImportError:
    transformers = None

ATTN = os.environ.get("ATTN", str(pathlib.Path(__file__).resolve().parents[2] / "build" / "attn"))
SMALL = ["--dim", "32", "--layers", "2", "--heads", "4", "--steps", "30", "--batch", "16", "--lr", "0.005"]


def attn(*words, stdin=None, cwd=None):
    done = subprocess.run([ATTN, *map(str, words)], input=stdin, capture_output=True, cwd=cwd)
    if done.returncode:
        raise AssertionError(done.stderr.decode())
    return done.stdout.decode()


@unittest.skipUnless(transformers, "torch and transformers are not there")
class TransformersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        warnings.filterwarnings("ignore")
        transformers.utils.logging.set_verbosity_error()
        torch.manual_seed(0)

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="attn-oracle-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def log_probabilities(self, answers, labels):
        """[n, classes] from `attn run --json --top` of all classes; probabilities are float32."""
        out = []
        for line in answers.splitlines():
            top = {t["label"]: t["probability"] for t in json.loads(line)["top"]}
            out.append([math.log(top[label]) for label in labels])
        return np.array(out)

    def close(self, ours, logits):
        theirs = torch.log_softmax(logits.double(), -1).numpy()
        self.assertLess(np.abs(ours - theirs).max(), 1e-5)

    def pictures(self, side, n, channels):
        r = np.random.default_rng(1)
        x = r.integers(0, 256, (n, side, side) if channels == 1 else (n, side, side, channels), dtype=np.uint8)
        y = (np.arange(n) % 3).astype(np.uint8)
        x[y == 1, : side // 2] //= 3
        x[y == 2, side // 2:] //= 3
        magic = 0x803 if channels == 1 else 0x804
        (self.folder / f"train-images-idx{x.ndim}-ubyte").write_bytes(struct.pack(f">I{x.ndim}I", magic, *x.shape) + x.tobytes())
        (self.folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, n) + y.tobytes())
        return x, str(self.folder / f"train-images-idx{x.ndim}-ubyte")

    def image_case(self, side, channels, *options):
        x, path = self.pictures(side, 60, channels)
        model = self.folder / "model"
        attn("train", path, "-o", model, *SMALL, *options)
        labels = ["0", "1", "2"]
        ours = self.log_probabilities(attn("run", model, path, "--json", "--top", 3), labels)
        theirs = transformers.AutoModelForImageClassification.from_pretrained(model)
        self.assertEqual(type(theirs).__name__, "ViTForImageClassification")
        p = json.loads((model / "preprocessor_config.json").read_text())
        x = x[..., None] if channels == 1 else x
        pixels = ((x / 255 - np.array(p["image_mean"])) / np.array(p["image_std"])).transpose(0, 3, 1, 2)
        with torch.no_grad():
            self.close(ours, theirs(pixel_values=torch.tensor(pixels, dtype=torch.float32)).logits)

    def test_gray_pictures(self):
        self.image_case(12, 1)

    def test_colour_pictures(self):
        self.image_case(16, 3, "--patch", "4")

    def test_image_processor_makes_our_pixels(self):
        x, path = self.pictures(16, 60, 3)
        model = self.folder / "model"
        attn("train", path, "-o", model, *SMALL)
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(model, backend="pil")
        except Exception as error:  # needs Pillow, or torchvision
            self.skipTest(str(error).splitlines()[0])
        p = json.loads((model / "preprocessor_config.json").read_text())
        pixels = processor(images=list(x[:4]), return_tensors="pt", input_data_format="channels_last")["pixel_values"].numpy()
        expected = ((x[:4] / 255 - np.array(p["image_mean"])) / np.array(p["image_std"])).transpose(0, 3, 1, 2)
        self.assertLess(np.abs(pixels - expected).max(), 1e-5)

    def test_texts(self):
        r = random.Random(2)
        words = "it's the reader's choice größe naïve 好看 猫 100% wave tide reef iron copper".split()
        rows = [" ".join(r.choice(words) for _ in range(r.randint(1, 30))) for _ in range(120)]
        labels = ["long" if len(t.split()) > 15 else "short" for t in rows]
        (self.folder / "a.txt").write_text("".join(f"__label__{l} {t}\n" for l, t in zip(labels, rows)))
        model = self.folder / "model"
        attn("train", self.folder / "a.txt", "-o", model, *SMALL, "--length", 40)
        ours = self.log_probabilities(attn("run", model, "--json", "--top", 2, stdin="\n".join(rows).encode()), ["long", "short"])
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(model)
        self.assertEqual(type(theirs).__name__, "BertForSequenceClassification")
        tokens = transformers.AutoTokenizer.from_pretrained(model)
        batch = tokens(rows, padding=True, truncation=True, max_length=theirs.config.max_position_embeddings, return_tensors="pt")
        with torch.no_grad():
            self.close(ours, theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits)
        self.assertEqual(theirs.config.id2label, {0: "long", 1: "short"})


if __name__ == "__main__":
    unittest.main()
