#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/tokenizer.json: tokenizers made by Python's `tokenizers`, and the ids that it gives to texts.

tests/test_tokenizer.c trains on the same texts, loads the same files and expects the same ids, without Python.

    python tests/oracle/make_tokenizer_fixture.py
"""
import json
import pathlib
import random

import tokenizers
from tokenizers import AddedToken, processors

from test_tokenizer import SCRIPTS, hugging_face, random_texts

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "tokenizer.json"


def made():
    """(name, tokenizer, the options tokenizer_train takes for the same vocabulary or None)"""
    texts = SCRIPTS * 3
    for name, form, lowercase, prefix in (("nfc lower case", 0, True, False), ("nfkc with prefix space", 1, False, True)):
        t = hugging_face(texts, form, lowercase, prefix, size=420)
        t.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        yield name, t, {"form": form, "lowercase": lowercase, "add_prefix_space": prefix, "vocab_size": 420}
    t = hugging_face(texts, 2, size=360, special=["<s>", "<pad>", "</s>", "<unk>"], ignore_merges=True)
    t.add_special_tokens([AddedToken("<x>", lstrip=True, special=True)])
    t.add_tokens([AddedToken("added", rstrip=True), AddedToken("  ", normalized=False)])
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    yield "roberta", t, None


def main():
    rng = random.Random(7)
    entries = []
    for name, t, options in made():
        texts = [""] + SCRIPTS + [x.replace("\0", "") for x in random_texts(name, 200) if len(x) < 60]
        for _ in range(20):
            texts.append("".join(rng.choice(("\u0301", "\u0323", "a", "\u0307", "I", "\u1100", "\u1161", "\u11a8", " ", "'s")) for _ in range(12)))
        cases = [[text, t.encode(text).ids] for text in texts]
        entries.append({"name": name, "train": options, "file": json.loads(t.to_str()), "cases": cases})
    content = {"made_by": f"tokenizers {tokenizers.__version__}", "texts": SCRIPTS * 3, "tokenizers": entries}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
