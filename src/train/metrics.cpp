// metrics.cpp - metrics.jsonl and TensorBoard scalars.
#include "train/metrics.h"

#include <chrono>
#include <cmath>

#include <nlohmann/json.hpp>

#include "core/fail.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

/// The step that a line is of; none if the line is not one of ours.
std::optional<std::int64_t> step_of(std::string_view line) {
  const io::Json j = io::Json::parse(line, nullptr, false);
  const auto it = j.is_object() ? j.find("step") : j.end();
  if (it == j.end() || !it->is_number_integer()) return std::nullopt;
  return it->get<std::int64_t>();
}

}  // namespace

/// The beginning of a metrics file that a resumed run goes on from.
struct Kept {
  std::uint64_t bytes = 0;
  std::int64_t lines = 0;
};

namespace {
Kept kept_of(const fs::path& file, std::int64_t done) {
  Kept kept;
  if (done == 0 || !fs::exists(file)) return kept;
  const std::string text = io::read_file(file);
  for (std::size_t begin = 0;;) {
    const auto end = text.find('\n', begin);
    if (end == text.npos) return kept;
    const auto step = step_of(std::string_view(text).substr(begin, end - begin));
    if (!step || *step > done) return kept;
    begin = end + 1;
    kept.bytes = begin;
    ++kept.lines;
  }
}
}  // namespace

void append_line(std::string& to, const Progress& p) {
  const auto number = [&](std::string_view key, double value) {
    if (std::isfinite(value)) fmt::format_to(std::back_inserter(to), ",\"{}\":{}", key, value);
    else fmt::format_to(std::back_inserter(to), ",\"{}\":null", key);
  };
  fmt::format_to(std::back_inserter(to), "{{\"step\":{}", p.step);
  number("loss", p.loss);
  number("lr", p.lr);
  number("grad_norm", p.grad_norm);
  number("scale", p.scale);
  fmt::format_to(std::back_inserter(to), ",\"applied\":{}", p.applied);
  number("tokens_per_second", p.tokens_per_second);
  fmt::format_to(std::back_inserter(to), ",\"peak_bytes\":{}", p.peak_bytes);
  number("zero_fraction", p.zero_fraction);
  if (p.val_loss) number("val_loss", *p.val_loss);
  to += "}\n";
}

MetricsLog::MetricsLog(const fs::path& run, std::int64_t done, bool tensorboard)
    : MetricsLog(run, done, tensorboard, kept_of(run / "metrics.jsonl", done)) {}

MetricsLog::MetricsLog(const fs::path& run, std::int64_t done, bool tensorboard, Kept kept)
    : lines_(run / "metrics.jsonl", kept.bytes), missing_(done - kept.lines) {
  if (tensorboard) events_.emplace(run, now(), done + 1);
}

void MetricsLog::write(const Progress& p) {
  line_.clear();
  append_line(line_, p);
  lines_.append(line_);
  lines_.flush();
  if (!events_) return;
  std::array<io::Scalar, 7> scalars{{{"train/loss", p.loss},
                                     {"train/lr", p.lr},
                                     {"train/grad_norm", p.grad_norm},
                                     {"amp/scale", p.scale},
                                     {"amp/zero_fraction", p.zero_fraction},
                                     {"speed/tokens_per_second", p.tokens_per_second},
                                     {"validation/loss", p.val_loss.value_or(0)}}};
  events_->scalars(p.step, now(), std::span(scalars).first(p.val_loss ? scalars.size() : scalars.size() - 1));
  events_->flush();
}

}  // namespace mezzo::train
