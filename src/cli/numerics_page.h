// numerics_page.h - what a run's inspections say: the tables of its worst tensors, and maps of module against step.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/format.h"
#include "train/numerics.h"

namespace mezzo::cli {

/// Binades between the largest value and the largest that the dtype has; none where there is no finite nonzero value.
std::optional<int> headroom(const inspect::Record&);
/// Share of the elements that are zero or subnormal in the dtype they have.
double underflow(const inspect::Record&);

/// Tables of at most `rows` rows, the worst of all steps first. Empty ones have their headings only.
Table least_headroom(const std::vector<train::Inspection>&, std::size_t rows);
Table most_underflow(const std::vector<train::Inspection>&, std::size_t rows);  // of gradients
Table most_stalled(const std::vector<train::Inspection>&, std::size_t rows);
/// One row a number format, one column a kind of tensor: the median of the signal-to-error ratios and the worst share flushed to zero.
Table format_table(const std::vector<train::Inspection>&);
/// All of it as HTML, with a map of each.
std::string numerics_section(const std::vector<train::Inspection>&);

}  // namespace mezzo::cli
