// examples_test.cpp - lines of JSONL as tokens: which carry loss, what is refused and how, what becomes of what is too long.
#include "text/examples.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/support.h"
#include "model_file.h"

using namespace mezzo;
using namespace mezzo::test;
using text::ChatTemplate;
using text::Example;
using text::ExampleOptions;
using text::ExampleSet;
using text::Overlong;

namespace {

const ByteTokenizer kBytes;

/// Bytes are tokens, a space and the letter after it are one (id 256 + letter), and so are </s> (512) and <s> (513).
struct SpacedTokens final : Tokenizer {
  explicit SpacedTokens(bool adds_begin = false) : adds_begin(adds_begin) {}
  std::string_view kind() const override { return "spaced"; }
  std::int32_t vocab_size() const override { return 514; }
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& = {}) const override {
    std::vector<std::int32_t> out;
    while (!text.empty()) {
      std::size_t n = 1;
      if (text.starts_with("</s>")) out.push_back(512), n = 4;
      else if (text.starts_with("<s>")) out.push_back(513), n = 3;
      else if (text[0] == ' ' && text.size() > 1) out.push_back(256 + static_cast<unsigned char>(text[1])), n = 2;
      else out.push_back(static_cast<unsigned char>(text[0]));
      text.remove_prefix(n);
    }
    return out;
  }
  std::string_view bytes_of(std::int32_t id) const override {
    static const auto kAll = [] {
      std::vector<std::string> all;
      for (int i = 0; i < 256; ++i) all.emplace_back(1, static_cast<char>(i));
      for (int i = 0; i < 256; ++i) all.push_back(" " + all[static_cast<std::size_t>(i)]);
      all.insert(all.end(), {"</s>", "<s>"});
      return all;
    }();
    return kAll[static_cast<std::size_t>(id)];
  }
  std::optional<std::int32_t> begin_of_text() const override { return 513; }
  bool adds_begin_of_text() const override { return adds_begin; }
  std::optional<std::int32_t> end_of_text() const override { return 512; }
  bool adds_begin;
};

const ChatTemplate& chat() {
  static const ChatTemplate chat(
      "{{ bos_token }}{% for m in messages %}{{ '<' ~ m.role[0] ~ '>' ~ m.content ~ eos_token }}{% endfor %}{% if add_generation_prompt %}<a>{% "
      "endif %}",
      {.bos_token = "<s>", .eos_token = "</s>"});
  return chat;
}

/// The tokens as text, those that carry loss between brackets.
std::string shown(const Example& e, const Tokenizer& tokenizer) {
  std::string out;
  bool inside = false;
  for (std::size_t i = 0; i < e.ids.size(); ++i) {
    if (std::exchange(inside, e.counted[i] != 0) != inside) out += inside ? "[" : "]";
    out += tokenizer.bytes_of(e.ids[i]);
  }
  return inside ? out + "]" : out;
}

ExampleSet parse(std::string_view jsonl, const ExampleOptions& options = {}, const Tokenizer& tokenizer = SpacedTokens()) {
  return text::parse_examples(jsonl, "chat.jsonl", tokenizer, &chat(), options);
}
std::string line(std::string_view jsonl, const Tokenizer& tokenizer = SpacedTokens(), const ExampleOptions& options = {}) {
  return shown(parse(jsonl, options, tokenizer).examples.at(0), tokenizer);
}
std::string error(std::string_view jsonl, const ExampleOptions& options = {}) {
  return error_of([&] { parse(jsonl, options); });
}

}  // namespace

TEST_CASE("examples: what carries loss, token by token") {
  const char* kChat =
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}, {"role": "user", "content": "x"}, {"role": "assistant", "content": " z"}]})";
  CHECK(line(kChat) == "<s><u>Hi</s><a>[Yo</s>]<u>x</s><a>[ z</s>]");
  CHECK(line(kChat, SpacedTokens(true)) == "<s><u>Hi</s><a>[Yo</s>]<u>x</s><a>[ z</s>]");  // the template's begin token is the only one
  CHECK(line(kChat, SpacedTokens(), {.train_on = text::TrainOn::everything}) == "[<s><u>Hi</s><a>Yo</s><u>x</s><a> z</s>]");
  CHECK(line(R"({"conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]})") ==
        "<s><s>S</s><u>Hi</s><a>[Yo</s>]");
  CHECK(line(R"({"prompt": "2+2=", "completion": "4"})") == "2+2=[4</s>]");
  CHECK(line(R"({"prompt": "2+2=", "completion": "4"})", SpacedTokens(true)) == "<s>2+2=[4</s>]");
  CHECK(line(R"({"prompt": "a ", "completion": "bc"})") == "a[ bc</s>]");  // the token ` b` begins in the prompt and ends in the completion
  CHECK(line(R"({"text": "abc"})") == "[abc</s>]");
  CHECK(line(R"({"text": "abc"})", kBytes) == "[abc]");  // bytes have no end token
  CHECK(line(R"({"prompt": "p", "completion": "c", "id": 7})", SpacedTokens(), {.train_on = text::TrainOn::everything}) == "[pc</s>]");

  const Example e = parse(R"({"prompt": "ab", "completion": "cd"})").examples.at(0);
  CHECK(e.ids == std::vector<std::int32_t>{'a', 'b', 'c', 'd', 512});
  CHECK(e.counted == std::vector<std::uint8_t>{0, 0, 1, 1, 1});
  CHECK(e.length() == 4);
  CHECK(e.targets() == 3);
}

