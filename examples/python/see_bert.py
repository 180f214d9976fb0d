# SPDX-License-Identifier: Apache-2.0
"""What a BERT attends to in thousands of tokens, without a weight matrix in memory.

Every head's attention is looked at while the model runs: how much each key receives, how spread the weights are (entropy) and the
keys that weigh most. That takes O(length) memory where the weights would take O(length^2).

    python examples/python/see_bert.py                                       # a small BERT with random weights, 8192 bytes
    python examples/python/see_bert.py --model FOLDER --text FILE -o map.svg   # a trained one, up to its own maximal length

FOLDER is a model of Hugging Face's with its tokenizer. A random model's heads attend to nothing in particular: what it shows is
the cost. Needs torch, transformers; attn.
"""

import argparse
import resource
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

import attn
import attn.torch

TOP = 3
BINS = 120


class Look(NamedTuple):
    """One layer: received [heads, length], entropy [heads, length], top_index and top_weight [heads, length, TOP]."""

    received: Tensor
    entropy: Tensor
    top_index: Tensor
    top_weight: Tensor


class Watcher:
    """An attention function of transformers that keeps what it sees, layer after layer."""

    def __init__(self) -> None:
        self.looks: list[Look] = []

    def __call__(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        out, seen = attn.torch.attention(
            query, key, value, scale=options.get("scaling"), mask=mask, see=("received", "entropy", "top"), top_k=TOP
        )
        self.looks.append(Look(seen.received[0], seen.entropy[0], seen.top_index[0], seen.top_weight[0]))
        return out.transpose(1, 2), None


def load(folder: str | None, text: str, length: int) -> tuple[Any, Tensor, list[str]]:
    """The model, ids [1, length], and the tokens as text."""
    if folder is None:
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=256,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=8192,
            attn_implementation="watched",
        )
        model = transformers.BertModel(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)  # fresh models have 0.02: all keys would weigh the same
        data = text.encode()[: min(length, config.max_position_embeddings)]
        return model.eval(), torch.tensor([list(data)]), [chr(byte) if 32 < byte < 127 else "." for byte in data]
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="watched")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    longest = min(length, model.config.max_position_embeddings)
    ids = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").input_ids
    return model.eval(), ids, tokenizer.convert_ids_to_tokens(ids[0].tolist())


def table(looks: list[Look], tokens: list[str]) -> str:
    """A line for each head: its entropy, how many keys that is, and the keys that receive most."""
    lines = [f"{'layer':>5} {'head':>4} {'entropy':>8} {'keys':>8} {'largest':>8}  keys that receive most (position token share)"]
    for layer, look in enumerate(looks, 1):
        for head in range(look.received.shape[0]):
            entropy = look.entropy[head].mean().item()
            largest = look.top_weight[head, :, 0].mean().item()
            share = look.received[head] / look.received[head].sum()
            most = share.topk(min(TOP, len(tokens)))
            named = "  ".join(f"{at} {tokens[at]!r} {part:.3f}" for part, at in zip(most.values.tolist(), most.indices.tolist()))
            lines.append(f"{layer:5} {head + 1:4} {entropy:8.3f} {2.718281828**entropy:8.1f} {largest:8.4f}  {named}")
    return "\n".join(lines)


def picture(looks: list[Look]) -> str:
    """An SVG: a strip for each head, dark where keys receive more than their even share."""
    length, heads = looks[0].received.shape[1], looks[0].received.shape[0]
    bins = min(BINS, length)
    cell, row, left, top = 6, 16, 120, 44
    width, height = left + bins * cell + 130, top + len(looks) * heads * row + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18" font-size="13">What keys receive, of {length} tokens: white nothing, dark four times an even share'
        " or more</text>",
        f'<text x="{left + bins * cell + 10}" y="{top - 6}">entropy (nats)</text>',
    ]
    for index in range(len(looks) * heads):
        layer, head = divmod(index, heads)
        y = top + index * row
        parts.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">layer {layer + 1} head {head + 1}</text>')
        for place, share in enumerate(torch.tensor_split(looks[layer].received[head], bins)):
            ink = min(share.mean().item() / 4, 1.0)
            colour = "#" + "".join(f"{round(255 + (dark - 255) * ink):02x}" for dark in (8, 48, 107))
            parts.append(f'<rect x="{left + place * cell}" y="{y}" width="{cell}" height="{row - 2}" fill="{colour}"/>')
        entropy = looks[layer].entropy[head].mean().item()
        parts.append(f'<text x="{left + bins * cell + 10}" y="{y + 11}">{entropy:.2f}</text>')
    bottom = top + len(looks) * heads * row + 14
    parts.append(f'<text x="{left}" y="{bottom}">0</text>')
    parts.append(f'<text x="{left + bins * cell}" y="{bottom}" text-anchor="end">position {length - 1}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", metavar="FOLDER", help="of Hugging Face's; default: a small random BERT that reads bytes")
    parser.add_argument("--text", metavar="FILE", help="what it reads; default: the source of Python's argparse")
    parser.add_argument("--length", type=int, default=8192, help="tokens at most (default %(default)s)")
    parser.add_argument("-o", "--output", metavar="SVG", help="where the picture goes")
    options = parser.parse_args(arguments)
    watcher = Watcher()
    transformers.AttentionInterface.register("watched", watcher)
    AttentionMaskInterface.register("watched", sdpa_mask)
    text = Path(options.text or argparse.__file__).read_text()
    model, ids, tokens = load(options.model, text, options.length)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.inference_mode():
        model(ids)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(table(watcher.looks, tokens))
    matrices = 4 * ids.shape[1] ** 2 * sum(look.received.shape[0] for look in watcher.looks)
    print(f"\n{ids.shape[1]} tokens: the peak of memory grew by {grown / 1024:.0f} MiB; all weights would be {matrices / 2**20:.0f} MiB")
    if options.output:
        Path(options.output).write_text(picture(watcher.looks))
        print(f"picture  {options.output}")


if __name__ == "__main__":
    main()
