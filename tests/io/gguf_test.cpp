// gguf_test.cpp - GGUF files: what the `gguf` package wrote, what we write and read back, and what lies.
#include <cstring>

#include <doctest/doctest.h>
#include <fmt/core.h>

#include "io/gguf.h"
#include "support.h"

using namespace mezzo;
using namespace mezzo::test;
using io::GgufType;
using kernels::Format;

namespace {

/// A GGUF file put together field by field, right or wrong.
class Builder {
 public:
  explicit Builder(std::uint64_t tensors = 0, std::uint64_t fields = 0, std::uint32_t version = 3) {
    bytes_ = "GGUF";
    put(version).put(tensors).put(fields);
  }
  template <class T> Builder& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Builder& text(std::string_view s) {
    put(static_cast<std::uint64_t>(s.size()));
    bytes_ += s;
    return *this;
  }
  Builder& tensor(std::string_view name, std::vector<std::uint64_t> ne, std::uint32_t type, std::uint64_t offset) {
    text(name).put(static_cast<std::uint32_t>(ne.size()));
    for (const auto n : ne) put(n);
    return put(type).put(offset);
  }
  Builder& data(std::size_t n) {
    bytes_.resize((bytes_.size() + 31) / 32 * 32 + n, 'x');
    return *this;
  }
  std::string error() const {
    return error_of([&] { io::parse_gguf(io::as_bytes(bytes_), "f.gguf"); });
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

constexpr std::uint64_t kHuge = std::uint64_t{1} << 60;
const std::uint32_t kU32 = 4, kBool = 7, kString = 8, kArray = 9;

}  // namespace

TEST_CASE("gguf: a file of the gguf package") {
  const io::GgufFile f("tests/golden/tiny.gguf");
  CHECK(f.version() == 3);
  CHECK(f.string("general.architecture") == "llama");
  const auto integer = [&](const char* key) { return f.field(key)->integer(); };
  CHECK(integer("t.u8") == 200);
  CHECK(integer("t.i8") == -100);
  CHECK(integer("t.u16") == 60000);
  CHECK(integer("t.i16") == -30000);
  CHECK(integer("t.u32") == 4'000'000'000);
  CHECK(integer("t.i32") == -2'000'000'000);
  CHECK(integer("t.i64") == -(std::int64_t{1} << 62));
  CHECK_FALSE(integer("t.u64"));  // beyond 63 bits
  CHECK(f.field("t.u64")->number() == 0x1p63);
  CHECK(f.field("t.f32")->number() == 0.25);
  CHECK(f.field("t.f64")->number() == 1e300);
  CHECK(f.field("t.bool")->boolean() == true);
  CHECK(f.string("t.string") == "mezzo – half");
  CHECK(*f.field("t.strings")->strings() == std::vector<std::string_view>{"a", "", "日本"});
  CHECK(*f.field("t.ints")->integers() == std::vector<std::int64_t>{1, -2, 3});
  CHECK(*f.field("t.floats")->floats() == std::vector<float>{0.5f, -1.5f});
  CHECK(f.field("t.missing") == nullptr);
  CHECK(f.field("t.strings")->type_name() == "an array of 3 string");
  CHECK(contains(error_of([&] { f.integer("t.string"); }), "tests/golden/tiny.gguf: byte"));
  CHECK(contains(error_of([&] { f.integer("t.string"); }), "`t.string` is \"mezzo – half\", an integer was expected"));
  CHECK(contains(error_of([&] { f.integer("t.nothing"); }), "`t.nothing` is missing, an integer was expected"));

  const io::GgufTensor* plain = f.tensor("plain");
  REQUIRE(plain);
  CHECK(plain->shape == std::vector<std::int64_t>{3, 64});
  CHECK(plain->encoding == io::Encoding(f32));
  std::vector<float> x(3 * 64), y(3 * 64);
  io::decode(plain->encoding, plain->data.data(), f32, x.data(), 192);
  for (int i = 0; i < 192; ++i) CHECK(x[i] == static_cast<float>(i - 96) / 8);
  for (const auto& [tensor, format] : {std::pair("blocks.Q8_0", Format::q8_0), {"blocks.Q4_0", Format::q4_0}, {"blocks.Q4_1", Format::q4_1}}) {
    const char* const name = tensor;
    CAPTURE(name);
    const io::GgufTensor* t = f.tensor(name);
    REQUIRE(t);
    CHECK(t->encoding == io::Encoding(format));
    CHECK(t->shape == std::vector<std::int64_t>{3, 64});
    io::decode(t->encoding, t->data.data(), f32, y.data(), 192);
    // A level is 1/127 or 1/8 of the largest of 32; +-12 here. Half of one is the most that rounding loses; 0.1 % for the scale's own rounding.
    const double step = 12.0 / (format == Format::q8_0 ? 127 : 8) * 1.001;
    for (int i = 0; i < 192; ++i) CHECK(std::abs(x[i] - y[i]) <= (format == Format::q4_0 ? step : step / 2));
    if (format == Format::q4_1) continue;
    std::string ours;
    io::encode(t->encoding, x.data(), 192, name, [&](std::span<const std::byte> piece) { ours += io::as_text(piece); });
    CHECK(ours == io::as_text(t->data));
  }
}

TEST_CASE("gguf: what is written is read back, value by value") {
  TempDir dir;
  io::GgufMetadata metadata;
  metadata.put("general.architecture", "qwen2");
  metadata.put("n", std::uint32_t{7});
  metadata.put("x", 0.5f);
  metadata.put("yes", true);
  const std::vector<std::string> words{"one", "two", ""};
  metadata.put("words", std::span(words));
  const std::vector<float> scores{1, -2};
  metadata.put("scores", std::span(scores));
  const std::vector<std::int32_t> kinds{1, 2, 3};
  metadata.put("kinds", std::span(kinds));
  metadata.put("n", std::uint32_t{8});  // replaces
  const io::GgufFile tiny("tests/golden/tiny.gguf");
  for (const auto& field : tiny.fields())
    if (field.key != "general.architecture") metadata.put(field);

  std::vector<float> x(5 * 96);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) / 16;
  std::vector<io::GgufTensor> tensors;
  for (const io::Encoding e : {io::Encoding(f32), io::Encoding(f16), io::Encoding(bf16), io::Encoding(Format::q8_0), io::Encoding(Format::q4_0)})
    tensors.push_back({io::name(e) == "F32"    ? "a"
                       : io::name(e) == "F16"  ? "b"
                       : io::name(e) == "BF16" ? "c"
                       : io::name(e) == "Q8_0" ? "d"
                                               : "e",
                       e,
                       {5, 96},
                       {}});
  const auto path = dir / "m.gguf";
  const auto written = io::write_gguf(path, metadata, tensors,
                                      [&](const io::GgufTensor& t, io::TensorSink sink) { io::encode(t.encoding, x.data(), 480, t.name, sink); });
  CHECK(written.bytes == std::filesystem::file_size(path));
  CHECK(dir.names() == std::vector<std::string>{"m.gguf"});

  const io::GgufFile f(path);
  CHECK(f.integer("n") == 8);
  CHECK(f.number_or("x", 0) == 0.5);
  CHECK(f.boolean_or("yes", false));
  CHECK(*f.field("words")->strings() == std::vector<std::string_view>{"one", "two", ""});
  CHECK(*f.field("scores")->floats() == scores);
  CHECK(*f.field("kinds")->integers() == std::vector<std::int64_t>{1, 2, 3});
  CHECK(f.integer("general.quantization_version") == 2);
  for (const auto& field : tiny.fields()) {
    if (field.key == "general.architecture") continue;
    const io::GgufValue* copy = f.field(field.key);
    REQUIRE(copy);
    CHECK(copy->type() == field.value.type());
    CHECK(io::as_text(copy->bytes()) == io::as_text(field.value.bytes()));
  }
  for (const io::GgufTensor& t : f.tensors()) {
    CAPTURE(t.name);
    CHECK(t.shape == std::vector<std::int64_t>{5, 96});
    std::vector<float> y(480);
    io::decode(t.encoding, t.data.data(), f32, y.data(), 480);
    std::string again;
    io::encode(t.encoding, y.data(), 480, t.name, [&](std::span<const std::byte> piece) { again += io::as_text(piece); });
    if (t.name != "e") CHECK(again == io::as_text(t.data));  // Q4_0's largest may be -8 d and then not come back
    const double worst = t.name == "a" || t.name == "b" ? 0 : t.name == "c" ? 3.2 / 256 : t.name == "d" ? 3.2 / 127 : 3.2 / 8;
    for (int i = 0; i < 480; ++i) CHECK(std::abs(y[i] - x[i]) <= worst);
  }
  x[100] = 1e6f;
  CHECK(contains(error_of([&] { io::encode(f16, x.data(), 480, "t", [](auto) {}); }),
                 "t: element 100 is 1000000, a number of at most 65504 was expected in F16"));
  CHECK(contains(error_of([&] {
                   io::write_gguf(path, metadata, std::vector<io::GgufTensor>{{"a", Format::q8_0, {2, 40}, {}}});
                 }),
                 "40 elements in Q8_0, whole blocks of 32 were expected"));
  CHECK(contains(error_of([&] {
                   io::write_gguf(path, metadata, std::vector<io::GgufTensor>{{"a", f32, {0}, {}}, {"a", f32, {0}, {}}});
                 }),
                 "two tensors named `a`"));
}

TEST_CASE("gguf: lies in the header") {
  const auto says = [](const Builder& b, std::string_view part) {
    INFO(b.error());
    CHECK(contains(b.error(), part));
    CHECK(contains(b.error(), "f.gguf: "));
  };
  CHECK(contains(error_of([] { io::parse_gguf(io::as_bytes("GGML"), "f.gguf"); }), "f.gguf: byte 0: no GGUF file"));
  CHECK(contains(error_of([] { io::parse_gguf(io::as_bytes("GGUF\3"), "f.gguf"); }),
                 "f.gguf: byte 4: the version of 4 bytes, 1 are left: the file is truncated"));
  says(Builder(0, 0, 1), "GGUF version 1, 2 or 3 was expected");
  says(Builder(0, 0, 3u << 24), "big-endian");
  says(Builder(kHuge, 0), "byte 8: 1152921504606846976 tensors, more than fit into the 0 bytes that are left");
  says(Builder(0, kHuge), "byte 16: 1152921504606846976 key-value pairs, at most 0 fit");
  says(Builder(0, 1).put(kHuge).put(std::uint64_t{0}), "a key of 1152921504606846976 bytes, 8 are left");
  says(Builder(0, 1).text("").put(kU32).put(kU32), "a key of 0 bytes");
  says(Builder(0, 1).text("k").put(std::uint32_t{13}).put(kU32), "byte 33: key `k`: value type 13, 0 to 12 were expected");
  says(Builder(0, 1).text("k").put(kArray).put(kU32).put(kHuge), "1152921504606846976 elements of an array, at most 0 fit");
  says(Builder(0, 1).text("k").put(kArray).put(kString).put(std::uint64_t{2}).text("a").put(std::uint64_t{99}), "a string of 99 bytes, 0 are left");
  says(Builder(0, 1).text("k").put(kBool).put(std::uint8_t{2}), "the value 2 in a boolean, 0 or 1 was expected");
  says(Builder(0, 2).text("k").put(kU32).put(kU32).text("k").put(kU32).put(kU32), "key `k` twice");
  Builder nested(0, 1);
  nested.text("k").put(kArray);
  for (int i = 0; i < 9; ++i) nested.put(kArray).put(std::uint64_t{1});
  says(nested.put(kU32).put(std::uint64_t{0}), "arrays in arrays");
  for (const std::uint32_t alignment : {0u, 3u, 1u << 30})
    says(Builder(0, 1).text("general.alignment").put(kU32).put(alignment), "a power of two up to 1048576 was expected");
  says(Builder(0, 1).text("general.alignment").put(kString).text("32"), "general.alignment is string");

  says(Builder(1).tensor("t", {}, 0, 0).data(32), "tensor `t`: 0 dimensions");
  says(Builder(1).tensor("t", {1, 1, 1, 1, 1}, 0, 0), "5 dimensions, 1 to 4 were expected");
  says(Builder(1).tensor("t", {kHuge, 16}, 0, 0), "more bytes than 63 bits can count");
  says(Builder(1).tensor("t", {~std::uint64_t{0}}, 0, 0), "a dimension of 18446744073709551615");
  says(Builder(1).tensor("t", {kHuge}, 0, 0), "4611686018427387904 bytes at offset 0 of 0 bytes of data");
  says(Builder(1).tensor("t", {256}, 10, 0), "tensor `t` holds Q2_K");
  says(Builder(1).tensor("t", {256}, 99, 0), "tensor `t` holds elements of type 99");
  says(Builder(1).tensor("t", {33}, 8, 0), "33 elements in Q8_0, whole blocks of 32");
  says(Builder(1).tensor("t", {8}, 0, 4).data(64), "offset 4, a multiple of 32 was expected");
  says(Builder(1).tensor("t", {8}, 0, ~std::uint64_t{31}).data(64), "32 bytes at offset 18446744073709551584 of 64 bytes");
  says(Builder(2).tensor("a", {16}, 0, 0).tensor("b", {8}, 0, 32).data(64), "tensor `b`: offset 32 lies in tensor `a`, which ends at 64");
  says(Builder(2).tensor("a", {8}, 0, 0).tensor("a", {8}, 0, 32).data(64), "tensor `a` twice");
  says(Builder(2).tensor("a", {8}, 0, 0).data(32), "a tensor's name");
}

TEST_CASE("gguf: every prefix of a file is an error, and no byte of it brings the reader down") {
  const std::string whole = slurp("tests/golden/tiny.gguf");
  const auto data = whole.size() - 64;  // padding may be cut from the end
  for (std::size_t n = 0; n < data; n += n < 2000 ? 1 : 97) {
    CAPTURE(n);
    CHECK(error_of([&] { io::parse_gguf(io::as_bytes(std::string_view(whole).substr(0, n)), "f"); }) != "no error");
  }
  for (std::size_t i = 0; i < std::min<std::size_t>(whole.size(), 1500); ++i) {
    std::string bad = whole;
    bad[i] = static_cast<char>(bad[i] ^ 0x81);
    error_of([&] { io::parse_gguf(io::as_bytes(bad), "f"); });
  }
}
