// gguf.cpp - reading of GGUF files.
#include "io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

#include <fmt/core.h>

#include "core/fail.h"
#include "io/own_checksum.h"
#include "io/shown.h"

namespace mezzo::io {
namespace {

using kernels::Format;

constexpr std::string_view kOp = "gguf";
constexpr std::uint64_t kMaxAlignment = 1 << 20;
constexpr std::size_t kMaxDims = 4;       // the format's
constexpr int kMaxNesting = 4;            // of arrays; files in use have one level
constexpr std::uint64_t kMaxKey = 65535;  // the format's

/// Bytes of a value of this type; 0: they vary. Of types the format does not know: none.
std::optional<std::uint64_t> size_of(GgufType t) {
  constexpr std::uint64_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const auto index = static_cast<std::uint32_t>(t);
  return index < std::size(kSizes) ? std::optional(kSizes[index]) : std::nullopt;
}

template <class T> T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// ---- ggml's numbers for what a tensor holds ----------------------------------------------------------

struct TypeName {
  std::uint32_t id;
  std::string_view name;
};
constexpr TypeName kUnread[] = {{9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
                                {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
                                {24, "I8"},      {25, "I16"},   {29, "IQ1_M"},  {34, "TQ1_0"}, {35, "TQ2_0"},   {39, "MXFP4"}};

struct TypeNumber {
  std::uint32_t id;
  Encoding encoding;
};
const TypeNumber kTypes[] = {{0, f32},          {1, f16},           {30, bf16},         {28, f64},         {26, i32},
                             {27, i64},         {8, Format::q8_0},  {2, Format::q4_0},  {3, Format::q4_1}, {6, Format::q5_0},
                             {7, Format::q5_1}, {12, Format::q4_k}, {13, Format::q5_k}, {14, Format::q6_k}};

// ---- the cursor --------------------------------------------------------------------------------------

/// Reads from the file's beginning on; every step is checked against what is left.
class Cursor {
 public:
  Cursor(std::span<const std::byte> file, std::string_view path) : file_(file), path_(path) {}
  std::uint64_t position() const { return position_; }
  std::uint64_t left() const { return file_.size() - position_; }

  template <class T> T take(std::string_view what) {
    if (left() < sizeof(T)) complain(fmt::format("{} of {} bytes, {} are left: the file is truncated", what, sizeof(T), left()));
    const T value = load<T>(file_.data() + position_);
    position_ += sizeof(T);
    return value;
  }
  std::span<const std::byte> take_bytes(std::uint64_t n, std::string_view what) {
    if (n > left()) complain(fmt::format("{} of {} bytes, {} are left: the file is truncated or its length is wrong", what, n, left()));
    const auto bytes = file_.subspan(static_cast<std::size_t>(position_), static_cast<std::size_t>(n));
    position_ += n;
    return bytes;
  }
  /// A count of things that take `each` bytes at the least: more than fit are refused before anything is made for them.
  std::uint64_t take_count(std::uint64_t each, std::string_view what) {
    const std::uint64_t at = position_, n = take<std::uint64_t>(what);
    if (n > left() / each) complain(at, fmt::format("{} {}, at most {} fit into the {} bytes that are left", n, what, left() / each, left()));
    return n;
  }
  std::string_view take_string(std::string_view what) { return as_text(take_bytes(take<std::uint64_t>(what), what)); }

  [[noreturn]] void complain(std::uint64_t at, std::string_view what) const { fail(kOp, fmt::format("{}: byte {}: {}", path_, at, what)); }
  [[noreturn]] void complain(std::string_view what) const { complain(position_, what); }

 private:
  std::span<const std::byte> file_;
  std::string_view path_;
  std::uint64_t position_ = 0;
};

GgufType take_type(Cursor& in, std::string_view key) {
  const std::uint64_t at = in.position();
  const auto type = static_cast<GgufType>(in.take<std::uint32_t>("a value's type"));
  if (!size_of(type)) in.complain(at, fmt::format("key `{}`: value type {}, 0 to 12 were expected", shown(key), static_cast<std::uint32_t>(type)));
  return type;
}

/// How many elements of this type an array has: a string takes 8 bytes at the least, an array 12.
std::uint64_t take_element_count(Cursor& in, GgufType element) {
  const std::uint64_t size = *size_of(element);
  return in.take_count(size > 0 ? size : element == GgufType::string ? 8 : 12, "elements of an array");
}

/// Passes over `n` values and returns their bytes.
std::span<const std::byte> pass_values(Cursor& in, std::span<const std::byte> file, GgufType type, std::uint64_t n, std::string_view key, int depth) {
  const std::uint64_t begin = in.position();
  if (const std::uint64_t size = *size_of(type)) {
    const auto bytes = in.take_bytes(n * size, fmt::format("key `{}`: a value", shown(key)));  // n was checked to fit: no overflow
    if (type == GgufType::boolean) {
      const auto bad = std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return b > std::byte{1}; });
      if (bad != bytes.end())
        in.complain(begin + static_cast<std::uint64_t>(bad - bytes.begin()),
                    fmt::format("key `{}`: the value {} in a boolean, 0 or 1 was expected", shown(key), static_cast<int>(*bad)));
    }
    return bytes;
  }
  for (std::uint64_t i = 0; i < n; ++i) {
    if (type == GgufType::string) {
      in.take_string("a string");
      continue;
    }
    if (depth == kMaxNesting) in.complain(fmt::format("key `{}`: arrays in arrays, {} deep", shown(key), depth));
    const GgufType inner = take_type(in, key);
    const std::uint64_t count = take_element_count(in, inner);
    pass_values(in, file, inner, count, key, depth + 1);
  }
  return file.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(in.position() - begin));
}

GgufValue take_value(Cursor& in, std::span<const std::byte> file, std::string_view key) {
  const GgufType type = take_type(in, key);
  if (type != GgufType::array) return {type, pass_values(in, file, type, 1, key, 0)};
  const GgufType element = take_type(in, key);
  const std::uint64_t count = take_element_count(in, element);
  return {type, pass_values(in, file, element, count, key, 1), element, count};
}

struct Placed {
  GgufTensor tensor;
  std::uint64_t offset = 0, bytes = 0, at = 0;  // at: of the directory's entry, in the file
};

Placed take_tensor(Cursor& in, std::string_view path) {
  Placed p;
  p.at = in.position();
  p.tensor.name = in.take_string("a tensor's name");
  const std::string what = fmt::format("tensor `{}`", shown(p.tensor.name));
  const auto dims = in.take<std::uint32_t>("a number of dimensions");
  if (dims == 0 || dims > kMaxDims) in.complain(p.at, fmt::format("{}: {} dimensions, 1 to {} were expected", what, dims, kMaxDims));
  p.tensor.shape.resize(dims);
  for (std::uint32_t d = dims; d-- > 0;) {  // innermost first
    const auto size = in.take<std::uint64_t>("a dimension");
    if (size > INT64_MAX) in.complain(p.at, fmt::format("{}: a dimension of {}", what, size));
    p.tensor.shape[d] = static_cast<std::int64_t>(size);
  }
  const auto type = in.take<std::uint32_t>("a tensor's type");
  const auto known = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeNumber& t) { return t.id == type; });
  if (known == std::end(kTypes)) {
    const auto unread = std::find_if(std::begin(kUnread), std::end(kUnread), [&](const TypeName& t) { return t.id == type; });
    fail(kOp,
         fmt::format("{}: byte {}: {} holds {}, one of F32 F16 BF16 F64 I32 I64 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K was expected", path, p.at,
                     what, unread == std::end(kUnread) ? fmt::format("elements of type {}", type) : std::string(unread->name)),
         unread == std::end(kUnread) ? "" : "get this model in another quantisation, for instance Q8_0 or Q4_K_M");
  }
  p.tensor.encoding = known->encoding;
  p.offset = in.take<std::uint64_t>("a tensor's offset");
  p.bytes = static_cast<std::uint64_t>(byte_count(known->encoding, p.tensor.shape, fmt::format("{}: byte {}: {}", path, p.at, what)));
  return p;
}

