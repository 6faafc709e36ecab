// divergence.cpp - the limit that losses must stay under, from the median and spread of the latest.
#include "train/divergence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <fmt/ranges.h>

#include "core/fail.h"

namespace mezzo::train {
namespace {

constexpr std::array<std::string_view, 4> kNames{"warn", "stop", "rollback", "fallback"};

/// The element at `share` of a sorted copy, 0 the least.
double quantile(std::vector<double> v, double share) {
  const auto at = v.begin() + static_cast<std::ptrdiff_t>(std::floor(share * static_cast<double>(v.size() - 1)));
  std::nth_element(v.begin(), at, v.end());
  return *at;
}

double margin_of(double median) { return LossTrend::kShare * std::max(std::abs(median), 1.0); }

/// How far above their median losses may lie.
double reach_of(const std::vector<double>& losses, double median) {
  return std::max(LossTrend::kSpread * (quantile(losses, 0.9) - median), margin_of(median));
}

}  // namespace

std::string_view name(OnDivergence x) { return kNames[static_cast<std::size_t>(x)]; }

OnDivergence on_divergence_from_name(std::string_view s) {
  const auto it = std::find(kNames.begin(), kNames.end(), s);
  if (it == kNames.end()) fail("train", fmt::format("--on-divergence {} given, one of {} wanted", s, fmt::join(kNames, ", ")), near_names(s, kNames));
  return static_cast<OnDivergence>(it - kNames.begin());
}

double LossTrend::median() const { return recent.empty() ? 0 : quantile(recent, 0.5); }

std::optional<double> LossTrend::limit() const {
  if (recent.size() < kLeast) return std::nullopt;
  const double middle = median();
  return std::min(middle + reach_of(recent, middle), *std::max_element(recent.begin(), recent.end()) + margin_of(middle));
}

void LossTrend::keep(double loss) {
  if (recent.size() == kWindow) recent.erase(recent.begin());
  recent.push_back(loss);
}

LossTrend::Rise LossTrend::add(std::int64_t step, double loss) {
  if (!std::isfinite(loss)) {
    ++not_finite;
    return {};
  }
  not_finite = 0;
  if (const auto bound = limit(); bound && loss > *bound) {
    rise.push_back(loss);
    if (rise.size() < kRise) return {};
    std::string why =
        fmt::format("the loss has been above {:.4g} for {} steps, at {:.4g} now; its median before was {:.4g}", *bound, kRise, loss, median());
    const std::int64_t before = good();
    *this = {.recent = std::move(rise), .last_ordinary = step, .last_low = step};
    return {.why = std::move(why), .good = before};
  }
  for (const double x : rise) keep(x);
  rise.clear();
  keep(loss);
  last_ordinary = step;

  const double middle = median();
  if (recent.size() == kWindow && (reach == 0 || middle < lowest)) {
    lowest = middle;
    reach = reach_of(recent, middle);
  }
  if (reach == 0 || middle <= lowest + reach / 2) last_low = step;
  if (reach == 0 || middle <= lowest + reach) return {};
  std::string why = fmt::format("the median of the last {} losses is {:.4g}; it was {:.4g}", kWindow, middle, lowest);
  lowest = middle;
  reach = reach_of(recent, middle);
  return {.why = std::move(why), .good = good_slowly()};
}

}  // namespace mezzo::train
