// tuning.cpp - options of fine-tuning checked, the base found and loaded.
#include "train/tuning.h"

#include <algorithm>
#include <array>
#include <set>

#include <fmt/ranges.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/checksum.h"
#include "io/file.h"
#include "models/export.h"
#include "models/maker.h"
#include "train/checkpoint.h"
#include "train/run_model.h"
#include "train/trainer.h"
#include "train/vocabulary.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOp = "finetune";
constexpr std::array<std::string_view, 3> kOverlong{"split", "cut", "drop"};
constexpr std::array<std::string_view, 2> kTrainOn{"assistant", "everything"};

template <class E, std::size_t N> E from_name(const char* flag, std::string_view given, const std::array<std::string_view, N>& names) {
  const auto it = std::find(names.begin(), names.end(), given);
  if (it == names.end()) fail(kOp, fmt::format("{} {} given, one of {} wanted", flag, given, fmt::join(names, ", ")), near_names(given, names));
  return static_cast<E>(it - names.begin());
}

/// Encodings of the layers' matrices that a file holds in blocks: "Q4_1", "Q4_K, Q6_K"; empty: none.
std::string block_formats(const fs::path& base) {
  const models::ModelFile file(base);
  std::set<std::string> names;
  if (file.gguf())
    for (const auto& t : file.gguf()->tensors())
      if (t.encoding.blocks && t.name.starts_with("blk.")) names.insert(io::name(t.encoding));
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::string_view name(text::Overlong x) { return kOverlong[static_cast<std::size_t>(x)]; }
std::string_view name(text::TrainOn x) { return kTrainOn[static_cast<std::size_t>(x)]; }
text::Overlong overlong_from_name(std::string_view s) { return from_name<text::Overlong>("--overlong", s, kOverlong); }
text::TrainOn train_on_from_name(std::string_view s) { return from_name<text::TrainOn>("--train-on", s, kTrainOn); }

void check(const TuneOptions& o) {
  if (!(o.dropout >= 0 && o.dropout < 1)) fail(kOp, fmt::format("--dropout {} given, a number of at least 0 and below 1 wanted", o.dropout));
  if (o.dropout > 0 && o.packing)
    fail(kOp, fmt::format("--dropout {} given, and attention weights of packed examples cannot be dropped out", o.dropout),
         "--no-packing, or --lora-dropout, which is the adapters' own");
  if (!o.quantize_base.empty()) {
    from_name<int>("--quantize-base", o.quantize_base, models::kQuantizeNames);
    if (o.full) fail(kOp, "--full with --quantize-base given: weights that are trained cannot stay in blocks", "adapters can: --lora-rank");
  }
  if (o.full) return;
  if (o.lora.rank < 1) fail(kOp, fmt::format("--lora-rank {} given, 1 or more wanted", o.lora.rank));
  if (!(o.lora.alpha > 0)) fail(kOp, fmt::format("--lora-alpha {} given, a number above 0 wanted", o.lora.alpha));
  if (!(o.lora.dropout >= 0 && o.lora.dropout < 1))
    fail(kOp, fmt::format("--lora-dropout {} given, a number of at least 0 and below 1 wanted", o.lora.dropout));
}

fs::path template_path(const TrainOptions& o) {
  return o.tune->chat_template.empty() ? fs::path(o.model) : o.out / o.tune->chat_template;  // an absolute path stays one
}

// ---- the base ------------------------------------------------------------------------------------

fs::path base_path(const fs::path& given) {
  if (!present(given))
    fail(kOp, fmt::format("--model {} given, and nothing of that name is there", given.native()),
         "a GGUF file or a directory in Hugging Face's layout is wanted; `mezzo train` makes models from a spec");
  if (!fs::is_directory(given) || holds_weights(given)) return given;
  if (holds_weights(given / "model")) return given / "model";
  if (models::is_adapter(given) || models::is_adapter(given / "model"))
    fail(kOp, fmt::format("--model {} given, a model with adapters; one without wanted", given.native()),
         "`mezzo export --merge --format safetensors` makes one of it");
  fail(kOp, fmt::format("--model {} given, and no model.safetensors is in it", given.native()), "`mezzo export` makes one of a checkpoint");
}

models::ModelOptions base_shape(const TrainOptions& o) {
  models::ModelOptions shape = models::ModelFile(base_path(o.model)).options();
  if (models::context(shape) < o.seq)
    fail(kOp, fmt::format("--seq {} given, at most the model's context of {} tokens wanted", o.seq, models::context(shape)));
  if (auto* gpt = std::get_if<models::GptOptions>(&shape)) gpt->dropout = o.tune->dropout;
  else if (o.tune->dropout > 0)
    fail(kOp, fmt::format("--dropout {} given, and {} is a Llama, which has none", o.tune->dropout, o.model), "--lora-dropout is the adapters' own");
  return shape;
}

std::shared_ptr<const Tokenizer> base_tokenizer(const TrainOptions& o, const models::ModelOptions& shape) {
  auto tokenizer = model_tokenizer(base_path(o.model));
  if (tokenizer->vocab_size() > models::vocab(shape))
    fail(kOp, fmt::format("{}: its tokenizer has {} tokens, its model {}", o.model, tokenizer->vocab_size(), models::vocab(shape)),
         "are both of the same model?");
  return tokenizer;
}

std::uint64_t base_fingerprint(const fs::path& base) {
  std::vector<fs::path> files{base};
  if (fs::is_directory(base)) {
    files = {base / "config.json"};
    for (const auto& e : fs::directory_iterator(base))
      if (e.path().extension() == ".safetensors") files.push_back(e.path());
    std::sort(files.begin(), files.end());
  }
  io::Checksum64 sum;
  for (const auto& f : files) sum.update(io::MappedFile(f, io::Access::sequential).bytes());
  return sum.value();
}

std::shared_ptr<models::LanguageModel> load_base(const TrainOptions& o, const Recipe& recipe) {
  const TuneOptions& t = *o.tune;
  const fs::path base = base_path(o.model);
  if (t.full) return models::load_pretrained(base, {.dropout = t.dropout});
  auto model = models::load_pretrained(base, {.dtype = recipe.low, .keep_blocks = true, .quantize = t.quantize_base, .dropout = t.dropout});
  models::add_lora(*model, t.lora);
  return model;
}

std::string frozen_text(const TrainOptions& o, const Recipe& recipe) {
  const std::string in_file = block_formats(base_path(o.model)), low(mezzo::name(recipe.low));
  if (!o.tune->quantize_base.empty())
    return fmt::format("matrices of layers in blocks ({}), unpacked into {} by each product; the embedding {}", o.tune->quantize_base, low, low);
  if (!in_file.empty())
    return fmt::format("matrices of layers in the file's blocks ({}), unpacked into {} by each product; the embedding {}", in_file, low, low);
  return fmt::format("matrices in {}", low);
}

}  // namespace mezzo::train
