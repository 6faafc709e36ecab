// safetensors_test.cpp - the reader against files written here by hand, the writer against the reader and byte for byte.
#include "io/safetensors.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <bit>
#include <cstring>
#include <utility>

#include <fmt/core.h>

#include "io/support.h"

using namespace mezzo;
using namespace mezzo::io;
using namespace mezzo::test;

namespace {

std::string file_of(const std::string& header, const std::string& data) {
  const std::uint64_t n = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  return out + header + data;
}

std::string reject(const std::string& header, const std::string& data) {
  const std::string file = file_of(header, data);
  const std::string error = error_of([&] { parse_safetensors(as_bytes(file), "/m"); });
  CHECK(error.starts_with("[safetensors] /m: "));
  CHECK(error.find('\n') == error.npos);
  return error;
}

const std::string kTwo =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},"a":{"shape":[2,1],"data_offsets":[0,8],"dtype":"F32"}})";
const std::string kTwoData = std::string("\0\0\x80\x3f\0\0\0\xc0", 8) + "xyz";

}  // namespace

TEST_CASE("safetensors: reads a file written by hand, entries in the order of their data") {
  const TempDir dir;
  spit(dir / "m", file_of(kTwo + "   ", kTwoData));
  const SafetensorsFile file(dir / "m");
  REQUIRE(file.entries().size() == 2);
  const TensorEntry& a = file.entries()[0];
  CHECK(a.name == "a");
  CHECK(a.dtype == f32);
  CHECK(a.shape == std::vector<std::int64_t>{2, 1});
  float values[2];
  REQUIRE(a.data.size() == 8);
  std::memcpy(values, a.data.data(), 8);
  CHECK(values[0] == 1.0f);
  CHECK(values[1] == -2.0f);
  REQUIRE(file.find("b") != nullptr);
  CHECK(as_text(file.find("b")->data) == "xyz");
  CHECK(file.find("c") == nullptr);
  CHECK(file.find("") == nullptr);
  CHECK(file.metadata() == Metadata{{"format", "pt"}});
  CHECK(parse_safetensors(as_bytes(file_of("{}", "")), "m").entries.empty());
  CHECK(parse_safetensors(
            as_bytes(file_of(R"({"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"e":{"dtype":"F16","shape":[0,5],"data_offsets":[8,8]}})",
                             "12345678")),
            "m")
            .entries.size() == 2);
}

TEST_CASE("safetensors: every dtype, scalars, empty tensors, awkward names and metadata survive a round trip") {
  const TempDir dir;
  const std::vector<std::byte> data(600, std::byte{1});
  const std::span<const std::byte> bytes(data);
  std::vector<TensorEntry> entries;
  for (const Dtype t : {boolean, u8, i32, i64, f64, bf16, f16, f32})
    entries.push_back({fmt::format("t.{}", name(t)), t, {3, 5}, bytes.first(15 * size_of(t))});
  entries.push_back({"scalar", f64, {}, bytes.first(8)});
  entries.push_back({"empty", f32, {4, 0, 2}, {}});
  entries.push_back({"quote\" slash\\ tab\t \u00fc \U0001F600", u8, {1}, bytes.first(1)});
  entries.push_back({"", u8, {2}, bytes.first(2)});
  const Metadata metadata{{"k\n", "v\""}, {"a", ""}};
  const WrittenFile written = write_safetensors(dir / "m", entries, metadata);
  const std::string file = slurp(dir / "m");
  CHECK(written.bytes == file.size());
  CHECK(written.checksum == checksum64(as_bytes(file)));

  const SafetensorsFile read(dir / "m");
  CHECK(read.metadata() == metadata);
  REQUIRE(read.entries().size() == entries.size());
  for (const TensorEntry& e : entries) {
    const TensorEntry* r = read.find(e.name);
    REQUIRE(r != nullptr);
    CHECK(r->dtype == e.dtype);
    CHECK(r->shape == e.shape);
    CHECK(as_text(r->data) == as_text(e.data));
    CHECK(reinterpret_cast<std::uintptr_t>(r->data.data()) % size_of(r->dtype) == 0);
  }
  std::uint64_t header = 0;
  std::memcpy(&header, file.data(), 8);
  CHECK((8 + header) % 64 == 0);

  std::vector<TensorEntry> reversed(entries.rbegin(), entries.rend());
  write_safetensors(dir / "n", reversed, metadata);
  CHECK(slurp(dir / "n") == file);

  // Produced in pieces: the same bytes.
  write_safetensors(dir / "o", entries, metadata, [](const TensorEntry& e, TensorSink sink) {
    for (const std::byte& b : e.data) sink({&b, 1});
  });
  CHECK(slurp(dir / "o") == file);
  CHECK_THROWS_AS(write_safetensors(dir / "p", entries, {}, [](const TensorEntry&, TensorSink) {}), std::logic_error);
  CHECK_FALSE(std::filesystem::exists(dir / "p"));
}

