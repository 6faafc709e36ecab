// adapter_test.cpp - GGUF files as models, weights left in their blocks, and low-rank adapters on both.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include <mezzo/mezzo.h>

#include "io/gguf.h"
#include "kernels/blocks.h"
#include "models/export.h"
#include "models/model_file.h"
#include "ops/block_linear.h"
#include "tensor/impl.h"

using namespace mezzo;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kHeads = 4, kKvHeads = 2, kHeadDim = 16, kWidth = 64, kFfn = 96, kVocab = 40, kLayers = 2;
constexpr const char* kLlama = "llama:layers=2,heads=4,kv_heads=2,width=64,ffn=96,vocab=40,context=32";
constexpr const char* kGpt = "gpt:layers=2,heads=4,width=64,vocab=40,context=32";

std::shared_ptr<models::LanguageModel> small(const char* spec = kLlama) {
  manual_seed(11);
  auto model = models::make_model(models::model_from_spec(spec));
  const autograd::NoGrad off;
  for (auto& w : model->parameters())
    if (w.dim() == 2) copy_(w, w * 8.0);
  return model;
}

Tensor some_ids(std::uint64_t seed) {
  Generator random(seed);
  std::vector<std::int32_t> v(2 * 20);
  for (auto& id : v) id = static_cast<std::int32_t>(random.below(kVocab));
  return from_span(std::span<const std::int32_t>(v), {2, 20});
}

/// Rows of rotated heads as GGUF's converter for Llama writes them: (H, 2, D/2, in) to (H, D/2, 2, in).
Tensor as_pairs(const Tensor& w) {
  return w.reshape({w.size(0) / kHeadDim, 2, kHeadDim / 2, w.size(1)}).transpose(1, 2).contiguous().reshape(w.shape());
}

