// safetensors.cpp - reading and writing of safetensors files.
#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <tuple>
#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/json.h"
#include "io/own_checksum.h"
#include "io/shown.h"

namespace mezzo::io {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr std::size_t kMaxDims = 64;
constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::size_t kDataAlignment = 64;
constexpr std::size_t kLengthBytes = sizeof(std::uint64_t);

constexpr std::pair<Dtype, std::string_view> kDtypeNames[] = {{f32, "F32"}, {f16, "F16"}, {bf16, "BF16"}, {f64, "F64"},
                                                              {i32, "I32"}, {i64, "I64"}, {u8, "U8"},     {boolean, "BOOL"}};

std::string_view format_name(Dtype dtype) {
  return std::find_if(std::begin(kDtypeNames), std::end(kDtypeNames), [=](const auto& d) { return d.first == dtype; })->second;
}

/// Reads the header and remembers how far the parser has come, so that a complaint about a value can say where it stands.
class CountingIterator {
 public:
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  CountingIterator() = default;
  CountingIterator(const char* p, const char** reached) : p_(p), reached_(reached) {}
  reference operator*() const { return *p_; }
  CountingIterator& operator++() {
    *reached_ = ++p_;
    return *this;
  }
  CountingIterator operator++(int) {
    auto old = *this;
    ++*this;
    return old;
  }
  friend bool operator==(const CountingIterator& a, const CountingIterator& b) { return a.p_ == b.p_; }

 private:
  const char* p_ = nullptr;
  const char** reached_ = nullptr;
};

struct HeaderEntry {
  TensorEntry tensor;
  std::uint64_t offsets[2] = {};
  std::uint64_t position = 0;  // of its name, in the file
};

/// Takes the parser's events for exactly the grammar of the header; anything else is an error at once, so no tree is ever built.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(std::string_view header, std::string_view path) : header_(header), path_(path), reached_(header.data()) {}

  std::vector<HeaderEntry> read() {
    const CountingIterator begin(header_.data(), &reached_), end(header_.data() + header_.size(), &reached_);
    nlohmann::json::sax_parse(begin, end, this);
    return std::move(entries_);
  }
  Metadata metadata;

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool number_float(double, const std::string& text) override { unexpected("the number " + shown(text)); }
  bool number_integer(std::int64_t value) override { unexpected(fmt::format("the number {}", value)); }
  bool binary(binary_t&) override { unexpected("binary"); }

  bool number_unsigned(std::uint64_t value) override {
    if (state_ == State::shape_item) {
      auto& shape = entries_.back().tensor.shape;
      if (value > INT64_MAX) complain(fmt::format("a dimension of {}", value));
      if (shape.size() == kMaxDims) complain(fmt::format("more than {} dimensions", kMaxDims));
      shape.push_back(static_cast<std::int64_t>(value));
    } else if (state_ == State::offset_item) {
      if (offsets_ == 2) complain("more than two data_offsets");
      entries_.back().offsets[offsets_++] = value;
    } else {
      unexpected(fmt::format("the number {}", value));
    }
    return true;
  }

