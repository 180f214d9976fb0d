# SPDX-License-Identifier: Apache-2.0
"""What a stranger does with the sources: builds them without flags, includes one header, installs, links."""
import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["ATTN_BUILD"])
CORE = [str(p) for folder in ("src", "src/kernels", "src/ref") for p in sorted((ROOT / folder).glob("*.c"))]

PROGRAM = """
#include <attn/attn.h>
#include <stdio.h>
int main(void) {
    float x[3] = { 1, 2, 3 };
    attn_softmax_args a = { .x = attn_dense(ATTN_F32, x, 1, (const int64_t[]){ 3 }) };
    a.y = a.x;
    if (attn_softmax(&a, NULL) != ATTN_OK) return 1;
    printf("%.4f %.4f %.4f\\n", x[0], x[1], x[2]);
    return 0;
}
"""


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))[:300]}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()) if hasattr(self, "enterContext")
                                   else self._temporary())

    def _temporary(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return folder

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return self.folder / name


class Headers(Folder):
    def test_each_public_header_compiles_alone(self):
        for header in sorted((ROOT / "include/attn").glob("*.h")):
            source = self.write("alone.c", f"#include <attn/{header.name}>\n")
            for compiler in ("gcc", "clang-14"):
                for standard in ("c11", "c17", "c2x"):
                    if shutil.which(compiler):
                        with self.subTest(header=header.name, compiler=compiler, standard=standard):
                            run(compiler, f"-std={standard}", "-pedantic-errors", "-Wall", "-Wextra", "-Werror",
                                "-I", ROOT / "include", "-fsyntax-only", source)
            if shutil.which("g++"):
                with self.subTest(header=header.name, standard="c++17"):
                    run("g++", "-x", "c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "include",
                        "-fsyntax-only", source)

    def test_struct_sizes_are_fixed(self):
        source = self.write("sizes.c", '#include <attn/attn.h>\n_Static_assert(sizeof(attn_tensor) == 112, "tensor");\n')
        run("cc", "-std=c11", "-I", ROOT / "include", "-fsyntax-only", source)


class Sources(unittest.TestCase):
    def test_every_source_file_is_listed_once_and_every_listed_one_is_there(self):
        listed = re.findall(r"\b(?:src|io|nn|explain|cli|python/binding)/[\w/]+\.c\b", (ROOT / "CMakeLists.txt").read_text())
        there = [str(p.relative_to(ROOT)) for folder in ("src", "io", "nn", "explain", "cli", "python/binding")
                 for p in (ROOT / folder).rglob("*.c")]
        self.assertEqual(sorted(listed), sorted(there))


class Library(Folder):
    def test_builds_without_flags_as_a_shared_object(self):
        library = self.folder / "libattn.so"
        run("cc", "-shared", "-fPIC", f"-I{ROOT}/include", *CORE, "-lm", "-lpthread", "-o", library)
        program = self.folder / "program"
        run("cc", f"-I{ROOT}/include", self.write("program.c", PROGRAM), library, "-o", program)
        self.assertEqual(run(program, env={"LD_LIBRARY_PATH": str(self.folder)}), "0.0900 0.2447 0.6652\n")

    @unittest.skipUnless(shutil.which("aarch64-linux-gnu-gcc"), "no aarch64 compiler")
    def test_cross_compiles_for_aarch64(self):
        program = self.folder / "program"
        run("aarch64-linux-gnu-gcc", "-static", f"-I{ROOT}/include", self.write("program.c", PROGRAM), *CORE, "-lm", "-lpthread",
            "-o", program)
        if shutil.which("qemu-aarch64"):
            self.assertEqual(run("qemu-aarch64", program), "0.0900 0.2447 0.6652\n")

    def test_exports_only_its_own_names(self):
        names = {line.split()[-1].split("@")[0] for line in
                 run("nm", "-D", "--defined-only", BUILD / "libattn.so").splitlines() if line.split()[-2] in "TDBR"}
        self.assertTrue(names)
        self.assertEqual({n for n in names if not n.startswith("attn_")} - {"_init", "_fini"}, set())

    @unittest.skipIf("__asan_init" in run("nm", "-D", BUILD / "libattn.so") or "__tsan_init" in run("nm", "-D", BUILD / "libattn.so"),
                     "a sanitizer's library prints and aborts")
    def test_never_aborts_exits_or_prints(self):
        used = {line.split()[-1].split("@")[0] for line in run("nm", "-D", "--undefined-only", BUILD / "libattn.so").splitlines()}
        self.assertEqual(used & {"abort", "exit", "_exit", "printf", "puts", "fprintf", "perror", "__assert_fail", "signal"}, set())

    def test_needs_only_libc(self):
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", BUILD / "libattn.so")))
        allowed = {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
                   "libasan.so.8", "libubsan.so.1", "libtsan.so.2"}
        self.assertLessEqual(needed, allowed)

    def test_folders_above_the_core_include_only_its_public_headers(self):
        for folder in ("io", "nn", "explain", "cli", "python/binding"):
            for path in glob.glob(f"{ROOT}/{folder}/**/*.[ch]", recursive=True):
                for include in re.findall(r'#include "([^"]+)"', pathlib.Path(path).read_text()):
                    self.assertFalse(include.startswith("src/") or ".." in include or (ROOT / "src" / include).exists(),
                                     f"{path} includes {include}")


@unittest.skipIf("__asan_init" in run("nm", "-D", BUILD / "libattn.so") or "__tsan_init" in run("nm", "-D", BUILD / "libattn.so"),
                 "programs of users are not built with sanitizers")
class Installed(Folder):
    def setUp(self):
        super().setUp()
        self.prefix = self.folder / "prefix"
        run("cmake", "--install", BUILD, "--prefix", self.prefix)
        self.source = self.write("program.c", PROGRAM)

    def test_pkg_config_compiles_and_links(self):
        library = next(self.prefix.glob("lib*/**/pkgconfig")).parent
        flags = run("pkg-config", "--cflags", "--libs", "attn", env={**os.environ, "PKG_CONFIG_PATH": str(library / "pkgconfig")})
        run("cc", self.source, *flags.split(), "-o", self.folder / "program")
        self.assertEqual(run(self.folder / "program", env={"LD_LIBRARY_PATH": str(library)}), "0.0900 0.2447 0.6652\n")

    def test_find_package_gives_attn_attn(self):
        self.write("CMakeLists.txt", "cmake_minimum_required(VERSION 3.21)\nproject(user C)\nfind_package(attn REQUIRED)\n"
                   "add_executable(program program.c)\ntarget_link_libraries(program attn::attn)\n")
        run("cmake", "-S", self.folder, "-B", self.folder / "b", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run("cmake", "--build", self.folder / "b")
        self.assertEqual(run(self.folder / "b/program"), "0.0900 0.2447 0.6652\n")


def python_with_what_pip_needs():
    """An interpreter whose own packages let pip build without a network, this one or the system's; None where neither does."""
    program = "import numpy, setuptools, wheel, venv, sysconfig, os; assert os.path.exists(sysconfig.get_path('include') + '/Python.h')"
    for python in (getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3"):
        if os.path.exists(python) and subprocess.run([python, "-c", program], capture_output=True).returncode == 0:
            return python
    return None


class PythonPackage(Folder):
    @unittest.skipUnless(python_with_what_pip_needs(), "setuptools, wheel, venv, NumPy and Python's headers are not all there")
    def test_pip_installs_it_with_the_compiler_alone(self):
        """From a copy of what the repository holds: neither CMake nor a network nor anything built before has a part in it."""
        source, venv = self.folder / "source", self.folder / "venv"
        for name in ("src", "include", "python"):
            shutil.copytree(ROOT / name, source / name)
        for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "CMakeLists.txt", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source / name)
        run(python_with_what_pip_needs(), "-m", "venv", "--system-site-packages", venv)
        run(venv / "bin/pip", "install", "-q", "--no-build-isolation", "--no-index", "--no-deps", source)
        library, = venv.glob("lib/*/site-packages/attn/_core.abi3.so")
        names = {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}
        self.assertEqual(names - {"_init", "_fini"}, {"PyInit__core"})
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", library)))
        self.assertLessEqual(needed, {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"})
        self.assertEqual({p.name for p in library.parent.iterdir()} >= {"__init__.pyi", "py.typed"}, True)
        program = "import attn; print(attn.softmax([1.0, 2.0, 3.0]), attn.__file__)"
        self.assertEqual(run(venv / "bin/python", "-c", program, cwd=self.folder, env={**os.environ, "PYTHONPATH": ""}),
                         f"[0.09003057 0.24472847 0.66524096] {library.parent / '__init__.py'}\n")

    @unittest.skipUnless((BUILD / "python/attn/_core.abi3.so").exists(), "the Python package is not built")
    def test_uses_nothing_beyond_the_limited_api_of_3_11(self):
        """The compiler refuses functions that are not in it; of private names these four are."""
        used = {line.split()[-1] for line in run("nm", "-D", "--undefined-only", BUILD / "python/attn/_core.abi3.so").splitlines()}
        self.assertEqual({n for n in used if n.startswith("_Py")} -
                         {"_PyObject_CallFunction_SizeT", "_Py_BuildValue_SizeT", "_Py_Dealloc", "_Py_NoneStruct"}, set())


class Readme(Folder):
    def test_the_c_example_compiles_and_runs(self):
        example = re.search(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
        self.assertLessEqual(len([line for line in example.splitlines() if line.strip()]), 16)
        program = self.folder / "program"
        run("cc", "-Wall", "-Werror", f"-I{ROOT}/include", self.write("example.c", example), BUILD / "libattn.a", "-lm", "-lpthread",
            "-o", program)
        self.assertTrue(run(program).strip())


if __name__ == "__main__":
    unittest.main()