TEST_CASE("safetensors: the writer's bytes, spelled out") {
  const TempDir dir;
  const float x[] = {1.0f};
  const std::vector<TensorEntry> entries{{"u", u8, {1}, as_bytes("z")}, {"x", f32, {1, 1}, std::as_bytes(std::span(x))}};
  write_safetensors(dir / "m", entries, {{"k", "v"}});
  std::string header =
      R"({"__metadata__":{"k":"v"},"x":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"u":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}})";
  header.resize(192 - 8, ' ');
  CHECK(slurp(dir / "m") == file_of(header, std::string("\0\0\x80\x3fz", 5)));
}

TEST_CASE("safetensors: a file cut at any byte, or with one more, is refused with its path") {
  const std::string whole = file_of(kTwo, kTwoData);
  REQUIRE(parse_safetensors(as_bytes(whole), "/m").entries.size() == 2);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const std::string error = error_of([&] { parse_safetensors(as_bytes(whole).first(n), "/m"); });
    REQUIRE(error.starts_with("[safetensors] /m: "));
    REQUIRE(contains(error, "truncated"));
  }
  CHECK(contains(error_of([&] { parse_safetensors(as_bytes(whole + "!"), "/m"); }),
                 fmt::format("/m: byte {}: 1 bytes that belong to no tensor", whole.size())));
  const TempDir dir;
  spit(dir / "m", whole.substr(0, whole.size() - 1));
  CHECK(contains(error_of([&] { SafetensorsFile file(dir / "m"); }), (dir / "m").native() + ": header, near byte"));
}

TEST_CASE("safetensors: one changed byte gives a valid index or an Error, and entries stay in bounds") {
  const std::string whole = file_of(kTwo, kTwoData);
  int errors = 0;
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ (1 << bit));
      try {
        for (const TensorEntry& e : parse_safetensors(as_bytes(changed), "/m").entries) {
          REQUIRE(e.data.data() >= as_bytes(changed).data());
          REQUIRE(e.data.data() + e.data.size() <= as_bytes(changed).data() + changed.size());
        }
      } catch (const Error&) { ++errors; }
    }
  CHECK(errors > 500);
}

