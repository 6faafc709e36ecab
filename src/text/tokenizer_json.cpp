// tokenizer_json.cpp - Hugging Face's tokenizer.json, in and out.
#include <cctype>
#include <limits>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/json.h"
#include "io/shown.h"
#include "text/tokenizer_files.h"

namespace mezzo::text {
namespace {

using Json = nlohmann::json;  // keys in a tree: a vocabulary has very many

constexpr std::string_view kOp = "tokenizer";

class Reader {
 public:
  Reader(std::string_view json, std::string_view source) : source_(source) {
    try {
      root_ = Json::parse(json);
    } catch (const Json::parse_error& e) {
      fail("read", fmt::format("{}:{}: {}", source, io::line_and_column(json, e.byte > 0 ? e.byte - 1 : 0), io::plain_message(e.what())));
    } catch (const Json::exception& e) { fail("read", fmt::format("{}: {}", source, io::plain_message(e.what()))); }
  }

  BpeParts read() {
    if (!root_.is_object()) wrong("the file", root_, "an object");
    const Json& model = member(root_, "model", "an object");
    if (const auto type = text(model, "type", "BPE"); type != "BPE")
      fail(kOp, fmt::format("{}: a {} model, BPE was expected", source_, io::shown(type)),
           "give the model's SentencePiece file (tokenizer.model) instead");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!text(model, key, "").empty()) unsupported(fmt::format("model.{}", key), text(model, key, ""));
    if (const auto dropout = model.find("dropout"); dropout != model.end() && !dropout->is_null() && *dropout != 0.0)
      unsupported("model.dropout", "a number");
    parts_.byte_level = false;
    parts_.byte_fallback = flag(model, "byte_fallback");
    parts_.fuse_unknown = flag(model, "fuse_unk");
    parts_.ignore_merges = flag(model, "ignore_merges");
    if (const Json* n = present(root_, "normalizer")) normalizer(*n);
    parts_.normalizer = Normalizer(std::move(normalizations_));
    if (const Json* p = present(root_, "pre_tokenizer")) pre_tokenizer(*p);
    vocabulary(model);
    if (const Json* added = present(root_, "added_tokens")) added_tokens(*added);
    if (const auto unk = text(model, "unk_token", ""); !unk.empty()) parts_.unknown = id_of(unk, "model.unk_token");
    if (const Json* p = present(root_, "post_processor")) post_processor(*p);
    if (const Json* d = present(root_, "decoder")) decoder(*d);
    return std::move(parts_);
  }

 private:
  // ---- values ----------------------------------------------------------------------------------------

