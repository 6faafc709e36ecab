// examples.cpp - conversations and texts to tokens, and which of them carry loss.
#include "text/examples.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/checksum.h"
#include "text/permutation.h"

namespace mezzo::text {
namespace {

using Span = JinjaTemplate::Span;

/// Tokens that end inside a span, which are in order: those carry loss.
void append(Example& example, const Tokenizer::Spans& tokens, std::span<const Span> spans) {
  auto span = spans.begin();
  for (std::size_t i = 0; i < tokens.ids.size(); ++i) {
    while (span != spans.end() && span->end < tokens.ends[i]) ++span;
    example.ids.push_back(tokens.ids[i]);
    example.counted.push_back(span != spans.end() && span->begin < tokens.ends[i]);
  }
}

std::int64_t sum_of(const std::vector<Example>& examples, std::int64_t (Example::*one)() const noexcept) {
  return std::accumulate(examples.begin(), examples.end(), std::int64_t{0}, [&](std::int64_t sum, const Example& e) { return sum + (e.*one)(); });
}

bool has_answer(const io::Json& messages) {
  return std::any_of(messages.begin(), messages.end(),
                     [](const io::Json& m) { return m.is_object() && m.contains("role") && m["role"] == "assistant"; });
}

}  // namespace

std::int64_t Example::targets() const noexcept { return counted.empty() ? 0 : std::count(counted.begin() + 1, counted.end(), 1); }

std::int64_t ExampleSet::tokens() const noexcept { return sum_of(examples, &Example::length); }
std::int64_t ExampleSet::targets() const noexcept { return sum_of(examples, &Example::targets); }

std::uint64_t ExampleSet::fingerprint() const {
  io::Checksum64 checksum;
  for (const Example& e : examples) {
    const std::uint64_t size = e.ids.size();
    checksum.update(std::as_bytes(std::span(&size, 1)));
    checksum.update(std::as_bytes(std::span(e.ids)));
    checksum.update(std::as_bytes(std::span(e.counted)));
  }
  return checksum.value();
}

Example encode_chat(const ChatTemplate& chat, const Tokenizer& tokenizer, const io::Json& messages, const ChatEncoding& options) {
  ChatTemplate::Marked marked;
  if (options.train_on == TrainOn::assistant) {
    marked = chat.render_marked(messages, options.tools);
    if (marked.assistant.empty()) {
      if (!has_answer(messages)) fail("chat template", "no turn of the assistant: there is nothing to learn");
      fail("chat template", "the template writes nothing of the turns of the assistant: there is nothing to learn",
           "--chat-template gives another one");
    }
  } else {
    marked.text = chat.render(messages, {.tools = options.tools});
    marked.assistant = {{0, static_cast<std::int64_t>(marked.text.size())}};
  }
  Example example;
  append(example, tokenizer.encode_spans(marked.text), marked.assistant);
  if (example.targets() == 0) fail("chat template", "no token carries loss: there is nothing to learn");
  return example;
}

Example encode_completion(const Tokenizer& tokenizer, std::string_view prompt, std::string_view completion) {
  Example example;
  if (const auto begin = tokenizer.begin_of_text(); begin && tokenizer.adds_begin_of_text()) {
    example.ids.push_back(*begin);
    example.counted.push_back(0);
  }
  const std::string text = std::string(prompt) + std::string(completion);
  const Span span{static_cast<std::int64_t>(prompt.size()), static_cast<std::int64_t>(text.size())};
  append(example, tokenizer.encode_spans(text), {&span, 1});
  if (const auto end = tokenizer.end_of_text()) {
    example.ids.push_back(*end);
    example.counted.push_back(1);
  }
  return example;
}

ExampleSplit split(ExampleSet set, double fraction, std::uint64_t seed) {
  if (!(fraction > 0 && fraction < 1)) fail("data", fmt::format("a fraction of {} to hold out, one in (0, 1) was expected", fraction));
  std::vector<std::int64_t> lines;  // that have examples
  for (const Example& e : set.examples)
    if (lines.empty() || lines.back() != e.line) lines.push_back(e.line);
  if (lines.size() < 2)
    fail("data", fmt::format("{} examples, two or more were expected to hold some out", lines.size()), "give more, or a file of its own");
  const auto n = static_cast<std::int64_t>(lines.size());
  const std::int64_t held = std::clamp<std::int64_t>(std::llround(fraction * static_cast<double>(n)), 1, n - 1);

  constexpr std::uint64_t kHoldOut = std::uint64_t{1} << 62;  // no epoch's number
  const Permutation order(lines.size(), seed, kHoldOut);
  ExampleSplit out;
  out.train.counts = set.counts;
  std::uint64_t place = 0;
  for (std::size_t i = 0; i < set.examples.size(); ++i) {
    if (i > 0 && set.examples[i].line != set.examples[i - 1].line) ++place;
    (static_cast<std::int64_t>(order(place)) < held ? out.held_out : out.train).examples.push_back(std::move(set.examples[i]));
  }
  return out;
}

}  // namespace mezzo::text
