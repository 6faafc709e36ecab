// options.cpp - values from text and back, and the door to CLI11.
#include "cli/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include <fmt/format.h>
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <fmt/ranges.h>

#include "cli/command.h"
#include "core/fail.h"
#include "train/tuning.h"

namespace mezzo::cli {
namespace {

[[noreturn]] void refuse(std::string text, std::string_view hint = {}) {
  checking_usage([&] { fail("options", text, hint); });
  std::abort();  // fail() does not return
}

template <class T> std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

// ---- values ----------------------------------------------------------------------------------

template <class T>
requires std::integral<T>
void read_option(std::string_view name, const std::string& text, T& value) {
  const auto n = number<T>(text);
  if (!n) refuse(fmt::format("{} {} given, a whole number{} wanted", name, text, std::is_signed_v<T> ? "" : " of 0 or more"));
  value = *n;
}
template void read_option(std::string_view, const std::string&, int&);
template void read_option(std::string_view, const std::string&, std::int64_t&);
template void read_option(std::string_view, const std::string&, std::uint64_t&);

void read_option(std::string_view name, const std::string& text, double& value) {
  const auto n = number<double>(text);
  if (!n || !std::isfinite(*n)) refuse(fmt::format("{} {} given, a number wanted", name, text));
  value = *n;
}
void read_option(std::string_view name, const std::string& text, std::string& value) {
  (void)name;
  value = text;
}
void read_option(std::string_view name, const std::string& text, std::filesystem::path& value) {
  if (text.empty()) refuse(fmt::format("{} is empty, a path wanted", name));
  value = text;
}
void read_option(std::string_view name, const std::string& text, std::optional<std::int64_t>& value) { read_option(name, text, value.emplace()); }
void read_option(std::string_view, const std::string& text, optim::ScheduleKind& value) {
  value = checking_usage([&] { return optim::schedule_from_name(text); });
}
void read_option(std::string_view name, const std::string& text, std::optional<std::array<double, 2>>& value) {
  const auto comma = std::min(text.find(','), text.size());
  const auto a = number<double>(std::string_view(text).substr(0, comma)),
             b = number<double>(std::string_view(text).substr(std::min(comma + 1, text.size())));
  if (!a || !b) refuse(fmt::format("{} {} given, two numbers wanted, as in 0.9,0.95", name, text));
  value = std::array{*a, *b};
}
void read_option(std::string_view name, const std::string& text, std::vector<std::string>& value) {
  value.clear();
  for (std::size_t begin = 0; begin <= text.size();) {
    const auto end = std::min(text.find(',', begin), text.size());
    if (end == begin) refuse(fmt::format("{} {} given, names with commas between them wanted", name, text));
    value.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
}
void read_option(std::string_view, const std::string& text, text::Overlong& value) {
  value = checking_usage([&] { return train::overlong_from_name(text); });
}
void read_option(std::string_view, const std::string& text, text::TrainOn& value) {
  value = checking_usage([&] { return train::train_on_from_name(text); });
}
void read_option(std::string_view, const std::string& text, train::OnDivergence& value) {
  value = checking_usage([&] { return train::on_divergence_from_name(text); });
}

std::string show_option(double value) { return fmt::format("{}", value); }
std::string show_option(const std::string& value) { return value; }
std::string show_option(const std::filesystem::path& value) { return value.native(); }
std::string show_option(const std::optional<std::int64_t>& value) { return value ? std::to_string(*value) : ""; }
std::string show_option(optim::ScheduleKind value) { return std::string(optim::name(value)); }
std::string show_option(const std::vector<std::string>& value) { return fmt::format("{}", fmt::join(value, ",")); }
std::string show_option(text::Overlong value) { return std::string(train::name(value)); }
std::string show_option(train::OnDivergence value) { return std::string(train::name(value)); }
std::string show_option(text::TrainOn value) { return std::string(train::name(value)); }
std::string show_option(const std::optional<std::array<double, 2>>& value) { return value ? fmt::format("{},{}", (*value)[0], (*value)[1]) : ""; }

// ---- CLI11 -----------------------------------------------------------------------------------

namespace {

/// One option a line: names, what it takes, what it does, the default.
class HelpFormatter final : public CLI::Formatter {
 public:
  std::string usage;
  std::string make_usage(const CLI::App*, std::string name) const override { return fmt::format("\nusage: {} {}\n\n", name, usage); }
  std::string make_group(std::string group, bool positional, std::vector<const CLI::Option*> options) const override {
    std::string text = fmt::format("{}:\n", group);
    for (const auto* o : options) text += make_option(o, positional);
    return text;
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    const std::string what = option->get_type_name();
    return what.empty() ? what : fmt::format(" {}", what);
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    const std::string& shown = option->get_default_str();
    return option->get_description() + (shown.empty() ? "" : fmt::format(" [{}]", shown));
  }
};

}  // namespace

struct Options::Parser {
  struct Entry {
    CLI::Option* option;
    std::function<void(const std::string&)> set;  // of one that takes a value
    bool* flag = nullptr;
  };
  CLI::App app;
  std::shared_ptr<HelpFormatter> formatter = std::make_shared<HelpFormatter>();
  std::string group = "options";
  std::vector<Entry> entries;

  static std::string name_of(const CLI::Option* o) { return o->get_positional() ? o->get_name(true) : fmt::format("--{}", o->get_lnames().front()); }
  std::vector<std::string> names() const {
    std::vector<std::string> all{"--help"};
    for (const auto& e : entries)
      for (const auto& n : e.option->get_lnames()) all.push_back(fmt::format("--{}", n));
    return all;
  }
};

Options::Options(std::string command, std::string summary) : command_(std::move(command)), parser_(std::make_unique<Parser>()) {
  auto& app = parser_->app;
  app.name(command_);
  app.description(std::move(summary));
  app.allow_extras();
  app.set_help_flag("-h,--help", "This text")->group("");
  parser_->formatter->column_width(30);
  parser_->formatter->label("Positionals", "arguments");
  app.formatter(parser_->formatter);
}
Options::~Options() = default;

void Options::usage(std::string text) { parser_->formatter->usage = std::move(text); }
void Options::footer(std::string text) { parser_->app.footer(std::move(text)); }
void Options::group(std::string title) { parser_->group = std::move(title); }

void Options::flag(std::string names, bool& target, std::string help) {
  auto* option = parser_->app.add_flag(std::move(names))->description(std::move(help))->group(parser_->group);
  parser_->entries.push_back({option, {}, &target});
}

void Options::add(std::string names, std::string what, std::string help, std::string shown, std::function<void(const std::string&)> set) {
  auto* option = parser_->app.add_option(std::move(names))
                     ->description(std::move(help))
                     ->group(parser_->group)
                     ->type_name(std::move(what))
                     ->default_str(std::move(shown));
  parser_->entries.push_back({option, std::move(set), nullptr});
}

Options::Asked Options::parse(const std::vector<std::string>& arguments) {
  auto& p = *parser_;
  const auto names = p.names();
  const auto known = [&](const std::string& a) { return std::find(names.begin(), names.end(), a) != names.end(); };
  for (std::size_t i = 0; i + 1 < arguments.size(); ++i) {  // CLI11 would take the next option for the value of this one
    const auto e =
        std::find_if(p.entries.begin(), p.entries.end(), [&](const auto& entry) { return entry.set && entry.option->check_name(arguments[i]); });
    if (e != p.entries.end() && known(arguments[i + 1])) refuse(fmt::format("{} needs a value, {} follows", arguments[i], arguments[i + 1]));
  }
  try {
    p.app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 wants them in reverse
  } catch (const CLI::CallForHelp&) { return Asked::help; } catch (const CLI::ArgumentMismatch&) {
    for (const auto& e : p.entries) {  // one value is wanted: more of them are as wrong as none
      const auto times = std::count_if(arguments.begin(), arguments.end(),
                                       [&](const auto& a) { return a.starts_with('-') && e.option->check_name(a.substr(0, a.find('='))); });
      if (times > 1) refuse(fmt::format("{} is given {} times", Parser::name_of(e.option), times));
    }
    refuse(fmt::format("{} needs a value", arguments.back()));
  } catch (const CLI::ParseError& e) { refuse(e.what()); }

  if (const auto extras = p.app.remaining(); !extras.empty()) {
    const std::string& extra = extras.front();
    if (!extra.starts_with('-')) refuse(fmt::format("`{}` given, but no argument without an option's name is wanted there", extra));
    const std::string name = extra.substr(0, extra.find('='));
    refuse(fmt::format("unknown option `{}`", name),
           near_names(name, names).empty() ? fmt::format("`{} --help` lists the options", command_) : near_names(name, names));
  }
  for (const auto& e : p.entries)
    if (e.option->count() > 1) refuse(fmt::format("{} is given {} times", Parser::name_of(e.option), e.option->count()));
  apply();
  return Asked::run;
}

void Options::apply() const {
  for (const auto& e : parser_->entries) {
    if (e.option->count() == 0) continue;
    const std::string& text = e.option->results().front();
    if (e.set) {
      e.set(text);
    } else if (text == "true" || text == "false") {
      *e.flag = text == "true";
    } else {
      refuse(fmt::format("{}={} given, it takes no value", Parser::name_of(e.option), text));
    }
  }
}

bool Options::given(std::string_view name) const { return parser_->app[std::string(name)]->count() > 0; }
void Options::require(std::string_view name, std::string_view what) const {
  if (!given(name)) refuse(fmt::format("no {} given, {} wanted", name, what));
}
std::string Options::help() const { return parser_->app.help(); }

}  // namespace mezzo::cli