  bool string(string_t& text) override {
    if (state_ == State::metadata_value) {
      if (!metadata.emplace(std::move(key_), std::move(text)).second) complain("the same key twice");
      state_ = State::metadata;
    } else if (state_ == State::dtype_value) {
      const auto found = std::find_if(std::begin(kDtypeNames), std::end(kDtypeNames), [&](const auto& d) { return d.second == text; });
      if (found == std::end(kDtypeNames)) complain(fmt::format("dtype `{}`, one of F32 F16 BF16 F64 I32 I64 U8 BOOL was expected", shown(text)));
      entries_.back().tensor.dtype = found->first;
      state_ = State::tensor;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::file: state_ = State::top; break;
      case State::metadata_object: state_ = State::metadata; break;
      case State::tensor_object: state_ = State::tensor; break;
      default: unexpected("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    switch (state_) {
      case State::top:
        if (name == kMetadataKey) {
          if (std::exchange(has_metadata_, true)) complain("__metadata__ twice");
          state_ = State::metadata_object;
        } else {
          entries_.emplace_back();
          entries_.back().tensor.name = std::move(name);
          entries_.back().position = position();
          seen_[0] = seen_[1] = seen_[2] = false;
          offsets_ = 0;
          state_ = State::tensor_object;
        }
        break;
      case State::metadata:
        key_ = std::move(name);
        state_ = State::metadata_value;
        break;
      case State::tensor: {
        constexpr std::string_view kFields[] = {"dtype", "shape", "data_offsets"};
        constexpr State kNext[] = {State::dtype_value, State::shape_array, State::offset_array};
        const auto field = static_cast<std::size_t>(std::find(std::begin(kFields), std::end(kFields), name) - std::begin(kFields));
        if (field == 3) complain(fmt::format("a field `{}`, dtype, shape and data_offsets were expected", shown(name)));
        if (std::exchange(seen_[field], true)) complain(fmt::format("{} twice", name));
        state_ = kNext[field];
        break;
      }
      default: unexpected("a key");
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::tensor) {
      if (!(seen_[0] && seen_[1] && seen_[2])) complain("a field is missing, dtype, shape and data_offsets were expected");
      state_ = State::top;
    } else if (state_ == State::metadata) {
      state_ = State::top;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ == State::shape_array) state_ = State::shape_item;
    else if (state_ == State::offset_array) state_ = State::offset_item;
    else unexpected("an array");
    return true;
  }

  bool end_array() override {
    if (state_ == State::offset_item && offsets_ != 2) complain("fewer than two data_offsets");
    state_ = State::tensor;
    return true;
  }

  bool parse_error(std::size_t at, const std::string&, const nlohmann::json::exception& e) override {
    fail("safetensors", fmt::format("{}: header, byte {}: {}", path_, kLengthBytes + (at > 0 ? at - 1 : 0), plain_message(e.what())));
  }

 private:
  enum class State {
    file,
    top,
    metadata_object,
    metadata,
    metadata_value,
    tensor_object,
    tensor,
    dtype_value,
    shape_array,
    shape_item,
    offset_array,
    offset_item
  };

  std::uint64_t position() const { return kLengthBytes + static_cast<std::uint64_t>(reached_ - header_.data()); }

  [[noreturn]] void complain(const std::string& what) const {
    std::string where;
    if (state_ == State::metadata || state_ == State::metadata_value || state_ == State::metadata_object) where = "__metadata__: ";
    else if (!entries_.empty() && state_ != State::top && state_ != State::file)
      where = fmt::format("tensor `{}`: ", shown(entries_.back().tensor.name));
    fail("safetensors", fmt::format("{}: header, near byte {}: {}{}", path_, position(), where, what));
  }

  [[noreturn]] void unexpected(const std::string& what) const {
    static constexpr std::string_view kWanted[] = {"an object", "a name",
                                                   "an object", "a key",
                                                   "a string",  "an object",
                                                   "a field",   "a dtype's name",
                                                   "an array",  "a dimension (an integer from 0 up)",
                                                   "an array",  "an offset (an integer from 0 up)"};
    complain(fmt::format("{}, {} was expected", what, kWanted[static_cast<int>(state_)]));
  }

  std::string_view header_, path_;
  const char* reached_;
  State state_ = State::file;
  std::vector<HeaderEntry> entries_;
  std::string key_;
  bool has_metadata_ = false, seen_[3] = {};
  int offsets_ = 0;
};

void check_names(const std::vector<HeaderEntry>& entries, std::string_view path) {
  std::vector<const HeaderEntry*> sorted;
  sorted.reserve(entries.size());
  for (const auto& e : entries) sorted.push_back(&e);
  std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) {
    return std::pair(std::string_view(a->tensor.name), a->position) < std::pair(std::string_view(b->tensor.name), b->position);
  });
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->tensor.name == b->tensor.name; });
  if (twice != sorted.end())
    fail("safetensors", fmt::format("{}: header, near byte {}: tensor `{}` twice", path, twice[1]->position, shown(twice[1]->tensor.name)));
}

/// A bool of any other byte would be undefined behaviour in whoever reads it.
void check_booleans(const TensorEntry& e, std::uint64_t offset, std::string_view path) {
  auto any = std::byte{};
  for (const std::byte b : e.data) any |= b;
  if (any <= std::byte{1}) return;
  const auto bad = std::find_if(e.data.begin(), e.data.end(), [](std::byte b) { return b > std::byte{1}; });
  fail("safetensors", fmt::format("{}: byte {}: tensor `{}`: the value {} in a BOOL, 0 or 1 was expected", path,
                                  offset + static_cast<std::uint64_t>(bad - e.data.begin()), shown(e.name), static_cast<int>(*bad)));
}

}  // namespace