/// In bounds, aligned, no two on the same bytes.
void place(std::vector<Placed>& tensors, std::span<const std::byte> data, std::uint64_t alignment, const Cursor& in) {
  const auto what = [](const Placed& p) { return fmt::format("tensor `{}`", shown(p.tensor.name)); };
  for (Placed& p : tensors) {
    if (p.offset % alignment != 0) in.complain(p.at, fmt::format("{}: offset {}, a multiple of {} was expected", what(p), p.offset, alignment));
    if (p.offset > data.size() || p.bytes > data.size() - p.offset)
      in.complain(p.at, fmt::format("{}: {} bytes at offset {} of {} bytes of data: the file is truncated, or the entry is wrong", what(p), p.bytes,
                                    p.offset, data.size()));
    p.tensor.data = data.subspan(static_cast<std::size_t>(p.offset), static_cast<std::size_t>(p.bytes));
  }
  std::vector<const Placed*> order;
  for (const Placed& p : tensors)
    if (p.bytes > 0) order.push_back(&p);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (std::size_t i = 1; i < order.size(); ++i)
    if (const Placed& a = *order[i - 1], &b = *order[i]; b.offset - a.offset < a.bytes)
      in.complain(b.at, fmt::format("{}: offset {} lies in {}, which ends at {}", what(b), b.offset, what(a), a.offset + a.bytes));
}

