// automatic.cpp - "auto": bf16 where the table says that it pays, else fp32. No clock, no measurement: the same answer on every machine of a kind.
#include "train/automatic.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include <fmt/core.h>

#include <mezzo/train.h>

#include "train/auto_table.h"

namespace mezzo::train {

Choice automatic(double width, double rows, Isa active, Isa detected) {
  const auto row = std::find_if(std::begin(kAutoTable), std::end(kAutoTable), [&](const AutoRow& r) { return r.isa == active; });
  if (row == std::end(kAutoTable)) {
    std::string reason = fmt::format("{} has no bf16 products: 16 bits would not be faster", mezzo::name(active));
    if (detected != active) reason += fmt::format(" (MEZZO_ISA; this CPU has {})", mezzo::name(detected));
    return {"fp32", std::move(reason)};
  }
  if (width > 0 && width < row->least_width)
    return {"fp32", fmt::format("matrices of width {:.0f} are too small for bf16 products to pay: from {} on they do", width, row->least_width)};
  if (rows > 0 && rows < row->least_rows)
    return {"fp32", fmt::format("with {:.0f} rows a step only reads and updates its weights, which 16 bits do not speed up: from {} on they do", rows,
                                row->least_rows)};
  std::string reason = fmt::format("{} has native bf16 products", mezzo::name(active));
  if (width == 0) reason += fmt::format(" (fp32 for matrices narrower than {}, or fewer than {} rows)", row->least_width, row->least_rows);
  return {"bf16", std::move(reason)};
}

double matrix_width(const std::vector<Tensor>& parameters) {
  double sum = 0, squares = 0;
  for (const auto& p : parameters) {
    if (!p.defined() || p.dim() < 2) continue;
    const auto n = static_cast<double>(p.numel());
    sum += n;
    squares += n * n;
  }
  return sum > 0 ? std::sqrt(squares / sum) : 0;
}

}  // namespace mezzo::train
