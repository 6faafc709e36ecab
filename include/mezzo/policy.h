// policy.h - which precision each op runs in under autocast: a value, a byte an op.
#pragma once

#include <array>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

#include <mezzo/dtype.h>

namespace mezzo::amp {

/// What autocast does with an op's floating inputs (f64, integers and booleans are never touched).
enum class Cast : std::uint8_t {
  low,           ///< cast to the region's 16-bit dtype, accumulate in f32, round once on store
  f32,           ///< cast up; the result is f32
  f32_internal,  ///< arithmetic in f32, result in the input's dtype
  widest,        ///< the widest input decides, in any order; f16 with bf16 gives f32
  as_is,         ///< runs in the input's dtype
  banned         ///< an Error that says what to use instead
};
MEZZO_API std::string_view name(Cast);

/// Room for the op table's rows (autograd/op_table.h); the build checks that it is enough.
inline constexpr std::size_t kPolicyOps = 128;

class MEZZO_API Policy {
 public:
  Policy();               ///< mezzo()
  static Policy mezzo();  ///< 16-bit residual stream, norms and softmax exact inside (docs/ops.md has both columns)
  static Policy torch();  ///< torch's CUDA lists rule for rule
  /// Rises when a release gives an op of mezzo() or torch() another class; printed with a policy.
  static constexpr int kVersion = 1;
  /// The names are those of docs/ops.md; "sum" and "mean" stand for sum_dim and mean_dim too, and eq, ne, lt, le, gt, ge for compare.
  /// Error: an unknown op (near names are listed); another class for an op that computes nothing (views, conversions, indexing,
  /// comparisons); one other than f32 and banned for a loss.
  Policy& set(std::string_view op, Cast);
  Cast of(std::string_view op) const;

  /// torch() only: weight gradients are rounded to 16 bits before they reach an f32 leaf, biases before they are added.
  bool rounds_like_torch() const { return rounds_like_torch_; }
  Cast operator[](std::size_t op_id) const { return casts_[op_id]; }  ///< by OpId, for the library
  friend bool operator==(const Policy&, const Policy&) = default;

 private:
  explicit Policy(bool like_torch);

  std::array<Cast, kPolicyOps> casts_{};
  bool rounds_like_torch_ = false;
};

/// The policy it was made from and what was changed since, then each class with its ops.
MEZZO_API std::string to_string(const Policy&);
MEZZO_API std::ostream& operator<<(std::ostream&, const Policy&);

/// Precision of a custom function (torch's custom_fwd / custom_bwd).
struct FunctionOptions {
  /// Under autocast: floating inputs are cast to this dtype and forward runs with autocast off. Unset: forward runs in the ambient state.
  std::optional<Dtype> cast_inputs = {};
};

}  // namespace mezzo::amp
