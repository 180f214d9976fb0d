# SPDX-License-Identifier: Apache-2.0
"""attn train, eval and run, end to end on small data of every kind: what is learned, what is said, exit codes, Ctrl-C, resuming."""
import gzip
import json
import os
import random
import signal
import struct
import subprocess
import time
import unittest
import zlib

from program import ATTN, ProgramTest

SMALL = ["--dim", 16, "--layers", 1, "--heads", 2]
WORDS = {"fruit": "apple pear plum cherry melon", "metal": "iron copper tin zinc lead", "sea": "wave tide reef gull salt"}


def texts(n=120, seed=1):
    """(label, text): words of one kind among words that say nothing."""
    r = random.Random(seed)
    for i in range(n):
        label = sorted(WORDS)[i % 3]
        words = [r.choice("the a of with and old new big".split()) for _ in range(r.randint(2, 6))]
        words.insert(r.randint(0, len(words)), r.choice(WORDS[label].split()))
        yield label, " ".join(words)


def picture(label, r, side=8, channels=1):
    """Bytes of a picture whose brightest quarter is the class (0 .. 3)."""
    rows = []
    for y in range(side):
        row = []
        for x in range(side):
            bright = (y >= side // 2) * 2 + (x >= side // 2) == label
            row += [r.randint(150, 255) if bright else r.randint(0, 100) for _ in range(channels)]
        rows.append(bytes(row))
    return rows


def png(rows, channels):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    width = len(rows[0]) // channels
    head = struct.pack(">IIBBBBB", width, len(rows), 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
            + chunk(b"IEND", b""))


class TrainTest(ProgramTest):
    def attn(self, *words, code=0, says="", stdin=b"", env=None):
        """Runs attn, which may say things on stderr; returns stdout."""
        done = self.run_attn(*words, stdin=stdin, env=env)
        message = done.stderr.decode()
        self.assertEqual(done.returncode, code, f"attn {' '.join(map(str, words))}: {message}")
        self.assertIn(says, message)
        if code not in (0, 130):
            self.assertIn("attn: error: ", message)
        return done.stdout.decode()

    def csv(self, name="data.csv", n=120, seed=1):
        rows = "".join(f'{i},"{text}",{label}\n' for i, (label, text) in enumerate(texts(n, seed)))
        (self.folder / name).write_text("id,review,kind\n" + rows)
        return name

    def idx(self, half="train", n=80, compressed=False):
        """MNIST-style files in the folder `pictures`."""
        r = random.Random(half)
        labels = [i % 4 for i in range(n)]
        pixels = b"".join(b"".join(picture(label, r)) for label in labels)
        (self.folder / "pictures").mkdir(exist_ok=True)
        put = (lambda p, b: (p.parent / (p.name + ".gz")).write_bytes(gzip.compress(b))) if compressed else (lambda p, b: p.write_bytes(b))
        put(self.folder / "pictures" / f"{half}-images-idx3-ubyte", struct.pack(">IIII", 0x803, n, 8, 8) + pixels)
        put(self.folder / "pictures" / f"{half}-labels-idx1-ubyte", struct.pack(">II", 0x801, n) + bytes(labels))
        return "pictures"

    def accuracy(self, model, data, *options):
        return json.loads(self.attn("eval", model, data, "--json", *options))["accuracy"]

    # ---- texts ------------------------------------------------------------------------------------------------------

    def test_csv_with_chosen_columns(self):
        data = self.csv()
        self.attn("train", data, "-o", "m", "--text", "review", "--label", "kind", *SMALL, "--epochs", 40, "--batch", 16,
                  "--lr", 0.01, "--dropout", 0.1, says="the best so far")
        self.assertEqual(sorted(p.name for p in (self.folder / "m").iterdir()),
                         ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
        other = self.csv("other.csv", 60, seed=2)
        self.assertGreaterEqual(self.accuracy("m", other, "--text", "review", "--label", "kind"), 0.95)
        card = (self.folder / "m" / "README.md").read_text()
        self.assertIn("BertForSequenceClassification", card)
        self.assertIn("attn train data.csv -o m --text review --label kind", card)

    def test_tsv_jsonl_and_fasttext_say_the_same(self):
        rows = list(texts(90))
        (self.folder / "a.tsv").write_text("text\tlabel\n" + "".join(f"{t}\t{l}\n" for l, t in rows))
        (self.folder / "a.jsonl").write_text("".join(json.dumps({"text": t, "label": l}) + "\n" for l, t in rows))
        (self.folder / "a.txt").write_text("".join(f"__label__{l} {t}\n" for l, t in rows))
        weights = set()
        for name in ("a.tsv", "a.jsonl", "a.txt"):
            self.attn("train", name, "-o", "m", *SMALL, "--steps", 5, says="90 rows, 3 labels")
            weights.add((self.folder / "m" / "model.safetensors").read_bytes())
            self.assertEqual(json.loads(self.attn("eval", "m", name, "--json"))["n"], 90)
        self.assertEqual(len(weights), 1)

    def test_any_language(self):
        rows = [("好", "这部电影非常好看"), ("坏", "剧情很差，浪费时间")] * 20
        (self.folder / "a.txt").write_text("".join(f"__label__{l} {t} {i // 2}\n" for i, (l, t) in enumerate(rows)))
        self.attn("train", "a.txt", "-o", "m", *SMALL, "--epochs", 60, "--batch", 8, "--lr", 0.01, "--dropout", 0.1)
        answer = json.loads(self.attn("run", "m", "--json", stdin="这部电影非常好看 999\n".encode()))
        self.assertEqual((answer["label"], answer["input"]), ("好", "这部电影非常好看 999"))

    def test_run_answers_each_line(self):
        self.attn("train", self.csv(), "-o", "m", "--text", "review", "--label", "kind", *SMALL, "--steps", 3)
        out = self.attn("run", "m", "--json", "--top", 2, stdin=b"iron and salt\n\nthe pear\r\nlast without its end")
        answers = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([a["input"] for a in answers], ["iron and salt", "", "the pear", "last without its end"])
        for a in answers:
            self.assertEqual(len(a["top"]), 2)
            self.assertEqual(a["top"][0], {"label": a["label"], "probability": a["probability"]})
            self.assertGreaterEqual(a["top"][0]["probability"], a["top"][1]["probability"])
        self.assertEqual(self.attn("run", "m", "the pear").split("\t")[2], "the pear\n")
        self.assertEqual(len(self.attn("run", "m", "data.csv", "--text", "review").splitlines()), 120)
        (self.folder / "lines").write_text("one\ntwo\n")
        self.assertEqual(self.attn("run", "m", "lines"), self.attn("run", "m", "-", stdin=b"one\ntwo\n"))
        self.assertEqual(self.attn("run", "m", stdin=b""), "")

    # ---- pictures ------------------------------------------------------------------------------------------------------

    def test_idx_halves(self):
        data = self.idx()
        self.idx("t10k", 40, compressed=True)
        self.attn("train", data, "-o", "m", *SMALL, "--epochs", 30, "--batch", 16, "--lr", 0.01, "--no-flip", "--shift", 0, says="80 pictures of 8x8, gray")
        self.assertGreaterEqual(self.accuracy("m", data), 0.95)
        found = json.loads(self.attn("eval", "m", data, "--json"))
        self.assertEqual(found["n"], 40)
        answers = self.attn("run", "m", "pictures/t10k-images-idx3-ubyte.gz", "--json").splitlines()
        self.assertEqual(len(answers), 40)
        self.assertEqual(json.loads(answers[7])["input"], "pictures/t10k-images-idx3-ubyte.gz#7")

    def test_names_for_numbers(self):
        data = self.idx()
        self.attn("train", data, "-o", "m", *SMALL, "--steps", 2, "--labels", "nw,ne,sw,se")
        self.assertEqual([k["label"] for k in json.loads(self.attn("eval", "m", data, "--json"))["per_class"]], ["nw", "ne", "sw", "se"])
        self.attn("train", data, "-o", "m", *SMALL, "--labels", "nw,ne,sw", code=2, says="names 3 classes; the data has 4")
        self.attn("train", self.csv(), "-o", "m", "--text", "review", "--label", "kind", "--labels", "a,b,c", code=2, says="IDX")

    def test_folders_of_png_of_any_size(self):
        r = random.Random(3)
        for label, name in enumerate(["north west", "north east", "south west"]):
            (self.folder / "shots" / name).mkdir(parents=True)
            for i in range(20):
                channels = 3 if i % 2 else 1
                (self.folder / "shots" / name / f"{i}.png").write_bytes(png(picture(label, r, 9 + i % 3, channels), channels))
        self.attn("train", "shots", "-o", "m", *SMALL, "--epochs", 20, "--batch", 8, "--lr", 0.01, "--no-flip", "--shift", 0, says="colour")
        self.assertGreaterEqual(self.accuracy("m", "shots"), 0.9)
        answer = json.loads(self.attn("run", "m", "shots/south west/4.png", "--json"))
        self.assertEqual(answer["input"], "shots/south west/4.png")
        self.assertEqual(len(self.attn("run", "m", "shots").splitlines()), 60)
        self.assertEqual(set(json.loads((self.folder / "m" / "config.json").read_text())["id2label"].values()),
                         {"north west", "north east", "south west"})

    # ---- figures -------------------------------------------------------------------------------------------------------

    def test_eval_says_what_is_pinned(self):
        data = self.idx()
        self.attn("train", data, "-o", "m", *SMALL, "--steps", 4)
        f = json.loads(self.attn("eval", "m", data, "--json"))
        self.assertEqual(f["task"], "image:class")
        self.assertEqual(f["n"], 80)
        low, high = f["accuracy_ci95"]
        self.assertTrue(0 <= low <= f["accuracy"] <= high <= 1)
        self.assertEqual([k["label"] for k in f["per_class"]], ["0", "1", "2", "3"])
        self.assertEqual([k["support"] for k in f["per_class"]], [20] * 4)
        self.assertEqual([sum(row) for row in f["confusion"]], [20] * 4)
        right = sum(f["confusion"][i][i] for i in range(4))
        self.assertAlmostEqual(f["accuracy"], right / 80)
        for i, k in enumerate(f["per_class"]):
            predicted = sum(row[i] for row in f["confusion"])
            self.assertEqual(k["precision"] is None, predicted == 0)
            self.assertAlmostEqual(k["recall"], f["confusion"][i][i] / 20)
        self.assertTrue(0 <= f["ece"] <= 1 and f["loss"] > 0 and 0 <= f["macro_f1"] <= 1)
        self.attn("eval", "m", data, "--fail-under", 0)
        self.attn("eval", "m", data, "--fail-under", 1, code=1, says="below --fail-under")

    # ---- the same again --------------------------------------------------------------------------------------------------

    def weights(self, name):
        return (self.folder / name / "model.safetensors").read_bytes()

    def test_threads_change_no_bit_and_seeds_do(self):
        data = self.csv()
        common = ["train", data, "--text", "review", "--label", "kind", *SMALL, "--steps", 4]
        for name, more in (("one", ["--threads", 1]), ("three", ["--threads", 3]), ("other", ["--seed", 2])):
            self.attn(*common, "-o", name, *more)
        self.assertEqual(self.weights("one"), self.weights("three"))
        self.assertNotEqual(self.weights("one"), self.weights("other"))

    def test_interrupted_then_resumed_is_the_uninterrupted(self):
        data = self.idx(n=200)
        words = ["train", data, *map(str, SMALL), "--steps", "400", "--batch", "32"]
        self.attn(*words, "-o", "whole")
        child = subprocess.Popen([ATTN, *words, "-o", "parts", "--log", "log.jsonl"], cwd=self.folder, stderr=subprocess.PIPE)
        lines = b""
        while b"step " not in lines.split(b"steps:")[-1]:  # the first validation has been
            line = child.stderr.readline()
            self.assertNotEqual(line, b"", lines)
            lines += line
        child.send_signal(signal.SIGINT)
        _, rest = child.communicate(timeout=60)
        if child.returncode == 0:
            self.skipTest("the training was over before it could be interrupted")
        self.assertEqual(child.returncode, 130, rest)
        self.assertIn(b"--resume goes on", rest)
        self.assertIn("interrupted", (self.folder / "parts" / "README.md").read_text())
        self.attn("eval", "parts", data)
        self.attn(*words, "-o", "parts", "--resume", "--seed", "2", code=2, says="other options")
        self.attn(*words, "-o", "parts", "--resume", says="resumed at step")
        self.assertEqual(self.weights("parts"), self.weights("whole"))
        self.assertFalse((self.folder / "parts" / "checkpoint.safetensors").exists())
        self.attn(*words, "-o", "parts", "--resume", code=4, says="no checkpoint")

    def test_the_log_is_json_lines(self):
        self.attn("train", self.idx(), "-o", "m", *SMALL, "--epochs", 3, "--batch", 16, "--log", "log.jsonl")
        events = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        self.assertEqual([e["event"] for e in events if e["event"] != "step"], ["planned"] + ["valid"] * 3)
        self.assertTrue(any(e["best"] for e in events if e["event"] == "valid"))

    def test_too_few_examples_are_not_measured(self):
        (self.folder / "two.tsv").write_text("text\tlabel\ngood film\tpos\nbad film\tneg\n")
        done = self.run_attn("train", "two.tsv", "-o", "model", "--epochs", 2, *SMALL)
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"validation: none: too few examples", done.stderr)
        self.assertNotIn(b"validation accuracy", done.stderr)

    def test_each_optimizer_is_itself(self):
        self.idx()
        for optimizer in ("muon", "adamw"):
            self.attn("train", "pictures", "-o", optimizer, "--optimizer", optimizer, "--steps", 4, *SMALL)
            self.assertIn("Muon" if optimizer == "muon" else "AdamW, 4 steps", (self.folder / optimizer / "README.md").read_text())
        self.attn("train", "pictures", "-o", "default", "--steps", 4, *SMALL)
        weights = {name: (self.folder / name / "model.safetensors").read_bytes() for name in ("muon", "adamw", "default")}
        self.assertEqual(weights["default"], weights["muon"])
        self.assertNotEqual(weights["adamw"], weights["muon"])

    def test_time_is_kept(self):
        data = self.idx()
        start = time.monotonic()
        out = json.loads(self.attn("train", data, "-o", "m", *SMALL, "--time", "2s", "--json"))
        self.assertLess(time.monotonic() - start, 20)
        self.assertGreater(out["step"], 3)
        self.assertIn(f"--steps ", (self.folder / "m" / "README.md").read_text())

    # ---- what goes wrong ----------------------------------------------------------------------------------------------------

    def test_wrong_words(self):
        data = self.csv()
        self.attn("train", data, code=2, says="out")
        self.attn("train", "-o", "m", code=2)
        self.attn("train", data, "-o", "m", "--time", "soon", code=2, says="90s, 2m or 1.5h")
        self.attn("train", data, "-o", "m", "--time", "2m", "--epochs", 3, code=2, says="three ways")
        self.attn("train", data, "-o", "m", "--attention", "magic", code=2, says="multiplicative")
        self.attn("train", data, "-o", "m", "--task", "image:class", "--text", "review", "--label", "kind", code=2, says="holds texts")
        self.attn("train", data, "-o", "m", "--lr", "nan", code=2)
        self.attn("train", data, "-o", "m", "--text", "review", "--label", "kind", "--dim", 10, "--heads", 4, code=2, says="heads")

    def test_bad_data(self):
        self.attn("train", "missing.csv", "-o", "m", code=3, says="missing.csv")
        data = self.csv()
        self.attn("train", data, "-o", "m", "--text", "reviw", "--label", "kind", code=2, says="review")
        (self.folder / "one.txt").write_text("__label__a x\n__label__a y\n")
        self.attn("train", "one.txt", "-o", "m", code=3, says="two classes")
        self.attn("train", self.idx(), "-o", data, code=5, says="data.csv")
        self.attn("train", self.idx(), "-o", "m", *SMALL, "--steps", 2)
        self.attn("eval", "m", data, code=3, says="the model is for pictures")
        self.attn("eval", "m", "missing", code=3)
        self.attn("run", "m", "missing.png", code=3)
        (self.folder / "no.png").write_bytes(b"no picture")
        self.attn("run", "m", "no.png", code=3)

    def test_a_folder_whose_name_is_no_text(self):
        r = random.Random(1)
        for name in (b"a", b"\xff\xfe"):
            path = os.path.join(os.fsencode(self.folder), b"shots", name)
            os.makedirs(path)
            for i in range(6):
                with open(os.path.join(path, b"%d.png" % i), "wb") as f:
                    f.write(png(picture(0, r), 1))
        self.attn("train", "shots", "-o", "m", *SMALL, "--steps", 1, code=3, says="UTF-8")

    def test_bad_models(self):
        self.attn("eval", "nowhere", self.csv(), code=4, says="no config.json")
        self.attn("run", ".", "x y", code=4)
        (self.folder / "bad").mkdir()
        (self.folder / "bad" / "config.json").write_text('{"model_type": "gpt2"}')
        self.attn("run", "bad", "x y", code=4, says="model_type")
        self.attn("train", self.idx(), "-o", "m", *SMALL, "--steps", 2)
        (self.folder / "m" / "model.safetensors").write_bytes(b"\0" * 20)
        self.attn("run", "m", "pictures", code=4, says="model.safetensors")

    def test_labels_the_model_does_not_know(self):
        self.attn("train", self.csv(), "-o", "m", "--text", "review", "--label", "kind", *SMALL, "--steps", 2)
        (self.folder / "other.csv").write_text("review,kind\na b,fruit\nc d,stone\n")
        self.attn("eval", "m", "other.csv", "--text", "review", "--label", "kind", code=3, says="'stone'")


if __name__ == "__main__":
    unittest.main()
