// regex.h - regular expressions of tokenizers, by PCRE2: compiled once, matched by machine code, from any number of threads.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace mezzo::text {

class Regex {
 public:
  /// Unicode throughout, in the dialect of tokenizer files (Oniguruma's and Rust's): \s is White_Space, which PCRE2's is not quite. Error that says
  /// where the pattern is wrong; `source` is what it was read from.
  Regex(std::string_view pattern, std::string_view source);
  struct Match {
    std::size_t begin, end;
  };
  /// The first match at or after `from` in valid UTF-8; none at the end. Error if the pattern takes too many steps.
  std::optional<Match> find(std::string_view text, std::size_t from) const;
  const std::string& pattern() const noexcept;  ///< as it was given

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace mezzo::text
