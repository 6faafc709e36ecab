// step_lines.cpp - finds the lines up to a step, cuts off what follows, and appends.
#include "train/step_lines.h"

#include <optional>

#include <nlohmann/json.hpp>

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;

/// The object of a line, if it has a step.
std::optional<io::Json> parse(std::string_view line) {
  io::Json j = io::Json::parse(line, nullptr, false);
  const auto step = j.is_object() ? j.find("step") : j.end();
  if (step == j.end() || !step->is_number_integer()) return std::nullopt;
  return j;
}

/// use(line, offset behind it) for each whole line until it returns false.
template <class F> void each_line(const fs::path& file, F use) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return;
  const std::string text = io::read_file(file);
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
    if (!use(std::string_view(text).substr(begin, end - begin), end + 1)) return;
}

}  // namespace

StepLines::Kept StepLines::find_kept(const fs::path& file, std::int64_t done) {
  Kept kept;
  if (done < 0) return kept;
  each_line(file, [&](std::string_view line, std::size_t end) {
    const auto j = parse(line);
    if (!j || (*j)["step"].get<std::int64_t>() > done) return false;
    kept.bytes = end;
    ++kept.lines;
    return true;
  });
  return kept;
}

StepLines::StepLines(fs::path file, std::int64_t done) : kept_(find_kept(file, done)), lines_(std::move(file), kept_.bytes) {}

void StepLines::append(std::string_view line) {
  lines_.append(line);
  lines_.flush();
}

void for_each_step_line(const fs::path& file, const std::function<void(const io::Json&)>& use) {
  each_line(file, [&](std::string_view line, std::size_t) {
    if (const auto j = parse(line)) use(*j);
    return true;
  });
}

}  // namespace mezzo::train
