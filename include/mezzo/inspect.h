// inspect.h - what numbers a model computes with: ranges of weights, activations and gradients, what another format would make of them, updates
// that change nothing, and the op in which an Inf or NaN began.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/nn.h>
#include <mezzo/optim.h>

namespace mezzo::inspect {

/// Counts of a tensor's values; exact.
struct Ranges {
  std::int64_t count = 0, zero = 0, inf = 0, nan = 0;
  double largest = 0;                                         ///< |x| of finite values; 0 without any
  double smallest = std::numeric_limits<double>::infinity();  ///< |x| of finite nonzero values; Inf without any
  int first_exponent = 0;                                     ///< exponents[i]: finite nonzero values with floor(log2 |x|) = first_exponent + i;
  std::vector<std::int64_t> exponents = {};                   ///< those below f32's normal numbers count as -127
  std::int64_t finite() const { return count - inf - nan; }
  std::int64_t nonzero() const { return finite() - zero; }
  /// Nonzero values below 2^exponent.
  MEZZO_API std::int64_t below(int exponent) const;
  MEZZO_API Ranges& operator+=(const Ranges&);
};
/// Of a tensor of any floating dtype (f64 as f32 has it).
MEZZO_API Ranges ranges(const Tensor&);

/// "fp16", "bf16", "fp8_e4m3", "fp8_e5m2" (OCP's FP8, conversions saturating), "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1",
/// "mxint8" (OCP's Microscaling: blocks of 32 that share a power of two).
MEZZO_API std::vector<std::string_view> formats();
/// What conversion to a format does to values: shares of the nonzero finite ones, and the ratio of their energy to that of the error.
struct Conversion {
  std::string_view format;
  double flushed = 0, subnormal = 0, saturated = 0;  ///< become zero; become subnormal; lie beyond the largest number
  double snr_db = 0;                                 ///< 10 log10(sum x^2 / sum error^2), of values that do not become Inf; Inf without error
};
/// Error lists the formats if there is none of that name.
MEZZO_API Conversion conversion(const Tensor&, std::string_view format);
/// The values (f32, same shape) rounded to the format, to nearest even. Blocks are 32 neighbours of the elements in order.
MEZZO_API Tensor round_to(const Tensor&, std::string_view format);

enum class Kind : std::uint8_t { weight, gradient, update, activation, activation_gradient };
MEZZO_API std::string_view to_string(Kind);

/// What one place of a model held: a parameter, its gradient or update; or what an op gave, or the gradient that reached it.
struct Record {
  Kind kind = Kind::weight;
  std::string module;  ///< the parameter's path; of an op, the path of the module whose parameters it, or the last op before it, used
  std::string op = {};
  Dtype dtype = Dtype::f32;
  Ranges ranges = {};
  std::vector<Conversion> conversions = {};
  /// Of an update: share of the elements with a gradient other than 0 that the step left bit for bit what they were, in the weight and in
  /// everything that completes it (master, remainder, compensation).
  std::optional<double> stalled = {};
};

struct InspectorOptions {
  std::vector<std::string> formats = {"fp16", "bf16", "fp8_e4m3", "fp8_e5m2", "mxfp8_e4m3", "mxfp4_e2m1"};  ///< to convert to; may be empty
  std::int64_t sample = 1 << 16;  ///< elements of a tensor that conversions and updates look at, in 64 pieces; ranges look at all
};

/// Collects Records of a training step:
///     { auto watch = inspector.watch(); loss = model.loss(x, y); loss.backward(); }
///     inspector.parameters(model);  inspector.before_update(optimizer);  optimizer.step();  inspector.after_update();
///     for (const auto& record : inspector.take()) ...
/// Gradients are seen as they are: times the loss scale, if there is one. Not for several threads at once.
class MEZZO_API Inspector {
 public:
  explicit Inspector(InspectorOptions = {});
  ~Inspector();
  Inspector(Inspector&&) noexcept;
  /// While it lives, every op that this thread records is looked at, and every gradient that flows back through one.
  class MEZZO_API Watch {
   public:
    explicit Watch(Inspector&);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

   private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
  };
  [[nodiscard]] Watch watch() { return Watch(*this); }
  /// Weights, and gradients where there are some.
  void parameters(const nn::Module&);
  /// Remembers what the optimizer is about to change, and compares.
  void before_update(const optim::Optimizer&);
  void after_update();
  /// What was collected since the last call: parameters in the model's order, then ops in the order in which they ran.
  std::vector<Record> take();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Where an Inf or NaN began.
struct Overflow {
  std::string module, op;                ///< as in Record
  bool backward = false;                 ///< in the op's backward
  bool arrived = false;                  ///< before it: finite gradients that became Inf or NaN as they were summed, or rounded to the op's dtype
  bool nan = false;                      ///< NaN, else Inf
  Dtype dtype = Dtype::f32;              ///< of what holds it
  std::vector<Ranges> inputs = {};       ///< of the op's inputs; in backward, of the gradients that reached it
  std::vector<std::string> before = {};  ///< the ops that ran before it, the last one last: "module op"
};
/// Runs `step` (forward and backward, not the update) and looks at everything: the first op whose inputs were finite and whose result is not.
/// Backward adds to the gradients that are there: let `step` begin with zero_grad(), or an Inf that one already holds is taken for the step's.
MEZZO_API std::optional<Overflow> find_overflow(const std::function<void()>& step);

}  // namespace mezzo::inspect
