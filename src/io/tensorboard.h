// tensorboard.h - event files that TensorBoard opens: scalars and histograms by step.
//
// An event file is a sequence of records (u64 length, masked CRC-32C of it, data, masked CRC-32C of the data; tensorflow's
// core/lib/io/record_writer.h), each a protocol buffer of type Event (tensorflow's core/util/event.proto, core/framework/summary.proto).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "io/file.h"

namespace mezzo::io {

struct Scalar {
  std::string_view tag;
  double value;  ///< stored as f32
};

/// Counts of values in buckets: counts[i] of them in (limits[i-1], limits[i]], the first from -infinity. As many limits as counts, rising.
struct Histogram {
  double min = 0, max = 0, count = 0, sum = 0, sum_squares = 0;
  std::vector<double> limits, counts;
};

/// Writes one event file of its own into a run's directory; TensorBoard reads all of them in order of their names. Wall times are seconds
/// since 1970 and come from the caller: nothing here looks at a clock. One that was set back does not go into the file, nor into its name: a time
/// that lies before the last one, or before the directory's newest file, is taken as that.
class EventWriter {
 public:
  /// What earlier files of the directory say of `first_step` and later steps is void from now on: TensorBoard drops it. So a resumed run
  /// passes the step it resumes at.
  EventWriter(const std::filesystem::path& directory, double wall_time, std::int64_t first_step = 0);
  /// One event with all of a step's scalars.
  void scalars(std::int64_t step, double wall_time, std::span<const Scalar>);
  void histogram(std::int64_t step, double wall_time, std::string_view tag, const Histogram&);
  /// Until then events may wait in memory. A full disk is an Error; the events stay for the next flush.
  void flush() { file_.flush(); }
  const std::filesystem::path& path() const noexcept { return file_.path(); }

 private:
  void record(std::string_view event);
  double latest_;
  AppendFile file_;
};

/// A record's checksum: the CRC-32C, rotated right by 15 bits, plus a constant, since a CRC of data that holds CRCs is weak.
std::uint32_t masked_crc32c(std::span<const std::byte>) noexcept;

}  // namespace mezzo::io
