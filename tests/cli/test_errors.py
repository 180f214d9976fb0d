# SPDX-License-Identifier: Apache-2.0
"""Everything that can be wrong with a command: the right exit code, one line that says what, and nothing lost or left behind."""
import json
import os
import pathlib
import resource
import subprocess
import unittest

import numpy as np

from program import ATTN, ProgramTest


class ErrorTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.save("x.npy", np.ones((2, 3), "f4"))
        self.save("q.npy", np.ones((2, 4, 8), "f4"))
        self.save("k.npy", np.ones((2, 5, 8), "f4"))
        self.save("v.npy", np.ones((2, 5, 6), "f4"))
        self.qkv = ["attend", "--q", "q.npy", "--k", "k.npy", "--v", "v.npy"]

    def attend(self, code, *words, says=""):
        """attend with a wrong option: nothing is written, an old output stays as it was."""
        (self.folder / "out.npy").write_bytes(b"old")
        before = sorted(os.listdir(self.folder))
        message = self.bad(code, *self.qkv, "-o", "out.npy", *words, says=says)
        self.assertEqual((self.folder / "out.npy").read_bytes(), b"old")
        self.assertEqual(sorted(os.listdir(self.folder)), before, words)
        return message


class CommandLine(ErrorTest):
    def test_no_verb_shows_the_verbs_on_stderr(self):
        done = self.run_attn()
        self.assertEqual((done.returncode, done.stdout), (2, b""))
        self.assertIn(b"softmax", done.stderr)

    def test_help_and_version_go_to_stdout(self):
        self.assertIn(b"attend", self.good("--help"))
        self.assertRegex(self.good("--version"), rb"^attn \d+\.\d+\.\d+\n$")
        for verb in ("softmax", "attend", "inspect", "info"):
            text = self.good(verb, "--help").decode()
            self.assertIn(f"Usage: attn {verb}", text)
            self.assertIn("Examples", text)
            self.assertIn("--threads", text)
            self.assertLess(max(map(len, text.split("Examples")[0].splitlines())), 97)
            self.assertEqual(text, self.good("help", verb).decode())
            self.assertEqual(text, self.good(verb, "-h").decode())

    def test_unknown_verbs_and_options_get_a_hint(self):
        self.bad(2, "sofmax", says="did you mean 'attn softmax'")
        self.bad(2, "xyzzy", says="attn --help")
        self.bad(2, "--hlep", says="no option '--hlep'")
        self.bad(2, "softmax", "x.npy", "--axsi", 0, says="did you mean --axis")
        self.bad(2, "softmax", "x.npy", "--thread=2", says="did you mean --threads")
        self.bad(2, "softmax", "x.npy", "-z", says="no option -z")
        self.attend(2, "--kv-length", "n.npy", says="did you mean --kv-lengths")
        self.attend(2, "--casual", says="did you mean --causal")
        self.attend(2, "--quite-another-thing", says="lists all")

    def test_verbs_that_are_not_built_say_so(self):
        self.bad(2, "embed", says="not built in this version")
        if not json.loads(self.good("info", "--json"))["models"]:
            for verb in ("train", "eval", "run", "explain"):
                self.bad(2, verb, "x", says="built without models")

    def test_words_too_many_or_missing(self):
        self.bad(2, "softmax", "x.npy", "y.npy", says="unexpected 'y.npy'")
        self.bad(2, "info", "x", says="unexpected 'x'")
        self.bad(2, "inspect", says="needs FILE")
        self.bad(2, "attend", "--q", "q.npy", "--k", "k.npy", says="needs --v")
        self.bad(2, "softmax", "x.npy", "--axis", says="needs a value")
        self.bad(2, "softmax", "", says="empty")
        self.attend(2, "--mask=", says="empty")
        self.attend(2, "--causal", "top-left", says="--causal=top-left")
        self.bad(2, "softmax", "x.npy", "--hard=1", says="no value")

    def test_numbers_are_whole_words_finite_and_within_bounds(self):
        for word in ("nan", "NaN", "inf", "-inf", "1e999", "1x", "x", "", "1 ", " 1", "--mask", "1,5"):
            self.bad(2, "softmax", "x.npy", "--scale", word, says="--scale")
            self.attend(2, f"--scale={word}", says="--scale")
        for word in ("1.5", "nan", "9223372036854775808", "0x1", "1e3", ""):
            self.bad(2, "softmax", "x.npy", "--axis", word, says="--axis")
        for word in ("-1", "4097", "two", "1.5"):
            self.bad(2, "info", "--threads", word, says="--threads")
        self.attend(2, "--softcap", "-1", says="--softcap")
        self.attend(2, "--softcap", "nan", says="--softcap")
        self.attend(2, "--dropout", "1.5", says="--dropout")
        self.attend(2, "--dropout", "nan", says="--dropout")
        self.attend(2, "--weighting", "entmax", "--alpha", "0.5", says="--alpha")
        self.bad(2, "softmax", "x.npy", "--op", "entmax", "--alpha", "nan", says="--alpha")
        self.bad(2, "softmax", "x.npy", "--op", "gumbel", "--temperature", "0", says="--temperature")
        self.bad(2, "softmax", "x.npy", "--op", "gumbel", "--seed", "-1", says="--seed")
        self.bad(2, "softmax", "x.npy", "--op", "gumbel", "--seed", "18446744073709551616", says="--seed")
        self.attend(2, "--offset", "1.5", says="--offset")
        self.attend(2, "--offset", "nan", says="--offset")
        self.attend(2, "--top-k", "0", "--top-index", "i.npy", says="--top-k")
        for word in ("1", "1,", ",1", "-2,0", "0,-2", "1,2,3", "a,b", "1.5,0", "1;2"):
            self.attend(2, f"--window={word}", says="--window")

    def test_choices_are_listed_and_guessed(self):
        self.bad(2, "softmax", "x.npy", "--op", "logsoftmax", says="did you mean log-softmax")
        self.bad(2, "softmax", "x.npy", "--op", "relu", says="softmax, log-softmax")
        self.bad(2, "softmax", "x.npy", "--dtype", "f32", says="bf16, f16")
        self.attend(2, "--causal=left", says="top-left")
        self.attend(2, "--weighting", "softmacs", says="did you mean softmax")
        self.attend(2, "--score", "cosin", says="did you mean cosine")

    def test_the_axis_lies_within_the_rank(self):
        for axis in (2, -3, 100):
            self.bad(2, "softmax", "x.npy", "--axis", axis, says="2 axes")
        self.bad(2, "softmax", self.save("s.npy", np.array(1.0)), says="0 axes")
        self.bad(2, "softmax", "--axis", 1, stdin="1 2\n", says="one axis")

    def test_options_that_do_not_go_together(self):
        self.save("w.npy", np.ones(8, "f4"))
        self.save("s.npy", np.ones(2, "f4"))
        self.save("do.npy", np.ones((2, 4, 6), "f4"))
        self.bad(2, "softmax", "x.npy", "--alpha", 2, says="--op entmax")
        self.bad(2, "softmax", "x.npy", "--hard", says="--op gumbel")
        self.attend(2, "--score", "additive", says="--score-weight")
        self.attend(2, "--score-weight", "w.npy", says="--score additive")
        self.attend(2, "--alpha", 2, says="--weighting entmax")
        self.attend(2, "--seed", 1, says="--dropout")
        self.attend(2, "--causal=top-left", "--offset", 1, says="--offset")
        self.attend(2, "--scores-stage", "raw", says="--scores")
        self.attend(2, "--top-k", 2, says="--top-index")
        self.attend(2, "--top-index", "i.npy", says="--top-k")
        self.attend(2, "--dq", "dq.npy", says="--dout")
        self.attend(2, "--dout", "do.npy", says="--dq")
        self.attend(2, "--dout", "do.npy", "--dbias", "db.npy", says="--bias")
        self.attend(2, "--dout", "do.npy", "--dalibi", "da.npy", says="--alibi")
        self.attend(2, "--weighting", "sigmoid", "--lse", "l.npy", says="lse")
        self.attend(2, "--weighting", "sigmoid", "--entropy", "e.npy", says="entropy")
        self.attend(2, "--lse", "out.npy", says="both be written to out.npy")
        self.bad(2, *self.qkv, "--lse", "-", says="both go to stdout")

    def test_an_instruction_set_that_is_unknown_or_lacking(self):
        self.bad(2, "info", env={"ATTN_ISA": "sse9"}, says="ATTN_ISA is 'sse9'")
        best = self.good("info").decode().split("isa")[1].split()[0]
        lacking = "neon" if best != "neon" else "avx2"
        self.bad(2, "softmax", "x.npy", env={"ATTN_ISA": lacking}, says=f"ATTN_ISA is '{lacking}'")
        self.good("info", env={"ATTN_ISA": "scalar"})
        self.good("info", env={"ATTN_ISA": ""})


