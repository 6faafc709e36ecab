// cpu.cpp - instruction sets (CPUID, XGETBV, MEZZO_ISA), facts about the CPU, and the version.
#include <array>
#include <cstdlib>
#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <mezzo/runtime.h>

#include "core/fail.h"
#include "core/machine.h"

namespace mezzo {
namespace {

struct Features {
  Isa isa = Isa::scalar;
  bool f16c = false, avx512_fp16 = false, amx_bf16 = false;
};

#if defined(__x86_64__)
struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
  Leaf(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d); }
};

constexpr bool bit(unsigned word, int i) { return (word >> i & 1u) != 0; }

// Register state that the operating system saves on a context switch (Intel SDM vol. 1, 13.3): an instruction set whose
// registers are not saved must not be used, whatever CPUID says.
std::uint64_t saved_state() {
  if (!bit(Leaf(1, 0).c, 27)) return 0;  // OSXSAVE
  std::uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

Features detect() {
  const std::uint64_t saved = saved_state();
  const auto saves = [&](std::uint64_t mask) { return (saved & mask) == mask; };
  const bool os_ymm = saves(0x6), os_zmm = saves(0xe6), os_amx = saves(0x60000);
  const Leaf l1(1, 0), l7(7, 0), l7_1(7, 1), extended(0x80000001u, 0);
  Features f;
  f.f16c = os_ymm && bit(l1.c, 29);
  const bool fma = bit(l1.c, 12), bmi = bit(l7.b, 3) && bit(l7.b, 8), lzcnt = bit(extended.c, 5);
  const bool avx2 = os_ymm && bit(l7.b, 5) && fma && f.f16c && bmi && lzcnt;
  const bool avx512 =
      avx2 && os_zmm && bit(l7.b, 16) /*F*/ && bit(l7.b, 17) /*DQ*/ && bit(l7.b, 28) /*CD*/ && bit(l7.b, 30) /*BW*/ && bit(l7.b, 31) /*VL*/;
  f.isa = !avx2 ? Isa::scalar : !avx512 ? Isa::avx2 : !bit(l7_1.a, 5) ? Isa::avx512 : Isa::avx512_bf16;
  f.avx512_fp16 = avx512 && bit(l7.d, 23);
  f.amx_bf16 = os_amx && bit(l7.d, 22) && bit(l7.d, 24);
  return f;
}
#else
Features detect() { return {}; }
#endif

const Features& features() {
  static const Features f = detect();
  return f;
}

constexpr std::array<std::string_view, 4> kIsaNames = {"scalar", "avx2", "avx512", "avx512_bf16"};

Isa isa_from_environment() {
  const char* wanted = std::getenv("MEZZO_ISA");
  if (!wanted || !*wanted) return detected_isa();
  for (std::size_t i = 0; i < kIsaNames.size(); ++i) {
    if (kIsaNames[i] != wanted) continue;
    if (static_cast<Isa>(i) > detected_isa())
      fail("active_isa", fmt::format("MEZZO_ISA={} but this machine's best is {}", wanted, name(detected_isa())),
           "unset MEZZO_ISA, or name a weaker set");
    return static_cast<Isa>(i);
  }
  fail("active_isa", fmt::format("MEZZO_ISA={} is not one of scalar, avx2, avx512, avx512_bf16", wanted), near_names(wanted, kIsaNames));
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const auto colon = line.find(": ");
    if (colon != line.npos) return line.substr(colon + 2);
  }
  return "unknown";
}

CpuInfo collect_info() {
  CpuInfo info;
  info.model = cpu_model();
  info.cores = usable_cores();
  info.memory = usable_memory();
  info.l1d = data_cache(1);
  info.l2 = data_cache(2);
  info.l3 = data_cache(3);
  info.f16c = features().f16c;
  info.avx512_fp16 = features().avx512_fp16;
  info.amx_bf16 = features().amx_bf16;
  return info;
}

}  // namespace

std::string_view version() { return MEZZO_VERSION; }

std::string_view name(Isa isa) { return kIsaNames[static_cast<std::size_t>(isa)]; }

Isa detected_isa() { return features().isa; }

Isa active_isa() {
  static const Isa isa = isa_from_environment();
  return isa;
}

const CpuInfo& cpu_info() {
  static const CpuInfo info = collect_info();
  return info;
}

}  // namespace mezzo
