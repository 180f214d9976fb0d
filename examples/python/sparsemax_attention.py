# SPDX-License-Identifier: Apache-2.0
"""A classifier whose attention ignores most words exactly: sparsemax beside softmax.

From which package of Python's own library does a piece of code come? The model looks at its words with a learned query for each
head (attn.nn.MultiheadAttention) and answers from what the heads found. Softmax gives every word some weight; sparsemax gives most
of them 0, not little but 0, and the words that are left are what the answer rests on.

    python examples/python/sparsemax_attention.py

Needs torch; attn.
"""

import argparse
import re
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

import attn.nn

PACKAGES = ("asyncio", "email", "json", "logging", "unittest", "xml")
WORDS = 40
Weighting = Literal["softmax", "sparsemax"]


class Data(NamedTuple):
    """Pieces of code: ids [count, WORDS] padded with 0, how many count, the package of each; and the words as text."""

    ids: Tensor
    lengths: Tensor
    labels: Tensor
    words: list[list[str]]

    def part(self, rows: Tensor) -> "Data":
        return Data(self.ids[rows], self.lengths[rows], self.labels[rows], [self.words[i] for i in rows.tolist()])


def pieces() -> tuple[list[list[str]], list[int]]:
    """WORDS words in a row of every module, and the package's number. The packages' own names are left out: they would tell."""
    names = re.compile("|".join(PACKAGES), re.IGNORECASE)
    made, labels = [], []
    for label, package in enumerate(PACKAGES):
        for path in sorted((Path(re.__file__).parent.parent / package).rglob("*.py")):
            words = [word for word in re.findall(r"[A-Za-z_]{3,}", path.read_text(errors="replace")) if not names.search(word)]
            for start in range(0, len(words) - 5, WORDS):
                made.append(words[start : start + WORDS])
                labels.append(label)
    return made, labels


def load() -> tuple[Data, Data, int]:
    """To train on, to test on (every fifth piece), and how many words the vocabulary has, with 0 for padding and 1 for rare ones."""
    words, labels = pieces()
    counts: dict[str, int] = {}
    for word in (word for piece in words for word in piece):
        counts[word] = counts.get(word, 0) + 1
    vocabulary = {word: place for place, word in enumerate((w for w, n in counts.items() if n > 2), 2)}
    ids = torch.zeros(len(words), WORDS, dtype=torch.long)
    for row, piece in enumerate(words):
        ids[row, : len(piece)] = torch.tensor([vocabulary.get(word, 1) for word in piece])
    data = Data(ids, torch.tensor([len(piece) for piece in words]), torch.tensor(labels), words)
    test = torch.arange(len(words)) % 5 == 0
    return data.part((~test).nonzero()[:, 0]), data.part(test.nonzero()[:, 0]), len(vocabulary) + 2


class Classifier(nn.Module):
    def __init__(self, vocabulary: int, weighting: Weighting, dim: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim, padding_idx=0)
        self.question = nn.Parameter(torch.randn(1, 1, dim))
        self.attend = attn.nn.MultiheadAttention(dim, heads, weighting=weighting)
        self.answer = nn.Sequential(nn.Dropout(0.3), nn.Linear(dim, len(PACKAGES)))

    def forward(self, data: Data) -> tuple[Tensor, Tensor]:
        """Logits [count, packages] and the weights [count, heads, WORDS]."""
        question = self.question.expand(len(data.ids), -1, -1)
        found, seen = self.attend(question, self.embed(data.ids), kv_lengths=data.lengths, see="weights")
        return self.answer(found[:, 0]), seen.weights[:, :, 0]


def train(data: Data, vocabulary: int, weighting: Weighting, epochs: int) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(vocabulary, weighting)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.ids)).split(64):
            batch = data.part(rows)
            loss = nn.functional.cross_entropy(model(batch)[0], batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=3, help="(default %(default)s)")
    options = parser.parse_args(arguments)
    learn, test, vocabulary = load()
    print(f"{len(learn.ids)} pieces of {WORDS} words to learn from, {len(test.ids)} to test, {len(PACKAGES)} packages\n")
    print(f"{'':10} {'accuracy':>8} {'weights that are 0':>19} {'words of a piece that count':>28}")
    weights = torch.empty(0)
    kinds: tuple[Weighting, ...] = ("softmax", "sparsemax")
    for weighting in kinds:
        model = train(learn, vocabulary, weighting, options.epochs)
        with torch.inference_mode():
            logits, weights = model(test)
        right = (logits.argmax(-1) == test.labels).float().mean().item()
        live = torch.arange(WORDS) < test.lengths[:, None]
        zero = (weights == 0)[live[:, None].expand_as(weights)].float().mean().item()
        used = (weights > 0).any(1).sum(-1).float().mean().item()
        print(f"{weighting:10} {right:8.1%} {zero:19.1%} {used:28.1f}")
    print("\nwhat sparsemax looked at, all heads together:")
    for row in torch.linspace(0, len(test.ids) - 1, 5).long().tolist():
        mean = weights[row].mean(0)
        order = [i for i in mean.argsort(descending=True).tolist() if mean[i] > 0][:6]
        said = PACKAGES[int(logits[row].argmax())]
        mark = "" if said == PACKAGES[int(test.labels[row])] else f" (it is {PACKAGES[int(test.labels[row])]})"
        print(f"  {said}{mark}: " + ", ".join(f"{test.words[row][i]} {mean[i]:.2f}" for i in order))


if __name__ == "__main__":
    main()
