// jinja_test.cpp - templates render as transformers' Jinja renders them; what they may not do is refused, with the line.
#include "text/jinja.h"

#include <ctime>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "io/support.h"

using namespace mezzo;
using namespace mezzo::test;
using text::JinjaTemplate;

namespace {

std::string render(std::string_view source, const io::Json& variables = io::Json::object(), const JinjaTemplate::Options& options = {}) {
  return JinjaTemplate(source).render(variables, options).text;
}
std::string error(std::string_view source, const io::Json& variables = io::Json::object(), const JinjaTemplate::Options& options = {}) {
  std::string message = error_of([&] { render(source, variables, options); });
  CHECK(message.ends_with('.'));
  message.pop_back();
  return message;
}

/// Template and variables of a case in chat_templates.json, which names what several share.
std::pair<std::string, io::Json> expanded(const io::Json& golden, const io::Json& one) {
  const io::Json& given = one.at("variables");
  const std::string source = one.at("template");
  if (given == "X") return {source, golden.at("X")};
  return {golden.at("templates").at(source),
          {{"messages", golden.at("conversations").at(given.at("messages").get<std::string>())},
           {"tools", given.at("tools").get<bool>() ? golden.at("tools") : io::Json()},
           {"documents", nullptr},
           {"add_generation_prompt", given.at("add_generation_prompt")},
           {"bos_token", "<s>"},
           {"eos_token", "</s>"}}};
}

}  // namespace