TEST_CASE("examples: a token that ends behind the assistant's text does not carry loss") {
  const ChatTemplate joined(
      "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% "
      "endfor %}");
  const SpacedTokens tokens;
  const io::Json messages = {{{"role", "user"}, {"content", "a "}}, {{"role", "assistant"}, {"content", "b "}}, {{"role", "user"}, {"content", "c"}}};
  CHECK(shown(text::encode_chat(joined, tokens, messages), tokens) == "a[ b] c");
}

TEST_CASE("examples: ids and marks are those of transformers, where a template marks what is generated") {
  const io::Json golden = io::read_json("tests/golden/chat_templates.json");
  const ChatTemplate marked(golden.at("templates").at("chatml marked"), {.eos_token = "<|im_end|>"});
  int assistant = 0;
  for (const io::Json& one : golden.at("masks")) {
    const std::string name = one.at("tokenizer"), conversation = one.at("conversation");
    CAPTURE(name);
    CAPTURE(conversation);
    const auto tokenizer = load_tokenizer("tests/golden/tokenizers/" + name + ".json");
    const Example e = text::encode_chat(marked, *tokenizer, golden.at("conversations").at(conversation));
    CHECK(e.ids == one.at("ids").get<std::vector<std::int32_t>>());
    CHECK(e.counted == one.at("mask").get<std::vector<std::uint8_t>>());
    assistant += static_cast<int>(e.targets());
  }
  CHECK(assistant > 100);
}

TEST_CASE("examples: lines, blank ones, tools, and where they came from") {
  const ExampleSet set = parse("\xEF\xBB\xBF{\"text\": \"a\"}\r\n\n  \n{\"text\": \"bc\"}\n{\"prompt\": \"\", \"completion\": \"d\"}");
  REQUIRE(set.examples.size() == 3);
  CHECK(set.counts.lines == 3);
  CHECK(set.examples[0].line == 1);
  CHECK(set.examples[1].line == 4);
  CHECK(set.examples[2].line == 5);
  CHECK(set.tokens() == 1 + 2 + 1);
  CHECK(set.targets() == 1 + 2 + 1);  // a first token is never a target

  const ChatTemplate with_tools("{{ tools[0].name if tools else '-' }}{% for m in messages %}{{ m.content }}{{ m.extra }}{% endfor %}");
  const auto text_of = [&](std::string_view jsonl) {
    return kBytes.decode(text::parse_examples(jsonl, "x", kBytes, &with_tools, {.train_on = text::TrainOn::everything}).examples.at(0).ids);
  };
  CHECK(text_of(R"({"messages": [{"role": "user", "content": "c", "extra": 5}], "tools": [{"name": "add"}]})") == "addc5");
  CHECK(text_of(R"({"messages": [{"role": "user", "content": "c"}], "tools": null})") == "-c");

  const TempDir dir;
  spit(dir / "a.jsonl", "{\"text\": \"abc\"}\n");
  CHECK(text::read_examples(dir / "a.jsonl", kBytes, nullptr).examples.at(0).ids == std::vector<std::int32_t>{'a', 'b', 'c'});
  CHECK(contains(error_of([&] { text::read_examples(dir / "none.jsonl", kBytes, nullptr); }), (dir / "none.jsonl").native()));
}