std::int64_t byte_count(Dtype dtype, std::span<const std::int64_t> shape, std::string_view what) {
  // Zero dimensions count as one at first: whether the rest overflows must not depend on their order.
  auto bytes = static_cast<std::int64_t>(size_of(dtype));
  bool empty = false, overflow = false;
  for (const std::int64_t d : shape) {
    if (d < 0) fail("safetensors", fmt::format("{}: a dimension of {}", what, d));
    empty |= d == 0;
    overflow |= __builtin_mul_overflow(bytes, std::max<std::int64_t>(d, 1), &bytes);
  }
  if (overflow) fail("safetensors", fmt::format("{}: a shape of more bytes than 63 bits can count", what));
  return empty ? 0 : bytes;
}

TensorIndex parse_safetensors(std::span<const std::byte> file, std::string_view path) {
  if (file.size() < kLengthBytes)
    fail("safetensors", fmt::format("{}: {} bytes, a header length of {} bytes was expected: the file is truncated or of another kind", path,
                                    file.size(), kLengthBytes));
  std::uint64_t length;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > kMaxHeader)
    fail("safetensors",
         fmt::format("{}: byte 0: a header of {} bytes, at most {} were expected: the file is of another kind", path, length, kMaxHeader));
  if (length > file.size() - kLengthBytes)
    fail("safetensors", fmt::format("{}: byte 0: a header of {} bytes in a file of {}: the file is truncated", path, length, file.size()));
  const std::string_view header = as_text(file.subspan(kLengthBytes, static_cast<std::size_t>(length)));
  if (!header.starts_with('{')) fail("safetensors", fmt::format("{}: byte {}: the header does not begin with {{", path, kLengthBytes));
  if (const auto nul = header.find('\0'); nul != header.npos)  // the JSON parser would take it for the end
    fail("safetensors", fmt::format("{}: header, byte {}: a zero byte", path, kLengthBytes + nul));

  HeaderReader reader(header, path);
  std::vector<HeaderEntry> entries = reader.read();
  check_names(entries, path);

  // Sorted by place, each must begin where the one before ends, and the last must end with the file: no overlap, no hole, nothing behind.
  std::sort(entries.begin(), entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::tie(a.offsets[0], a.offsets[1], a.tensor.name) < std::tie(b.offsets[0], b.offsets[1], b.tensor.name);
  });
  const std::uint64_t data_begin = kLengthBytes + length, data_size = file.size() - data_begin;
  TensorIndex index;
  index.metadata = std::move(reader.metadata);
  index.entries.reserve(entries.size());
  std::uint64_t expected = 0;
  for (HeaderEntry& e : entries) {
    const auto [begin, end] = e.offsets;
    const std::string what = fmt::format("{}: header, near byte {}: tensor `{}`", path, e.position, shown(e.tensor.name));
    const std::int64_t bytes = byte_count(e.tensor.dtype, e.tensor.shape, what);
    if (end < begin || end - begin != static_cast<std::uint64_t>(bytes))
      fail("safetensors", fmt::format("{}: data_offsets [{}, {}] for {} bytes of shape and dtype", what, begin, end, bytes));
    if (begin != expected)
      fail("safetensors", fmt::format("{}: data_offsets [{}, {}] leave {} the tensor before, {} was expected as the begin", what, begin, end,
                                      begin < expected ? "an overlap with" : "a hole after", expected));
    if (end > data_size)
      fail("safetensors", fmt::format("{}: data_offsets [{}, {}] in {} bytes of data: the file is truncated", what, begin, end, data_size));
    e.tensor.data = file.subspan(static_cast<std::size_t>(data_begin + begin), static_cast<std::size_t>(bytes));
    if (e.tensor.dtype == boolean) check_booleans(e.tensor, data_begin + begin, path);
    index.entries.push_back(std::move(e.tensor));
    expected = end;
  }
  if (expected != data_size)
    fail("safetensors", fmt::format("{}: byte {}: {} bytes that belong to no tensor", path, data_begin + expected, data_size - expected));
  return index;
}

namespace {

/// Where the checksum's digits stand in a header that has the entry; npos: it has none.
std::size_t place_of_checksum(std::string_view header) {
  const std::string before = fmt::format("\"{}\":\"", kChecksumKey);
  const auto at = header.find(before);
  return at == header.npos ? header.npos : at + before.size();
}

}  // namespace

