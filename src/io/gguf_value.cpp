// gguf_value.cpp - what a value of GGUF metadata holds, and metadata to be written.
#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include <fmt/core.h>

#include "core/fail.h"
#include "io/gguf.h"

namespace mezzo::io {
namespace {

template <class T> T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// f.operator()<T>() for the C++ type of a number; nothing for other types.
template <class F> void with_number_type(GgufType type, F&& f) {
  switch (type) {
    case GgufType::u8: f.template operator()<std::uint8_t>(); break;
    case GgufType::i8: f.template operator()<std::int8_t>(); break;
    case GgufType::u16: f.template operator()<std::uint16_t>(); break;
    case GgufType::i16: f.template operator()<std::int16_t>(); break;
    case GgufType::u32: f.template operator()<std::uint32_t>(); break;
    case GgufType::i32: f.template operator()<std::int32_t>(); break;
    case GgufType::u64: f.template operator()<std::uint64_t>(); break;
    case GgufType::i64: f.template operator()<std::int64_t>(); break;
    case GgufType::f32: f.template operator()<float>(); break;
    case GgufType::f64: f.template operator()<double>(); break;
    case GgufType::boolean:
    case GgufType::string:
    case GgufType::array: break;
  }
}

/// n integers of `type` at p; none if they are no integers or one does not fit.
std::optional<std::vector<std::int64_t>> read_integers(GgufType type, const std::byte* p, std::uint64_t n) {
  std::optional<std::vector<std::int64_t>> out;
  with_number_type(type, [&]<class T>() {
    if constexpr (std::is_integral_v<T>) {
      out.emplace();
      out->reserve(static_cast<std::size_t>(n));
      for (std::uint64_t i = 0; i < n; ++i) {
        const T value = load<T>(p + i * sizeof(T));
        if (std::is_same_v<T, std::uint64_t> && value > static_cast<T>(std::numeric_limits<std::int64_t>::max())) return out.reset();
        out->push_back(static_cast<std::int64_t>(value));
      }
    }
  });
  return out;
}

std::string_view string_at(const std::byte* p) {
  return {reinterpret_cast<const char*>(p) + sizeof(std::uint64_t), static_cast<std::size_t>(load<std::uint64_t>(p))};
}

template <class T> void append(std::string& out, T value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); }
void append_string(std::string& out, std::string_view text) {
  append(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

}  // namespace

// ---- reading -----------------------------------------------------------------------------------------

std::string GgufValue::type_name() const {
  return type_ == GgufType::array ? fmt::format("an array of {} {}", count_, name(element_)) : std::string(name(type_));
}

std::optional<std::int64_t> GgufValue::integer() const {
  if (type_ == GgufType::array) return std::nullopt;
  const auto values = read_integers(type_, bytes_.data(), 1);
  return values ? std::optional((*values)[0]) : std::nullopt;
}

std::optional<double> GgufValue::number() const {
  std::optional<double> out;
  with_number_type(type_, [&]<class T>() { out = static_cast<double>(load<T>(bytes_.data())); });
  return out;
}

std::optional<bool> GgufValue::boolean() const { return type_ == GgufType::boolean ? std::optional(bytes_[0] != std::byte{}) : std::nullopt; }

std::optional<std::string_view> GgufValue::string() const {
  return type_ == GgufType::string ? std::optional(string_at(bytes_.data())) : std::nullopt;
}

std::optional<std::vector<std::string_view>> GgufValue::strings() const {
  if (type_ != GgufType::array || element_ != GgufType::string) return std::nullopt;
  std::vector<std::string_view> out;
  out.reserve(static_cast<std::size_t>(count_));
  const std::byte* p = bytes_.data();
  for (std::uint64_t i = 0; i < count_; ++i) {
    out.push_back(string_at(p));
    p += sizeof(std::uint64_t) + out.back().size();
  }
  return out;
}

std::optional<std::vector<std::int64_t>> GgufValue::integers() const {
  return type_ == GgufType::array ? read_integers(element_, bytes_.data(), count_) : std::nullopt;
}

std::optional<std::vector<float>> GgufValue::floats() const {
  if (type_ != GgufType::array || element_ != GgufType::f32) return std::nullopt;
  std::vector<float> out(static_cast<std::size_t>(count_));
  if (!out.empty()) std::memcpy(out.data(), bytes_.data(), bytes_.size());
  return out;
}

// ---- writing -----------------------------------------------------------------------------------------

std::string& GgufMetadata::value_of(std::string_view key) {
  auto at = std::find_if(pairs_.begin(), pairs_.end(), [&](const Pair& p) { return p.key == key; });
  if (at == pairs_.end()) at = pairs_.insert(pairs_.end(), {std::string(key), {}});
  at->value.clear();
  return at->value;
}

bool GgufMetadata::has(std::string_view key) const noexcept {
  return std::any_of(pairs_.begin(), pairs_.end(), [&](const Pair& p) { return p.key == key; });
}

void GgufMetadata::put(std::string_view key, std::uint32_t value) {
  std::string& out = value_of(key);
  append(out, GgufType::u32);
  append(out, value);
}
void GgufMetadata::put(std::string_view key, float value) {
  std::string& out = value_of(key);
  append(out, GgufType::f32);
  append(out, value);
}
void GgufMetadata::put(std::string_view key, bool value) {
  std::string& out = value_of(key);
  append(out, GgufType::boolean);
  append(out, static_cast<std::uint8_t>(value));
}
void GgufMetadata::put(std::string_view key, std::string_view value) {
  std::string& out = value_of(key);
  append(out, GgufType::string);
  append_string(out, value);
}

namespace {
std::string& begin_array(std::string& out, GgufType element, std::size_t n) {
  append(out, GgufType::array);
  append(out, element);
  append(out, static_cast<std::uint64_t>(n));
  return out;
}
}  // namespace

void GgufMetadata::put(std::string_view key, std::span<const std::string> values) {
  std::string& out = begin_array(value_of(key), GgufType::string, values.size());
  for (const std::string& s : values) append_string(out, s);
}
void GgufMetadata::put(std::string_view key, std::span<const float> values) {
  begin_array(value_of(key), GgufType::f32, values.size()) += as_text(std::as_bytes(values));
}
void GgufMetadata::put(std::string_view key, std::span<const std::int32_t> values) {
  begin_array(value_of(key), GgufType::i32, values.size()) += as_text(std::as_bytes(values));
}
void GgufMetadata::put(const GgufField& field) {
  const GgufValue& v = field.value;
  std::string& out = value_of(field.key);
  if (v.type() == GgufType::array) begin_array(out, v.element(), static_cast<std::size_t>(v.count()));
  else append(out, v.type());
  out += as_text(v.bytes());
}

std::string GgufMetadata::encoded() const {
  std::string out;
  for (const Pair& p : pairs_) {
    append_string(out, p.key);
    out += p.value;
  }
  return out;
}

}  // namespace mezzo::io