template <class T, class Key> const T* find_twice(const std::vector<T>& all, Key key) {
  std::vector<const T*> sorted;
  for (const T& x : all) sorted.push_back(&x);
  std::sort(sorted.begin(), sorted.end(), [&](auto* a, auto* b) { return key(*a) < key(*b); });
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end(), [&](auto* a, auto* b) { return key(*a) == key(*b); });
  return twice == sorted.end() ? nullptr : *twice;
}

}  // namespace

std::string_view name(GgufType t) {
  constexpr std::string_view kNames[] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<std::size_t>(t)];
}

GgufIndex parse_gguf(std::span<const std::byte> file, std::string_view path) {
  constexpr std::string_view kMagic = "GGUF";
  if (!as_text(file).starts_with(kMagic)) fail(kOp, fmt::format("{}: byte 0: no GGUF file (it does not begin with `GGUF`)", path));
  Cursor in(file, path);
  in.take_bytes(kMagic.size(), "the magic");
  GgufIndex index;
  index.version = in.take<std::uint32_t>("the version");
  if ((index.version & 0xffff) == 0) fail(kOp, fmt::format("{}: byte 4: a big-endian file, little-endian was expected", path));
  if (index.version < 2 || index.version > 3)
    fail(kOp, fmt::format("{}: byte 4: GGUF version {}, 2 or 3 was expected", path, index.version), "convert the model again with today's llama.cpp");
  const auto tensors_at = in.position();
  const auto tensor_count = in.take<std::uint64_t>("the number of tensors");
  const std::uint64_t field_count = in.take_count(8 + 4 + 1, "key-value pairs");
  if (tensor_count > in.left() / (8 + 4 + 8 + 4 + 8))
    in.complain(tensors_at, fmt::format("{} tensors, more than fit into the {} bytes that are left", tensor_count, in.left()));

  for (std::uint64_t i = 0; i < field_count; ++i) {
    const std::uint64_t at = in.position();
    const std::string_view key = in.take_string("a key");
    if (key.empty() || key.size() > kMaxKey) in.complain(at, fmt::format("a key of {} bytes, 1 to {} were expected", key.size(), kMaxKey));
    index.fields.push_back({key, take_value(in, file, key)});
  }
  if (const auto* twice = find_twice(index.fields, [](const GgufField& f) { return f.key; }))
    fail(kOp, fmt::format("{}: key `{}` twice", path, shown(twice->key)));
  const auto alignment = std::find_if(index.fields.begin(), index.fields.end(), [](const GgufField& f) { return f.key == "general.alignment"; });
  if (alignment != index.fields.end()) {
    const auto value = alignment->value.integer();
    if (!value || *value <= 0 || static_cast<std::uint64_t>(*value) > kMaxAlignment || !std::has_single_bit(static_cast<std::uint64_t>(*value)))
      fail(kOp, fmt::format("{}: general.alignment is {}, a power of two up to {} was expected", path,
                            value ? fmt::format("{}", *value) : alignment->value.type_name(), kMaxAlignment));
    index.alignment = static_cast<std::uint64_t>(*value);
  }

  std::vector<Placed> placed;
  for (std::uint64_t i = 0; i < tensor_count; ++i) placed.push_back(take_tensor(in, path));
  if (const auto* twice = find_twice(placed, [](const Placed& p) { return p.tensor.name; }))
    fail(kOp, fmt::format("{}: byte {}: tensor `{}` twice", path, twice->at, shown(twice->tensor.name)));
  const std::uint64_t begin = (in.position() + index.alignment - 1) / index.alignment * index.alignment;
  place(placed, begin < file.size() ? file.subspan(static_cast<std::size_t>(begin)) : std::span<const std::byte>(), index.alignment, in);
  for (Placed& p : placed) index.tensors.push_back(std::move(p.tensor));
  return index;
}

