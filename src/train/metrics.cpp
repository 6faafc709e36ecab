// metrics.cpp - metrics.jsonl and TensorBoard scalars.
#include "train/metrics.h"

#include <array>
#include <cmath>

#include <fmt/format.h>

#include "train/clock.h"

namespace mezzo::train {
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

MetricsLog::MetricsLog(const std::filesystem::path& run, std::int64_t done, bool tensorboard) : lines_(run / "metrics.jsonl", done), done_(done) {
  if (tensorboard) events_.emplace(run, wall_time(), done + 1);
}

void MetricsLog::write(const Progress& p) {
  line_.clear();
  append_line(line_, p);
  lines_.append(line_);
  if (!events_) return;
  std::array<io::Scalar, 7> scalars{{{"train/loss", p.loss},
                                     {"train/lr", p.lr},
                                     {"train/grad_norm", p.grad_norm},
                                     {"amp/scale", p.scale},
                                     {"amp/zero_fraction", p.zero_fraction},
                                     {"speed/tokens_per_second", p.tokens_per_second},
                                     {"validation/loss", p.val_loss.value_or(0)}}};
  events_->scalars(p.step, wall_time(), std::span(scalars).first(p.val_loss ? scalars.size() : scalars.size() - 1));
  events_->flush();
}

}  // namespace mezzo::train