TEST_CASE("jinja: every case of the golden file, text for text") {
  const io::Json golden = io::read_json("tests/golden/chat_templates.json");
  // The golden clock is UTC's: that of this machine at the moment when it shows the same.
  std::tm clock{};
  const std::time_t utc = golden.at("origin").at("now").get<std::int64_t>();
  ::gmtime_r(&utc, &clock);
  const std::int64_t now = std::mktime(&clock);
  int texts = 0, errors = 0;
  for (const io::Json& one : golden.at("cases")) {
    const auto expansion = expanded(golden, one);
    const auto& source = expansion.first;
    const auto& variables = expansion.second;
    CAPTURE(one.at("name").get<std::string>());
    CAPTURE(source);
    JinjaTemplate::Result result;
    const std::string message = error_of([&] { result = JinjaTemplate(source).render(variables, {.now = now}); });
    if (one.contains("error")) {
      CHECK(message.starts_with("[chat template] template:"));
      ++errors;
      continue;
    }
    CHECK(message == "no error");
    CHECK(result.text == one.at("text").get<std::string>());
    std::vector<std::string> marked;
    for (const auto [begin, end] : result.generation)
      marked.push_back(result.text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
    CHECK(marked == one.value("generation", std::vector<std::string>()));
    ++texts;
  }
  CHECK(texts > 500);
  CHECK(errors > 100);
}

TEST_CASE("jinja: an error says where and what") {
  CHECK(error("a\n\n{% if x %}\n{{ y.z }}{% endif %}", {{"x", 1}}) == "[chat template] template:4: `y` is undefined");
  CHECK(error("\n{{ 'a' + 1 }}") == "[chat template] template:2: a string + an integer: there is no such sum");
  CHECK(error("{# a\nb #}\n{% include 'x' %}") == "[chat template] template:3: statement `include` is not supported");
  CHECK(error("{%- if a %}\r\n  {{ b | frobnicate }}") == "[chat template] template:2: filter `frobnicate` is not supported");
  CHECK(error("{{ 1 is prime }}") == "[chat template] template:1: test `prime` is not supported");
  CHECK(error("{{ 'a'.format(1) }}") == "[chat template] template:1: method `format` of a string is not supported");
  CHECK(error("{{ f(*x) }}") == "[chat template] template:1: `*` before an argument is not supported");
  CHECK(error("{{ '%d' % 1 }}") == "[chat template] template:1: `%` after a string (printf's formats) is not supported");
  CHECK(error("x\n{% for a in b recursive %}{% endfor %}") == "[chat template] template:2: `recursive` is not supported");
  CHECK(error("{% for a in [1] %}\n{% macro m() %}{% endmacro %}{% endfor %}") ==
        "[chat template] template:2: {% macro %} inside of a loop or of another block with variables of its own is not supported");
  CHECK(contains(error("{% macro m() %}\n{% generation %}{% endgeneration %}{% endmacro %}"), "template:2: {% generation %} inside of a macro"));
  CHECK(error("a\n{{ raise_exception('roles must alternate') }}") == "[chat template] template:2: the template refuses this: roles must alternate");
  CHECK(error("{% if a %}\n\n{{ b }}\n") == "[chat template] template:3: the end of the template, {% endif %} was expected");
  CHECK(error("{{ a b }}") == "[chat template] template:1: `b`, `}}` was expected");
  CHECK(error("{% set x = [1, 2 %}") == "[chat template] template:1: unexpected `}`, `]` was expected");
  CHECK(error("\n{{ 'abc }}") == "[chat template] template:2: a string does not end");
  CHECK(error("{% set d = {} %}\n{% set d.x = 1 %}") == "[chat template] template:2: `d.x` is set, and `d` is no namespace");
  CHECK(contains(error("{{ l | map('upper') }}", {{"l", {1}}}), "a generator cannot be written"));
  CHECK(contains(error_of([] { JinjaTemplate("{% bad %}", "dir/chat_template.jinja"); }),
                 "[chat template] dir/chat_template.jinja:1: statement `bad`"));
}

TEST_CASE("jinja: a template cannot take more than it may") {
  const JinjaTemplate::Options small{.limits = {.output = 1000, .work = 100'000}};
  CHECK(contains(error("{% for i in range(1000) %}0123456789{% endfor %}", {}, small), "more than 1000 bytes of text"));
  CHECK(contains(error("{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}", {}, small),
                 "more than 100000 steps and bytes of work"));
  // Doubling, in text, in a list whose parts are shared, and through filters.
  CHECK(contains(error("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", {}, small), "of work"));
  CHECK(contains(error("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s == ns.s }}"),
                 "a list or dict of more than"));
  CHECK(contains(error("{{ 'x' * 9223372036854775807 }}"), "of work"));
  CHECK(contains(error("{{ 'aaaaaaaa' | replace('a', 'b' * 50000) }}", {}, small), "of work"));
  CHECK(contains(error("{{ [[[[1]]]] | tojson(indent='x' * 40000) }}", {}, small), "bytes of JSON"));
  CHECK(contains(error("{% set ns = namespace(s=1) %}{% for i in range(200) %}{% set ns.s = [ns.s] %}{% endfor %}"), "deep in each other"));
  CHECK(contains(error("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"), "macros too deep in each other"));
  CHECK(contains(error("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}"), "in each other"));
  std::string sum = "1";
  for (int i = 0; i < 5000; ++i) sum += "+1";
  CHECK(contains(error("{{ " + sum + " }}"), "in each other"));
  io::Json deep = 1;
  for (int i = 0; i < 5000; ++i) deep = io::Json::array({std::move(deep)});
  CHECK(contains(error("", {{"x", deep}}), "deep in each other"));
  CHECK(contains(error("{{ 9223372036854775807 + 1 }}"), "an integer of more than 64 bits"));
  CHECK(contains(error("{{ 9223372036854775808 }}"), "has more than 64 bits"));
}

TEST_CASE("jinja: namespaces that hold each other are given back") {
  CHECK(render("{% set a = namespace() %}{% set a.self = a %}{% set a.list = [a, a] %}{% for i in [a] %}{% set a.loop = loop %}{% endfor %}{{ "
               "a.self.list|length }}") == "2");
}

TEST_CASE("jinja: text that is not UTF-8 goes through as it is") {
  const std::string bad = "a\xff\xc3";
  CHECK(render("{{ x }}|{{ x | length }}|{{ x[1:] }}|{{ x | upper }}|{{ x | trim }}", {{"x", bad}}) == bad + "|3|\xff\xc3|A\xff\xc3|" + bad);
}
