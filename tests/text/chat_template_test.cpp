// chat_template_test.cpp - a model's template found and rendered, and where in a conversation the assistant writes.
#include "text/chat_template.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "io/gguf.h"
#include "io/support.h"
#include "model_file.h"

using namespace mezzo;
using namespace mezzo::test;
using text::ChatTemplate;

namespace {

const io::Json kChat = {{{"role", "user"}, {"content", "Hi"}},
                        {{"role", "assistant"}, {"content", "Hello."}},
                        {{"role", "user"}, {"content", "Bye"}},
                        {{"role", "assistant"}, {"content", "See you."}}};

constexpr const char* kPlain =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
constexpr const char* kMarked =
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</>{% endgeneration %}"
    "{% else %}{{ m.content }}</>{% endif %}{{ '\n' }}{% endfor %}";
// The last answer keeps its thoughts, those before lose them.
constexpr const char* kForgetful =
    "{% for m in messages %}<{{ m.role }}>{{ m.content if loop.last or m.role == 'user' else m.content.split('#')[-1] }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

std::vector<std::string> answers(const ChatTemplate::Marked& marked) {
  std::vector<std::string> out;
  for (const auto [begin, end] : marked.assistant)
    out.push_back(marked.text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
  return out;
}
using Texts = std::vector<std::string>;

/// Tokens are bytes, but two that have names.
struct NamedTokens final : Tokenizer {
  std::string_view kind() const override { return "named"; }
  std::int32_t vocab_size() const override { return 258; }
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& = {}) const override { return ByteTokenizer().encode(text); }
  std::string_view bytes_of(std::int32_t id) const override { return id == 256 ? "<s>" : id == 257 ? "</s>" : "?"; }
  std::optional<std::int32_t> begin_of_text() const override { return 256; }
  std::optional<std::int32_t> end_of_text() const override { return 257; }
};

}  // namespace

