// generate.cpp
#include "train/generate.h"

#include <algorithm>
#include <chrono>

#include <mezzo/amp.h>

namespace mezzo::train {

std::vector<std::int32_t> prompt_ids(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids = tokenizer.encode(text);
  if (tokenizer.adds_begin_of_text()) ids.insert(ids.begin(), *tokenizer.begin_of_text());
  return ids;
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
