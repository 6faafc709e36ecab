// progress.cpp - draws the line, and words it for training.
#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include <fmt/core.h>

#include "cli/format.h"

namespace mezzo::cli {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100), kPlain = std::chrono::milliseconds(5000);

std::size_t columns() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

bool is_terminal() {
  const char* kind = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && kind && std::string_view(kind) != "dumb";
}

}  // namespace

ProgressLine::ProgressLine()
    : terminal_(is_terminal()), interval_(terminal_ ? kRedraw : kPlain), last_(Clock::now() - (terminal_ ? kRedraw : Clock::duration::zero())) {}

bool ProgressLine::due() const { return Clock::now() - last_ >= interval_; }

void ProgressLine::update(std::string_view text) {
  if (!due()) return;
  last_ = Clock::now();
  if (!terminal_) {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
    return;
  }
  std::fprintf(stderr, "\r%.*s\x1b[K", static_cast<int>(std::min(text.size(), columns() - 1)), text.data());
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressLine::keep(std::string_view text) {
  clear();
  std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
}

void ProgressLine::clear() {
  if (drawn_) std::fprintf(stderr, "\r\x1b[K");
  std::fflush(stderr);
  drawn_ = false;
}

std::string describe(const train::Progress& p) {
  std::string text = fmt::format("step {}/{}  loss {}  {} tokens/s", p.step, p.steps, format_loss(p.loss),
                                 format_count(static_cast<std::int64_t>(p.tokens_per_second)));
  if (p.scale != 1) text += fmt::format("  scale {}", p.scale);
  if (p.skipped > 0) text += fmt::format("  skipped {}", p.skipped);
  return text + fmt::format("  ETA {}", format_seconds(p.eta_seconds));
}

std::string describe_share(std::string_view what, std::int64_t done, std::int64_t all, std::chrono::steady_clock::time_point begin) {
  const double passed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double left = done > 0 ? passed * static_cast<double>(all - done) / static_cast<double>(done) : 0;
  return fmt::format("{} {}/{}  ETA {}", what, format_count(done), format_count(all), format_seconds(left));
}

}  // namespace mezzo::cli
