// console.cpp - writes to stdout and stderr, and notices an output that is gone.
#include "cli/console.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <nlohmann/json.hpp>

#include "core/fail.h"

namespace mezzo::cli {
namespace {

void put(std::FILE* file, std::string_view text) { std::fwrite(text.data(), 1, text.size(), file); }

}  // namespace

void Console::say(std::string_view text) {
  std::FILE* file = json_ ? stderr : stdout;
  put(file, text);
  if (!text.ends_with('\n')) put(file, "\n");
  std::fflush(file);
}

Console::~Console() {
  if (open_line_) put(stdout, "\n");
}

void Console::stream(std::string_view text) {
  if (json_ || text.empty()) return;
  open_line_ = !text.ends_with('\n');
  put(stdout, text);
  std::fflush(stdout);
}

void Console::note(std::string_view text) {
  put(stderr, text);
  if (!text.ends_with('\n')) put(stderr, "\n");
}

void Console::result(const io::Json& document) {
  if (!json_) return;
  put(stdout, io::to_text(document, true));
  put(stdout, "\n");
}

bool Console::open() const { return std::ferror(stdout) == 0; }

void Console::finish() {
  errno = 0;
  const bool bad = std::ferror(stdout) != 0;
  if (std::fflush(stdout) != 0 || bad) fail("output", fmt::format("stdout takes no more{}{}", errno ? ": " : "", errno ? std::strerror(errno) : ""));
}

}  // namespace mezzo::cli