TEST_CASE("examples: a line that cannot be used is named, with what was expected") {
  const std::string good = "{\"text\": \"a\"}\n";
  const auto says = [&](std::string_view bad, std::string_view what) {
    const std::string message = error(good + std::string(bad) + "\n" + good);
    CAPTURE(message);
    CHECK(message.starts_with("[data] chat.jsonl:2:"));
    CHECK(contains(message, what));
  };
  says(R"({"text": "a")", "chat.jsonl:2:13: syntax error while parsing object - unexpected end of input; expected '}'");
  says(R"({"text": "a"} x)", "chat.jsonl:2:15: syntax error");
  says("{\"text\": \"\xff\"}", "chat.jsonl:2: byte 10 (0xff) is not UTF-8");
  says("[1]", R"(chat.jsonl:2: array: {"messages": [...]}, {"prompt": "...", "completion": "..."} or {"text": "..."} was expected)");
  says("{}", "an object without members: {\"messages\"");
  says(R"({"txt": "a"})", "an object with `txt`: {\"messages\"");
  says(R"({"text": 1})", "`text` is number, a string was expected");
  says(R"({"text": ""})", "`text` is empty");
  says(R"({"prompt": "a"})", "`completion` is missing, a string was expected");
  says(R"({"completion": "a"})", "`prompt` is missing");
  says(R"({"prompt": "a", "completion": ""})", "`completion` is empty");
  {
    const ChatTemplate deaf("hello");
    const std::string line = R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})";
    CHECK(contains(error_of([&] { text::parse_examples(line, "chat.jsonl", kBytes, &deaf); }),
                   "the template writes nothing of the turns of the assistant: there is nothing to learn. Hint: --chat-template gives another one"));
  }
  says(R"({"messages": []})", "no turn of the assistant: there is nothing to learn");
  says(R"({"messages": [{"role": "user", "content": "a"}]})", "no turn of the assistant");
  says(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]})",
       "chat.jsonl:2: turn 2, of the assistant, is empty. Hint: ");
  says(R"({"messages": [{"content": "a"}]})", "turn 1 has no role");
  says(R"({"messages": [{"role": "user", "content": 5}, {"role": "assistant", "content": "a"}]})",
       "turn 1: `content` is number, a string was expected");
  says(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": true}]})", "turn 2: `content` is boolean, a string was");
  says(R"({"messages": {"role": "user"}})", "messages are object, an array of objects was expected");
  says(R"({"conversations": [{"from": "robot", "value": "a"}]})", "turn 1 is from \"robot\", human, gpt, system or tool was expected");
  says(R"({"conversations": [{"from": "gpt"}]})", "`value` is missing, a string was expected");
  CHECK(contains(error_of([] { text::parse_examples(R"({"messages": []})", "x", kBytes, nullptr); }),
                 "x:1: a conversation, and the model has no chat template"));
  CHECK(contains(error("x"), "Hint: skip_bad_lines"));

  const ExampleSet set = parse(good + "{\n" + good + "{\"text\": 1}\n" + good, {.skip_bad_lines = true});
  CHECK(set.examples.size() == 3);
  CHECK(set.counts.bad_lines == 2);
  CHECK(set.counts.lines == 5);
  CHECK(set.counts.first_bad.starts_with("chat.jsonl:2:2: syntax error"));
  CHECK(contains(error("{\n[]", {.skip_bad_lines = true}),
                 "chat.jsonl: no example is left of 2 lines: 2 bad, 0 longer than the window of 1024 tokens, 0 dropped; the first: chat.jsonl:1:"));
  CHECK(contains(error(""), "no example is left of 0 lines"));
}

TEST_CASE("examples: longer than the window: split without losing a target, cut, dropped") {
  const std::string lines = R"({"text": "abcdefgh"})"
                            "\n"
                            R"({"text": "xy"})"
                            "\n";
  const auto ids = [](const ExampleSet& set) {
    std::vector<std::string> out;
    for (const Example& e : set.examples) out.push_back(kBytes.decode(e.ids));
    return out;
  };
  using Texts = std::vector<std::string>;
  const auto set = [&](Overlong policy, std::int64_t window) { return parse(lines, {.window = window, .overlong = policy}, kBytes); };
  CHECK(ids(set(Overlong::split, 3)) == Texts{"abcd", "defg", "gh", "xy"});
  CHECK(ids(set(Overlong::split, 7)) == Texts{"abcdefgh", "xy"});
  CHECK(set(Overlong::split, 7).counts.overlong == 0);
  CHECK(set(Overlong::split, 3).counts.overlong == 1);
  CHECK(set(Overlong::split, 3).targets() == 7 + 1);
  CHECK(set(Overlong::split, 1).targets() == 7 + 1);
  CHECK(set(Overlong::split, 3).examples[2].line == 1);
  CHECK(ids(set(Overlong::cut, 3)) == Texts{"abcd", "xy"});
  CHECK(ids(set(Overlong::drop, 3)) == Texts{"xy"});
  CHECK(set(Overlong::drop, 3).counts.dropped == 1);

  // Pieces without loss are left out, those of an example whose answer begins later.
  const char* late = R"({"prompt": "abcdefgh", "completion": "z"})";
  CHECK(ids(parse(late, {.window = 4, .overlong = Overlong::split}, kBytes)) == Texts{"efghz"});
  CHECK(parse(late, {.window = 4}, kBytes).counts.dropped == 1);
  CHECK(contains(error_of([&] { parse(late, {.window = 4, .overlong = Overlong::cut}, kBytes); }),
                 "no example is left of 1 lines: 0 bad, 1 longer than the window of 4 tokens, 1 dropped"));
  CHECK(contains(error("x", {.window = 0}), "a window of 0 tokens, at least 1 was expected"));
}

