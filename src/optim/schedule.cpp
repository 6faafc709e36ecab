// schedule.cpp - learning rates as pure functions of the step.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include <mezzo/optim.h>

#include "core/fail.h"

namespace mezzo::optim {
namespace {

constexpr std::array<std::pair<std::string_view, ScheduleKind>, 4> kKinds{
    {{"constant", ScheduleKind::constant}, {"linear", ScheduleKind::linear}, {"cosine", ScheduleKind::cosine}, {"wsd", ScheduleKind::wsd}}};

void check(const ScheduleOptions& o, std::int64_t step) {
  const auto share = [](double x) { return x >= 0 && x <= 1; };
  if (!(o.lr >= 0 && std::isfinite(o.lr))) fail("schedule", fmt::format("lr = {} given, a finite number of 0 or more wanted", o.lr));
  if (step < 0) fail("schedule", fmt::format("step {} given, 0 or more wanted", step));
  if (o.warmup < 0) fail("schedule", fmt::format("warmup = {} given, 0 or more steps wanted", o.warmup));
  if (!share(o.final_fraction)) fail("schedule", fmt::format("final_fraction = {} given, a number in [0, 1] wanted", o.final_fraction));
  if (o.kind == ScheduleKind::constant) return;
  if (o.steps <= 0) fail("schedule", fmt::format("steps = {} given, the length of the run wanted", o.steps), "only a constant schedule does without");
  if (o.warmup > o.steps) fail("schedule", fmt::format("warmup = {} given for a run of {} steps", o.warmup, o.steps));
  if (o.kind == ScheduleKind::wsd && !share(o.decay_fraction))
    fail("schedule", fmt::format("decay_fraction = {} given, a number in [0, 1] wanted", o.decay_fraction));
}

/// How far step is on the way from first to last, within [0, 1].
double progress(std::int64_t step, std::int64_t first, std::int64_t last) {
  if (step >= last) return 1;
  return static_cast<double>(std::max<std::int64_t>(step - first, 0)) / static_cast<double>(last - first);
}

/// From 1 at p = 0 to `last` at p = 1.
double fall(double p, double last) { return 1 + p * (last - 1); }

}  // namespace

double schedule(const ScheduleOptions& o, std::int64_t step) {
  check(o, step);
  if (step < o.warmup) return o.lr * static_cast<double>(step + 1) / static_cast<double>(o.warmup);
  switch (o.kind) {
    case ScheduleKind::constant: return o.lr;
    case ScheduleKind::linear: return o.lr * fall(progress(step, o.warmup, o.steps), o.final_fraction);
    case ScheduleKind::cosine: {
      const double p = progress(step, o.warmup, o.steps);
      return o.lr * fall((1 - std::cos(std::numbers::pi * p)) / 2, o.final_fraction);
    }
    case ScheduleKind::wsd: {
      const auto decay = std::llround(o.decay_fraction * static_cast<double>(o.steps));
      if (decay == 0) return o.lr;
      return o.lr * fall(progress(step, std::max<std::int64_t>(o.steps - decay, o.warmup), o.steps), o.final_fraction);
    }
  }
  return o.lr;
}

std::string_view name(ScheduleKind kind) { return kKinds[static_cast<std::size_t>(kind)].first; }

ScheduleKind schedule_from_name(std::string_view name) {
  std::array<std::string_view, kKinds.size()> names;
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    if (kKinds[i].first == name) return kKinds[i].second;
    names[i] = kKinds[i].first;
  }
  const std::string near = near_names(name, names);
  fail("schedule", fmt::format("schedule `{}` given, one of constant, linear, cosine, wsd wanted", name), near);
}

}  // namespace mezzo::optim