  /// What a value is, for a message: not what is in it, which may be deep.
  static std::string described(const Json& value) {
    return value.is_structured() ? value.type_name() : io::shown(value.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  [[noreturn]] void wrong(std::string_view what, const Json& value, std::string_view wanted) const {
    fail(kOp, fmt::format("{}: {} is {}, {} was expected", source_, what, described(value), wanted));
  }
  [[noreturn]] void unsupported(std::string_view what, std::string_view value) const {
    fail(kOp, fmt::format("{}: {} is `{}`, which this version does not follow", source_, what, io::shown(value)));
  }
  static const Json* present(const Json& object, const char* key) {
    const auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
  }
  const Json& member(const Json& object, const char* key, std::string_view wanted) const {
    const Json* found = object.is_object() ? present(object, key) : nullptr;
    if (!found) fail(kOp, fmt::format("{}: `{}` is missing, {} was expected", source_, key, wanted));
    return *found;
  }
  std::string text(const Json& object, const char* key, std::string otherwise) const {
    const Json* found = object.is_object() ? present(object, key) : nullptr;
    if (!found) return otherwise;
    if (!found->is_string()) wrong(fmt::format("`{}`", key), *found, "a string");
    return found->get<std::string>();
  }
  std::string text(const Json& object, const char* key) const {
    if (!member(object, key, "a string").is_string()) wrong(fmt::format("`{}`", key), object[key], "a string");
    return object[key].get<std::string>();
  }
  bool flag(const Json& object, const char* key, bool otherwise = false) const {
    const Json* found = object.is_object() ? present(object, key) : nullptr;
    if (!found) return otherwise;
    if (!found->is_boolean()) wrong(fmt::format("`{}`", key), *found, "true or false");
    return found->get<bool>();
  }
  const Json& list(const Json& object, const char* key) const {
    const Json& found = member(object, key, "an array");
    if (!found.is_array()) wrong(fmt::format("`{}`", key), found, "an array");
    return found;
  }
  std::int32_t id_of(const std::string& token, std::string_view what) const {
    if (const auto it = ids_.find(token); it != ids_.end()) return it->second;
    fail(kOp, fmt::format("{}: {} is `{}`, which is not in the vocabulary", source_, what, io::shown(token)));
  }
  std::int32_t id(const Json& value, std::string_view what) const {
    if (!value.is_number_integer() || value < 0 || value > std::numeric_limits<std::int32_t>::max())
      wrong(what, value, "an id (an integer from 0 up)");
    return value.get<std::int32_t>();
  }
  /// Applies f to a component, or to each of a Sequence of them.
  template <class F> void each(const Json& component, const char* members, F f) const {
    if (text(component, "type") != "Sequence") return f(component);
    for (const Json& c : list(component, members)) f(c);
  }

  // ---- components ------------------------------------------------------------------------------------

  void normalizer(const Json& n) {
    each(n, "normalizers", [&](const Json& c) {
      const std::string type = text(c, "type");
      if (type == "NFC") normalizations_.emplace_back(NormalForm::nfc);
      else if (type == "NFD") normalizations_.emplace_back(NormalForm::nfd);
      else if (type == "NFKC") normalizations_.emplace_back(NormalForm::nfkc);
      else if (type == "NFKD") normalizations_.emplace_back(NormalForm::nfkd);
      else if (type == "Prepend") normalizations_.emplace_back(Prepend{text(c, "prepend")});
      else if (type == "Replace") normalizations_.emplace_back(Replace{literal(c, "normalizer Replace"), text(c, "content")});
      else unsupported("normalizer", type);
    });
  }

  std::string literal(const Json& c, std::string_view what) const {
    const Json& pattern = member(c, "pattern", "a pattern");
    std::string s = text(pattern, "String", "");
    if (s.empty()) unsupported(fmt::format("{}'s pattern", what), described(pattern));
    return s;
  }

  void pre_tokenizer(const Json& p) {
    each(p, "pretokenizers", [&](const Json& c) {
      const std::string type = text(c, "type");
      if (type == "ByteLevel") {
        parts_.byte_level = true;
        if (flag(c, "add_prefix_space", true)) parts_.prefix = PrefixSpace::always;
        if (flag(c, "use_regex", true)) parts_.splitter.add(Regex(kGpt2Pattern, source_));
      } else if (type == "Digits") {
        parts_.splitter.add(Regex(flag(c, "individual_digits") ? std::string(kDigitPattern) : std::string(kDigitPattern) + '+', source_));
      } else if (type == "Split") {
        if (const auto behaviour = text(c, "behavior"); behaviour != "Isolated" || flag(c, "invert"))
          unsupported("pre_tokenizer Split", flag(c, "invert") ? "invert" : behaviour);
        const std::string regex = text(member(c, "pattern", "a pattern"), "Regex", "");
        parts_.splitter.add(Regex(regex.empty() ? quoted(literal(c, "Split")) : regex, source_));
      } else if (type == "Metaspace") {
        metaspace(c);
      } else {
        unsupported("pre_tokenizer", type);
      }
    });
  }

  static std::string quoted(const std::string& literal) {
    std::string out;
    for (const char c : literal) {
      if (static_cast<unsigned char>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c))) out += '\\';
      out += c;
    }
    return out;
  }

  void metaspace(const Json& c) {
    if (text(c, "replacement") != kSpaceMark) unsupported("pre_tokenizer Metaspace's replacement", text(c, "replacement"));
    parts_.space_marks = true;
    parts_.split_at_marks = flag(c, "split", true);
    const std::string scheme = text(c, "prepend_scheme", flag(c, "add_prefix_space", true) ? "always" : "never");
    if (scheme == "always") parts_.prefix = PrefixSpace::always;
    else if (scheme == "first") parts_.prefix = PrefixSpace::first;
    else if (scheme != "never") unsupported("pre_tokenizer Metaspace's prepend_scheme", scheme);
  }