TEST_CASE("examples: held out by line, by the seed alone") {
  std::string lines;
  for (int i = 0; i < 50; ++i)
    lines += R"({"text": "line )" + std::to_string(i) +
             R"( abc"})"
             "\n";
  const auto set = [&] { return parse(lines, {.window = 5}, kBytes); };
  const auto lines_of = [](const ExampleSet& s) {
    std::vector<std::int64_t> out;
    for (const Example& e : s.examples)
      if (out.empty() || out.back() != e.line) out.push_back(e.line);
    return out;
  };
  const auto [train, held_out] = text::split(set(), 0.1, 7);
  CHECK(lines_of(held_out).size() == 5);
  CHECK(lines_of(train).size() == 45);
  CHECK(train.tokens() + held_out.tokens() == set().tokens());
  CHECK(train.counts.overlong == 50);
  auto all = lines_of(train);
  for (const auto l : lines_of(held_out)) all.push_back(l);  // each line in one part, and whole
  std::sort(all.begin(), all.end());
  CHECK(all == lines_of(set()));
  CHECK(text::split(set(), 0.1, 7).held_out.fingerprint() == held_out.fingerprint());
  CHECK(text::split(set(), 0.1, 8).held_out.fingerprint() != held_out.fingerprint());
  CHECK(lines_of(text::split(set(), 0.001, 7).held_out).size() == 1);
  CHECK(lines_of(text::split(set(), 0.999, 7).train).size() == 1);
  CHECK(contains(error_of([&] { text::split(set(), 0, 7); }), "one in (0, 1) was expected"));
  CHECK(contains(error_of([&] { text::split(parse(R"({"text": "ab"})"), 0.5, 7); }), "1 examples, two or more were expected"));
}

TEST_CASE("examples: the fingerprint is of tokens and of what carries loss") {
  const auto print = [](std::string_view jsonl, const ExampleOptions& options = {}) { return parse(jsonl, options).fingerprint(); };
  const std::string a = R"({"prompt": "ab", "completion": "c"})";
  CHECK(print(a) == print("\n" + a + "\r\n\n"));
  CHECK(print(a) != print(R"({"prompt": "a", "completion": "bc"})"));
  CHECK(print(a) != print(a + "\n" + a));
  CHECK(print(a) != print(a, {.train_on = text::TrainOn::everything}));
}

TEST_CASE("examples: the template is made where there are conversations, and only there") {
  int made = 0;
  const text::ChatSource source = [&]() -> const ChatTemplate* {
    ++made;
    return &chat();
  };
  const auto parse = [&](std::string_view jsonl) { return text::parse_examples(jsonl, "x.jsonl", SpacedTokens(), source); };
  CHECK(parse("{\"text\": \"he said \\\"messages\\\": none\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n").examples.size() == 2);
  CHECK(made == 0);
  const char* kTalk = R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]})";
  CHECK(parse(kTalk).examples[0].targets() > 0);
  CHECK(parse(R"({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]})").examples.size() == 1);
  CHECK(made == 2);
  // What is wrong with it is no fault of a line: it is not passed over with bad lines.
  const text::ChatSource bad = []() -> const ChatTemplate* { throw Error("the template is bad"); };
  CHECK(error_of([&] { text::parse_examples(kTalk, "x.jsonl", SpacedTokens(), bad, {.skip_bad_lines = true}); }) == "the template is bad");
}

TEST_CASE("examples: SmolLM2's tokens of a conversation") {
  const auto file = smollm2_path();
  if (!file) return;
  const auto tokenizer = load_tokenizer(*file);
  const auto own = text::load_chat_template(*file, *tokenizer);
  REQUIRE(own);
  const io::Json messages = {{{"role", "user"}, {"content", "Hi"}}, {{"role", "assistant"}, {"content", "Hello there."}}};
  const Example e = text::encode_chat(*own, *tokenizer, messages);
  CHECK(contains(shown(e, *tokenizer), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Hello there.<|im_end|>\n]"));
}
