// json.cpp - JSON in and out of files.
#include "io/json.h"

#include <algorithm>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/file.h"

namespace mezzo::io {

std::string line_and_column(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::string_view last = before.substr(before.rfind('\n') + 1);  // npos + 1 is 0
  const auto column = 1 + std::count_if(last.begin(), last.end(), [](char c) { return (c & 0xC0) != 0x80; });
  return fmt::format("{}:{}", line, column);
}

std::string plain_message(std::string_view what) {
  // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error while parsing value - ..."
  if (const auto colon = what.find(": "); colon != what.npos) what.remove_prefix(colon + 2);
  std::string out(what);
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7F) c = '?';  // it quotes what it read, which may be anything
  return out;
}

Json parse_json(std::string_view text, std::string_view source) {
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::parse_error& e) {
    const std::size_t offset = e.byte > 0 ? e.byte - 1 : 0;  // its bytes count from 1
    fail("read", fmt::format("{}:{}: {}", source, line_and_column(text, offset), plain_message(e.what())));
  } catch (const nlohmann::json::exception& e) {  // a number too large for a double
    fail("read", fmt::format("{}: {}", source, plain_message(e.what())));
  }
}

Json read_json(const std::filesystem::path& path) { return parse_json(read_file(path), path.native()); }

std::string to_text(const Json& value, bool pretty) { return value.dump(pretty ? 2 : -1, ' ', false, Json::error_handler_t::replace); }

void write_json(const std::filesystem::path& path, const Json& value) { write_file(path, to_text(value, true) + '\n'); }

}  // namespace mezzo::io
