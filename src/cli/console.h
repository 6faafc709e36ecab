// console.h - where a command's words go: results to stdout, remarks and progress to stderr, with --json one document and nothing else to stdout.
#pragma once

#include <string_view>

#include "io/json.h"

namespace mezzo::cli {

class Console {
 public:
  explicit Console(bool json) : json_(json) {}
  /// Ends a line that stream() left open: an error follows on one of its own.
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;
  bool json() const { return json_; }
  /// A line (or several) for a person: stdout, but stderr with --json.
  void say(std::string_view text);
  /// Text of the result itself, as it comes, without a line's end: stdout, nowhere with --json.
  void stream(std::string_view text);
  /// A remark: stderr.
  void note(std::string_view text);
  /// The document of --json; nothing without it.
  void result(const io::Json&);
  /// False once stdout takes no more (a reader that went away, a full disk).
  bool open() const;
  /// Hands over everything. Error when stdout did not take it all.
  void finish();

 private:
  bool json_, open_line_ = false;
};

}  // namespace mezzo::cli
