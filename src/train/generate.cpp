// generate.cpp - prompts as ids, with a chat template or without.
#include "train/generate.h"

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

#include <mezzo/amp.h>

#include "core/fail.h"
#include "text/chat_template.h"
#include "text/examples.h"

namespace mezzo::train {

std::vector<std::int32_t> prompt_ids(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids = tokenizer.encode(text);
  if (tokenizer.adds_begin_of_text()) ids.insert(ids.begin(), *tokenizer.begin_of_text());
  return ids;
}

namespace {

/// The mark that the template writes after what the assistant says, if it is one.
std::vector<std::int32_t> end_of_turn(const text::ChatTemplate& chat, const Tokenizer& tokenizer) {
  try {
    const text::Example e = text::encode_chat(chat, tokenizer, {{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b"}}});
    for (std::size_t i = e.ids.size(); i-- > 0;)
      if (e.counted[i] && tokenizer.is_special(e.ids[i])) return {e.ids[i]};
  } catch (const Error&) {  // a template that takes no such conversation: the tokenizer's end of text remains
  }
  return {};
}

}  // namespace

ChatPrompt chat_prompt(const std::filesystem::path& where, const Tokenizer& tokenizer, const std::string& message, const std::string& system) {
  const auto chat = text::load_chat_template(where, tokenizer);
  if (!chat)
    fail("chat", fmt::format("{}: this model has no chat template: it is a model of plain text", where.native()),
         "without chat the prompt is continued; --chat-template gives it a template");
  io::Json messages = io::Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  messages.push_back({{"role", "user"}, {"content", message}});
  return {tokenizer.encode(chat->render(messages, {.add_generation_prompt = true})), end_of_turn(*chat, tokenizer)};
}

Generated generate(models::LanguageModel& model, const Tokenizer& tokenizer, const std::vector<std::int32_t>& prompt, models::SampleOptions o,
                   const Recipe& recipe, const std::function<bool(std::string_view)>& on_text) {
  using Clock = std::chrono::steady_clock;
  if (const auto end = tokenizer.end_of_text()) o.stop.push_back(*end);
  Generated out;
  StreamDecoder decoder(tokenizer);
  const auto give = [&](const std::string& piece) {
    out.text += piece;
    return piece.empty() || !on_text || on_text(piece);
  };
  const auto begin = Clock::now();
  auto first = begin;
  {
    const amp::Autocast region(recipe.low, {.enabled = recipe.autocast});
    const auto all = models::sample(model, prompt, o, [&](std::int32_t id) {
      if (out.tokens++ == 0) first = Clock::now();
      return tokenizer.is_special(id) || give(decoder.push(id));
    });
    out.ended = all.size() > prompt.size() && std::find(o.stop.begin(), o.stop.end(), all.back()) != o.stop.end();
  }
  give(decoder.finish());
  if (out.tokens == 0) first = Clock::now();
  out.first_seconds = std::chrono::duration<double>(first - begin).count();
  out.seconds = std::chrono::duration<double>(Clock::now() - first).count();
  return out;
}

}  // namespace mezzo::train
