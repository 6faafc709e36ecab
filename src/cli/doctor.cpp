// doctor.cpp - `mezzo doctor`: what this machine is, what it does in each precision (measured), and what `auto` makes of it.
#include <fmt/ranges.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <mezzo/runtime.h>
#include <mezzo/train.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/format.h"
#include "cli/measure.h"
#include "cli/options.h"
#include "kernels/kernels.h"

namespace mezzo::cli {
namespace {

constexpr double kBudget = 0.25;     // seconds for each format, and for the memory
constexpr double kWorthwhile = 1.1;  // 16-bit products are called faster from this ratio to f32's

struct Rate {
  Dtype dtype;
  double gflops = 0;
  bool native = true;
};

std::string features(const CpuInfo& cpu) {
  std::vector<std::string_view> has;
  if (cpu.f16c) has.push_back("f16c");
  if (cpu.avx512_fp16) has.push_back("avx512_fp16");
  if (cpu.amx_bf16) has.push_back("amx_bf16");
  return has.empty() ? "none" : fmt::format("{}", fmt::join(has, " "));
}

/// Whether the measured rates bear out what auto chose.
std::string verdict(const train::PrecisionPlan& plan, const std::array<Rate, 3>& rates) {
  const double ratio = rates[1].gflops / rates[0].gflops;
  const bool faster = ratio >= kWorthwhile, chose_16bit = plan.recipe.low != Dtype::f32;
  return fmt::format("bf16 products run at {:.2f} times f32's speed here, measured: {}", ratio,
                     faster == chose_16bit ? "the choice holds"
                     : chose_16bit         ? "fp32 may be as fast"
                                           : "try --precision bf16");
}

class Doctor final : public Task {
 public:
  void declare(Options& o) override { o.usage("[--json] [--threads N]"); }

  int run(Options&, Console& console) override {
    const auto& cpu = cpu_info();
    const train::PrecisionPlan plan = train::resolve({});
    std::array<Rate, 3> rates{{{Dtype::f32}, {Dtype::bf16}, {Dtype::f16}}};
    for (auto& r : rates) {
      r.gflops = peak_gflops(r.dtype, kBudget);
      r.native = r.dtype == Dtype::f32 || kernels::native_gemm(r.dtype);
    }
    const Bandwidth memory = memory_bandwidth(kBudget);

    io::Json document{{"version", version()},
                      {"cpu", cpu.model},
                      {"cores", cpu.cores},
                      {"threads", num_threads()},
                      {"l1d_bytes", cpu.l1d},
                      {"l2_bytes", cpu.l2},
                      {"l3_bytes", cpu.l3},
                      {"memory_bytes", cpu.memory},
                      {"isa", {{"detected", name(detected_isa())}, {"active", name(active_isa())}}},
                      {"features", {{"f16c", cpu.f16c}, {"avx512_fp16", cpu.avx512_fp16}, {"amx_bf16", cpu.amx_bf16}}}};
    for (const auto& r : rates) {
      document["gflops"][std::string(name(r.dtype))] = r.gflops;
      document["native"][std::string(name(r.dtype))] = r.native;
    }
    document["memory_gb_per_second"] = {{"read", memory.read}, {"copy", memory.copy}};
    document["auto"] = {{"precision", plan.recipe.name}, {"reason", plan.reason}, {"measured", verdict(plan, rates)}};
    console.result(document);

    if (console.json()) return kSuccess;
    const std::string lowered = active_isa() == detected_isa() ? "" : fmt::format(" (lowered by MEZZO_ISA; this CPU has {})", name(detected_isa()));
    console.say(
        fmt::format("mezzo        {}\n"
                    "cpu          {}\n"
                    "cores        {}, of which {} used\n"
                    "caches       L1 {}, L2 {}, L3 {}\n"
                    "memory       {}; read {:.1f} GB/s, copy {:.1f} GB/s\n"
                    "kernels      {}{}\n"
                    "also has     {}\n",
                    version(), cpu.model, cpu.cores, num_threads(), format_bytes(cpu.l1d), format_bytes(cpu.l2), format_bytes(cpu.l3),
                    format_bytes(cpu.memory), memory.read, memory.copy, name(active_isa()), lowered, features(cpu)));
    Table table({"products of", "GFLOP/s", "against f32", "how"});
    for (const auto& r : rates)
      table.row({std::string(name(r.dtype)), fmt::format("{:.0f}", r.gflops), fmt::format("{:.2f}x", r.gflops / rates[0].gflops),
                 r.native ? "native" : "widened to f32: half the memory, f32's speed"});
    console.say(fmt::format("\n{}", table.text()));
    console.say(fmt::format("\n--precision auto means {}: {}\n{}", plan.recipe.name, plan.reason, verdict(plan, rates)));
    return kSuccess;
  }
};

}  // namespace

const Command kDoctor{"doctor", "What this CPU does in each precision, measured, and what --precision auto chooses",
                      [] { return std::unique_ptr<Task>(std::make_unique<Doctor>()); }};

}  // namespace mezzo::cli
