// format.h - numbers and tables for people.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mezzo::cli {

std::string format_bytes(std::int64_t bytes);  // "12.3 MiB"
std::string format_count(std::int64_t n);      // "12,345"
std::string format_files(std::int64_t n);      // "1 file", "12 files"
std::string format_seconds(double seconds);    // "1 min 20 s"
std::string format_ms(double ms);              // three significant digits
std::string format_loss(double loss);          // "2.3140", "nan", "inf"
std::string format_share(double share);        // "66.2 %"; less "0.004 %", and "under 0.001 %", but never 0 for what is not

/// Columns of text under headings; numbers (all but the first column) to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) { rows_.push_back(std::move(headings)); }
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  const std::vector<std::vector<std::string>>& rows() const { return rows_; }  ///< the headings first
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace mezzo::cli
