# SPDX-License-Identifier: Apache-2.0
"""Our tokenizer against Hugging Face's `tokenizers`: the same vocabulary from the same texts, the same ids for the same text.

Runs where `tokenizers` can be imported (and, for one test, `transformers`), through build/tests/tokenizer_driver.
"""
import json
import os
import pathlib
import random
import subprocess
import tempfile
import unittest

try:
    import tokenizers
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
except ImportError:
    tokenizers = None

DRIVER = pathlib.Path(os.environ.get("ATTN_BUILD", "build")) / "tests" / "tokenizer_driver"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SCRIPTS = [
    "It's the reader's choice: we'll see what they've got, I'd say; don't you think they're 100% right?",
    "Größere Äpfel, süße Öle – naïve café, l'été dernier. Ærøskøbing!  Tabs\tand\r\nline ends \u00a0 no-break",
    "注意力机制让模型学会看哪里。这部电影非常好看，我很喜欢！２０２４年，价格￥１００。",
    "吾輩は猫である。名前はまだ無い。カタカナとひらがな、ﾊﾝｶｸも。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Їжак",
    "كل البشر يولدون أحرارا ومتساوين في الكرامة والحقوق. ١٢٣",
    "सभी मनुष्य जन्म से स्वतन्त्र तथा मर्यादा और अधिकारों में समान होते हैं। १२३",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "İstanbul'da ılık bir gün; ΟΔΥΣΣΕΥΣ, Σίσυφος; ǅ ﬁ ﬀ Ⅷ ½ ① ㎏ ㍿ Å Ω",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 é vs e\u0301, ạ̈ vs a\u0308\u0323 vs a\u0323\u0308",
]


def real_lines():
    """The sources of Python's own library: real text on any machine."""
    folder = pathlib.Path(os.__file__).parent
    lines = []
    for name in ("argparse", "ast", "datetime", "decimal", "difflib", "inspect", "tarfile", "typing", "unittest/mock"):
        path = folder / (name + ".py")
        if path.exists():
            lines += path.read_text(encoding="utf-8").split("\n")
    return lines + SCRIPTS * 3


def any_character(rng):
    kind = rng.random()
    if kind < 0.35:
        return chr(rng.randrange(0x80))
    if kind < 0.45:
        return rng.choice(" \t\n\r\u00a0\u2003\u3000\u0085\u200b'")
    if kind < 0.55:
        return chr(rng.randrange(0x300, 0x370))
    if kind < 0.65:
        return chr(rng.choice((rng.randrange(0x1100, 0x1200), rng.randrange(0xAC00, 0xD7A4))))
    top = rng.choice((0x800, 0x10000, 0x10000, 0x20000, 0x110000))
    while True:
        c = rng.randrange(top)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def random_texts(seed, n):
    rng = random.Random(seed)
    real = real_lines()
    texts = []
    for _ in range(n):
        if rng.random() < 0.3:
            texts.append(rng.choice(real))
        else:
            text = "".join(any_character(rng) for _ in range(rng.randrange(40)))
            if rng.random() < 0.3:
                at = rng.randrange(len(text) + 1)
                text = text[:at] + rng.choice(SPECIAL + ["[sep]", "<x>", "  <x>  ", "Ａdded", "added"]) + text[at:]
            texts.append(text)
    return texts


def drive(words, texts=()):
    data = b"".join(b"%d\n" % len(t) + t for t in (text.encode() for text in texts))
    done = subprocess.run([str(DRIVER)] + [str(w) for w in words], input=data, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"exit {done.returncode}: {done.stderr.decode(errors='replace')}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def normalizer(form, lowercase):
    steps = [normalizers.NFC()] if form == 0 else [normalizers.NFKC()] if form == 1 else []
    if lowercase:
        steps.append(normalizers.Lowercase())
    return steps[0] if len(steps) == 1 else normalizers.Sequence(steps) if steps else None


def hugging_face(texts, form=0, lowercase=False, prefix=False, size=3000, special=SPECIAL, **options):
    """A tokenizer trained by `tokenizers` itself."""
    t = Tokenizer(models.BPE(unk_token="[UNK]" if special else None, **options))
    steps = normalizer(form, lowercase)
    if steps:
        t.normalizer = steps
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(prefix))
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


@unittest.skipUnless(tokenizers and DRIVER.exists(), "needs Python's tokenizers and the driver")
class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def train(self, texts, size=3000, form=0, lowercase=0, prefix=0):
        path = self.path(f"{size}-{form}{lowercase}{prefix}.json")
        drive(["train", path, size, 2, form, int(lowercase), int(prefix)], texts)
        return path

    def same_ids(self, path, texts, max_length=0, words=True, decoded=True):
        theirs = Tokenizer.from_file(path)
        if max_length:
            theirs.enable_truncation(max_length)
        theirs.no_padding()
        for text, ours, other in zip(texts, drive(["encode", path, max_length], texts), theirs.encode_batch(texts)):
            self.assertEqual(ours["ids"], other.ids, repr(text))
            if words:
                self.assertEqual([None if w < 0 else w for w in ours["word"]], other.word_ids, repr(text))
            if decoded:
                plain = bytes.fromhex(ours["plain"]).decode(errors="replace")
                self.assertEqual(plain, theirs.decode(other.ids), repr(text))


class Training(Case):
    def test_the_vocabulary_is_the_one_that_tokenizers_learns(self):
        lines = real_lines()
        for form, lowercase, prefix in ((0, 0, 0), (0, 1, 0), (1, 1, 1), (2, 0, 1)):
            with self.subTest(form=form, lowercase=lowercase, prefix=prefix):
                with open(self.train(lines, 3000, form, lowercase, prefix), encoding="utf-8") as file:
                    ours = json.load(file)["model"]
                theirs = json.loads(hugging_face(lines, form, lowercase, prefix).to_str())["model"]
                self.assertEqual(ours["vocab"], theirs["vocab"])
                self.assertEqual(ours["merges"], [list(m) for m in theirs["merges"]])


