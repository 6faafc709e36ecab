// history.cpp - actions in words and JSON, and the options that are in force after them.
#include "train/history.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include <fmt/ranges.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "train/recipe_change.h"

namespace mezzo::train {
namespace {

constexpr const char* kOp = "train";
constexpr std::array<std::string_view, 4> kNames{"op", "lr", "bf16", "fp32"};
constexpr double kHalf = 0.5;

}  // namespace

Fallback fallback_from_text(const std::string& text) {
  constexpr std::string_view kLr = "lr=";
  if (text.starts_with(kLr)) {
    double factor = 0;
    const char *first = text.data() + kLr.size(), *last = text.data() + text.size();
    const auto [end, error] = std::from_chars(first, last, factor);
    if (error != std::errc() || end != last || !(factor > 0 && factor < 1))
      fail(kOp, fmt::format("--fallbacks {} given, lr=X with X above 0 and below 1 wanted", text));
    return {.kind = Fallback::Kind::lr, .factor = factor};
  }
  const auto it = std::find(kNames.begin(), kNames.end(), text);
  if (it == kNames.end())
    fail(kOp, fmt::format("--fallbacks {} given, some of {} or lr=X wanted", text, fmt::join(kNames, ", ")), near_names(text, kNames));
  return {.kind = static_cast<Fallback::Kind>(it - kNames.begin()), .factor = kHalf};
}

std::string describe_change(const Action& a) {
  if (!a.op.empty()) return fmt::format("with {} in f32", a.op);
  if (!a.precision.empty()) return fmt::format("in {}", a.precision);
  if (a.lr_factor != 1) return fmt::format("with the learning rate times {:g}", a.lr_factor);
  return {};
}

// ---- JSON ----------------------------------------------------------------------------------------

io::Json to_json(const History& history) {
  io::Json all = io::Json::array();
  for (const auto& a : history) {
    io::Json j{{"step", a.step}, {"reason", a.reason}, {"from", a.from}, {"position", a.position}, {"counter", a.counter}};
    j["fallback"] = a.fallback.empty() ? io::Json(nullptr) : io::Json(a.fallback);
    if (a.lr_factor != 1) j["lr_factor"] = a.lr_factor;
    if (!a.op.empty()) j["op"] = a.op;
    if (!a.precision.empty()) j["precision"] = a.precision;
    all.push_back(std::move(j));
  }
  return all;
}

History history_of(const io::Json& config, const std::string& source) {
  const auto it = config.find("history");
  if (it == config.end()) return {};
  History all;
  try {
    for (const auto& j : *it) {
      Action a{.step = j.at("step"), .reason = j.at("reason"), .from = j.at("from"), .position = j.at("position"), .counter = j.at("counter")};
      if (const auto& fallback = j.at("fallback"); !fallback.is_null()) fallback.get_to(a.fallback);
      a.lr_factor = j.value("lr_factor", 1.0);
      a.op = j.value("op", "");
      a.precision = j.value("precision", "");
      all.push_back(std::move(a));
    }
  } catch (const io::Json::exception& e) { fail("run", fmt::format("{}: in its history: {}", source, io::plain_message(e.what()))); }
  return all;
}

History up_to(History all, std::int64_t step) {
  const auto last = std::find_if(all.rbegin(), all.rend(), [&](const Action& a) { return a.from <= step; });
  all.erase(last.base(), all.end());
  return all;
}

// ---- what follows from it ------------------------------------------------------------------------

TrainOptions in_force(TrainOptions o, const History& history) {
  for (const auto& a : history) {
    o.lr *= a.lr_factor;
    if (!a.op.empty()) o.f32_ops.push_back(a.op);
    if (a.precision.empty()) continue;
    o.precision = a.precision;
    o.loss_scale.clear();  // bf16 and f32 need none
  }
  return o;
}

NextFallback next_fallback(const TrainOptions& asked, const History& history, const Cause& cause,
                           const std::function<std::string(const TrainOptions&)>& refused) {
  std::multiset<std::string> used;
  for (const auto& a : history) used.insert(a.fallback);
  NextFallback next;
  const auto pass = [&](std::string_view text, std::string_view why) {
    next.passed_over += fmt::format("{}{} ({})", next.passed_over.empty() ? "" : ", ", text, why);
  };
  std::vector<std::string> left, last;
  for (const auto& text : asked.fallbacks) {
    if (const auto it = used.find(text); it != used.end()) {
      used.erase(it);
      pass(text, "used");
    } else {
      (cause.range && fallback_from_text(text).kind == Fallback::Kind::lr ? last : left).push_back(text);
    }
  }
  left.insert(left.end(), last.begin(), last.end());

  for (const auto& text : left) {
    const Fallback fallback = fallback_from_text(text);
    Action action{.fallback = text};
    std::string why_not;
    if (fallback.kind == Fallback::Kind::lr) {
      action.lr_factor = fallback.factor;
    } else if (fallback.kind == Fallback::Kind::op) {
      action.op = cause.curing_op;
      if (action.op.empty()) why_not = "no op in f32 alone would have cured it";
    } else {
      const RecipeChange change = recipe_after(cause.now, fallback.kind == Fallback::Kind::bf16 ? Dtype::bf16 : Dtype::f32);
      action.precision = change.to;
      why_not = change.why_not;
    }
    if (why_not.empty()) {
      History with = history;
      with.push_back(action);
      why_not = refused(in_force(asked, with));
    }
    if (why_not.empty()) {
      next.action = std::move(action);
      return next;
    }
    pass(text, why_not);
  }
  return next;
}

}  // namespace mezzo::train
