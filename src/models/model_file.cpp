// model_file.cpp - opens both kinds of file, and reads weights in the order that the model has them.
#include "models/model_file.h"

#include <cstring>
#include <set>

#include <nlohmann/json.hpp>

#include "core/dry_run.h"
#include "core/fail.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "tensor/layout.h"

namespace mezzo::models {
namespace {

namespace fs = std::filesystem;
constexpr const char* kOp = "load_model";

/// Row of the file that holds row r of a matrix whose heads of `dim` rows stand as pairs there: (2i, 2i + 1) for (i, i + dim / 2).
std::int64_t paired_row(std::int64_t r, std::int64_t dim) {
  const auto head = r / dim, i = r % dim, half = dim / 2;
  return head * dim + (i < half ? 2 * i : 2 * (i - half) + 1);
}

}  // namespace

std::string_view name_prefix(const ModelOptions& options) { return std::holds_alternative<GptOptions>(options) ? "transformer." : ""; }

bool is_conv1d(std::string_view name) { return name.ends_with("c_attn.weight") || name.ends_with("c_proj.weight") || name.ends_with("c_fc.weight"); }

Tensor in_file_order(const Tensor& w, std::int64_t d) {
  return w.reshape({w.size(0) / d, 2, d / 2, w.size(1)}).transpose(1, 2).contiguous().reshape(w.shape());
}
Tensor in_model_order(const Tensor& w, std::int64_t d) {
  return w.reshape({w.size(0) / d, d / 2, 2, w.size(1)}).transpose(1, 2).contiguous().reshape(w.shape());
}

ModelFile::ModelFile(fs::path path) : path_(std::move(path)) {
  std::error_code ignored;
  if (!fs::exists(path_, ignored))
    fail(kOp, fmt::format("{}: nothing of that name is there", path_.native()), "give a GGUF file, or a directory with config.json and safetensors");
  if (fs::is_directory(path_)) open_directory();
  else open_gguf();
}
ModelFile::~ModelFile() = default;

void ModelFile::add(const std::string& parameter, Weight w) {
  if (!weights_.emplace(parameter, w).second) fail(kOp, fmt::format("{}: two tensors are the parameter `{}`", path_.native(), parameter));
}

void ModelFile::open_gguf() {
  gguf_ = std::make_shared<io::GgufFile>(path_);
  options_ = options_from_gguf(*gguf_);
  const auto* llama = std::get_if<LlamaOptions>(&options_);
  const bool pairs = llama && gguf_->string("general.architecture") == "llama";
  for (const auto& t : gguf_->tensors()) {
    const std::string name(t.name), parameter = parameter_of_gguf(name, options_, path_);
    if (parameter.empty()) continue;
    Weight w{.encoding = t.encoding, .shape = t.shape, .data = t.data, .name = name};
    if (pairs && in_pairs(parameter)) w.pair_rows = llama->head_dim;
    add(parameter, w);
  }
}

void ModelFile::open_directory() {
  options_ = options_from_config(path_ / "config.json");
  const fs::path whole = path_ / "model.safetensors", index = path_ / "model.safetensors.index.json";
  std::error_code ignored;
  if (fs::exists(whole, ignored)) {
    parts_.push_back(std::make_shared<io::SafetensorsFile>(whole));
  } else if (fs::exists(index, ignored)) {
    const io::Json j = io::read_json(index);
    const auto map = j.find("weight_map");
    if (map == j.end() || !map->is_object()) fail(kOp, fmt::format("{}: it has no object `weight_map`", index.native()));
    std::map<std::string, std::shared_ptr<io::SafetensorsFile>> by_name;
    for (const auto& [tensor, file] : map->items()) {
      if (!file.is_string() || fs::path(file.get<std::string>()).has_parent_path())
        fail(kOp, fmt::format("{}: `{}` is in {}, a file's name wanted", index.native(), tensor, io::to_text(file)));
      auto& part = by_name[file.get<std::string>()];
      if (!part) part = std::make_shared<io::SafetensorsFile>(path_ / file.get<std::string>());
      if (!part->find(tensor)) fail(kOp, fmt::format("{}: it has no tensor `{}`, which the index says it has", part->path().native(), tensor));
    }
    for (auto& [name, part] : by_name) parts_.push_back(part);
  } else {
    fail(kOp, fmt::format("{}: neither model.safetensors nor model.safetensors.index.json is there", path_.native()));
  }
  const bool gpt = std::holds_alternative<GptOptions>(options_);
  const std::string_view prefix = name_prefix(options_);
  const bool tied = gpt || std::get<LlamaOptions>(options_).tied;
  for (const auto& part : parts_) {
    for (const auto& e : part->entries()) {
      std::string parameter = e.name;
      if (parameter.starts_with(prefix)) parameter.erase(0, prefix.size());
      if (tied && parameter == "lm_head.weight") continue;                                                   // the tied head a second time
      if (gpt && (parameter.ends_with(".attn.bias") || parameter.ends_with(".attn.masked_bias"))) continue;  // old files' causal masks
      if (parameter.ends_with(".rotary_emb.inv_freq")) continue;                                             // old files' rotary tables
      if (!is_floating(e.dtype)) fail(kOp, fmt::format("{}: `{}` is {}, floating wanted", part->path().native(), e.name, mezzo::name(e.dtype)));
      add(parameter, {.encoding = e.dtype, .shape = e.shape, .data = e.data, .transposed = gpt && is_conv1d(parameter), .name = e.name});
    }
  }
}

void ModelFile::check_all_in(const nn::Module& model, const std::vector<std::string>& in_blocks) const {
  std::set<std::string> taken(in_blocks.begin(), in_blocks.end());
  for (const auto& [path, t] : model.named_parameters()) taken.insert(path);
  for (const auto& [parameter, w] : weights_)
    if (!taken.count(parameter))
      fail(kOp, fmt::format("{}: the tensor `{}` is no weight of this model", path_.native(), w.name),
           "it would be ignored, so the model would not be what the file holds");
}

const ModelFile::Weight& ModelFile::find(const std::string& parameter, const Shape& shape) const {
  const auto it = weights_.find(parameter);
  if (it == weights_.end()) fail(kOp, fmt::format("{}: the weights of `{}` are missing", path_.native(), parameter));
  std::vector<std::int64_t> wanted(shape.begin(), shape.end());
  if (it->second.transposed) std::swap(wanted[0], wanted[1]);
  if (it->second.shape != wanted)
    fail(kOp, fmt::format("{}: `{}` has shape {}, {} wanted", path_.native(), it->second.name, to_string(Shape(it->second.shape)),
                          to_string(Shape(wanted))));
  return it->second;
}

Tensor ModelFile::tensor(const std::string& parameter, const Shape& shape, Dtype dtype) const {
  const Weight& w = find(parameter, shape);
  const Shape stored(w.shape);
  Tensor t = make_tensor(stored, dtype);
  if (w.pair_rows == 0) {
    io::decode(w.encoding, w.data.data(), dtype, mutable_data(t), stored.numel());
  } else {
    const auto rows = stored[0], cols = stored[1], bytes = io::byte_count(w.encoding, cols, w.name);
    for (std::int64_t r = 0; r < rows; ++r)
      io::decode(w.encoding, w.data.data() + paired_row(r, w.pair_rows) * bytes, dtype,
                 static_cast<std::byte*>(mutable_data(t)) + r * cols * static_cast<std::int64_t>(size_of(dtype)), cols);
  }
  return w.transposed ? t.transpose(0, 1).contiguous() : t;
}

std::shared_ptr<const BlockMatrix> ModelFile::blocks(const std::string& parameter, const Shape& shape) const {
  const Weight& w = find(parameter, shape);
  if (!w.encoding.blocks || w.transposed || shape.size() != 2) return nullptr;
  auto m = std::make_shared<BlockMatrix>(BlockMatrix{*w.encoding.blocks, w.data.data(), shape[0], shape[1], gguf_});
  if (w.pair_rows != 0) {  // the rows in our order, in memory of their own
    const auto bytes = m->row_bytes();
    const MemoryScope scope(Memory::weights);
    const Tensor own = make_tensor({m->rows * bytes}, Dtype::u8);
    auto* to = static_cast<std::byte*>(mutable_data(own));
    for (std::int64_t r = 0; r < m->rows && !DryRun::active(); ++r)
      std::memcpy(to + r * bytes, m->blocks + paired_row(r, w.pair_rows) * bytes, static_cast<std::size_t>(bytes));
    m->blocks = to;
    m->owner = std::make_shared<Tensor>(own);
  }
  return m;
}

}  // namespace mezzo::models
