// json_test.cpp - JSON files: round trips, and errors that say where.
#include "io/json.h"

#include <doctest/doctest.h>

#include <limits>

#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/support.h"

using namespace mezzo::io;
using namespace mezzo::test;

TEST_CASE("json: what is written is read back, keys in their order") {
  const TempDir dir;
  Json value = {{"zeta", 1}, {"alpha", {1.5, nullptr, true}}, {"text", "h\u00e9"}, {"tenth", 0.1}};
  write_json(dir / "a.json", value);
  CHECK(read_json(dir / "a.json") == value);
  CHECK(slurp(dir / "a.json").starts_with("{\n  \"zeta\": 1,\n  \"alpha\": ["));
  CHECK(slurp(dir / "a.json").ends_with("}\n"));
  CHECK(to_text(value) == "{\"zeta\":1,\"alpha\":[1.5,null,true],\"text\":\"h\u00e9\",\"tenth\":0.1}");
  CHECK(to_text(Json{{"inf", std::numeric_limits<double>::infinity()}, {"bad", "\xff"}}) == "{\"inf\":null,\"bad\":\"\xEF\xBF\xBD\"}");
}

TEST_CASE("json: an error is one line with path, line and column") {
  const TempDir dir;
  spit(dir / "bad.json", "{\n  \"a\": 1,\n  \"\u00e9\u00e9\": oops\n}\n");
  const std::string error = error_of([&] { read_json(dir / "bad.json"); });
  CHECK(error.starts_with("[read] " + (dir / "bad.json").native() + ":3:9: syntax error while parsing value"));
  for (const std::string text : {"", "{", "[1,]", "{\"a\" 1}", "1 2", "\"\xff\"", "nan", "\"a\nb\"", "{\"\x01\":1}"}) {
    const std::string e = error_of([&] { parse_json(text, "text"); });
    CAPTURE(e);
    CHECK(e.starts_with("[read] text:"));
    CHECK(e.find('\n') == e.npos);
  }
  CHECK(error_of([&] { parse_json("1e999", "text"); }).starts_with("[read] text: "));
  CHECK(line_and_column("ab\ncd", 4) == "2:2");
  CHECK(line_and_column("", 0) == "1:1");
}