class Inputs(ErrorTest):
    def test_missing_files_and_folders(self):
        self.bad(3, "softmax", "none.npy", says="none.npy")
        self.bad(3, "softmax", ".", says="folder")
        self.bad(3, "inspect", "none.npy", says="none.npy")
        self.attend(3, "--mask", "none.npy", says="--mask")
        self.attend(3, "--offset", "none.npy", says="none.npy")

    def test_cut_off_and_hostile_files(self):
        whole = (self.folder / "x.npy").read_bytes()
        for n in (0, 3, 9, 40, 127, 128, len(whole) - 1):
            (self.folder / "cut.npy").write_bytes(whole[:n])
            self.bad(3, "softmax", "cut.npy", "-o", "y.npy", says="cut.npy")
            self.bad(3, "inspect", "cut.npy", says="cut.npy")
            self.assertFalse((self.folder / "y.npy").exists())
        for name, header in {"overflow": "(4611686018427387904, 4)", "huge": "(1099511627776, 1024)", "negative": "(-1,)"}.items():
            text = ("{'descr': '<f4', 'fortran_order': False, 'shape': %s, }" % header).encode()
            (self.folder / "h.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64))
            self.bad(3, "softmax", "h.npy", says="h.npy")

    def test_the_corpus_of_hostile_files_never_gets_past_the_reader(self):
        corpus = pathlib.Path(__file__).resolve().parents[2] / "fuzz" / "corpus" / "npy"
        for file in corpus.iterdir():
            done = self.run_attn("softmax", file, "-o", "y.npy")
            self.assertIn(done.returncode, (0, 2, 3), f"{file}: {done.stderr}")
            self.assertEqual(done.returncode == 0, done.stderr == b"")

    def test_wrong_dtypes_are_named_with_the_fix(self):
        self.bad(3, "softmax", self.save("i.npy", np.ones(3, "i4")), says="holds int32; float32")
        self.bad(3, "softmax", self.save("b.npy", np.ones(3, ">f4")), says="big-endian")
        self.bad(3, "softmax", self.save("o.npy", np.array([None], object)), says="pickled")
        self.bad(3, "softmax", "x.npy", "--mask", self.save("m.npy", np.ones(3, "f4")), says="booleans")
        self.bad(3, "softmax", "x.npy", "--bias", self.save("d.npy", np.ones(3)), says="save a.astype('float32')")
        self.attend(3, "--mask", self.save("m.npy", np.ones(5, "u1")), says="booleans")
        self.attend(3, "--kv-lengths", self.save("n.npy", np.ones(1)), says="whole numbers")
        self.attend(3, "--k", self.save("d.npy", np.ones((2, 5, 8))), says="float64")
        self.attend(3, "--offset", "x.npy", says="whole numbers")

    def test_shapes_that_disagree(self):
        self.bad(3, "softmax", "x.npy", "--mask", self.save("m.npy", np.ones(4, bool)), says="mask")
        self.bad(3, "softmax", "x.npy", "--axis", 0, "--bias", self.save("b.npy", np.ones((3, 3), "f4")), says="bias")
        self.bad(3, "softmax", "x.npy", "--bias", self.save("b.npy", np.ones((1, 2, 3), "f4")), says="bias")
        self.attend(3, "--k", self.save("k2.npy", np.ones((2, 5, 7), "f4")), says="k has head size 7")
        self.attend(3, "--v", self.save("v2.npy", np.ones((2, 4, 6), "f4")), says="v has 4 keys")
        self.attend(3, "--k", self.save("k3.npy", np.ones((3, 5, 8), "f4")), says="heads")
        self.attend(3, "--k", self.save("k4.npy", np.ones((5, 8), "f4")), says="--k has 2 axes")
        self.attend(3, "--mask", self.save("m.npy", np.ones((3, 5), bool)), says="mask")
        self.attend(3, "--alibi", self.save("a.npy", np.ones(3, "f4")), says="alibi")
        self.attend(3, "--offset", self.save("o.npy", np.ones(3, "i8")), says="offset")
        self.attend(3, "--dout", self.save("do.npy", np.ones((2, 4, 8), "f4")), "--dq", "dq.npy", says="dout")
        self.bad(3, "attend", "--q", self.save("q5.npy", np.ones(3, "f4")), "--k", "k.npy", "--v", "v.npy", says="1 axis")

    def test_lengths_out_of_range_name_the_entry(self):
        for name in ("--kv-lengths", "--q-lengths"):
            for length in (-1, 100):
                self.attend(3, name, self.save("n.npy", np.array([length])), says=f"{name}: entry 0 is {length}")
        self.attend(3, "--offset", self.save("n.npy", np.array([-2**62])), says="--offset: entry 0")
        self.attend(2, "--offset", 2**62, says="offset")


class Outputs(ErrorTest):
    def test_where_nothing_can_be_written(self):
        for path in ("none/y.npy", ".", "/dev/full"):
            self.bad(5, "softmax", "x.npy", "-o", path, says=path)
        self.attend(5, "--lse", "none/lse.npy", says="none/lse.npy")

    def test_a_full_disk_behind_stdout(self):
        with open("/dev/full", "wb") as full:
            for words in (["softmax", "x.npy"], ["info"], ["--help"], ["inspect", "x.npy"], ["softmax"]):
                done = subprocess.run([ATTN, *words], input=b"1 2\n", stdout=full, stderr=subprocess.PIPE, cwd=self.folder)
                self.assertEqual(done.returncode, 5, words)
                self.assertTrue(done.stderr.startswith(b"attn: error: cannot write stdout: "), done.stderr)

    def test_a_limit_on_file_size_leaves_the_old_file(self):
        self.save("big.npy", np.ones(100000, "f4"))
        (self.folder / "y.npy").write_bytes(b"old")
        done = subprocess.run([ATTN, "softmax", "big.npy", "-o", "y.npy"], stderr=subprocess.PIPE, cwd=self.folder,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000)))
        self.assertEqual(done.returncode, 5)
        self.assertTrue(done.stderr.startswith(b"attn: error: cannot write y.npy"), done.stderr)
        self.assertEqual((self.folder / "y.npy").read_bytes(), b"old")
        self.assertEqual(sorted(os.listdir(self.folder)), ["big.npy", "k.npy", "q.npy", "v.npy", "x.npy", "y.npy"])

    def test_a_closed_stdout_pipe_ends_quietly(self):
        self.save("big.npy", np.ones(1000000, "f4"))
        for words, text in ((["softmax", "big.npy"], b""), (["softmax"], b"1 2 3\n" * 100000), (["attend", "--help"], b"")):
            (self.folder / "in.txt").write_bytes(text)
            with open(self.folder / "in.txt", "rb") as file:
                process = subprocess.Popen([ATTN, *words], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder)
            process.stdout.close()
            message = process.stderr.read()
            process.stderr.close()
            self.assertEqual((process.wait(), message), (0, b""), words)

    def test_other_outputs_are_written_although_the_reader_of_stdout_has_gone(self):
        process = subprocess.Popen([ATTN, *self.qkv, "--lse", "lse.npy"], stdout=subprocess.PIPE, cwd=self.folder)
        process.stdout.close()
        self.assertEqual(process.wait(), 0)
        self.assertEqual(self.load("lse.npy").shape, (2, 4))

    def test_a_closed_stdout_is_an_error_and_hurts_no_file(self):
        done = subprocess.run(["sh", "-c", f"'{ATTN}' softmax x.npy >&-"], stderr=subprocess.PIPE, cwd=self.folder)
        self.assertEqual(done.returncode, 5)
        done = subprocess.run(["sh", "-c", f"'{ATTN}' softmax x.npy -o y.npy <&- >&-"], stderr=subprocess.PIPE, cwd=self.folder)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(self.load("y.npy").shape, (2, 3))

    def test_more_than_memory_is_refused_by_a_message(self):
        if "address" in os.environ.get("ASAN_OPTIONS", "") or b"__asan" in pathlib.Path(ATTN).read_bytes():
            self.skipTest("the address sanitizer ends a process that asks for so much")
        self.save("long.npy", np.ones((7000000, 1), "f4"))  # its score map is larger than any address space
        self.attend(5, "--q", "long.npy", "--k", "long.npy", "--v", "long.npy", "--weights", "w.npy", says="out of memory")

    def test_control_characters_of_a_name_do_not_reach_the_terminal(self):
        message = self.bad(3, "softmax", "a\x1b[2Jb\n\x9b.npy")
        self.assertNotIn("\x1b", message)
        self.assertNotIn("\x9b", message)
        self.assertIn("größe", self.bad(3, "softmax", "größe.npy"))
        self.bad(3, "softmax", b"\xff\xfe.npy".decode(errors="surrogateescape"), says="??.npy")