TEST_CASE("safetensors: malformed headers, each with its reason") {
  const auto tensor = [](const char* fields) { return fmt::format("{{\"w\":{{{}}}}}", fields); };
  CHECK(contains(error_of([&] { parse_safetensors(as_bytes(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)), "/m"); }), "another kind"));
  CHECK(contains(error_of([&] { parse_safetensors(as_bytes(std::string("\x03\0\0\0\0\0\0\0{}", 10)), "/m"); }), "truncated"));
  CHECK(contains(reject("", ""), "does not begin with {"));
  CHECK(contains(reject(" {}", ""), "does not begin with {"));
  CHECK(contains(reject("\xEF\xBB\xBF{}", ""), "does not begin with {"));
  CHECK(contains(reject("{\"w\" 1}", ""), "header, byte 13: syntax error"));
  CHECK(contains(reject("{} {}", ""), "syntax error"));
  CHECK(contains(reject(std::string("{}\0", 3), ""), "header, byte 10: a zero byte"));
  CHECK(contains(reject("{\"\xff\":1}", ""), "header, byte"));
  CHECK(contains(reject("{\"w\":1}", ""), "tensor `w`: the number 1, an object was expected"));
  CHECK(contains(reject("{\"w\":[]}", ""), "an array, an object was expected"));
  CHECK(contains(reject("{\"w\":null}", ""), "null, an object"));
  CHECK(contains(reject("{\"__metadata__\":\"x\"}", ""), "__metadata__: a string, an object was expected"));
  CHECK(contains(reject("{\"__metadata__\":{\"a\":1}}", ""), "__metadata__: the number 1, a string was expected"));
  CHECK(contains(reject("{\"__metadata__\":{\"a\":{}}}", ""), "an object, a string was expected"));
  CHECK(contains(reject("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", ""), "the same key twice"));
  CHECK(contains(reject("{\"__metadata__\":{},\"__metadata__\":{}}", ""), "__metadata__ twice"));
  CHECK(contains(reject(tensor(""), ""), "a field is missing"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","shape":[1])"), "1234"), "tensor `w`: a field is missing"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","dtype":"F32")"), ""), "dtype twice"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","color":1)"), ""), "a field `color`"));
  CHECK(contains(reject(tensor(R"("dtype":"F8_E4M3")"), ""), "dtype `F8_E4M3`, one of F32 F16"));
  CHECK(contains(reject(tensor(R"("dtype":"f32")"), ""), "dtype `f32`"));
  CHECK(contains(reject(tensor(R"("dtype":4)"), ""), "the number 4, a dtype's name was expected"));
  CHECK(contains(reject(tensor(R"("shape":4)"), ""), "the number 4, an array was expected"));
  CHECK(contains(reject(tensor(R"("shape":[-1])"), ""), "the number -1, a dimension (an integer from 0 up) was expected"));
  CHECK(contains(reject(tensor(R"("shape":[1.0])"), ""), "the number 1.0, a dimension"));
  CHECK(contains(reject(tensor(R"("shape":[true])"), ""), "a boolean, a dimension"));
  CHECK(contains(reject(tensor(R"("shape":[[1]])"), ""), "an array, a dimension"));
  CHECK(contains(reject(tensor(R"("shape":[9223372036854775808])"), ""), "a dimension of 9223372036854775808"));
  CHECK(contains(reject(tensor(R"("shape":[99999999999999999999999])"), ""), "the number 99999999999999999999999"));
  std::string ones = "1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  CHECK(contains(reject(tensor(fmt::format("\"shape\":[{}]", ones).c_str()), ""), "more than 64 dimensions"));
  CHECK(contains(reject(tensor(R"("data_offsets":[0])"), ""), "fewer than two"));
  CHECK(contains(reject(tensor(R"("data_offsets":[0,1,2])"), ""), "more than two"));
  CHECK(contains(reject(tensor(R"("data_offsets":[-1,0])"), ""), "the number -1, an offset"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","shape":[4611686018427387904,2],"data_offsets":[0,8])"), "12345678"), "63 bits"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","shape":[0,4611686018427387904,2],"data_offsets":[0,0])"), ""), "63 bits"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), "12345678"), "data_offsets [0, 8] for 4 bytes"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "1234"), "data_offsets [4, 0]"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), "12345678"), "a hole after the tensor before, 0 was expected"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), "1234"), "in 4 bytes of data: the file is truncated"));
  CHECK(contains(reject(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551616])"), "1234"),
                 "the number 18446744073709551616"));
  const auto two = [](int b0, int b1) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                       b1 - b0, b0, b1);
  };
  CHECK(contains(reject(two(2, 6), "123456"), "tensor `b`: data_offsets [2, 6] leave an overlap with the tensor before, 4 was expected"));
  CHECK(contains(reject(two(5, 6), "123456"), "tensor `b`: data_offsets [5, 6] leave a hole"));
  CHECK(contains(reject(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "12"),
                 "tensor `w` twice"));
  CHECK(contains(reject(R"({"m":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}})", std::string("\0\1\2", 3)), "the value 2 in a BOOL"));
  CHECK(reject(fmt::format("{{\"{}\":1}}", std::string(100000, 'n')), "").size() < 300);
  CHECK(contains(reject("{\"a\\nb\":1}", ""), "tensor `a?b`"));
  reject(std::string(200000, '{'), "");  // no recursion: refused at the second brace
  reject("{\"w\":" + std::string(200000, '['), "");
}

TEST_CASE("safetensors: what cannot be written is refused before anything is touched") {
  const TempDir dir;
  spit(dir / "m", "old");
  const auto error = [&](std::vector<TensorEntry> entries, Metadata metadata = {}) {
    return error_of([&] { write_safetensors(dir / "m", entries, metadata); });
  };
  CHECK(contains(error({{"a", u8, {1}, as_bytes("x")}, {"a", u8, {1}, as_bytes("x")}}), "two tensors named `a`"));
  CHECK(contains(error({{"__metadata__", u8, {1}, as_bytes("x")}}), "keeps for itself"));
  CHECK(contains(error({{"\xff", u8, {1}, as_bytes("x")}}), "not UTF-8"));
  CHECK(contains(error({}, {{"k", "\xc3"}}), "not UTF-8"));
  CHECK(contains(error({{"a", u8, {-1}, {}}}), "tensor `a`: a dimension of -1"));
  CHECK_THROWS_AS(error({{"a", u8, {2}, as_bytes("x")}}), std::logic_error);
  CHECK(slurp(dir / "m") == "old");
  const int status = in_child([&] {
    const rlimit small{1000, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &small);
    const std::string data(2000, 'x');
    return contains(error({{"a", u8, {2000}, as_bytes(data)}}), "nothing already written was lost") ? 0 : 1;
  });
  CHECK(exited_with(status, 0));
  CHECK(slurp(dir / "m") == "old");
  CHECK(dir.names() == std::vector<std::string>{"m"});
}
