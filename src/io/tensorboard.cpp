// tensorboard.cpp - event files: protocol buffers and their record framing, written by hand.
#include "io/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <functional>

#include <fmt/core.h>

#include "core/fail.h"
#include "io/checksum.h"

namespace mezzo::io {
namespace {

template <class T> void append_raw(std::string& out, T value) {
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  out.append(raw, sizeof value);
}

/// The protocol buffer wire format (protobuf.dev/programming-guides/encoding), as far as events need it.
class Message {
 public:
  Message& integer(int field, std::int64_t value) {
    key(field, 0);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  Message& number(int field, double value) {
    key(field, 1);
    append_raw(out_, value);
    return *this;
  }
  Message& number32(int field, float value) {
    key(field, 5);
    append_raw(out_, value);
    return *this;
  }
  Message& text(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    out_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return text(field, value.out_); }
  Message& packed(int field, std::span<const double> values) {
    key(field, 2);
    varint(values.size_bytes());
    for (const double v : values) append_raw(out_, v);
    return *this;
  }
  std::string_view bytes() const { return out_; }

 private:
  void key(int field, int wire_type) { varint(static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(wire_type)); }
  void varint(std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) out_ += static_cast<char>(v | 0x80);
    out_ += static_cast<char>(v);
  }
  std::string out_;
};

// Field numbers of event.proto and summary.proto.
namespace event {
enum { wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7 };
}
namespace summary {
enum { value = 1 };
}
namespace value {
enum { tag = 1, simple_value = 2, histo = 5 };
}
namespace histo {
enum { min = 1, max = 2, num = 3, sum = 4, sum_squares = 5, bucket_limit = 6, bucket = 7 };
}
namespace session {
enum { status = 1, start = 1 };
}

Message new_event(double wall_time, std::int64_t step) {
  Message m;
  m.number(event::wall_time, wall_time);
  if (step != 0) m.integer(event::step, step);
  return m;
}

constexpr std::string_view kPrefix = "events.out.tfevents.";

/// The latest second that an event file of the directory has in its name; 0: there is none.
double latest_second(const std::filesystem::path& directory) {
  std::int64_t latest = 0;
  std::error_code none;
  for (std::filesystem::directory_iterator it(directory, none), end; it != end; ++it) {
    const std::string name = it->path().filename().native();
    std::int64_t second = 0;
    if (name.starts_with(kPrefix)) std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), second);
    latest = std::max(latest, second);
  }
  return static_cast<double>(latest);
}

/// `events.out.tfevents.SECONDS.host.pid.n`: TensorBoard wants the infix and sorts by name.
std::filesystem::path new_path(const std::filesystem::path& directory, double wall_time) {
  char host[256] = "host";
  if (::gethostname(host, sizeof host - 1) != 0 || host[0] == '\0') std::strcpy(host, "host");
  for (int n = 0;; ++n) {
    auto path = directory / fmt::format("{}{:010}.{}.{}.{}", kPrefix, static_cast<std::int64_t>(wall_time), host, ::getpid(), n);
    if (!std::filesystem::exists(path)) return path;
  }
}

}  // namespace

std::uint32_t masked_crc32c(std::span<const std::byte> bytes) noexcept {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

EventWriter::EventWriter(const std::filesystem::path& directory, double wall_time, std::int64_t first_step)
    : latest_(std::max(wall_time, latest_second(directory))), file_(new_path(directory, latest_)) {
  record(new_event(latest_, 0).text(event::file_version, "brain.Event:2").bytes());
  // Every session says where it starts: readers take the first such event of a run as its beginning, and later ones as a resume.
  Message log;
  log.integer(session::status, session::start);
  record(new_event(latest_, first_step).message(event::session_log, log).bytes());
  flush();
}

void EventWriter::scalars(std::int64_t step, double wall_time, std::span<const Scalar> scalars) {
  Message all;
  for (const Scalar& s : scalars) {
    Message one;
    one.text(value::tag, s.tag).number32(value::simple_value, static_cast<float>(s.value));
    all.message(summary::value, one);
  }
  latest_ = std::max(latest_, wall_time);
  record(new_event(latest_, step).message(event::summary, all).bytes());
}

void EventWriter::histogram(std::int64_t step, double wall_time, std::string_view tag, const Histogram& h) {
  if (h.limits.size() != h.counts.size() || std::adjacent_find(h.limits.begin(), h.limits.end(), std::greater_equal<>()) != h.limits.end())
    fail("histogram",
         fmt::format("`{}`: {} limits and {} counts, as many were expected, the limits strictly rising", tag, h.limits.size(), h.counts.size()));
  Message histo, one, all;
  histo.number(histo::min, h.min).number(histo::max, h.max).number(histo::num, h.count).number(histo::sum, h.sum);
  histo.number(histo::sum_squares, h.sum_squares).packed(histo::bucket_limit, h.limits).packed(histo::bucket, h.counts);
  all.message(summary::value, one.text(value::tag, tag).message(value::histo, histo));
  latest_ = std::max(latest_, wall_time);
  record(new_event(latest_, step).message(event::summary, all).bytes());
}

void EventWriter::record(std::string_view data) {
  std::string out;
  out.reserve(data.size() + 16);
  append_raw(out, static_cast<std::uint64_t>(data.size()));
  append_raw(out, masked_crc32c(as_bytes(out)));
  out += data;
  append_raw(out, masked_crc32c(as_bytes(data)));
  file_.append(out);
}

}  // namespace mezzo::io
