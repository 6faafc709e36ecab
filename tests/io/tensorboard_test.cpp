// tensorboard_test.cpp - event files through a parser of the test's own (records and protocol buffers, from their specifications).
#include "io/tensorboard.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <map>
#include <variant>

#include "io/support.h"

using namespace mezzo;
using namespace mezzo::io;
using namespace mezzo::test;

namespace {

template <class T> T take(std::string_view& in) {
  REQUIRE(in.size() >= sizeof(T));
  T v;
  std::memcpy(&v, in.data(), sizeof v);
  in.remove_prefix(sizeof v);
  return v;
}

std::string_view take_bytes(std::string_view& in, std::uint64_t n) {
  REQUIRE(n <= in.size());
  const auto out = in.substr(0, n);
  in.remove_prefix(n);
  return out;
}

std::uint32_t unmasked(std::uint32_t masked) {
  const std::uint32_t rotated = masked - 0xA282EAD8u;
  return (rotated >> 17) | (rotated << 15);
}

std::vector<std::string_view> records(std::string_view file) {
  std::vector<std::string_view> out;
  while (!file.empty()) {
    const std::string_view length_bytes = file.substr(0, 8);
    const auto n = take<std::uint64_t>(file);
    REQUIRE(unmasked(take<std::uint32_t>(file)) == crc32c(as_bytes(length_bytes)));
    out.push_back(take_bytes(file, n));
    REQUIRE(unmasked(take<std::uint32_t>(file)) == crc32c(as_bytes(out.back())));
  }
  return out;
}

/// Fields of one message, by number; a value is its raw bytes or its varint.
struct Field {
  std::uint64_t varint = 0;
  std::string_view bytes;
  double f64() const {
    REQUIRE(bytes.size() == 8);
    double v;
    std::memcpy(&v, bytes.data(), 8);
    return v;
  }
  float f32() const {
    REQUIRE(bytes.size() == 4);
    float v;
    std::memcpy(&v, bytes.data(), 4);
    return v;
  }
};
using Fields = std::multimap<int, Field>;

std::uint64_t varint(std::string_view& in) {
  std::uint64_t v = 0;
  for (int shift = 0;; shift += 7) {
    const auto b = take<std::uint8_t>(in);
    v |= static_cast<std::uint64_t>(b & 0x7f) << shift;
    if (b < 0x80) return v;
  }
}

Fields parse(std::string_view in) {
  Fields out;
  while (!in.empty()) {
    const auto key = varint(in);
    Field f;
    switch (key & 7) {
      case 0: f.varint = varint(in); break;
      case 1: f.bytes = take_bytes(in, 8); break;
      case 2: {
        const auto n = varint(in);
        f.bytes = take_bytes(in, n);
        break;
      }
      case 5: f.bytes = take_bytes(in, 4); break;
      default: FAIL("wire type");
    }
    out.emplace(static_cast<int>(key >> 3), f);
  }
  return out;
}

const Field& only(const Fields& fields, int number) {
  REQUIRE(fields.count(number) == 1);
  return fields.find(number)->second;
}

}  // namespace

TEST_CASE("tensorboard: masked checksum of a known record header") {
  // The first twelve bytes of a file written by the package tensorboard 2.21: 48 00 00 00 00 00 00 00 fe 92 48 9d.
  CHECK(masked_crc32c(as_bytes(std::string_view("\x48\0\0\0\0\0\0\0", 8))) == 0x9D4892FEu);
}

