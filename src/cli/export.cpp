// export.cpp - `mezzo export`: a model or its adapters as files for others, read back and compared with the source.
#include <cmath>
#include <system_error>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/format.h"
#include "cli/models.h"
#include "cli/options.h"
#include "core/fail.h"
#include "io/encoding.h"
#include "io/file.h"
#include "models/export.h"
#include "text/tokenizer_files.h"
#include "train/generate.h"
#include "train/parity.h"
#include "train/run_model.h"
#include "train/tuning.h"

namespace mezzo::cli {
namespace {

namespace fs = std::filesystem;

/// What is compared on without --data: prose, code and other scripts.
constexpr const char* kText =
    "The lighthouse stood at the end of a narrow road, and every evening, an hour before sunset, the keeper climbed its two hundred steps to light "
    "the "
    "lamp. Ships on their way to the harbour had looked for it since 1832. When the fog came in, which happened often in autumn, he rang the bell as "
    "well: once every thirty seconds, until the morning.\n\n"
    "def mean(values):\n    \"\"\"The arithmetic mean of a list of numbers.\"\"\"\n    if not values:\n        raise ValueError(\"no values\")\n"
    "    return sum(values) / len(values)\n\n"
    "Q: What is 12 times 12?\nA: 144.\n\n"
    "Der Zug nach M\u00fcnchen f\u00e4hrt um acht Uhr. \u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u4eca\u65e5\u306f\u3044\u3044\u5929"
    "\u6c17\u3067\u3059\u306d\u3002 L'\u00e9t\u00e9 fut chaud \u2014 36 \u00b0C \u00e0 l'ombre.\n";

std::int64_t bytes_of(const fs::path& path) {
  if (fs::is_regular_file(path)) return static_cast<std::int64_t>(fs::file_size(path));
  std::int64_t sum = 0;
  for (const auto& e : fs::directory_iterator(path))
    if (e.is_regular_file()) sum += static_cast<std::int64_t>(e.file_size());
  return sum;
}

/// What became of the tokenizer.
struct TokenizerParity {
  bool same_ids = false, round_trip = false, same_end = false;
  std::string end_of_text;
  bool had_template = false, same_template = false;
  bool good() const { return same_ids && same_end && same_template; }
};
TokenizerParity compare(const train::RunModel& source, const train::RunModel& other, std::string_view text) {
  const auto ids = source.tokenizer->encode(text);
  const auto chat = text::chat_template_text(source.chat);
  TokenizerParity p;
  p.same_ids = ids == other.tokenizer->encode(text);
  p.round_trip = other.tokenizer->decode(ids) == text;
  const auto end = source.tokenizer->end_of_text();
  p.same_end = end == other.tokenizer->end_of_text();
  if (end) p.end_of_text = other.tokenizer->bytes_of(*end);
  p.had_template = !chat.empty();
  p.same_template = chat == text::chat_template_text(other.chat);
  return p;
}

class Export final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("--model DIR|FILE.gguf --format gguf|safetensors --out PATH [options]");
    o.footer(
        "What was written is read back, and its logits are compared with the source's over a text.\n"
        "example: mezzo export --model runs/tuned --merge --format gguf --type q8_0 --out tuned.gguf");
    o.group("what is written");
    o.value("--model", "DIR|FILE", model_, kModelHelp);
    o.value("--format", "F", format_, "gguf (a file for llama.cpp) or safetensors (a directory in Hugging Face's layout, or PEFT's)");
    o.value("--type", "T", type_, "Of matrices: f32, f16, bf16, and in GGUF q8_0, q4_0; without it f16 in GGUF and f32 in safetensors");
    o.value("--out", "PATH", out_, "The file or directory that is made");
    o.flag("--merge", merge_, "Adds the adapters to the weights: the whole model");
    o.flag("--adapter", adapter_, "The adapters alone");
    o.group("the comparison");
    o.value("--data", "FILE", data_, "Text to compare on; without it a short one that mezzo brings along");
    o.value("--tokens", "N", tokens_, "Of it, at most");
  }

