// parts.h - where the time of a training step goes: a stopwatch for each kind of work. Off unless asked for; then two clock readings an op.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mezzo {

enum class Part : std::uint8_t { other, gemm_forward, gemm_input_grad, gemm_weight_grad, attention, norm, activation, head_loss, optimizer, cast };
inline constexpr std::size_t kParts = 10;
inline constexpr std::array<std::string_view, kParts> kPartNames{"other", "gemm_forward", "gemm_input_grad", "gemm_weight_grad", "attention",
                                                                 "norm",  "activation",   "head_loss",       "optimizer",        "cast"};
inline std::string_view name(Part p) { return kPartNames[static_cast<std::size_t>(p)]; }

/// This thread's stopwatch. Every moment between start() and stop() belongs to exactly one part: the innermost open PartScope's, else `other`.
class PartClock {
 public:
  using Seconds = std::array<double, kParts>;

  static void start() noexcept { mine() = {.on = true, .mark = Clock::now()}; }
  /// The seconds of each part since start(); their sum is the time that passed.
  static Seconds stop() noexcept {
    State& s = mine();
    if (s.on) s.charge();
    s.on = false;
    return s.seconds;
  }

 private:
  friend class PartScope;
  using Clock = std::chrono::steady_clock;
  struct State {
    bool on = false;
    Part current = Part::other;
    Clock::time_point mark{};
    Seconds seconds{};
    void charge() noexcept {
      const auto now = Clock::now();
      seconds[static_cast<std::size_t>(current)] += std::chrono::duration<double>(now - mark).count();
      mark = now;
    }
  };
  static State& mine() noexcept {
    static thread_local State state;
    return state;
  }
};

/// Charges this thread's time in a scope to `part`; a scope inside it interrupts it.
class PartScope {
 public:
  [[nodiscard]] explicit PartScope(Part part) noexcept {
    PartClock::State& s = PartClock::mine();
    if (!s.on) return;
    s.charge();
    before_ = s.current;
    s.current = part;
    open_ = true;
  }
  ~PartScope() {
    if (!open_) return;
    PartClock::State& s = PartClock::mine();
    if (!s.on) return;
    s.charge();
    s.current = before_;
  }
  PartScope(const PartScope&) = delete;
  PartScope& operator=(const PartScope&) = delete;

 private:
  Part before_ = Part::other;
  bool open_ = false;
};

}  // namespace mezzo
