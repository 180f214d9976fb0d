# SPDX-License-Identifier: Apache-2.0
"""The compiled part of the Python package: the library's own sources and the binding, in one module for CPython from 3.11 on.

The rest is in pyproject.toml. The version is CMakeLists.txt's. What is built lies in build/python-wheel.
"""

import re
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

SOURCES = [path for folder in ("python/binding", "src", "src/kernels", "src/ref") for path in sorted(glob(f"{folder}/*.c"))]
HEADERS = [path for folder in ("python", "include", "src") for path in sorted(glob(f"{folder}/**/*.h", recursive=True))]
HEADERS += sorted(glob("src/kernels/*.inc"))

setup(
    version=re.search(r"project\(attn VERSION ([\d.]+)", Path("CMakeLists.txt").read_text())[1],
    ext_modules=[
        Extension(
            "attn._core",
            SOURCES,
            include_dirs=["include"],
            depends=HEADERS,
            # Hidden: another libattn in the process must not answer in place of this one.
            define_macros=[("ATTN_API", "")],
            # The library's flags, whatever Python was built with: Debian's -fwrapv crashes gcc 12 in the scalar kernels.
            extra_compile_args=["-std=c11", "-O3", "-g0", "-fno-wrapv", "-ffp-contract=off", "-fvisibility=hidden"],
            extra_link_args=["-pthread"],
            libraries=["m"],
            py_limited_api=True,
        )
    ],
    options={
        "build": {"build_base": "build/python-wheel"},
        "bdist_wheel": {"py_limited_api": "cp311"},
        "egg_info": {"egg_base": "."},
    },
)
