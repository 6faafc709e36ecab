"""Small models of the Llama family, as Hugging Face's transformers compute them: weights, one batch, logits, loss, every gradient.

Writes tests/golden/llama.safetensors: <case>/weight.<name>, <case>/grad.<name>, <case>/logits, <case>/loss for each case, and tokens, targets.
Weights are f32; results are computed in float64 and stored as f32. The metadata holds each case's config.json.

Norm weights and biases are not at their usual 1 and 0, so that an error in them shows.
"""

import json

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from golden import generator, write

SEED = 2302_13971
VOCAB, B, T = 40, 2, 24
SHAPE = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, attn_implementation="eager", rms_norm_eps=1e-5)
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}

CASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=False)),
    "llama3_tied": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=True, rope_theta=500.0, rope_scaling=LLAMA3)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True)),
}


def config_json(config):
    """What config.json has held up to transformers 4: the form in which nearly all published files have it."""
    j = json.loads(config.to_json_string(use_diff=False))
    rope = j.get("rope_parameters") or {}
    out = {k: j[k] for k in ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                             "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "hidden_act")}
    out["rope_theta"] = rope.get("rope_theta", j.get("rope_theta", 10000.0))
    if rope.get("rope_type", "default") != "default":
        out["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
    if j.get("head_dim"):
        out["head_dim"] = j["head_dim"]
    return out


def main():
    g = generator(SEED)
    tokens = torch.randint(0, VOCAB, (B, T), generator=g)
    targets = torch.randint(0, VOCAB, (B, T), generator=g)
    out = {"tokens": tokens, "targets": targets}
    configs = {}
    for case, (cls, config) in CASES.items():
        model = cls(config).double().eval()
        for name, p in model.named_parameters():
            p.data = torch.randn(p.shape, generator=g).mul(0.2).add(1 if "norm" in name else 0).float().double()
        logits = model(input_ids=tokens).logits
        loss = F.cross_entropy(logits.view(-1, VOCAB), targets.view(-1))
        loss.backward()
        for name, p in model.named_parameters():
            out[f"{case}/weight.{name}"] = p.detach().float()
            out[f"{case}/grad.{name}"] = p.grad.float()
        out[f"{case}/logits"] = logits.detach().float()
        out[f"{case}/loss"] = loss.detach().float()
        configs[case] = config_json(config)
        print(f"{case}: loss {loss.item():.6f}")
    import transformers
    write("llama", out, __file__, SEED, configs=configs, computed="float64, stored as float32", transformers=transformers.__version__)


if __name__ == "__main__":
    main()
