// runtime.h - threads, instruction set, log sink and memory accounts of this process.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include <mezzo/error.h>

namespace mezzo {

/// "major.minor.patch" of the library.
MEZZO_API std::string_view version();

// ---- threads ---------------------------------------------------------------------------------

/// Threads that kernels use, from now on. Default: MEZZO_NUM_THREADS, else the physical cores this
/// process may run on. Results are bit-identical only between runs with the same number.
/// Not while another thread is in a call of mezzo.
/// Error unless 1 <= n <= 4096.
MEZZO_API void set_num_threads(int n);
MEZZO_API int num_threads();

// ---- instruction set -------------------------------------------------------------------------

/// Instruction sets that mezzo has kernels for, weakest first.
enum class Isa : std::uint8_t { scalar /*x86-64 baseline*/, avx2, avx512, avx512_bf16 };
MEZZO_API std::string_view name(Isa);
/// What this CPU and operating system can run.
MEZZO_API Isa detected_isa();
/// What kernels use: detected_isa(), lowered by the environment variable
/// MEZZO_ISA=scalar|avx2|avx512|avx512_bf16, which is read once. Error if it names an unknown or absent set.
MEZZO_API Isa active_isa();

struct CpuInfo {
  std::string model;
  int cores = 1;                         ///< cores this process may run on
  std::int64_t l1d = 0, l2 = 0, l3 = 0;  ///< bytes, of one instance
  std::int64_t memory = 0;               ///< bytes of RAM, or the cgroup's limit where that is lower
  bool f16c = false, avx512_fp16 = false, amx_bf16 = false;
};
MEZZO_API const CpuInfo& cpu_info();

// ---- log -------------------------------------------------------------------------------------

enum class LogLevel : std::uint8_t { debug, info, warning };
using LogSink = std::function<void(LogLevel, std::string_view)>;
/// Where the library's messages go; empty (the default): nowhere. Returns the sink before, which is
/// not running any more (unless it is the caller). Messages come one at a time, from any thread; what a sink throws is dropped.
MEZZO_API LogSink set_log_sink(LogSink);

// ---- memory ----------------------------------------------------------------------------------

/// What a block of memory is for.
enum class Memory : std::uint8_t { weights, masters, gradients, optimizer, activations, cast_cache, workspace, data };
inline constexpr std::size_t kMemoryCategories = 8;
MEZZO_API std::string_view name(Memory);

/// Bytes that live tensors and kernels asked the allocator for, by category.
struct MemoryReport {
  std::array<std::int64_t, kMemoryCategories> bytes{};    ///< now
  std::array<std::int64_t, kMemoryCategories> at_peak{};  ///< when the sum was largest
  std::int64_t total = 0, peak = 0;                       ///< sums of the two
  std::int64_t reserved = 0;                              ///< held from the system, caches included
};
MEZZO_API MemoryReport memory_report();
/// Starts a new peak at the present total.
MEZZO_API void reset_peak_memory();
/// Gives cached blocks back to the system.
MEZZO_API void release_cached_memory();

}  // namespace mezzo
