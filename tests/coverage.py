#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints which share of the lines and branches of src, outside src/kernels, a build's tests have run.

    tests/coverage.py BUILD [--missing]    BUILD: configured with ATTN_COVERAGE=ON (gcc), its tests run
                                           --missing: each line that was not run, and each branch that was not taken

`make coverage` builds, tests and prints. A branch is one way out of a condition, as gcov counts them.
"""
import argparse
import collections
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def counted(name):
    """The path of a source inside the project if it is one of those that count, else None."""
    path = pathlib.Path(name)
    path = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return str(path) if path.parts[0] == "src" and "kernels" not in path.parts else None


def read(build):
    """{file: {line: times run}}, {file: {(line, function): times each branch was taken}}, summed over all objects."""
    lines = collections.defaultdict(collections.Counter)
    branches = collections.defaultdict(dict)
    notes = sorted((build / "CMakeFiles" / "attn_core.dir" / "src").rglob("*.gcno"))
    output = subprocess.run(["gcov", "--json-format", "--stdout", "--branch-probabilities", *map(str, notes)], check=True,
                            capture_output=True, text=True, cwd=ROOT).stdout
    for answer in filter(None, output.splitlines()):
        for file in json.loads(answer)["files"]:
            name = counted(file["file"])
            if not name:
                continue
            for line in file["lines"]:
                lines[name][line["line_number"]] += line["count"]
                taken = [branch["count"] for branch in line["branches"]]
                key = line["line_number"], line.get("function_name", "")
                before = branches[name].get(key, [0] * len(taken))
                branches[name][key] = [a + b for a, b in zip(before, taken, strict=True)]
    return lines, branches


def share(part, whole):
    return f"{part:6}/{whole:<6} {100 * part / whole if whole else 100:6.2f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--missing", action="store_true")
    options = parser.parse_args()
    lines, branches = read(options.build.resolve())
    if not lines:
        sys.exit(f"{options.build} holds no counts: configure it with -DATTN_COVERAGE=ON, build, and run the tests")
    total = [0, 0, 0, 0]
    for name in sorted(lines):
        taken = [count for counts in branches[name].values() for count in counts]
        row = [sum(map(bool, lines[name].values())), len(lines[name]), sum(map(bool, taken)), len(taken)]
        total = [a + b for a, b in zip(total, row)]
        print(f"{name:48} lines {share(*row[:2])}  branches {share(*row[2:])}")
        if options.missing:
            source = (ROOT / name).read_text().splitlines()
            for line, count in sorted(lines[name].items()):
                ways = [counts for (number, _), counts in branches[name].items() if number == line]
                never = sum(not way for counts in ways for way in counts)
                if not count or never:
                    what = "not run" if not count else f"{never} of {sum(map(len, ways))} not taken"
                    print(f"    {line:4} {what:18} {source[line - 1].strip()}")
    print(f"{'all':48} lines {share(*total[:2])}  branches {share(*total[2:])}")


if __name__ == "__main__":
    main()
