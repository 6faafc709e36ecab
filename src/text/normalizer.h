// normalizer.h - what a tokenizer does to text before it splits it: Unicode normal forms, spaces rewritten.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mezzo::text {

enum class NormalForm : std::uint8_t { nfc, nfd, nfkc, nfkd };  // Unicode Standard Annex 15
struct Prepend {
  std::string text;  ///< before what is not empty
};
struct Replace {
  std::string what, with;  ///< `what` is not empty
};
using Normalization = std::variant<NormalForm, Prepend, Replace>;

/// Steps, one after the other. Text is valid UTF-8.
class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<Normalization> steps) : steps_(std::move(steps)) {}
  bool changes_nothing() const noexcept { return steps_.empty(); }
  const std::vector<Normalization>& steps() const noexcept { return steps_; }
  std::string operator()(std::string_view text) const;

 private:
  std::vector<Normalization> steps_;
};

}  // namespace mezzo::text