TEST_CASE("tensorboard: version, scalars, histograms, as a reader of the format finds them") {
  const TempDir dir;
  EventWriter writer(dir.path(), 1700000000.25);
  const std::string name = writer.path().filename();
  CHECK(name.starts_with("events.out.tfevents.1700000000."));
  const std::vector<Scalar> scalars{{"loss", 2.5}, {"scale", 65536.0}, {"nan", std::nan("")}};
  writer.scalars(0, 1700000001.5, scalars);
  writer.scalars((std::int64_t{1} << 40) + 7, 1700000002.5, std::span(scalars).first(1));
  writer.histogram(300, 1700000003.5, "grad/w", {-1, 2, 5, 3, 9, {-0.5, 0.5, 2.0}, {1, 3, 1}});
  writer.flush();
  CHECK(contains(error_of([&] { writer.histogram(1, 0, "h", {0, 0, 0, 0, 0, {1, 1}, {1, 1}}); }), "strictly rising"));
  CHECK(contains(error_of([&] { writer.histogram(1, 0, "h", {0, 0, 0, 0, 0, {1, 2}, {1}}); }), "`h`: 2 limits and 1 counts"));

  const std::string file = slurp(writer.path());
  const auto all = records(file);
  REQUIRE(all.size() == 5);
  const Fields version = parse(all[0]);
  CHECK(only(version, 1).f64() == 1700000000.25);
  CHECK(only(version, 3).bytes == "brain.Event:2");
  const Fields start = parse(all[1]);
  CHECK(start.count(2) == 0);                               // step 0 is the default
  CHECK(only(parse(only(start, 7).bytes), 1).varint == 1);  // SessionLog.START

  const Fields first = parse(all[2]);
  CHECK(only(first, 1).f64() == 1700000001.5);
  CHECK(first.count(2) == 0);
  const Fields summary = parse(only(first, 5).bytes);
  std::vector<std::pair<std::string, float>> found;
  for (const auto& [number, value] : summary) {
    REQUIRE(number == 1);
    const Fields v = parse(value.bytes);
    found.emplace_back(only(v, 1).bytes, only(v, 2).f32());
  }
  REQUIRE(found.size() == 3);
  CHECK(found[0] == std::pair<std::string, float>("loss", 2.5f));
  CHECK(found[1] == std::pair<std::string, float>("scale", 65536.0f));
  CHECK(std::isnan(found[2].second));

  CHECK(only(parse(all[3]), 2).varint == (std::uint64_t{1} << 40) + 7);

  const Fields third = parse(all[4]);
  CHECK(only(third, 2).varint == 300);
  const Fields value = parse(only(parse(only(third, 5).bytes), 1).bytes);
  CHECK(only(value, 1).bytes == "grad/w");
  const Fields histogram = parse(only(value, 5).bytes);
  const double wanted[] = {-1, 2, 5, 3, 9};
  for (int i = 0; i < 5; ++i) CHECK(only(histogram, i + 1).f64() == wanted[i]);
  const auto doubles = [&](int number) {
    const auto bytes = only(histogram, number).bytes;
    std::vector<double> out(bytes.size() / 8);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  };
  CHECK(doubles(6) == std::vector<double>{-0.5, 0.5, 2.0});
  CHECK(doubles(7) == std::vector<double>{1, 3, 1});
}

TEST_CASE("tensorboard: a resumed run gets a file of its own that voids what came after the checkpoint") {
  const TempDir dir;
  const Scalar loss{"loss", 1.0};
  {
    EventWriter writer(dir.path(), 1000);
    writer.scalars(5, 1001, {&loss, 1});
  }
  const std::string before = slurp(dir / dir.names()[0]);
  EventWriter again(dir.path(), 1000, 3);  // in the same second, as the same process: still another file
  REQUIRE(dir.names().size() == 2);
  CHECK(again.path() == dir / dir.names()[1]);  // and read after the first
  CHECK(slurp(dir / dir.names()[0]) == before);
  const std::string file = slurp(again.path());
  const auto all = records(file);
  REQUIRE(all.size() == 2);
  const Fields start = parse(all[1]);
  CHECK(only(start, 2).varint == 3);
  CHECK(only(parse(only(start, 7).bytes), 1).varint == 1);  // SessionLog.START
}

TEST_CASE("tensorboard: a full disk leaves whole records, and nothing is lost once there is room") {
  const TempDir dir;
  const int status = in_child([&] {
    EventWriter writer(dir.path(), 1000);
    const auto size = std::filesystem::file_size(writer.path());
    const rlimit small{size + 20, RLIM_INFINITY}, large{RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &small);
    const Scalar loss{"loss", 1.0};
    writer.scalars(1, 1001, {&loss, 1});
    if (!contains(error_of([&] { writer.flush(); }), "nothing already written was lost")) return 1;
    if (std::filesystem::file_size(writer.path()) != size) return 2;
    ::setrlimit(RLIMIT_FSIZE, &large);
    writer.flush();
    return records(slurp(writer.path())).size() == 3 ? 0 : 3;
  });
  CHECK(exited_with(status, 0));
}
