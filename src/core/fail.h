// fail.h - how the library reports a user's mistake, and how it checks its own.
#pragma once

#include <string>
#include <string_view>

#include <fmt/core.h>

#include <mezzo/error.h>

namespace mezzo {

/// Throws Error("[where] text. Hint: hint"). `text` says what was given and what was wanted.
[[noreturn]] void fail(std::string_view where, std::string_view text, std::string_view hint = {});

/// The names nearest to `given` by edit distance, as "did you mean `a`, `b`?"; empty if none is near.
template <class Names> std::string near_names(std::string_view given, const Names& names);

namespace detail {
int edit_distance(std::string_view a, std::string_view b);
[[noreturn]] void internal_error(const char* condition, const char* file, int line);
}  // namespace detail

template <class Names> std::string near_names(std::string_view given, const Names& names) {
  std::string out;
  for (const auto& n : names) {
    const std::string_view candidate(n);
    const int limit = candidate.size() < 5 ? 1 : candidate.size() < 9 ? 2 : 3;
    if (detail::edit_distance(given, candidate) > limit && (given.size() < 3 || candidate.find(given) == candidate.npos)) continue;
    out += fmt::format("{}`{}`", out.empty() ? "did you mean " : ", ", candidate);
  }
  if (!out.empty()) out += '?';
  return out;
}

}  // namespace mezzo

/// Our own mistakes: an internal invariant. Throws std::logic_error, always compiled in (keep it out of inner loops).
#define MEZZO_CHECK(condition)                                                         \
  do {                                                                                 \
    if (!(condition)) ::mezzo::detail::internal_error(#condition, __FILE__, __LINE__); \
  } while (false)
