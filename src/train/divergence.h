// divergence.h - whether a run still learns, told from its losses, and what it does when it does not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo::train {

/// What a run does about a divergence: a loss that has risen and stays there, a loss or a gradient that is not finite where no loss scale can help,
/// a loss scale that helps no more.
enum class OnDivergence : std::uint8_t {
  warn,      ///< a loss that has risen is a warning; what is not finite ends the run, or moves a model that is fine-tuned out of f16 (kOutOfF16)
  stop,      ///< either ends it
  rollback,  ///< it goes on from the newest checkpoint of before, with other data
  fallback   ///< so too, and with the next setting of a list changed
};
std::string_view name(OnDivergence);
OnDivergence on_divergence_from_name(std::string_view);  ///< Error that lists them

/// The losses of a run so far, as far as they say what is ordinary: part of its state, since what follows from them must not hang on where a run was
/// stopped.
///
/// A run has diverged when kRise losses in a row lie above limit(), or, more slowly, when the median of the recent ones has left the lowest it ever
/// was by kSpread distances from that median to its ninth decile. One hard batch therefore never is a divergence.
struct LossTrend {
  static constexpr std::size_t kWindow = 64;  ///< losses that are recent: many against kRise, few against a run
  static constexpr std::size_t kLeast = 16;   ///< fewer say nothing: that the next exceeds them all has a chance of 1/17, kRise in a row of 1e-6
  static constexpr std::size_t kRise = 5;     ///< steps in a row. Where a batch in ten is out of the ordinary, five in a row are by a chance of 1e-5
  static constexpr double kSpread = 5;        ///< distances from median to ninth decile: 6.4 standard deviations of normal noise
  static constexpr double kShare = 0.1;       ///< and at least this share of the median, or this many nats a token where that is more: a run that has
                                              ///< learnt its text by heart has no spread worth naming

  std::vector<double> recent = {};  ///< the last kWindow losses, oldest first; those of `rise` not among them
  std::vector<double> rise = {};    ///< those in a row, up to now, that lie above limit()
  double lowest = 0, reach = 0;     ///< the least median there was of kWindow losses, and how far above it one may lie; 0, 0: none yet
  std::int64_t last_ordinary = 0;   ///< the last step whose loss was finite and not above the limit; 0: none yet
  std::int64_t last_low = 0;        ///< the last step after which the median was not above half of that reach
  int not_finite = 0;               ///< losses in a row, up to now, that are Inf or NaN

  /// The lower of median + max(kSpread (ninth decile - median), margin) and largest + margin of the recent losses, margin = max(kShare |median|,
  /// kShare): the one is not moved by a few that are out of the ordinary, the other not by a loss that still falls. None while there are fewer than
  /// kLeast.
  std::optional<double> limit() const;
  double median() const;  ///< of the recent losses; 0 without any
  /// The last step after which the weights are known to have been good: the loss of the next one was ordinary; for a loss that rises slowly, the
  /// median was low, and its window past.
  std::int64_t good() const { return std::max<std::int64_t>(0, last_ordinary - 1); }
  std::int64_t good_slowly() const { return std::max<std::int64_t>(0, last_low - static_cast<std::int64_t>(kWindow)); }
  /// The loss of step `step`, the next. Why the run has diverged by it, as in "the loss has been above 3.1 for 5 steps ...", if it has; once said,
  /// what has risen is ordinary from then on.
  struct Rise {
    std::string why;        ///< empty: none
    std::int64_t good = 0;  ///< the last step of before
  };
  Rise add(std::int64_t step, double loss);

 private:
  void keep(double loss);
};

}  // namespace mezzo::train
