"""Small tokenizers of every kind mezzo reads, and the ids Hugging Face's `tokenizers` and Google's `sentencepiece` give mixed_text.txt with them.

Writes into tests/golden/tokenizers:
  <name>.json          byte-level: gpt2, smollm, llama3 (merges ignored for whole words), qwen2 (NFC); llama2: SentencePiece's pieces, bytes to fall back on
  bpe.model, unigram.model; spm.gguf (bpe.model's pieces and scores, as llama.cpp's converter writes them)
  ids.json             {tokenizer: hashes}: of the ids of eight lines each (FNV-1a, 64 bits, over i32 little-endian and -1 after each line)
  trained.json         what Hugging Face's trainer makes of mixed_text.txt (vocabulary 600), for `train_bpe` to agree with
With the SmolLM2 GGUF as argument its ids are added to ids.json as smollm2.
"""

import io
import json
import struct
import sys

import gguf
import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from golden import FOLDER, origin
from mixed_text import WORDS, lines, text_of

OUT = FOLDER / "tokenizers"
VOCAB = 600
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


KINDS = {
    "gpt2": byte_level,
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]),
    "llama3": lambda: split_then_bytes(LLAMA3),
    "qwen2": lambda: split_then_bytes(QWEN2),
}


def train(name, texts):
    t = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    t.pre_tokenizer = KINDS[name]()
    t.decoder = decoders.ByteLevel()
    if name == "qwen2":
        t.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator(texts, trainer)
    if name == "gpt2":
        t.add_tokens([AddedToken("mezzo", single_word=True), AddedToken("gradient", lstrip=True, rstrip=True)])
    return t


def sentencepiece_model(kind, texts):
    known = set("".join("".join(WORDS[script]) for script in ("latin", "cyrillic", "greek", "numbers"))) | set(" ,.;:!?()")  # the rest falls back to bytes
    texts = [t for t in texts if set(t) <= known]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, vocab_size=500, model_type=kind, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=1.0, num_threads=1, minloglevel=2, split_digits=True, hard_vocab_limit=False)
    (OUT / f"{kind}.model").write_bytes(out.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def llama2(sp):
    """The tokenizer.json that Hugging Face's converter makes of a SentencePiece BPE model."""
    pieces = [sp.id_to_piece(i) for i in range(sp.vocab_size())]
    vocab = {p: i for i, p in enumerate(pieces)}
    normal = {p for i, p in enumerate(pieces) if not (sp.is_byte(i) or sp.is_control(i) or sp.is_unknown(i))}
    merges = []
    for p in sorted(normal, key=lambda p: -sp.get_score(vocab[p])):
        merges += [(p[:i], p[i:]) for i in range(1, len(p)) if p[:i] in normal and p[i:] in normal]
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x in ("<unk>", "<s>", "</s>")])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return t


def spm_gguf(sp):
    w = gguf.GGUFWriter(OUT / "spm.gguf", "llama")
    n = range(sp.vocab_size())
    w.add_tokenizer_model("llama")
    w.add_token_list([sp.id_to_piece(i) for i in n])
    w.add_token_scores([sp.get_score(i) for i in n])
    w.add_token_types([2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1 for i in n])
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_unk_token_id(sp.unk_id())
    w.add_add_space_prefix(True)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def smollm2(path):
    """The model's own tokenizer.json, rebuilt from its vocabulary: digits one by one, then as GPT-2."""
    fields = gguf.GGUFReader(path).fields
    tokens, types, merges = (fields[f"tokenizer.ggml.{k}"].contents() for k in ("tokens", "token_type", "merges"))
    t = Tokenizer(models.BPE({x: i for i, x in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    t.pre_tokenizer = KINDS["smollm"]()
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x, kind in zip(tokens, types) if kind == 3])
    return t


def hashes(encode, texts):
    out = []
    for i in range(0, len(texts), 8):
        h = 0xCBF29CE484222325
        for t in texts[i : i + 8]:
            for byte in b"".join(struct.pack("<i", x) for x in [*encode(t), -1]):
                h = (h ^ byte) * 0x100000001B3 % 2**64
        out.append(f"{h:016x}")
    return out


def main():
    OUT.mkdir(exist_ok=True)
    texts = [text_of(x) for x in lines()]
    ids_file = OUT / "ids.json"
    ids = json.loads(ids_file.read_text()) if ids_file.exists() else {}
    hf = lambda t: lambda s: t.encode(s, add_special_tokens=False).ids
    for name in KINDS:
        t = train(name, texts)
        (OUT / f"{name}.json").write_text(json.dumps(json.loads(t.to_str()), ensure_ascii=False, separators=(",", ":")))
        ids[name] = hashes(hf(t), texts)
        if name == "gpt2":
            plain = Tokenizer.from_str(t.to_str())
            model = json.loads(plain.to_str())["model"]
            (OUT / "trained.json").write_text(json.dumps({"vocab": list(model["vocab"]), "merges": model["merges"]}, ensure_ascii=False, separators=(",", ":")))
    for kind in ("bpe", "unigram"):
        sp = sentencepiece_model(kind, texts)
        ids[f"{kind}.model"] = hashes(sp.encode, texts)
        if kind == "bpe":
            spm_gguf(sp)
            t = llama2(sp)
            (OUT / "llama2.json").write_text(json.dumps(json.loads(t.to_str()), ensure_ascii=False, separators=(",", ":")))
            ids["llama2"] = hashes(hf(t), texts)
    if len(sys.argv) > 1:
        ids["smollm2"] = hashes(hf(smollm2(sys.argv[1])), texts)
    ids["made"] = origin(__file__) | {"tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__}
    ids_file.write_text(json.dumps(ids, indent=0, sort_keys=True) + "\n")
    for path in sorted(OUT.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
