# SPDX-License-Identifier: Apache-2.0
"""Additive attention as it came into the world (Bahdanau et al. 2015): a recurrent network that looks back while it writes.

It learns to write words backwards: an encoder reads the letters, a decoder writes one after the other, and attn.nn.AdditiveAttention
chooses where in the word it looks. After training, the share of words that come out right is printed for words never seen, and the
map of one: it runs from the upper right to the lower left.

    python examples/python/bahdanau.py

Needs torch; attn.
"""

import argparse
import string
from typing import Any

import torch
from torch import Tensor, nn

import attn.nn

LETTERS = string.ascii_lowercase
START = len(LETTERS)
LONGEST = 10


class Translator(nn.Module):
    """Letters [batch, length] and how many count -> logits of the letters to write, [batch, length, letters]."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(LETTERS) + 1, dim)
        self.reader = nn.GRU(dim, dim // 2, batch_first=True, bidirectional=True)
        self.writer = nn.GRU(dim, dim, batch_first=True)
        self.attend = attn.nn.AdditiveAttention(dim)
        self.answer = nn.Linear(2 * dim, len(LETTERS))

    def read(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The keys [batch, length, dim], and the state that the writer begins with."""
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        states, last = self.reader(packed)
        keys, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=words.shape[1])
        return keys, last.transpose(0, 1).flatten(1)[None]

    def write(self, written: Tensor, state: Tensor, keys: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Logits of what follows each letter written so far, the writer's state and the weights [batch, 1, written, length]."""
        rows, state = self.writer(self.embed(written), state)
        found, seen = self.attend(rows, keys, kv_lengths=lengths, see="weights")
        return self.answer(torch.cat([rows, found], -1)), state, seen.weights


def examples(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Random words [count, LONGEST] padded with letter 0, their lengths, and the words backwards, padded with -100."""
    words = torch.randint(len(LETTERS), (count, LONGEST), generator=generator)
    lengths = torch.randint(3, LONGEST + 1, (count,), generator=generator)
    place = torch.arange(LONGEST).expand(count, -1)
    inside = place < lengths[:, None]
    backwards = words.gather(1, (lengths[:, None] - 1 - place).clamp(min=0))
    return words.masked_fill(~inside, 0), lengths, backwards.masked_fill(~inside, -100)


def loss_of(model: Translator, words: Tensor, lengths: Tensor, right: Tensor) -> Tensor:
    """Of each letter, the letters before it given."""
    keys, state = model.read(words, lengths)
    before = torch.cat([torch.full((len(words), 1), START), right[:, :-1].clamp(min=0)], 1)
    logits, _, _ = model.write(before, state, keys, lengths)
    return nn.functional.cross_entropy(logits.flatten(0, 1), right.flatten())


@torch.inference_mode()
def translate(model: Translator, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What it writes by itself, letter after letter [batch, LONGEST], and where it looked [batch, LONGEST, LONGEST]."""
    keys, state = model.read(words, lengths)
    letter, made, maps = torch.full((len(words), 1), START), [], []
    for _ in range(LONGEST):
        logits, state, weights = model.write(letter, state, keys, lengths)
        letter = logits.argmax(-1)
        made.append(letter)
        maps.append(weights[:, 0])
    return torch.cat(made, 1), torch.cat(maps, 1)


def accuracy(model: Translator, count: int) -> float:
    """The share of unseen words that come out right to the last letter."""
    words, lengths, right = examples(count, torch.Generator().manual_seed(1))
    made, _ = translate(model, words, lengths)
    return ((made == right) | (right == -100)).all(1).float().mean().item()


def show(model: Translator, word: str) -> str:
    """The map of one word: a row for each letter written, a column for each letter read."""
    ids = torch.zeros(1, LONGEST, dtype=torch.long)
    ids[0, : len(word)] = torch.tensor([LETTERS.index(letter) for letter in word])
    made, maps = translate(model, ids, torch.tensor([len(word)]))
    shades = " .:-=+*#%@"
    lines = ["  " + " ".join(word)]
    for letter, weights in zip(made[0, : len(word)].tolist(), maps[0, :, : len(word)].tolist()):
        lines.append(f"{LETTERS[letter]} " + " ".join(shades[min(int(weight * 10), 9)] for weight in weights))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=600, help="of 128 words each (default %(default)s)")
    parser.add_argument("--word", default="attention", help=f"shown at the end, of at most {LONGEST} letters a-z (default %(default)s)")
    options = parser.parse_args(arguments)
    if not 0 < len(options.word) <= LONGEST or not set(options.word) <= set(LETTERS):
        parser.error(f"--word has 1 to {LONGEST} letters of a-z")
    torch.manual_seed(0)
    model, generator = Translator(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(1, options.steps + 1):
        loss = loss_of(model, *examples(128, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % max(1, options.steps // 5) == 0:
            print(f"step {step:5}  loss {loss.item():.4f}  words right {accuracy(model, 500):6.1%}", flush=True)
    print(f"\n{show(model, options.word)}")


if __name__ == "__main__":
    main()
