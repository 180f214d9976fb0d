# SPDX-License-Identifier: Apache-2.0
"""attn inspect on .safetensors files and model folders: names, dtypes, shapes, bytes, metadata; bad ones are refused with exit 4."""
import json
import struct
import unittest

from program import ProgramTest


def safetensors(header, data=b"", length=None):
    """A file as bytes: a header (an object, or text as it stands), its length before it, the data behind it."""
    words = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(words) if length is None else length) + words + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


TWO = safetensors({"__metadata__": {"format": "pt"}, "w": tensor("F32", [2, 3], 0, 24), "b": tensor("BF16", [2], 24, 28)}, bytes(28))


class InspectTest(ProgramTest):
    def setUp(self):
        super().setUp()
        if b"by this build" in self.run_attn("inspect", self.write("probe.safetensors", TWO)).stderr:
            self.skipTest("this build has no models")

    def write(self, name, data):
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_bytes(data)
        return name

    def test_tensors_are_listed_by_name_with_dtype_shape_and_bytes(self):
        said = json.loads(self.good("inspect", self.write("a.safetensors", TWO), "--json"))
        self.assertEqual(said, {"file": "a.safetensors", "format": "safetensors", "elements": 8, "bytes": 28, "metadata": {"format": "pt"},
                                "tensors": [{"name": "b", "dtype": "BF16", "shape": [2], "bytes": 4},
                                            {"name": "w", "dtype": "F32", "shape": [2, 3], "bytes": 24}]})
        lines = self.good("inspect", "a.safetensors").decode().splitlines()
        self.assertEqual([line.split() for line in lines[-2:]],
                         [["b", "BF16", "4", "bytes", "[2]"], ["w", "F32", "24", "bytes", "[2,", "3]"]])
        self.assertIn("elements  8", lines)
        self.assertIn("metadata  format: pt", lines)

    def test_scalars_empty_tensors_and_foreign_dtypes_are_shown(self):
        header = {"s": tensor("F8_E4M3", [], 0, 1), "e": tensor("F32", [0, 2**62, 2**62], 1, 1)}
        said = json.loads(self.good("inspect", self.write("a.safetensors", safetensors(header, b"x")), "--json"))
        self.assertEqual(said["elements"], 1)
        self.assertEqual([t["shape"] for t in said["tensors"]], [[0, 2**62, 2**62], []])

    def test_names_cannot_steer_a_terminal(self):
        name = "\x1b[2J\x07w"
        self.write("a.safetensors", safetensors({"__metadata__": {name: name}, name: tensor("U8", [1], 0, 1)}, b"x"))
        self.assertNotIn(b"\x1b", self.good("inspect", "a.safetensors"))
        self.assertEqual(json.loads(self.good("inspect", "a.safetensors", "--json"))["tensors"][0]["name"], name)

    def test_bad_files_are_refused_with_exit_4(self):
        cases = {"short": b"\2\0", "length": safetensors(b"{}", length=2**64 - 1), "json": safetensors(b"{"), "list": safetensors(b"[]"),
                 "outside": safetensors({"a": tensor("U8", [9], 0, 9)}, b"x"), "hole": safetensors({}, b"x"),
                 "overlap": safetensors({"a": tensor("U8", [1], 0, 1), "b": tensor("U8", [1], 0, 1)}, b"x"),
                 "size": safetensors({"a": tensor("F32", [2], 0, 4)}, b"abcd"),
                 "overflow": safetensors({"a": tensor("F32", [2**32, 2**32], 0, 0)}),
                 "twice": safetensors(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}')}
        for name, data in cases.items():
            with self.subTest(name):
                self.bad(4, "inspect", self.write(f"{name}.safetensors", data), says=f"{name}.safetensors")

    def test_a_missing_file_is_exit_3(self):
        self.bad(3, "inspect", "none.safetensors", says="none.safetensors")

    def test_a_model_folder_shows_its_configuration_and_tensors(self):
        self.write("m/model.safetensors", TWO)
        config = {"model_type": "vit", "hidden_size": 64, "id2label": {"0": "a", "1": "b"}}
        self.write("m/config.json", json.dumps(config).encode())
        said = json.loads(self.good("inspect", "m", "--json"))
        self.assertEqual((said["format"], said["config"], said["bytes"]), ("model", config, 28))
        text = self.good("inspect", "m").decode()
        self.assertIn("model_type: vit", text)
        self.assertIn("id2label: 2", text)

    def test_bad_model_folders_are_refused_with_exit_4(self):
        self.write("m/x", b"")
        self.bad(4, "inspect", "m", says="has no config.json")
        self.write("m/config.json", b"{")
        self.bad(4, "inspect", "m", says="not valid JSON")
        self.write("m/config.json", b"[]")
        self.bad(4, "inspect", "m", says="not a JSON object")
        self.write("m/config.json", b"{}")
        self.bad(4, "inspect", "m", says="model.safetensors")
        self.write("m/model.safetensors", TWO[:-1])
        self.bad(4, "inspect", "m", says="model.safetensors")


if __name__ == "__main__":
    unittest.main()