  int run(Options& options, Console& console) override {
    const io::Encoding type = checking_usage([&] { return checked(options); });
    const train::RunModel source = train::load_run_model(model_, {.keep_blocks = true, .keep_table = true});
    const bool adapted = models::lora_options(*source.model).has_value();
    if (adapted && !merge_ && !adapter_)
      throw UsageError(
          fmt::format("[export] {} is a model with adapters, and neither --merge nor --adapter is given. Hint: --merge writes the whole "
                      "model, --adapter the adapters alone",
                      model_.native()));
    for (const auto& [name, given] : {std::pair("--adapter", adapter_), std::pair("--merge", merge_)})
      if (given && !adapted) throw UsageError(fmt::format("[export] {} given, but {} has no adapters", name, model_.native()));
    if (adapter_ && (type.blocks || type.dtype != f32)) throw UsageError("[export] --adapter with --type given: adapters are written in f32");

    const std::string text = data_.empty() ? std::string(kText) : io::read_file(data_);
    std::vector<std::int32_t> ids = train::prompt_ids(*source.tokenizer, text);
    if (static_cast<std::int64_t>(ids.size()) > tokens_) ids.resize(static_cast<std::size_t>(tokens_));
    if (ids.size() < 2) fail("export", fmt::format("--data {} given: {} tokens, 2 or more wanted", data_.native(), ids.size()));
    if (const double perplexity = std::exp(train::loss_on(*source.model, ids)); !std::isfinite(perplexity))
      fail("export", fmt::format("{}: its perplexity over the text that is compared on is {}", model_.native(), format_loss(perplexity)),
           "a model that has diverged");

    write(source, type);
    const train::RunModel other = read_back(source);
    const train::Parity parity = train::compare(*source.model, *other.model, ids);
    const TokenizerParity tokenizer = compare(source, other, text);
    report(console, type, parity, tokenizer);
    return tokenizer.good() ? kSuccess : kFailure;
  }

 private:
  io::Encoding checked(const Options& options) {
    options.require("--model", "a run directory or a model");
    options.require("--format", "gguf or safetensors");
    options.require("--out", "a path");
    if (format_ != "gguf" && format_ != "safetensors") fail("export", fmt::format("--format {} given, gguf or safetensors wanted", format_));
    if (merge_ && adapter_) fail("export", "--merge and --adapter given, one of them wanted");
    if (tokens_ < 2) fail("export", fmt::format("--tokens {} given, 2 or more wanted", tokens_));
    if (std::error_code ignored; fs::exists(out_, ignored))
      fail("export", fmt::format("--out {} is there already", out_.native()), "give a new path");
    if (type_.empty()) return format_ == "gguf" && !adapter_ ? io::Encoding(f16) : io::Encoding(f32);
    const char* wanted = format_ == "gguf" ? "f32, f16, bf16, q8_0 or q4_0" : "f32, f16 or bf16";
    const auto known = [&]() -> std::optional<io::Encoding> {
      try {
        return io::encoding_from_name(type_);
      } catch (const Error&) { return std::nullopt; }
    }();
    if (!known || !io::can_encode(*known) || (format_ == "safetensors" && known->blocks))
      fail("export", fmt::format("--type {} given, {} wanted", type_, wanted));
    return *known;
  }

  void write(const train::RunModel& source, const io::Encoding& type) const {
    io::clean_stale(fs::absolute(out_).parent_path());  // of exports that were interrupted
    if (format_ == "gguf") {
      if (adapter_) return models::save_adapter_gguf(*source.model, out_);
      return models::save_gguf(*source.model, out_,
                               {.type = type,
                                .source = source.base,
                                .tokenizer = source.tokenizer.get(),
                                .chat_template = source.chat == source.base ? std::string() : text::chat_template_text(source.chat)});
    }
    io::AtomicDirectory directory(out_);
    if (adapter_) train::write_adapter(source, directory.path());
    else train::write_merged(source, directory.path(), type.dtype);
    directory.commit();
  }