TEST_CASE("chat template: rendered with and without a generation prompt") {
  const ChatTemplate chat(kPlain);
  const io::Json open = io::Json::array({kChat[0]});
  CHECK(chat.render(open) == "<user>Hi</>\n");
  CHECK(chat.render(open, {.add_generation_prompt = true}) == "<user>Hi</>\n<assistant>");
  const io::Json tools = {{{"name", "add"}}};
  CHECK(ChatTemplate("{{ tools is none }}{{ bos_token is defined }}").render(open) == "TrueFalse");
  CHECK(ChatTemplate("{{ tools[0].name }}{{ bos_token }}", {.bos_token = "<s>"}).render(open, {.tools = &tools}) == "add<s>");
  CHECK(ChatTemplate("{{ messages[0].x is defined }}").render({{{"role", "user"}, {"x", nullptr}}}) == "False");  // null is not there
  CHECK(ChatTemplate("{{ strftime_now('%Y') }}", {.now = 1'000'000'000}).render(open) == "2001");
}

TEST_CASE("chat template: the assistant's text is what its turns add to the prompt before them") {
  CHECK(answers(ChatTemplate(kPlain).render_marked(kChat)) == Texts{"Hello.</>\n", "See you.</>\n"});
  CHECK(answers(ChatTemplate(kMarked).render_marked(kChat)) == Texts{"Hello.</>", "See you.</>"});
  CHECK(ChatTemplate(kPlain).render_marked(kChat).text == ChatTemplate(kPlain).render(kChat));
  CHECK(answers(ChatTemplate(kPlain).render_marked(io::Json::array({kChat[0]}))) == Texts{});
  // An answer in two turns, one of them a call, and one at the very beginning.
  const io::Json calls = {{{"role", "assistant"}, {"content", "Ask."}},
                          {{"role", "assistant"}, {"content", ""}, {"tool_calls", {{{"name", "add"}}}}},
                          {{"role", "tool"}, {"content", "4"}},
                          {{"role", "assistant"}, {"content", "4"}}};
  CHECK(answers(ChatTemplate(kPlain).render_marked(calls)) == Texts{"Ask.</>\n", "</>\n", "4</>\n"});
}

TEST_CASE("chat template: what cannot be told apart is an error that names the turn") {
  io::Json thinking = kChat;
  thinking[1]["content"] = "hm#Hello.";
  const auto error = [](const char* source, const io::Json& messages) { return error_of([&] { ChatTemplate(source).render_marked(messages); }); };
  CHECK(error(kForgetful, thinking) ==
        "[chat template] turn 2: the text of the conversation up to its end is not how the whole conversation begins: from byte 22 on `hm#Hello.</>` "
        "there, `Hello.</><user>Bye</><assistant>See you.` in the whole. Hint: this template rewrites earlier turns: give it {% generation %} marks, "
        "or "
        "one answer a line, or train on everything");
  CHECK(answers(ChatTemplate(kForgetful).render_marked(kChat)) == Texts{"Hello.</>", "See you.</>"});  // nothing is rewritten here

  io::Json empty = kChat;
  empty[3]["content"] = " \n";
  for (const char* source : {kPlain, kMarked}) CHECK(error(source, empty) == "[chat template] turn 4, of the assistant, is empty.");
  empty[3].erase("content");
  CHECK(error(kPlain, empty) == "[chat template] turn 4, of the assistant, is empty.");

  CHECK(error(kPlain, "x") == "[chat template] messages are string, an array of objects was expected.");
  CHECK(error(kPlain, {1}) == "[chat template] turn 1 is number, an object with role and content was expected.");
  CHECK(error(kPlain, {{{"content", "x"}}}) == "[chat template] turn 1 has no role.");
  const char* kSum = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}";
  CHECK(error(kSum, {{{"role", "user"}}}) ==
        "[chat template] turn 1: `content` is missing, a string was expected by this template: [chat template] chat template:1: `content` is "
        "undefined.");
  CHECK(contains(error(kSum, io::Json::array({kChat[1], {{"role", "user"}, {"content", io::Json::array({"a"})}}})),
                 "turn 2: `content` is array, a string was expected by this template: "));
  CHECK(error(kSum, {{{"role", "user"}, {"content", 5}}}) == "[chat template] turn 1: `content` is number, a string was expected.");
  const char* kAlternates =
      "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('take turns') }}{% endif %}{% endfor %}";
  CHECK(error(kAlternates, io::Json::array({kChat[0], kChat[0]})) == "[chat template] chat template:1: the template refuses this: take turns.");
  CHECK(contains(error("{{ messages[0].role }}", io::Json::array({kChat[1]})),
                 "turn 1: where it begins is not known: [chat template] chat template:1: `[0]` is undefined"));
}

TEST_CASE("chat template: found beside a model's tokenizer, or in its GGUF file") {
  const TempDir dir;
  const NamedTokens tokens;
  const auto load = [&](const std::filesystem::path& path) { return text::load_chat_template(path, tokens); };
  CHECK(!load(dir.path()));
  spit(dir / "tokenizer_config.json", R"({"eos_token": "</s>"})");
  CHECK(!load(dir.path()));
  spit(dir / "tokenizer_config.json", R"({"chat_template": "{{ bos_token }}A{{ eos_token }}"})");
  CHECK(load(dir.path())->render(kChat) == "<s>A</s>");
  CHECK(load(dir / "tokenizer_config.json")->render(kChat) == "<s>A</s>");
  spit(dir / "tokenizer.json", "{}");
  CHECK(load(dir / "tokenizer.json")->source() == "{{ bos_token }}A{{ eos_token }}");
  spit(dir / "tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})");
  CHECK(load(dir.path())->source() == "D");
  spit(dir / "chat_template.jinja", "J");  // goes before
  CHECK(load(dir.path())->source() == "J");
  CHECK(load(dir / "chat_template.jinja")->source() == "J");
  spit(dir / "mine.txt", "M{{ eos_token }}");  // of any name: the template itself
  CHECK(load(dir / "mine.txt")->render(kChat) == "M</s>");
  CHECK(text::read_chat_template(dir / "mine.txt") == "M{{ eos_token }}");
  CHECK(text::read_chat_template(dir.path()) == "J");

  spit(dir / "b/tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "R"}, {"name": "tool_use", "template": "T"}]})");
  CHECK(contains(error_of([&] { load(dir / "b"); }),
                 "chat_template is a list of `rag`, `tool_use`, a string or a list with a template named `default`"));
  spit(dir / "b/tokenizer_config.json", "{\"chat_template\": \"a\\n{% frob %}\"}");
  CHECK(error_of([&] { load(dir / "b"); }) ==
        "[chat template] " + (dir / "b/tokenizer_config.json").native() + ":2: statement `frob` is not supported.");

  io::GgufMetadata metadata;
  metadata.put("general.architecture", "llama");
  io::write_gguf(dir / "none.gguf", metadata, {});
  CHECK(!load(dir / "none.gguf"));
  CHECK(contains(error_of([&] { text::read_chat_template(dir / "none.gguf"); }), "none.gguf: it holds no chat template"));
  CHECK(contains(error_of([&] { text::read_chat_template(dir / "absent.jinja"); }), "absent.jinja"));
  metadata.put("tokenizer.chat_template", "G{{ bos_token }}");
  io::write_gguf(dir / "some.gguf", metadata, {});
  CHECK(load(dir / "some.gguf")->render(kChat) == "G<s>");
}

TEST_CASE("chat template: SmolLM2's own") {
  const auto file = smollm2_path();
  if (!file) return;
  const auto tokenizer = load_tokenizer(*file);
  const auto chat = text::load_chat_template(*file, *tokenizer);
  REQUIRE(chat);
  CHECK(answers(chat->render_marked(kChat)) == Texts{"Hello.<|im_end|>\n", "See you.<|im_end|>\n"});
  CHECK(contains(chat->render(kChat), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"));
}
