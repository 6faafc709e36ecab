// numerics.cpp - inspections as JSON and histograms, and back.
#include "train/numerics.h"

#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "train/clock.h"

namespace mezzo::train {

using inspect::Kind;
using inspect::Ranges;
using inspect::Record;

namespace {

constexpr const char* kFile = "numerics.jsonl";

Kind kind_named(const std::string& wanted) {
  for (const Kind k : {Kind::weight, Kind::gradient, Kind::update, Kind::activation, Kind::activation_gradient})
    if (inspect::to_string(k) == wanted) return k;
  fail("inspect", fmt::format("\"{}\" is no kind of record", wanted));
}
Dtype dtype_named(const std::string& wanted) {
  for (const Dtype d : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::f64})
    if (name(d) == wanted) return d;
  fail("inspect", fmt::format("\"{}\" is no floating dtype", wanted));
}
std::string_view format_named(const std::string& wanted) {
  for (const auto f : inspect::formats())
    if (f == wanted) return f;
  fail("inspect", fmt::format("\"{}\" is no number format", wanted));
}
/// JSON has no Inf: null stands for it.
double number_or_inf(const io::Json& j) { return j.is_null() ? std::numeric_limits<double>::infinity() : j.get<double>(); }

io::Histogram histogram(const Ranges& r) {
  io::Histogram h;
  h.min = r.first_exponent;
  h.max = r.first_exponent + static_cast<double>(r.exponents.size());
  for (std::size_t i = 0; i < r.exponents.size(); ++i) {
    const double middle = r.first_exponent + static_cast<double>(i) + 0.5, n = static_cast<double>(r.exponents[i]);
    h.count += n;
    h.sum += n * middle;
    h.sum_squares += n * middle * middle;
    h.limits.push_back(r.first_exponent + static_cast<double>(i) + 1);
    h.counts.push_back(n);
  }
  return h;
}

}  // namespace

io::Json to_json(const Ranges& r) {
  return {{"count", r.count},
          {"zero", r.zero},
          {"inf", r.inf},
          {"nan", r.nan},
          {"largest", r.largest},
          {"smallest", r.smallest},
          {"first_exponent", r.first_exponent},
          {"exponents", r.exponents}};
}

io::Json to_json(const Record& r) {
  io::Json j{{"kind", inspect::to_string(r.kind)}, {"module", r.module}};
  if (!r.op.empty()) j["op"] = r.op;
  j["dtype"] = name(r.dtype);
  if (r.kind != Kind::update) j.update(to_json(r.ranges));
  if (r.stalled) j["stalled"] = *r.stalled;
  for (const auto& c : r.conversions)
    j["formats"][std::string(c.format)] = {{"flushed", c.flushed}, {"subnormal", c.subnormal}, {"saturated", c.saturated}, {"snr_db", c.snr_db}};
  return j;
}

io::Json to_json(const Inspection& i) {
  io::Json j{{"step", i.step}, {"scale", i.scale}, {"records", io::Json::array()}};
  for (const auto& r : i.records) j["records"].push_back(to_json(r));
  return j;
}

Inspection inspection_from_json(const io::Json& j, std::string_view source) {
  try {
    Inspection out{.step = j.at("step").get<std::int64_t>(), .scale = j.at("scale").get<double>(), .records = {}};
    for (const auto& e : j.at("records")) {
      Record r{.kind = kind_named(e.at("kind").get<std::string>()),
               .module = e.at("module"),
               .op = e.value("op", ""),
               .dtype = dtype_named(e.at("dtype").get<std::string>())};
      if (r.kind != Kind::update)
        r.ranges = {.count = e.at("count"),
                    .zero = e.at("zero"),
                    .inf = e.at("inf"),
                    .nan = e.at("nan"),
                    .largest = number_or_inf(e.at("largest")),
                    .smallest = number_or_inf(e.at("smallest")),
                    .first_exponent = e.at("first_exponent"),
                    .exponents = e.at("exponents")};
      if (e.contains("stalled")) r.stalled = e["stalled"].get<double>();
      if (e.contains("formats"))
        for (const auto& [format, c] : e["formats"].items())
          r.conversions.push_back({.format = format_named(format),
                                   .flushed = c.at("flushed"),
                                   .subnormal = c.at("subnormal"),
                                   .saturated = c.at("saturated"),
                                   .snr_db = number_or_inf(c.at("snr_db"))});
      out.records.push_back(std::move(r));
    }
    return out;
  } catch (const io::Json::exception& e) { fail("inspect", fmt::format("{}: {}", source, io::plain_message(e.what()))); }
}

NumericsLog::NumericsLog(const std::filesystem::path& run, std::int64_t done, bool tensorboard) : lines_(run / kFile, done) {
  if (tensorboard) events_.emplace(run, wall_time(), done + 1);
}

void NumericsLog::write(const Inspection& i) {
  lines_.append(io::to_text(to_json(i)) + "\n");
  if (!events_) return;
  for (const auto& r : i.records)
    if (!r.ranges.exponents.empty())
      events_->histogram(i.step, wall_time(),
                         fmt::format("log2_{}/{}{}{}", inspect::to_string(r.kind), r.module, r.op.empty() || r.module.empty() ? "" : ".", r.op),
                         histogram(r.ranges));
  events_->flush();
}

std::vector<Inspection> read_inspections(const std::filesystem::path& run) {
  std::vector<Inspection> all;
  const auto file = run / kFile;
  for_each_step_line(file, [&](const io::Json& j) { all.push_back(inspection_from_json(j, file.native())); });
  return all;
}

}  // namespace mezzo::train