class Inspection(ErrorTest):
    def test_what_inspect_says_of_an_array(self):
        x = np.array([[1, np.nan, -2], [np.inf, 4, 0]], "f4")
        said = json.loads(self.good("inspect", self.save("a.npy", np.asfortranarray(x)), "--json"))
        self.assertEqual((said["dtype"], said["shape"], said["order"], said["elements"]), ("float32", [2, 3], "Fortran", 6))
        self.assertEqual((said["min"], said["max"], said["mean"], said["nan"], said["inf"]), (-2, 4, 0.75, 1, 1))
        self.assertIn(b"float32", self.good("inspect", "a.npy"))
        nothing = json.loads(self.good("inspect", self.save("e.npy", np.zeros((0, 2))), "--json"))
        self.assertEqual((nothing["elements"], nothing["min"], nothing["mean"]), (0, None, None))
        with open(self.folder / "a.npy", "rb") as file:
            self.assertIn(b"[2, 3]", self.good("inspect", "-", stdin=file.read()))

    def test_info_as_json(self):
        said = json.loads(self.good("info", "--json", "--threads", 3))
        self.assertEqual(said["threads"], 3)
        self.assertIn(said["isa"], ("scalar", "avx2", "avx512", "avx512bf16", "amx", "neon"))
        self.assertEqual(said["version"], self.good("--version").decode().split()[1])


if __name__ == "__main__":
    unittest.main()
