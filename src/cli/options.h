// options.h - the options of a command: declared once with their defaults, parsed (by CLI11), explained.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/optim.h>

#include "text/examples.h"
#include "train/divergence.h"

namespace mezzo::cli {

/// What text stands for, as a value of the target's type; a UsageError says what was wanted.
template <class T>
requires std::integral<T>
void read_option(std::string_view name, const std::string& text, T& value);
void read_option(std::string_view name, const std::string& text, double& value);
void read_option(std::string_view name, const std::string& text, std::string& value);
void read_option(std::string_view name, const std::string& text, std::filesystem::path& value);
void read_option(std::string_view name, const std::string& text, std::optional<std::int64_t>& value);
void read_option(std::string_view name, const std::string& text, optim::ScheduleKind& value);
void read_option(std::string_view name, const std::string& text, std::optional<std::array<double, 2>>& value);  // "0.9,0.95"
void read_option(std::string_view name, const std::string& text, std::vector<std::string>& value);              // "q_proj,v_proj"
void read_option(std::string_view name, const std::string& text, text::Overlong& value);
void read_option(std::string_view name, const std::string& text, text::TrainOn& value);
void read_option(std::string_view name, const std::string& text, train::OnDivergence& value);

/// The value as --help shows it; empty: not shown.
std::string show_option(std::integral auto value) { return std::to_string(value); }
std::string show_option(double value);
std::string show_option(const std::string& value);
std::string show_option(const std::filesystem::path& value);
std::string show_option(const std::optional<std::int64_t>& value);
std::string show_option(optim::ScheduleKind value);
std::string show_option(const std::optional<std::array<double, 2>>& value);
std::string show_option(const std::vector<std::string>& value);
std::string show_option(text::Overlong value);
std::string show_option(text::TrainOn value);
std::string show_option(train::OnDivergence value);

class Options {
 public:
  /// `command` as it is called, "mezzo train".
  Options(std::string command, std::string summary);
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  /// What --help shows behind the command's name, and at its end.
  void usage(std::string text);
  void footer(std::string text);
  /// Heading of the options declared next.
  void group(std::string title);
  void flag(std::string names, bool& target, std::string help);
  /// `names`: "--clip-norm,--clip"; `what`: "N", "FILE|DIR". The target's value now is the default.
  // NOLINTNEXTLINE(performance-unnecessary-value-param): moved, which clang-tidy does not see in a template
  template <class T> void value(std::string names, std::string what, T& target, std::string help) {
    const std::string name = names.substr(0, names.find(','));
    add(std::move(names), std::move(what), std::move(help), show_option(target),
        [name, &target](const std::string& text) { read_option(name, text, target); });
  }

  /// An argument without a name before it; `what` is what --help, given() and require() call it.
  // NOLINTNEXTLINE(performance-unnecessary-value-param)
  template <class T> void positional(std::string what, T& target, std::string help) {
    add(what, "", std::move(help), "", [what, &target](const std::string& text) { read_option(what, text, target); });
  }

  enum class Asked : std::uint8_t { run, help };
  /// Reads `arguments` into the targets. UsageError for whatever cannot be understood.
  Asked parse(const std::vector<std::string>& arguments);
  /// Writes what was given into the targets once more (over values that came from elsewhere meanwhile).
  void apply() const;
  /// Whether the option `name` ("--seq") was on the command line.
  bool given(std::string_view name) const;
  /// Error unless it was.
  void require(std::string_view name, std::string_view what) const;
  std::string help() const;
  const std::string& command() const { return command_; }

 private:
  void add(std::string names, std::string what, std::string help, std::string shown, std::function<void(const std::string&)> set);

  struct Parser;
  std::string command_;
  std::unique_ptr<Parser> parser_;
};

}  // namespace mezzo::cli
