// json.h - JSON in and out of files, with errors that say where. Only the forward declarations of the library: include
// <nlohmann/json.hpp> in the .cpp file that looks inside a value.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace mezzo::io {

using Json = nlohmann::ordered_json;  // objects keep the order they were written in

/// Parses one JSON document. Error "[read] source:line:column: what is wrong" otherwise; `source` is a path or a name for the text.
Json parse_json(std::string_view text, std::string_view source);
Json read_json(const std::filesystem::path&);

/// One line, or indented by two where `pretty`. Inf and NaN, which JSON does not have, become null; bytes that are not UTF-8 become U+FFFD.
std::string to_text(const Json&, bool pretty = false);
/// Indented, atomically.
void write_json(const std::filesystem::path&, const Json&);

/// "line:column", counted from 1, of the byte at `offset`; columns count code points.
std::string line_and_column(std::string_view text, std::size_t offset);
/// nlohmann's message for a syntax error, on one line, without its prefix and its position.
std::string plain_message(std::string_view what);

}  // namespace mezzo::io
