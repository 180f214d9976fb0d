# SPDX-License-Identifier: Apache-2.0
"""attn explain on small models trained here: the terminal, JSON, maps, reports, pooling models, and what is refused with which code."""
import html.parser
import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest
import zlib

from program import ATTN, ProgramTest

TEXTS = [("red apple and sweet pear", "fruit"), ("ripe plum with cherry", "fruit"), ("apple pie & <b>plum</b>", "fruit"),
         ("fast car on the road", "travel"), ("slow train and a car", "travel"), ("the road to the train", "travel")]


def png(side, level):
    """A gray picture, bright where level(x, y) says so, as bytes."""
    rows = b"".join(b"\0" + bytes(level(x, y) for x in range(side)) for y in range(side))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


class Page(html.parser.HTMLParser):
    """Fails on tags that do not match; collects what a page refers to and what it says."""
    VOID = {"meta", "img", "br", "line", "rect"}

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.links, self.text = [], set(), [], ""
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data


class ExplainTest(ProgramTest):
    @classmethod
    def setUpClass(cls):
        probe = subprocess.run([ATTN, "explain", "--help"], capture_output=True)
        if probe.returncode:
            raise unittest.SkipTest("this build has no models")
        folder = tempfile.TemporaryDirectory(prefix="attn-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.models = pathlib.Path(folder.name)
        rows = ["text\tlabel"] + ["\t".join(row) for row in TEXTS * 8]
        (cls.models / "texts.tsv").write_text("\n".join(rows) + "\n")
        for label in ("left", "right"):
            (cls.models / "pictures" / label).mkdir(parents=True)
            for i in range(12):
                data = png(16, lambda x, y: 230 - 5 * i if (x < 8) == (label == "left") else (x * y + 7 * i) % 40)
                (cls.models / "pictures" / label / f"{i}.png").write_bytes(data)
        small = ["--dim", "16", "--heads", "2", "--layers", "2", "--steps", "30", "--threads", "1"]
        for name, data, options in (("words", "texts.tsv", ["--vocab", "300"]), ("pooled", "texts.tsv", ["--vocab", "300", "--pool", "attention"]),
                                    ("patches", "pictures", []), ("pooled-patches", "pictures", ["--pool", "attention"])):
            subprocess.run([ATTN, "train", data, "-o", name, *small, *options], cwd=cls.models, check=True, capture_output=True)

    def setUp(self):
        super().setUp()
        for name in self.models.iterdir():
            (self.folder / name.name).symlink_to(name)

    def explained(self, *words, **options):
        return [json.loads(line) for line in self.good("explain", *words, "--json", **options).splitlines()]

    def test_a_text_is_shown_with_bars_and_without_colours_off_a_terminal(self):
        said = self.good("explain", "words", "red apple on the road", env={"LC_ALL": "C"}).decode()
        self.assertRegex(said, r"^(fruit|travel) 0\.\d{3}   next (fruit|travel) 0\.\d{3}   \(gradient\)\n")
        self.assertRegex(said, r"\n   0\.\d{3} #{24} (red|apple|on|the|road)\n")
        self.assertIn("\n  layer 2 ", said)
        self.assertNotIn("\x1b", said)
        self.assertIn("\u2588" * 24, self.good("explain", "words", "red apple on the road", env={"LC_ALL": "C.UTF-8"}).decode())

    def on_terminal(self, *words, **env):
        master, slave = self.open_terminal()
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
        process = subprocess.Popen([ATTN, *words], stdin=slave, stdout=slave, stderr=slave, cwd=self.folder, env={**kept, **env})
        os.close(slave)
        shown = b""
        try:
            while piece := os.read(master, 65536):
                shown += piece
        except OSError:  # the other side is closed
            pass
        os.close(master)
        return process.wait(), shown.decode()

    def test_words_and_patches_are_shaded_on_a_terminal_unless_NO_COLOR_or_dumb(self):
        (self.folder / "a.png").write_bytes(png(16, lambda x, y: 200 if x < 8 else 9))
        for words in (("words", "red apple on the road"), ("patches", "a.png")):
            code, shown = self.on_terminal("explain", *words, TERM="xterm")
            self.assertEqual(code, 0)
            self.assertIn("\x1b[38;2;", shown)
            for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
                code, shown = self.on_terminal("explain", *words, **env)
                self.assertEqual(code, 0)
                self.assertNotIn("\x1b", shown)

    def test_json_of_texts_has_shares_that_sum_to_1_by_every_method(self):
        text = "the red caf\u00e9 \u4e2d road"
        for model in ("words", "pooled"):
            for method in ("attention", "rollout", "gradient"):
                (said,) = self.explained(model, text, "--method", method)
                self.assertEqual((said["input"], said["method"]), (text, method))
                self.assertEqual({said["label"], said["runner_up"]}, {"fruit", "travel"})
                self.assertAlmostEqual(said["probability"] + said["runner_up_probability"], 1, places=5)
                self.assertAlmostEqual(sum(token["relevance"] for token in said["tokens"]), 1, places=9)
                raw = text.encode()
                for token in said["tokens"]:
                    self.assertEqual(raw[token["start"]:token["end"]].decode(), token["text"])
                self.assertEqual([(head["layer"], head["head"]) for head in said["heads"]], [(1, 1), (1, 2), (2, 1), (2, 2)])
                for head in said["heads"]:
                    self.assertTrue(0 <= head["spread"] <= 1.000001)
                    self.assertEqual("relevance" in head, head["layer"] == 2)
                self.assertEqual(len(said["heads"][3]["relevance"]), len(said["tokens"]))

    def test_the_answer_is_that_of_attn_run(self):
        for model, text in (("words", "ripe plum on the road"), ("pooled", "a train and a pear")):
            (said,) = self.explained(model, text)
            ran = json.loads(self.good("run", model, text, "--json"))
            self.assertEqual(said["label"], ran["label"])
            self.assertAlmostEqual(said["probability"], ran["probability"], places=6)

    def test_lines_of_stdin_are_explained_one_by_one_up_to_examples(self):
        lines = "red apple\nbad \xff\xfe bytes\n\nthe train\n".encode("latin-1")
        said = self.explained("words", "-", "--examples", 3, stdin=lines)
        self.assertEqual([one["input"] for one in said][::2], ["red apple", ""])
        self.assertEqual(said[2]["tokens"], [])
        self.assertEqual(self.explained("words", stdin=b""), [])

    def test_pictures_have_a_share_for_every_patch(self):
        (self.folder / "a.png").write_bytes(png(16, lambda x, y: 200 if x < 8 else 9))
        for model in ("patches", "pooled-patches"):
            for method in ("attention", "rollout", "gradient"):
                (said,) = self.explained(model, "a.png", "--method", method)
                self.assertEqual(said["input"], "a.png")
                self.assertEqual(len(said["relevance"]), said["rows"] * said["columns"])
                self.assertAlmostEqual(sum(said["relevance"]), 1, places=9)

    def test_a_map_is_a_png_with_a_panel_for_picture_mean_and_heads(self):
        (self.folder / "a.png").write_bytes(png(16, lambda x, y: 200 if x < 8 else 9))
        for model in ("patches", "pooled-patches"):
            self.assertEqual(self.good("explain", model, "a.png", "-o", "map.png"), b"")
            data = (self.folder / "map.png").read_bytes()
            self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
            self.assertEqual(struct.unpack(">II", data[16:24]), (4 * (128 + 8) + 8, 128 + 16))

    def page(self, *words):
        self.assertEqual(self.good("explain", *words, "-o", "r.html"), b"")
        page = Page((self.folder / "r.html").read_text(encoding="utf-8"))
        self.assertFalse(page.tags & {"script", "link", "iframe", "object", "b"}, page.tags)
        self.assertTrue(all(link.startswith("data:image/png;base64,") for link in page.links))
        return page

    def test_a_report_on_texts_stands_alone_and_shows_markup_as_text(self):
        page = self.page("words", "texts.tsv", "--examples", 6)
        for words in ("What the model looked at", "What is taken for what", "Class by class", "Can its confidence be believed?",
                      "Spread of each head", "of 48 examples"):
            self.assertIn(words, page.text)
        self.assertEqual(page.links, [])
        self.assertIn("apple pie & <b>plum</b>", self.page("words", "apple pie & <b>plum</b>").text)

    def test_a_report_on_pictures_holds_them(self):
        page = self.page("patches", "pictures", "--examples", 2)
        self.assertEqual(len(page.links), 2 * 4)
        self.assertIn("pooled by attention", self.page("pooled-patches", "pictures").text)

    def test_the_same_input_gives_the_same_report(self):
        self.page("patches", "pictures", "--threads", 1)
        first = (self.folder / "r.html").read_bytes()
        self.page("patches", "pictures", "--threads", 2)
        self.assertEqual(first, (self.folder / "r.html").read_bytes())

    def test_what_cannot_be_explained_is_refused(self):
        (self.folder / "broken").mkdir()
        shutil.copytree(self.models / "words", self.folder / "torn")
        (self.folder / "torn" / "model.safetensors").write_bytes(b"\1\2\3")
        self.bad(2, "explain", "words", "a text", "-o", "map.png", says="name it .html")
        self.bad(2, "explain", "words", "a text", "-o", "map.gif", says=".html")
        self.bad(2, "explain", "words", "a text", "-o", "r.html", "--json", says="--json")
        self.bad(2, "explain", "words", "a text", "--method", "guess", says="guess")
        self.bad(2, "explain")
        self.bad(3, "explain", "patches", "missing.png", says="missing.png")
        self.bad(3, "explain", "patches", "texts.tsv", says="texts.tsv")
        self.bad(4, "explain", "broken", "a text", says="broken")
        self.bad(4, "explain", "torn", "a text", says="model.safetensors")
        self.bad(5, "explain", "words", "a text", "-o", "nowhere/r.html", says="nowhere")

    def test_on_a_terminal_there_is_no_waiting_for_input(self):
        code, shown = self.on_terminal("explain", "words")
        self.assertEqual(code, 2)
        self.assertIn("there is no input", shown)


if __name__ == "__main__":
    unittest.main()