/// The model as a GGUF file; matrices of blocks in `format` where given, all else f32.
struct Changes {
  std::optional<kernels::Format> format = {};
  std::string leave_out = {}, rename = {}, architecture = "llama";
};
void write_model(const models::LanguageModel& model, const fs::path& file, const Changes& c = {}) {
  const std::vector<std::pair<std::string, std::string>> names{{"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"},
                                                               {"input_layernorm", "attn_norm"},     {"self_attn.q_proj", "attn_q"},
                                                               {"self_attn.k_proj", "attn_k"},       {"self_attn.v_proj", "attn_v"},
                                                               {"self_attn.o_proj", "attn_output"},  {"post_attention_layernorm", "ffn_norm"},
                                                               {"mlp.gate_proj", "ffn_gate"},        {"mlp.up_proj", "ffn_up"},
                                                               {"mlp.down_proj", "ffn_down"},        {"model.layers.", "blk."}};
  io::GgufMetadata m;
  m.put("general.architecture", std::string_view(c.architecture));
  const auto number = [&](const char* key, std::int64_t n) { m.put("llama." + std::string(key), static_cast<std::uint32_t>(n)); };
  number("context_length", 32);
  number("embedding_length", kWidth);
  number("block_count", kLayers);
  number("feed_forward_length", kFfn);
  number("attention.head_count", kHeads);
  number("attention.head_count_kv", kKvHeads);
  m.put("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  std::vector<std::string> kept_names;
  std::vector<Tensor> kept;
  std::vector<io::GgufTensor> tensors;
  const auto all = model.named_parameters();
  kept_names.reserve(all.size());
  for (const auto& [path, w] : all) {
    std::string name = path;
    for (const auto& [ours, gguf] : names)
      if (const auto at = name.find(ours); at != std::string::npos) name.replace(at, ours.size(), gguf);
    if (name == c.leave_out) continue;
    if (name == c.rename) name = "blk.0.something.weight";
    Tensor t = w.detach();
    if (path.find("q_proj") != std::string::npos || path.find("k_proj") != std::string::npos) t = as_pairs(t);
    io::Encoding encoding = f32;
    if (c.format && t.dim() == 2 && path.find("proj") != std::string::npos) {
      const auto facts = kernels::facts(*c.format);
      const Tensor blocks = empty({t.numel() / facts.elements * facts.bytes}, {.dtype = u8});
      kernels::quantize(kernels::cpu_queue(), *c.format, static_cast<const float*>(data(t)), mutable_data(blocks), t.numel());
      encoding = *c.format;
      kept.push_back(blocks);
    } else {
      kept.push_back(t.contiguous());
    }
    kept_names.push_back(name);
    const Tensor& bytes = kept.back();
    tensors.push_back({kept_names.back(),
                       encoding,
                       {w.shape().begin(), w.shape().end()},
                       {static_cast<const std::byte*>(data(bytes)), static_cast<std::size_t>(bytes.numel()) * size_of(bytes.dtype())}});
  }
  io::write_gguf(file, m, tensors);
}

class TempFile {
 public:
  explicit TempFile(const char* name) : path_(fs::temp_directory_path() / name) {}
  ~TempFile() { fs::remove(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return {};
}

double largest_difference(const Tensor& a, const Tensor& b) { return amax(abs(sub(a.to(f32), b.to(f32)))).item(); }

}  // namespace

TEST_CASE("a GGUF file in f32 is the model, bit for bit: names, shape, the order of rotated rows") {
  const auto model = small();
  const TempFile file("mezzo-test-model.gguf");
  write_model(*model, file.path());
  const auto again = models::load_pretrained(file.path());
  const Tensor ids = some_ids(1);
  CHECK((*again)(ids).to_vector() == (*model)(ids).to_vector());
}

TEST_CASE("what a GGUF file lacks, or has too much, is named") {
  const auto model = small();
  const TempFile file("mezzo-test-bad.gguf");
  const auto error = [&](const Changes& c) {
    write_model(*model, file.path(), c);
    return error_of([&] { models::load_pretrained(file.path()); });
  };
  const auto says = [](const std::string& text, const char* what) { return text.find(what) != std::string::npos; };
  CHECK(says(error({.leave_out = "blk.1.ffn_up.weight"}), "model.layers.1.mlp.up_proj.weight"));
  CHECK(says(error({.rename = "blk.1.ffn_up.weight"}), "blk.0.something.weight"));
  CHECK(says(error({.architecture = "mamba"}), "mamba"));
}

TEST_CASE("weights left in blocks give what the same weights unpacked give, forward and backward") {
  for (const auto format : {kernels::Format::q8_0, kernels::Format::q4_0}) {
    const TempFile file("mezzo-test-blocks.gguf");
    write_model(*small(), file.path(), {.format = format});
    const auto unpacked = models::load_pretrained(file.path()), in_blocks = models::load_pretrained(file.path(), {.keep_blocks = true});
    CHECK(in_blocks->named_parameters().size() == unpacked->named_parameters().size() - 7 * kLayers);
    const Tensor ids = some_ids(2), targets = some_ids(3);
    const Tensor a = unpacked->loss(ids, targets), b = in_blocks->loss(ids, targets);
    CHECK(b.item() == doctest::Approx(a.item()).epsilon(1e-6));
    a.backward();
    b.backward();
    const auto embedding = [](const models::LanguageModel& m) { return m.named_parameters()[0].second.grad(); };
    CHECK(largest_difference(embedding(*in_blocks), embedding(*unpacked)) <= 1e-5 * amax(abs(embedding(*unpacked))).item());
  }
}

TEST_CASE("a matrix in blocks of several slices: products and input gradient as with the unpacked one") {
  // 8 MiB of unpacked rows make a slice: 4096 columns in f32 are cut after 512 rows.
  constexpr std::int64_t kRows = 1100, kCols = 4096;
  manual_seed(5);
  const Tensor w = randn({kRows, kCols}), bias = randn({kRows}).requires_grad_();
  auto m = std::make_shared<BlockMatrix>(BlockMatrix{kernels::Format::q8_0, nullptr, kRows, kCols, nullptr});
  const Tensor blocks = empty({kRows * m->row_bytes()}, {.dtype = u8});
  kernels::quantize(kernels::cpu_queue(), m->format, static_cast<const float*>(data(w)), mutable_data(blocks), w.numel());
  m->blocks = static_cast<const std::byte*>(data(blocks));
  const Tensor plain = unpacked(*m, f32);
  for (const auto& both : {std::pair{f32, 3}, std::pair{bf16, 3}, std::pair{f32, 40}, std::pair{bf16, 40}}) {
    const Dtype dtype = both.first;
    const std::int64_t rows = both.second;
    CAPTURE(name(dtype));
    CAPTURE(rows);
    Tensor x = randn({rows, kCols}).to(dtype), x2 = x.clone();
    x.requires_grad_();
    x2.requires_grad_();
    const Tensor residual = randn({rows, kRows}).to(dtype);
    const Joined joined{randn({rows, 8}).to(dtype).requires_grad_(), randn({kRows, 8}).to(dtype).requires_grad_()};
    const Joined joined2{joined.x.detach().clone().requires_grad_(), joined.w.detach().clone().requires_grad_()};
    const Tensor y = block_linear(x, m, bias, residual, joined);
    const Tensor wanted = add(linear_add(residual, x2, plain.to(dtype), bias), linear(joined2.x, joined2.w));
    // Sums of 4096 products of size 1 in another order: sqrt(4096) = 64 in size, a few units in the last place of f32 or one rounding to bf16.
    const double eps = dtype == f32 ? 4096 * 0x1p-24 : format_info(bf16).epsilon;
    CHECK(largest_difference(y, wanted) <= eps * amax(abs(wanted)).item());
    sum(y).backward();
    sum(wanted).backward();
    CHECK(largest_difference(x.grad(), x2.grad()) <= eps * amax(abs(x2.grad())).item());
    CHECK(largest_difference(joined.x.grad(), joined2.x.grad()) <= eps * amax(abs(joined2.x.grad())).item());
    CHECK(largest_difference(joined.w.grad(), joined2.w.grad()) <= eps * amax(abs(joined2.w.grad())).item());
  }
  CHECK_THROWS_WITH_AS(block_linear(randn({3, 8}), m, {}, {}), doctest::Contains("inner sizes differ"), Error);
}

TEST_CASE("LoRA: nothing changes at first; then the model is that of w + alpha / r B A, and only the adapters learn") {
  struct Case {
    const char *spec, *first;
    std::size_t layers;
  };
  for (const Case& c : {Case{kLlama, "model.layers.0.self_attn.q_proj", 7}, Case{kGpt, "h.0.attn.c_attn", 4}}) {
    CAPTURE(std::string(c.spec));
    const auto model = small(c.spec);
    const Tensor ids = some_ids(7), targets = some_ids(8);
    const Tensor before = (*model)(ids).detach();
    models::add_lora(*model, {.rank = 4, .alpha = 8});
    // Zeros are added; a product that adds something may be another kernel's, with its sums in another order.
    CHECK(largest_difference((*model)(ids), before) <= 16 * 0x1p-24 * amax(abs(before)).item());
    const auto trainable = models::trainable_parameters(*model);
    CHECK(trainable.size() == c.layers * 2 * kLayers);
    CHECK(trainable[0].first == std::string(c.first) + ".lora_A.weight");

    optim::AdamW opt(trainable, {.lr = 1e-2, .weight_decay = 0});
    double first = 0, last = 0;
    for (int i = 0; i < 30; ++i) {
      opt.zero_grad();
      const Tensor loss = model->loss(ids, targets);
      loss.backward();
      opt.step();
      (i == 0 ? first : last) = loss.item();
    }
    CHECK(last < 0.7 * first);
    for (const auto& [path, w] : model->named_parameters())
      if (path.find("lora_") == std::string::npos) CHECK_FALSE(w.grad().defined());

    // The same model with the adapters added to its weights by hand.
    const auto merged = small(c.spec);
    const auto adapted = model->named_parameters();
    const auto find = [&](const std::string& path) {
      for (const auto& [name, w] : adapted)
        if (name == path) return w.detach();
      return Tensor();
    };
    const autograd::NoGrad off;
    for (auto& [path, w] : merged->named_parameters()) {
      const std::string layer = path.substr(0, path.rfind('.'));
      const Tensor a = find(layer + ".lora_A.weight"), b = find(layer + ".lora_B.weight");
      if (a.defined() && w.dim() == 2) copy_(w, w + mm(b, a) * 2.0);
    }
    const Tensor x = (*model)(ids), y = (*merged)(ids);
    CHECK(largest_difference(x, y) <= 1e-5 * amax(abs(y)).item());
  }
}

TEST_CASE("LoRA's targets: last parts of paths, as many as are needed, or all linear layers") {
  const auto adapted = [](const std::vector<std::string>& targets) {
    const auto model = small(kGpt);
    models::add_lora(*model, {.rank = 4, .targets = targets});
    std::string layers;
    for (const auto& [path, w] : models::trainable_parameters(*model))
      if (path.starts_with("h.1.") && path.ends_with(".lora_A.weight")) layers += path.substr(4, path.size() - 18) + " ";
    return layers;
  };
  CHECK(adapted({"c_attn"}) == "attn.c_attn ");
  CHECK(adapted({"c_proj"}) == "attn.c_proj mlp.c_proj ");
  CHECK(adapted({"mlp.c_proj", "c_attn"}) == "attn.c_attn mlp.c_proj ");
  CHECK(adapted({"h.0.attn.c_attn", "c_fc"}) == "mlp.c_fc ");
  CHECK(adapted({"all-linear"}) == "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj ");
  const auto says = [&](const char* target, const char* what) {
    return error_of([&] { adapted({"c_attn", target}); }).find(what) != std::string::npos;
  };
  CHECK(says("q_proj", "no layer is called `q_proj`; there are c_attn, c_proj, c_fc, all-linear"));
  CHECK(says("_attn", "did you mean `c_attn`"));
  CHECK(says("all_linear", "did you mean `all-linear`"));
  CHECK(says("", "no layer is called ``"));
}

TEST_CASE("a GPT-2 left in its file's blocks gives what the same weights unpacked give, and adapters learn on it as well") {
  const TempFile file("mezzo-test-gpt-blocks.gguf");
  models::save_gguf(*small(kGpt), file.path(), {.type = kernels::Format::q8_0});
  const Tensor ids = some_ids(2), targets = some_ids(3);
  const auto plain = models::load_pretrained(file.path()), in_blocks = models::load_pretrained(file.path(), {.keep_blocks = true});
  const auto asked = models::load_pretrained(file.path(), {.keep_blocks = true, .keep_table = true});
  CHECK(in_blocks->named_parameters().size() == plain->named_parameters().size() - 4 * kLayers);
  CHECK(asked->named_parameters().size() == in_blocks->named_parameters().size() - 1);
  const double loss = plain->loss(ids, targets).item();
  CHECK(in_blocks->loss(ids, targets).item() == doctest::Approx(loss).epsilon(1e-6));
  CHECK(asked->loss(ids, targets).item() == doctest::Approx(loss).epsilon(1e-6));
  const Tensor logits = (*plain)(ids);
  CHECK(largest_difference((*asked)(ids), logits) <= 1e-5 * amax(abs(logits)).item());

  const auto learn = [&](models::LanguageModel& model) {
    manual_seed(1);
    models::add_lora(model, {.rank = 4, .alpha = 8});
    optim::AdamW opt(models::trainable_parameters(model), {.lr = 5e-3, .weight_decay = 0});
    for (int i = 0; i < 10; ++i) {
      opt.zero_grad();
      model.loss(ids, targets).backward();
      opt.step();
    }
    return model.loss(ids, targets).item();
  };
  const double learnt = learn(*plain);
  CHECK(learnt < 0.9 * loss);
  CHECK(learn(*in_blocks) == doctest::Approx(learnt).epsilon(1e-4));
}

TEST_CASE("LoRA on a base in blocks and in 16 bits learns like LoRA on the unpacked base") {
  const TempFile file("mezzo-test-qlora.gguf");
  write_model(*small(), file.path(), {.format = kernels::Format::q8_0});
  const Tensor ids = some_ids(7), targets = some_ids(8);
  const auto train = [&](const models::LoadOptions& o, std::optional<Dtype> region) {
    const auto model = models::load_pretrained(file.path(), o);
    manual_seed(1);
    models::add_lora(*model, {.rank = 4, .alpha = 8});
    optim::AdamW opt(models::trainable_parameters(*model), {.lr = 5e-3, .weight_decay = 0});
    double loss = 0;
    for (int i = 0; i < 10; ++i) {
      opt.zero_grad();
      const auto run = [&] { return model->loss(ids, targets); };
      const Tensor l = region ? amp::autocast(*region, run) : run();
      l.backward();
      opt.step();
      loss = l.item();
    }
    return loss;
  };
  const double plain = train({}, {});
  CHECK(train({.keep_blocks = true}, {}) == doctest::Approx(plain).epsilon(1e-4));
  CHECK(train({.dtype = bf16, .keep_blocks = true}, bf16) == doctest::Approx(plain).epsilon(0.02));  // 8 bits of mantissa
  CHECK(train({.dtype = bf16}, bf16) == doctest::Approx(plain).epsilon(0.02));
}

TEST_CASE("adapters, and what they lie beside, are called by their whole path") {
  const auto model = small();
  models::add_lora(*model, {.rank = 4, .alpha = 8});
  int factors = 0;
  for (const auto& [path, w] : model->named_parameters()) {
    CHECK(w.name() == path);
    factors += path.ends_with("q_proj.lora_A.weight") ? 1 : 0;
  }
  CHECK(factors > 0);
}

TEST_CASE("adapters are refused where they make no sense") {
  const auto model = small();
  const auto says = [](const std::string& text, const char* what) { return text.find(what) != std::string::npos; };
  CHECK(says(error_of([&] { models::add_lora(*model, {.targets = {"q_prj"}}); }), "q_proj"));
  CHECK(says(error_of([&] { models::add_lora(*model, {.rank = 0}); }), "rank 0"));
  CHECK(says(error_of([&] { models::add_lora(*model, {.targets = {}}); }), "no target"));
  CHECK(models::trainable_parameters(*model).size() == model->named_parameters().size());  // nothing was frozen
  models::add_lora(*model);
  CHECK(says(error_of([&] { models::add_lora(*model); }), "already"));
  CHECK(models::trainable_parameters(*model).size() == 7 * 2 * kLayers);
}