SafetensorsFile::SafetensorsFile(std::filesystem::path path)
    : path_(std::move(path)), file_(path_), index_(parse_safetensors(file_.bytes(), path_.native())) {
  if (const auto entry = index_.metadata.find(std::string(kChecksumKey)); entry != index_.metadata.end())
    require_sealed(file_.bytes(), place_of_checksum(as_text(file_.bytes())), entry->second.size(), path_);
  by_name_.reserve(index_.entries.size());
  for (const TensorEntry& e : index_.entries) by_name_.push_back(&e);
  std::sort(by_name_.begin(), by_name_.end(), [](auto* a, auto* b) { return a->name < b->name; });
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const& noexcept {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name, [](const TensorEntry* e, std::string_view n) { return e->name < n; });
  return at != by_name_.end() && (*at)->name == name ? *at : nullptr;
}

// ---- writing ---------------------------------------------------------------------------------

namespace {

struct Plan {
  std::vector<const TensorEntry*> order;
  std::vector<std::int64_t> bytes;  // of each, in that order
  std::string header;               // padded
  std::uint64_t total = 0;          // of the file
};

std::string json_string(std::string_view text, const std::string& path) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail("safetensors", fmt::format("{}: `{}` is not UTF-8, which names and metadata must be", path, shown(text)));
  }
}

Plan plan_file(const std::string& path, std::span<const TensorEntry> entries, const Metadata& metadata) {
  Plan plan;
  for (const TensorEntry& e : entries) plan.order.push_back(&e);
  // Element sizes fall by powers of two, so that without holes every tensor still begins at a multiple of its own.
  std::sort(plan.order.begin(), plan.order.end(),
            [](auto* a, auto* b) { return size_of(a->dtype) != size_of(b->dtype) ? size_of(a->dtype) > size_of(b->dtype) : a->name < b->name; });

  std::string& header = plan.header;
  header = "{";
  if (!metadata.empty()) {
    header += fmt::format("\"{}\":{{", kMetadataKey);
    for (const auto& [key, value] : metadata) header += json_string(key, path) + ':' + json_string(value, path) + ',';
    header.back() = '}';
    header += ',';
  }
  std::uint64_t offset = 0;
  for (const TensorEntry* e : plan.order) {
    if (e->name == kMetadataKey) fail("safetensors", fmt::format("{}: a tensor named `{}`, which the format keeps for itself", path, e->name));
    plan.bytes.push_back(byte_count(e->dtype, e->shape, fmt::format("{}: tensor `{}`", path, shown(e->name))));
    std::string dims;
    for (const std::int64_t d : e->shape) dims += fmt::format("{}{}", dims.empty() ? "" : ",", d);
    const std::uint64_t end = offset + static_cast<std::uint64_t>(plan.bytes.back());
    header += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}},", json_string(e->name, path), format_name(e->dtype), dims,
                          offset, end);
    offset = end;
  }
  if (header.back() == ',') header.back() = '}';
  else header += '}';

  std::vector<std::string_view> names;
  for (const TensorEntry& e : entries) names.push_back(e.name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    fail("safetensors", fmt::format("{}: two tensors named `{}`", path, shown(*twice)));

  header.resize((kLengthBytes + header.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment - kLengthBytes, ' ');
  if (header.size() > kMaxHeader) fail("safetensors", fmt::format("{}: a header of {} bytes, the format allows {}", path, header.size(), kMaxHeader));
  plan.total = kLengthBytes + header.size() + offset;
  return plan;
}

}  // namespace

WrittenFile write_safetensors(const std::filesystem::path& path, std::span<const TensorEntry> entries, const Metadata& metadata,
                              FunctionRef<void(const TensorEntry&, TensorSink)> produce) {
  const Plan plan = plan_file(path.native(), entries, metadata);
  AtomicFile file(path, plan.total);
  const std::uint64_t length = plan.header.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(plan.header);
  for (std::size_t i = 0; i < plan.order.size(); ++i) {
    std::int64_t left = plan.bytes[i];
    const auto sink = [&](std::span<const std::byte> piece) {
      left -= static_cast<std::int64_t>(piece.size());
      MEZZO_CHECK(left >= 0);
      file.write(piece);
    };
    produce(*plan.order[i], sink);
    MEZZO_CHECK(left == 0);
  }
  if (metadata.count(std::string(kChecksumKey)) > 0) seal(file, kLengthBytes + place_of_checksum(plan.header));
  file.commit();
  return {file.size(), file.checksum()};
}

WrittenFile write_safetensors(const std::filesystem::path& path, std::span<const TensorEntry> entries, const Metadata& metadata) {
  return write_safetensors(path, entries, metadata, [](const TensorEntry& e, TensorSink sink) { sink(e.data); });
}

}  // namespace mezzo::io
