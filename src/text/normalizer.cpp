// normalizer.cpp - Unicode's forms by utf8proc, and replacements.
#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>

#include <fmt/core.h>

#include "core/fail.h"

namespace mezzo::text {
namespace {

std::string normal_form(std::string text, NormalForm form) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return text;
  constexpr int kCompose = UTF8PROC_STABLE | UTF8PROC_COMPOSE, kDecompose = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, kCompatible = UTF8PROC_COMPAT;
  constexpr int kOptions[] = {kCompose, kDecompose, kCompose | kCompatible, kDecompose | kCompatible};
  utf8proc_uint8_t* out = nullptr;
  const auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &out,
                              static_cast<utf8proc_option_t>(kOptions[static_cast<int>(form)]));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(out, &std::free);
  if (n < 0) fail("tokenizer", fmt::format("text that cannot be normalised: {}", utf8proc_errmsg(n)));
  return {reinterpret_cast<const char*>(out), static_cast<std::size_t>(n)};
}

std::string replaced(std::string_view text, const Replace& r) {
  std::string out;
  out.reserve(text.size());
  while (true) {
    const std::size_t at = text.find(r.what);
    out += text.substr(0, at);
    if (at == text.npos) return out;
    out += r.with;
    text.remove_prefix(at + r.what.size());
  }
}

}  // namespace

std::string Normalizer::operator()(std::string_view text) const {
  std::string out(text);
  for (const Normalization& step : steps_) {
    if (const auto* form = std::get_if<NormalForm>(&step)) out = normal_form(std::move(out), *form);
    else if (const auto* prepend = std::get_if<Prepend>(&step)) out.insert(0, out.empty() ? std::string_view() : prepend->text);
    else out = replaced(out, std::get<Replace>(step));
  }
  return out;
}

}  // namespace mezzo::text
