// fail.cpp - the one place that throws Error, and edit distance for "did you mean".
#include "core/fail.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace mezzo {

void fail(std::string_view where, std::string_view text, std::string_view hint) {
  if (hint.empty()) throw Error(fmt::format("[{}] {}.", where, text));
  throw Error(fmt::format("[{}] {}. Hint: {}", where, text, hint));
}

namespace detail {

// Edits from one word to the other (Damerau-Levenshtein, restricted): a letter added, left out or changed, or two neighbours swapped; three rows of
// the table.
int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> twice_above, above(b.size() + 1), row(b.size() + 1);
  std::iota(above.begin(), above.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    row[0] = static_cast<int>(i) + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      row[j + 1] = std::min({above[j] + (a[i] != b[j]), above[j + 1] + 1, row[j] + 1});
      if (i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j])
        row[j + 1] = std::min(row[j + 1], twice_above[j - 1] + 1);  // two neighbours swapped
    }
    twice_above = above;
    std::swap(above, row);
  }
  return above[b.size()];
}

void internal_error(const char* condition, const char* file, int line) {
  throw std::logic_error(fmt::format("mezzo: internal error, {} does not hold at {}:{}", condition, file, line));
}

}  // namespace detail
}  // namespace mezzo
