# SPDX-License-Identifier: Apache-2.0
"""The manual page and the program's own help name the same options, verb by verb."""
import pathlib
import re
import unittest

from program import ProgramTest

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "attn.1"
OF_EVERY_VERB = {"threads", "help"}


def described():
    """The options that each verb's part of the page names."""
    parts = re.split(r"^\.Ss attn (\S+)", PAGE.read_text().split("\n.Sh ENVIRONMENT")[0], flags=re.M)
    return {parts[i]: set(re.findall(r"\bFl Fl ([a-z][a-z0-9-]*)", parts[i] + parts[i + 1])) - OF_EVERY_VERB
            for i in range(1, len(parts), 2)}


class Manual(ProgramTest):
    def test_every_verb_and_option_is_in_the_manual_and_the_other_way_round(self):
        page = described()
        verbs = re.findall(r"^  ([a-z]+)  ", self.good("--help").decode(), flags=re.M)
        self.assertLessEqual({"softmax", "attend", "inspect", "info"}, set(verbs))
        for verb in verbs:
            text = self.good(verb, "--help").decode().split("\nExamples")[0]
            options = set(re.findall(r"^  (?:-\w, )?--([a-z][a-z0-9-]*)", text, flags=re.M)) - OF_EVERY_VERB
            with self.subTest(verb=verb):
                self.assertIn(verb, page)
                self.assertEqual(page[verb] - {"help"}, options)


if __name__ == "__main__":
    unittest.main()