class Encoding(Case):
    def test_random_and_real_texts_get_the_same_ids(self):
        lines = real_lines()
        for seed, (form, lowercase, prefix) in enumerate(((0, 0, 0), (0, 1, 0), (0, 1, 1), (1, 1, 0), (1, 0, 1), (2, 0, 0), (2, 1, 1))):
            with self.subTest(form=form, lowercase=lowercase, prefix=prefix):
                path = self.train(lines, 3000, form, lowercase, prefix)
                self.same_ids(path, SCRIPTS + random_texts(seed, 2000))

    def test_truncation_cuts_where_tokenizers_does(self):
        path = self.train(real_lines())
        for length in (2, 3, 7, 50):
            self.same_ids(path, random_texts(length, 500), max_length=length, decoded=False)

    def test_every_character_is_of_the_same_kind(self):
        """With bytes for a vocabulary only the words tell; a letter joins 'a', a digit '1', a sign '!', white space none."""
        path = self.train(["a"], 261, 2)
        every = (*range(0x40000), *range(0xE0000, 0xE1000), *range(0x40000, 0x110000, 997))
        self.same_ids(path, self.characters(every, "a{0}1{0}!{0}"), decoded=False)

    def test_every_character_is_normalised_to_the_same(self):
        every = (*range(0x20000), *range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200))
        for form, lowercase in ((0, 1), (1, 1), (1, 0)):
            path = self.train(["a"], 261, form, lowercase)
            self.same_ids(path, self.characters(every, "\n{0}\u0301a\u0301{0}\u0323"), words=False, decoded=False)

    @staticmethod
    def characters(every, pattern):
        every = [c for c in every if not 0xD800 <= c < 0xE000]
        return ["".join(pattern.format(chr(c)) for c in every[i:i + 64]) for i in range(0, len(every), 64)]


class Files(Case):
    """Files that `tokenizers` writes, and what we write after reading them."""

    def both_ways(self, made, name, texts=None, **options):
        path, copied = self.path(name + ".json"), self.path(name + "-copy.json")
        made.save(path)
        texts = random_texts(name, 1500) if texts is None else texts
        self.same_ids(path, texts, **options)
        drive(["copy", path, copied])
        self.same_ids(copied, texts, **options)

    def test_roberta_with_a_mask_that_takes_the_space_before_it(self):
        made = hugging_face(real_lines(), 2, special=["<s>", "<pad>", "</s>", "<unk>"])
        made.add_special_tokens([AddedToken("<x>", lstrip=True, special=True)])
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        self.both_ways(made, "roberta")

    def test_added_tokens_normalised_and_stripping(self):
        made = hugging_face(real_lines(), 1, True)
        made.add_tokens([AddedToken("Ａdded", rstrip=True), AddedToken("<x>", normalized=False, lstrip=True, rstrip=True),
                         AddedToken("<", normalized=False), AddedToken("  "), AddedToken("<x>  [", normalized=False)])
        made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        self.both_ways(made, "added", decoded=False)

    def test_no_template_no_regex_and_whole_words_first(self):
        made = hugging_face(real_lines(), 2, special=[], ignore_merges=True)
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        whole = [t for t in made.get_vocab() if len(t) > 3][:200]
        self.both_ways(made, "whole", [made.decode([made.token_to_id(t)]) for t in whole] + random_texts("whole", 1000))

    def test_bytes_that_the_vocabulary_lacks(self):
        for fuse in (False, True):
            made = Tokenizer(models.BPE({"<u>": 0, "a": 1, "b": 2, "ab": 3, "Ġ": 4}, [("a", "b")], unk_token="<u>", fuse_unk=fuse))
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            made.decoder = decoders.ByteLevel()
            self.both_ways(made, f"lacking{fuse}", ["abab", "a??b ab?", "注ab意", "", "?"], decoded=False)
        made = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        self.both_ways(made, "dropping", ["a?b", "ab ab", "?", " ", "注ab"], decoded=False)

    def test_merges_as_strings_and_truncation_of_the_file(self):
        made = hugging_face(real_lines() + ["#version #versions"] * 9, 0, True)
        made.enable_truncation(20, direction="left")
        content = json.loads(made.to_str())
        content["model"]["merges"] = [" ".join(m) for m in content["model"]["merges"]]
        path = self.path("strings.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        self.same_ids(path, random_texts(5, 500) + ["#versions of #version"], decoded=False)

    def test_transformers_loads_the_folder(self):
        try:
            from transformers import AutoTokenizer
        except ImportError:
            self.skipTest("needs Python's transformers")
        folder = self.path("model")
        os.mkdir(folder)
        path = os.path.join(folder, "tokenizer.json")
        os.rename(self.train(real_lines(), 2500, 0, 1), path)
        drive(["config", path, os.path.join(folder, "tokenizer_config.json"), 64])
        theirs = AutoTokenizer.from_pretrained(folder)
        self.assertEqual((theirs.pad_token, theirs.cls_token, theirs.sep_token, theirs.mask_token, theirs.unk_token),
                         ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"))
        self.assertEqual(theirs.model_max_length, 64)
        texts = random_texts(11, 500)
        ours = drive(["encode", path, 64], texts)
        self.assertEqual([o["ids"] for o in ours], theirs(texts, truncation=True)["input_ids"])


if __name__ == "__main__":
    unittest.main()