  void vocabulary(const Json& model) {
    const Json& vocab = member(model, "vocab", "an object");
    if (!vocab.is_object()) wrong("`model.vocab`", vocab, "an object");
    const Json& merges = list(model, "merges");
    const std::size_t most = 2 * vocab.size() + 1024;  // holes there may be, but not a token with id 2^30
    for (const auto& [token, value] : vocab.items()) {
      const std::int32_t i = id(value, fmt::format("the id of `{}`", io::shown(token)));
      const auto at = static_cast<std::size_t>(i);
      if (at >= most) fail(kOp, fmt::format("{}: token `{}` has id {} in a vocabulary of {}", source_, io::shown(token), i, vocab.size()));
      if (at >= parts_.tokens.size()) parts_.tokens.resize(at + 1);
      if (!parts_.tokens[at].empty())
        fail(kOp, fmt::format("{}: tokens `{}` and `{}` both have id {}", source_, io::shown(parts_.tokens[at]), io::shown(token), i));
      parts_.tokens[at] = token;
      ids_.emplace(token, i);
    }
    parts_.merges.reserve(merges.size());
    for (const Json& m : merges) {
      std::string left, right;
      if (m.is_string()) {
        const auto& line = m.get_ref<const std::string&>();
        const auto space = line.find(' ');
        if (space != line.npos) left = line.substr(0, space), right = line.substr(space + 1);
      } else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
        left = m[0].get<std::string>(), right = m[1].get<std::string>();
      }
      const std::string what = fmt::format("merge {}", parts_.merges.size());
      if (left.empty() || right.empty()) wrong(what, m, "two tokens");
      parts_.merges.push_back({id_of(left, what), id_of(right, what), id_of(left + right, what)});
    }
  }

  void added_tokens(const Json& added) {
    if (!added.is_array()) wrong("`added_tokens`", added, "an array");
    for (const Json& t : added) {
      AddedToken token;
      token.content = text(t, "content");
      token.id = id(member(t, "id", "an id"), fmt::format("the id of `{}`", io::shown(token.content)));
      token.special = flag(t, "special");
      token.normalized = flag(t, "normalized", !token.special);
      token.lstrip = flag(t, "lstrip");
      token.rstrip = flag(t, "rstrip");
      token.single_word = flag(t, "single_word");
      ids_.insert_or_assign(token.content, token.id);
      parts_.added.push_back(std::move(token));
    }
  }

  void post_processor(const Json& p) {
    each(p, "processors", [&](const Json& c) {
      const std::string type = text(c, "type");
      if (type == "ByteLevel") return;  // offsets only
      if (type != "TemplateProcessing") unsupported("post_processor", type);
      const Json& single = list(c, "single");
      if (single.empty() || !single[0].contains("SpecialToken")) return;
      parts_.begin = id_of(text(single[0]["SpecialToken"], "id"), "post_processor's first token");
      parts_.adds_begin = true;
    });
  }

  void decoder(const Json& d) {
    each(d, "decoders", [&](const Json& c) {
      const std::string type = text(c, "type");
      if (type == "Strip") parts_.strip_first_space = text(c, "content") == " " && c.value("start", 0) == 1;
      if (type == "Metaspace") parts_.strip_first_space = parts_.prefix != PrefixSpace::never;
    });
  }

  std::string source_;
  Json root_;
  BpeParts parts_;
  std::vector<Normalization> normalizations_;
  std::unordered_map<std::string, std::int32_t> ids_;
};

}  // namespace

BpeParts parse_tokenizer_json(std::string_view json, std::string_view source) {
  try {
    return Reader(json, source).read();
  } catch (const Json::exception& e) { fail(kOp, fmt::format("{}: {}", source, io::plain_message(e.what()))); }
}

