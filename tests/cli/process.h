// process.h - the program run as a user runs it: arguments in, exit code and both outputs back.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace mezzo::test {

using Arguments = std::vector<std::string>;
Arguments join(Arguments a, const Arguments& b);

struct Result {
  int code = -1;  // exit code, or 1000 + the signal that ended it
  std::string out, err;
  /// Lines of err.
  std::vector<std::string> lines() const;
};

struct RunOptions {
  std::optional<std::uint64_t> file_limit = {};              // RLIMIT_FSIZE, bytes
  std::optional<std::uint64_t> address_limit = {};           // RLIMIT_AS, bytes
  std::string stdout_path = {};                              // instead of being caught
  std::function<bool()> interrupt_when = {};                 // SIGINT is sent when this becomes true, ...
  int signal = 2;                                            // instead of SIGINT
  int interrupts = 1;                                        // ... so many times, 50 ms apart
  std::optional<std::chrono::milliseconds> kill_after = {};  // SIGKILL is sent that long after the start
};
/// MEZZO_PROGRAM with these arguments. Killed after two minutes.
Result run(const Arguments& arguments, const RunOptions& = {});

/// A directory of its own, removed at the end of the scope.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).native(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void write(const std::string& path, const std::string& content);
std::string read(const std::string& path);
/// About `bytes` bytes of made-up English.
std::string some_text(std::size_t bytes);

}  // namespace mezzo::test