  train::RunModel read_back(const train::RunModel& source) const {
    if (!adapter_) return train::load_run_model(out_, {.keep_blocks = true, .keep_table = true});
    train::RunModel other = train::load_run_model(source.base, {.keep_blocks = true, .keep_table = true});
    models::load_adapter(*other.model, out_);
    other.chat = format_ == "gguf" || source.chat == source.base ? source.chat : out_ / train::kTemplateCopy;
    return other;
  }

  void report(Console& console, const io::Encoding& type, const train::Parity& p, const TokenizerParity& t) const {
    const std::int64_t bytes = bytes_of(out_);
    console.result({{"out", out_.native()},
                    {"format", format_},
                    {"type", io::name(type)},
                    {"adapter", adapter_},
                    {"bytes", bytes},
                    {"parity",
                     {{"tokens", p.tokens},
                      {"logit_difference_max", p.largest_difference},
                      {"logit_max", p.largest_logit},
                      {"logit_difference_relative", p.relative_difference},
                      {"kl_mean", p.kl_mean},
                      {"kl_max", p.kl_max},
                      {"same_likeliest_token", p.same_first},
                      {"perplexity_source", p.source_perplexity},
                      {"perplexity_exported", p.other_perplexity}}},
                    {"tokenizer",
                     {{"same_ids", t.same_ids},
                      {"round_trip", t.round_trip},
                      {"end_of_text", t.end_of_text},
                      {"same_end_of_text", t.same_end},
                      {"chat_template", t.had_template},
                      {"same_chat_template", t.same_template}}}});
    if (console.json()) return;
    console.say(fmt::format("{}: {}, {}{}\n", out_.native(), format_bytes(bytes), io::name(type), adapter_ ? ", adapters alone" : ""));
    const auto answer = [](bool good, const char* yes, const char* no) { return std::string(good ? yes : no); };
    Table table({fmt::format("read back, over {} tokens", format_count(p.tokens)), "source", "exported", "difference"});
    table.row({"perplexity", fmt::format("{:.4f}", p.source_perplexity), fmt::format("{:.4f}", p.other_perplexity),
               fmt::format("{:+.3f} %", 100 * (p.other_perplexity / p.source_perplexity - 1))});
    table.row({"logits, the largest", fmt::format("{:.3f}", p.largest_logit), "", fmt::format("{:.2e}", p.largest_difference)});
    table.row({"logits, relative, all together", "", "", fmt::format("{:.2e}", p.relative_difference)});
    table.row({"KL divergence a token, mean", "", "", fmt::format("{:.2e}", p.kl_mean)});
    table.row({"KL divergence a token, largest", "", "", fmt::format("{:.2e}", p.kl_max)});
    table.row({"the same likeliest token", "", "", format_share(p.same_first)});
    table.row({"token ids", "", "", answer(t.same_ids, "none", "OTHERS")});
    table.row({"end of text", "", t.end_of_text, answer(t.same_end, "none", "ANOTHER")});
    table.row({"chat template", "", answer(t.had_template, "there", "none"), answer(t.same_template, "none", "ANOTHER")});
    console.say(table.text());
    if (!t.round_trip) console.note("mezzo export: the text does not come back from its token ids: the vocabulary lacks something in it");
  }

  fs::path model_, out_, data_;
  std::string format_, type_;
  std::int64_t tokens_ = 1024;
  bool merge_ = false, adapter_ = false;
};

}  // namespace

const Command kExport{"export", "Writes a model or its adapters for other programs, and compares",
                      [] { return std::unique_ptr<Task>(std::make_unique<Export>()); }};

}  // namespace mezzo::cli