// ---- the ids of encodings, which the writer needs too ------------------------------------------------

std::uint32_t gguf_type_id(const Encoding& e) {
  const auto known = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeNumber& t) { return t.encoding == e; });
  if (known == std::end(kTypes)) fail(kOp, fmt::format("tensors of {} have no place in GGUF", name(e)));
  return known->id;
}

// ---- GgufFile ----------------------------------------------------------------------------------------

GgufFile::GgufFile(std::filesystem::path path) : path_(std::move(path)), file_(path_), index_(parse_gguf(file_.bytes(), path_.native())) {
  for (const GgufTensor& t : index_.tensors) by_name_.push_back(&t);
  std::sort(by_name_.begin(), by_name_.end(), [](auto* a, auto* b) { return a->name < b->name; });
  const GgufValue* checksum = field(kChecksumKey);
  if (const auto text = checksum ? checksum->string() : std::nullopt)
    require_sealed(file_.bytes(), static_cast<std::size_t>(reinterpret_cast<const std::byte*>(text->data()) - file_.bytes().data()), text->size(),
                   path_);
}

const GgufValue* GgufFile::field(std::string_view key) const& noexcept {
  const auto at = std::find_if(index_.fields.begin(), index_.fields.end(), [&](const GgufField& f) { return f.key == key; });
  return at == index_.fields.end() ? nullptr : &at->value;
}

const GgufTensor* GgufFile::tensor(std::string_view name) const& noexcept {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name, [](const GgufTensor* t, std::string_view n) { return t->name < n; });
  return at != by_name_.end() && (*at)->name == name ? *at : nullptr;
}

void GgufFile::fail_field(std::string_view key, std::string_view wanted) const {
  const GgufValue* value = field(key);
  if (!value) fail(kOp, fmt::format("{}: `{}` is missing, {} was expected", path_.native(), key, wanted));
  std::string found = value->type_name();
  if (const auto number = value->number()) found = fmt::format("{}", *number);
  if (const auto text = value->string()) found = fmt::format("\"{}\"", shown(*text));
  fail(kOp,
       fmt::format("{}: byte {}: `{}` is {}, {} was expected", path_.native(), value->bytes().data() - file_.bytes().data(), key, found, wanted));
}

std::int64_t GgufFile::integer(std::string_view key) const {
  const GgufValue* value = field(key);
  const auto n = value ? value->integer() : std::nullopt;
  if (!n) fail_field(key, "an integer");
  return *n;
}
std::string_view GgufFile::string(std::string_view key) const {
  const GgufValue* value = field(key);
  const auto text = value ? value->string() : std::nullopt;
  if (!text) fail_field(key, "a string");
  return *text;
}
double GgufFile::number_or(std::string_view key, double otherwise) const {
  const GgufValue* value = field(key);
  if (!value) return otherwise;
  const auto x = value->number();
  if (!x) fail_field(key, "a number");
  return *x;
}
bool GgufFile::boolean_or(std::string_view key, bool otherwise) const {
  const GgufValue* value = field(key);
  if (!value) return otherwise;
  const auto b = value->boolean();
  if (!b) fail_field(key, "a boolean");
  return *b;
}

}  // namespace mezzo::io
