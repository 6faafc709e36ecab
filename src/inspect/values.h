// values.h - a tensor's elements as kernels take them.
#pragma once

#include <vector>

#include <mezzo/inspect.h>

#include "kernels/ranges.h"

namespace mezzo::inspect {

/// t itself where it is contiguous and f32, f16 or bf16; else a contiguous copy (f64 as f32). Nothing is recorded.
Tensor readable(const Tensor& t);
/// Error that lists the formats if there is none of that name.
const kernels::NumberFormat& format_named(std::string_view);
/// The finite part of a conversion's statistics, as shares.
Conversion to_conversion(const kernels::NumberFormat&, const kernels::ConversionStats&);

/// Which of n elements a sample of at most `limit` takes: pieces of equal length, evenly spread, that begin at multiples of 32.
struct Sample {
  Sample(std::int64_t n, std::int64_t limit);
  std::int64_t size() const { return pieces * length; }
  std::int64_t begin(std::int64_t piece) const { return piece * stride; }
  std::int64_t pieces, length, stride;
};
/// The sample's elements of t (readable) as f32.
std::vector<float> sampled(const Tensor& t, const Sample&);

}  // namespace mezzo::inspect