namespace {

using Ordered = nlohmann::ordered_json;

Ordered in_sequence(const char* members, Ordered parts) {
  if (parts.empty()) return nullptr;
  return parts.size() == 1 ? parts[0] : Ordered{{"type", "Sequence"}, {members, std::move(parts)}};
}

Ordered normalizer_json(const Normalizer& n) {
  constexpr const char* kForms[] = {"NFC", "NFD", "NFKC", "NFKD"};
  Ordered steps = Ordered::array();
  for (const Normalization& step : n.steps()) {
    if (const auto* form = std::get_if<NormalForm>(&step)) steps.push_back({{"type", kForms[static_cast<int>(*form)]}});
    if (const auto* p = std::get_if<Prepend>(&step)) steps.push_back({{"type", "Prepend"}, {"prepend", p->text}});
    if (const auto* r = std::get_if<Replace>(&step)) steps.push_back({{"type", "Replace"}, {"pattern", {{"String", r->what}}}, {"content", r->with}});
  }
  return in_sequence("normalizers", steps);
}

Ordered byte_level_json(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Ordered pre_tokenizer_json(const BpeParts& parts) {
  if (!parts.byte_level) return nullptr;
  const auto& steps = parts.splitter.steps();
  const bool gpt2 = !steps.empty() && steps.back().pattern() == kGpt2Pattern;  // which ByteLevel brings along
  Ordered all = Ordered::array();
  for (std::size_t i = 0; i < steps.size() - (gpt2 ? 1 : 0); ++i)
    all.push_back({{"type", "Split"}, {"pattern", {{"Regex", steps[i].pattern()}}}, {"behavior", "Isolated"}, {"invert", false}});
  all.push_back(byte_level_json(gpt2));
  return in_sequence("pretokenizers", all);
}

Ordered decoder_json(const BpeParts& parts) {
  if (parts.byte_level) return byte_level_json(true);
  Ordered all = Ordered::array();
  all.push_back({{"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}});
  all.push_back({{"type", "ByteFallback"}});
  all.push_back({{"type", "Fuse"}});
  if (parts.strip_first_space) all.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return in_sequence("decoders", all);
}

/// The begin-of-text token before every text.
Ordered post_processor_json(const BpeParts& parts) {
  if (!parts.adds_begin || !parts.begin) return nullptr;
  const std::string& token = parts.tokens[static_cast<std::size_t>(*parts.begin)];
  const auto special = [&] { return Ordered{{"SpecialToken", {{"id", token}, {"type_id", 0}}}}; };
  const auto sequence = [](const char* id, int type) { return Ordered{{"Sequence", {{"id", id}, {"type_id", type}}}}; };
  return {{"type", "TemplateProcessing"},
          {"single", Ordered::array({special(), sequence("A", 0)})},
          {"pair", Ordered::array({special(), sequence("A", 0), special(), sequence("B", 1)})},
          {"special_tokens", {{token, {{"id", token}, {"ids", {*parts.begin}}, {"tokens", {token}}}}}}};
}

}  // namespace

std::string to_tokenizer_json(const BpeParts& parts) {
  if (parts.prefix != PrefixSpace::never || parts.space_marks)
    fail(kOp, "a tokenizer that marks spaces between words given, byte-level or SentencePiece's wanted");
  Ordered added = Ordered::array();
  for (const AddedToken& t : parts.added)
    added.push_back({{"id", t.id},
                     {"content", t.content},
                     {"single_word", t.single_word},
                     {"lstrip", t.lstrip},
                     {"rstrip", t.rstrip},
                     {"normalized", t.normalized},
                     {"special", t.special}});
  const auto token = [&](std::int32_t id) { return Json(parts.tokens[static_cast<std::size_t>(id)]).dump(); };
  // By hand: ordered_json looks through all keys for each new one.
  std::string vocab = "{", merges = "[";
  for (std::size_t id = 0; id < parts.tokens.size(); ++id) vocab += fmt::format("{}{}:{}", id ? "," : "", token(static_cast<std::int32_t>(id)), id);
  for (const auto& m : parts.merges) merges += fmt::format("{}[{},{}]", merges.size() > 1 ? "," : "", token(m.left), token(m.right));
  return fmt::format(
      R"({{"version":"1.0","truncation":null,"padding":null,"added_tokens":{},"normalizer":{},"pre_tokenizer":{},"post_processor":{},"decoder":{},)"
      R"("model":{{"type":"BPE","dropout":null,"unk_token":{},"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":{},)"
      R"("byte_fallback":{},"ignore_merges":{},"vocab":{},"merges":{}}}}})",
      added.dump(), normalizer_json(parts.normalizer).dump(), pre_tokenizer_json(parts).dump(), post_processor_json(parts).dump(),
      decoder_json(parts).dump(), parts.unknown ? token(*parts.unknown) : "null", parts.fuse_unknown, parts.byte_fallback, parts.ignore_merges,
      vocab + "}", merges + "]");
}

}  // namespace mezzo::text
