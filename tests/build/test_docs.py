# SPDX-License-Identifier: Apache-2.0
"""The documents and the code agree: each rule of docs/SEMANTICS.md names tests, and they exist."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def rows_with_tests(page):
    """(line number, rule, the names in its last column) of every table whose last column is headed "test"."""
    rows, in_table = [], False
    for number, line in enumerate(page.splitlines(), 1):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []
        if not cells:
            in_table = False
        elif cells[-1] in ("test", "tests"):
            in_table = True
        elif in_table and not set(cells[-1]) <= set("-: "):
            rows.append((number, cells[0], re.findall(r"`(\w+)`", cells[-1])))
    return rows


def names_of_tests():
    names = set()
    for path in (ROOT / "tests").rglob("*.c"):
        names |= set(re.findall(r"(?:cmocka_unit_test\w*|TEST)\(\s*(\w+)", path.read_text()))
    for path in (ROOT / "tests").rglob("test_*.py"):
        names |= set(re.findall(r"def (test_\w+)", path.read_text()))
    return names


class Semantics(unittest.TestCase):
    page = (ROOT / "docs/SEMANTICS.md").read_text()

    def test_every_rule_names_a_test(self):
        rows = rows_with_tests(self.page)
        self.assertGreater(len(rows), 50)
        self.assertEqual([f"line {number}: {rule}" for number, rule, names in rows if not names], [])

    def test_every_test_that_a_rule_names_exists(self):
        there = names_of_tests()
        self.assertEqual([f"line {number}: {name}" for number, _, names in rows_with_tests(self.page) for name in names
                          if name not in there], [])
