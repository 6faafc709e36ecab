// ops.h - the operations: free functions, named as in torch. docs/ops.md lists their precision classes.
//
// Conventions: dims may be negative; element-wise ops broadcast and promote to the widest floating input; a plain number never promotes a
// floating tensor; 16-bit tensors compute in f32 and round once on store. B batch, T time, C channels, V vocabulary.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <mezzo/tensor.h>

namespace mezzo {

// ---- element-wise ----------------------------------------------------------------------------

MEZZO_API Tensor add(const Tensor& a, const Tensor& b);
MEZZO_API Tensor sub(const Tensor& a, const Tensor& b);
MEZZO_API Tensor mul(const Tensor& a, const Tensor& b);
MEZZO_API Tensor div(const Tensor& a, const Tensor& b);
MEZZO_API Tensor add(const Tensor& a, double b);
MEZZO_API Tensor sub(const Tensor& a, double b);
MEZZO_API Tensor sub(double a, const Tensor& b);
MEZZO_API Tensor mul(const Tensor& a, double b);
MEZZO_API Tensor div(const Tensor& a, double b);
MEZZO_API Tensor div(double a, const Tensor& b);
inline Tensor add(double a, const Tensor& b) { return add(b, a); }
inline Tensor mul(double a, const Tensor& b) { return mul(b, a); }
inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator+(const Tensor& a, double b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, double b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, double b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, double b) { return div(a, b); }
inline Tensor operator+(double a, const Tensor& b) { return add(b, a); }
inline Tensor operator-(double a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(double a, const Tensor& b) { return mul(b, a); }
inline Tensor operator/(double a, const Tensor& b) { return div(a, b); }

MEZZO_API Tensor neg(const Tensor& x);
inline Tensor operator-(const Tensor& x) { return neg(x); }
MEZZO_API Tensor exp(const Tensor& x);
MEZZO_API Tensor log(const Tensor& x);
MEZZO_API Tensor sqrt(const Tensor& x);
MEZZO_API Tensor rsqrt(const Tensor& x);
MEZZO_API Tensor abs(const Tensor& x);
MEZZO_API Tensor tanh(const Tensor& x);
MEZZO_API Tensor sigmoid(const Tensor& x);
MEZZO_API Tensor relu(const Tensor& x);
MEZZO_API Tensor silu(const Tensor& x);      ///< x sigmoid(x)
MEZZO_API Tensor softplus(const Tensor& x);  ///< log(1 + exp(x))
MEZZO_API Tensor sin(const Tensor& x);
MEZZO_API Tensor cos(const Tensor& x);
struct GeluOptions {
  bool tanh = false;
};
/// x Phi(x), or its tanh form (Hendrycks & Gimpel, arXiv 1606.08415).
MEZZO_API Tensor gelu(const Tensor& x, GeluOptions = {});
/// silu(gate) * up, in one pass (Shazeer, arXiv 2002.05202).
MEZZO_API Tensor swiglu(const Tensor& gate, const Tensor& up);
MEZZO_API Tensor pow(const Tensor& x, const Tensor& y);
MEZZO_API Tensor pow(const Tensor& x, double y);
struct ClampOptions {
  double min = -std::numeric_limits<double>::infinity(), max = std::numeric_limits<double>::infinity();
};
MEZZO_API Tensor clamp(const Tensor& x, ClampOptions);
/// condition (boolean or u8) ? a : b, broadcast.
MEZZO_API Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
/// Comparisons give boolean tensors; NaN compares as IEEE 754 says.
MEZZO_API Tensor eq(const Tensor& a, const Tensor& b);
MEZZO_API Tensor ne(const Tensor& a, const Tensor& b);
MEZZO_API Tensor lt(const Tensor& a, const Tensor& b);
MEZZO_API Tensor le(const Tensor& a, const Tensor& b);
MEZZO_API Tensor gt(const Tensor& a, const Tensor& b);
MEZZO_API Tensor ge(const Tensor& a, const Tensor& b);
MEZZO_API Tensor eq(const Tensor& a, double b);
MEZZO_API Tensor ne(const Tensor& a, double b);
MEZZO_API Tensor lt(const Tensor& a, double b);
MEZZO_API Tensor le(const Tensor& a, double b);
MEZZO_API Tensor gt(const Tensor& a, double b);
MEZZO_API Tensor ge(const Tensor& a, double b);
/// value where mask (boolean, broadcast) is true, x elsewhere.
MEZZO_API Tensor masked_fill(const Tensor& x, const Tensor& mask, double value);
/// The last two dimensions' lower triangle (column <= row); zero above.
MEZZO_API Tensor tril(const Tensor& x);
/// Zeroes elements with probability p and scales the rest by 1 / (1 - p), when training; draws from the default generator. Error unless 0 <= p < 1.
MEZZO_API Tensor dropout(const Tensor& x, double p, bool training);

// ---- reductions ------------------------------------------------------------------------------

struct ReduceOptions {
  std::vector<int> dims = {};  ///< all, when empty
  bool keepdim = false;
  std::optional<Dtype> dtype = {};  ///< of the result; wins over autocast
};
MEZZO_API Tensor sum(const Tensor& x, const ReduceOptions& = {});
MEZZO_API Tensor mean(const Tensor& x, const ReduceOptions& = {});
MEZZO_API Tensor prod(const Tensor& x, const ReduceOptions& = {});
MEZZO_API Tensor amax(const Tensor& x, const ReduceOptions& = {});  ///< the gradient is shared evenly among equal maxima
struct VarOptions {
  std::vector<int> dims = {};
  bool keepdim = false;
  std::optional<Dtype> dtype = {};
  double correction = 1;
};
MEZZO_API Tensor var(const Tensor& x, const VarOptions& = {});
struct VectorNormOptions {
  std::vector<int> dims = {};
  bool keepdim = false;
  std::optional<Dtype> dtype = {};
  double p = 2;
};
/// (sum |x|^p)^(1/p); p = infinity gives the largest |x|. Error for p <= 0.
MEZZO_API Tensor norm(const Tensor& x, const VectorNormOptions& = {});
MEZZO_API Tensor softmax(const Tensor& x, int dim);
MEZZO_API Tensor log_softmax(const Tensor& x, int dim);
MEZZO_API Tensor logsumexp(const Tensor& x, int dim);
MEZZO_API Tensor cumsum(const Tensor& x, int dim);

// ---- matrix products: f32 accumulation, one rounding on store ----------------------------------

/// numpy's rules: (n) vectors, (m, k) x (k, n), batches broadcast.
MEZZO_API Tensor matmul(const Tensor& a, const Tensor& b);
MEZZO_API Tensor mm(const Tensor& a /*(m, k)*/, const Tensor& b /*(k, n)*/);
MEZZO_API Tensor bmm(const Tensor& a /*(B, m, k)*/, const Tensor& b /*(B, k, n)*/);
MEZZO_API Tensor addmm(const Tensor& c /*(m, n) or (n)*/, const Tensor& a, const Tensor& b);  ///< c + a b
/// x w^T + b. Inside autocast the bias is added in f32, unrounded.
MEZZO_API Tensor linear(const Tensor& x /*(..., in)*/, const Tensor& w /*(out, in)*/, const Tensor& b /*(out)*/ = {});
/// Sums of products over named dimensions: a letter for each dimension, a list for each tensor, as in "bij,bjk->bik". A letter that the output
/// lacks is summed over; without "->" the output is the letters that occur once, in alphabetical order; "..." stands for leading dimensions that
/// broadcast; a letter twice in one list takes the diagonal. Tensors are multiplied from left to right, a pair as one batch of matrix products.
/// Error that names the letter: sizes that differ, an output letter that no input has, too few or too many lists.
MEZZO_API Tensor einsum(std::string_view spec, const std::vector<Tensor>& tensors);
/// residual + linear(x, w, b), added in f32 before the one rounding. residual has the result's shape.
MEZZO_API Tensor linear_add(const Tensor& residual, const Tensor& x, const Tensor& w, const Tensor& b = {});

// ---- convolutions and pooling --------------------------------------------------------------------

/// A number for every spatial dimension, or one for each: 2, or {2, 1}.
class PerDim {
 public:
  PerDim() = default;  ///< not given
  PerDim(std::int64_t all) : values_{all} {}
  PerDim(std::initializer_list<std::int64_t> each) : values_(each) {}
  PerDim(std::vector<std::int64_t> each) : values_(std::move(each)) {}
  const std::vector<std::int64_t>& values() const { return values_; }

 private:
  std::vector<std::int64_t> values_;
};

struct ConvOptions {
  PerDim stride = 1, padding = 0, dilation = 1;
  std::int64_t groups = 1;
  PerDim output_padding = 0;  ///< transposed ones only: added to the end of the result
};
/// Cross-correlation of x (N, C, L) with w (O, C / groups, k), zeros outside of x; result (N, O, (L + 2 padding - dilation (k - 1) - 1) / stride +
/// 1). x may lack N. b (O), added in f32, unrounded, under Policy::mezzo(). Accumulated in f32.
MEZZO_API Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const ConvOptions& = {});
MEZZO_API Tensor conv2d(const Tensor& x /*(N, C, H, W)*/, const Tensor& w /*(O, C / groups, kh, kw)*/, const Tensor& b = {}, const ConvOptions& = {});
MEZZO_API Tensor conv3d(const Tensor& x /*(N, C, D, H, W)*/, const Tensor& w, const Tensor& b = {}, const ConvOptions& = {});
/// The adjoint of conv: x (N, C, L), w (C, O / groups, k), result (N, O, (L - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1).
MEZZO_API Tensor conv_transpose1d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const ConvOptions& = {});
MEZZO_API Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const ConvOptions& = {});
MEZZO_API Tensor conv_transpose3d(const Tensor& x, const Tensor& w, const Tensor& b = {}, const ConvOptions& = {});

struct PoolOptions {
  PerDim kernel = {};
  PerDim stride = {};             ///< kernel, when left out
  PerDim padding = 0;             ///< at most half of kernel
  bool ceil_mode = false;         ///< a last window that x fills only in part counts, if it begins in x or its left padding
  bool count_include_pad = true;  ///< avg_pool2d: padding counts as zeros
};
/// The largest element of each window of x (N, C, H, W) or (C, H, W); the gradient goes to the first of equal ones.
MEZZO_API Tensor max_pool2d(const Tensor& x, const PoolOptions&);
MEZZO_API Tensor avg_pool2d(const Tensor& x, const PoolOptions&);
/// The mean of out[0] x out[1] windows that cover x (N, C, H, W) or (C, H, W).
MEZZO_API Tensor adaptive_avg_pool2d(const Tensor& x, const Shape& out);

// ---- layers ----------------------------------------------------------------------------------

struct NormOptions {
  double eps = 1e-5;
};
/// Over the last dimension C. w, b (C), optional. Statistics in f32.
MEZZO_API Tensor layer_norm(const Tensor& x, const Tensor& w = {}, const Tensor& b = {}, NormOptions = {});
MEZZO_API Tensor rms_norm(const Tensor& x, const Tensor& w = {}, NormOptions = {});
/// x (N, C, ...), normalised over each group of C / groups channels of each n (Wu & He, arXiv 1803.08494). w, b (C), optional. Statistics in f32.
MEZZO_API Tensor group_norm(const Tensor& x, int groups, const Tensor& w = {}, const Tensor& b = {}, NormOptions = {});
struct BatchNormOptions {
  bool training = false;  ///< statistics of the batch, which also move the running ones; else the running ones
  double momentum = 0.1;  ///< running = (1 - momentum) running + momentum of the batch (unbiased variance)
  double eps = 1e-5;
};
/// x (N, C) or (N, C, ...), each channel normalised (Ioffe & Szegedy, arXiv 1502.03167). Statistics in f32. running_mean, running_var (C): f32 (or
/// f64), changed in place in training, may be undefined then. w, b (C), optional. Error in training when a channel has one value.
MEZZO_API Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var, const Tensor& w = {}, const Tensor& b = {},
                            BatchNormOptions = {});
/// Rows of table (V, C) at ids (i32 or i64, any shape). Error for an id outside [0, V).
MEZZO_API Tensor embedding(const Tensor& ids, const Tensor& table);
struct RopeOptions {
  double base = 10000;
  Tensor positions = {};     ///< (T) i64; 0 .. T - 1 when left out
  Tensor inv_freq = {};      ///< (D / 2) f32; base^(-2i/D) when left out
  bool interleaved = false;  ///< pairs (2i, 2i + 1) instead of (i, i + D / 2)
};
/// Rotary position embedding (Su et al., arXiv 2104.09864) of x (B, H, T, D).
MEZZO_API Tensor rope(const Tensor& x, const RopeOptions& = {});

struct AttentionOptions {
  bool is_causal = false;            ///< query i sees keys j <= i + Tk - Tq
  Tensor mask = {};                  ///< boolean (true keeps) or floating (added), broadcast to (B, H, Tq, Tk)
  double dropout = 0;                ///< of the probabilities; draws from the default generator
  std::optional<double> scale = {};  ///< 1 / sqrt(D) when left out
  /// Documents that stand side by side in each row, by their numbers of tokens: attention stays inside each. Not with mask or dropout.
  std::vector<std::int64_t> lengths = {};
};
/// softmax(scale q k^T + mask) v by blocks, never T x T for a head. q (B, H, Tq, D); k, v (B, Hkv, Tk, D), H a multiple of Hkv.
/// A row whose keys are all masked gives zeros.
MEZZO_API Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& = {});
/// Self-attention on packed projections: qkv (B, T, 3 C) holds q, k, v of `heads` heads side by side; the result is (B, T, C). No copies are made.
MEZZO_API Tensor packed_attention(const Tensor& qkv, int heads, const AttentionOptions& = {});

// ---- losses: computed in f32, whatever the inputs ---------------------------------------------------

enum class Reduction : std::uint8_t {
  none,
  mean,
  sum,
  batchmean  ///< kl_div only: the sum over all elements, divided by the first dimension
};
struct LossOptions {
  Reduction reduction = Reduction::mean;
  std::int64_t ignore_index = -100;  ///< targets that carry no loss; the mean is over the others
  /// cross_entropy, nll_loss: (V), a factor for each class, by which the mean is weighted too. The binary ones: a factor for each element,
  /// broadcast.
  Tensor weight = {};
  double label_smoothing = 0;  ///< cross_entropy: this share of the target spread evenly over all classes (Szegedy et al., arXiv 1512.00567)
  double beta = 1;             ///< smooth_l1_loss: |x - y| from which it is linear; 0 or more
  double delta = 1;            ///< huber_loss: the same; above 0
  bool log_target = false;     ///< kl_div: y holds log-probabilities too
};
/// -log softmax(logits)[target]: logits (N, V) or (B, T, V), target (N) or (B, T), i32 or i64.
MEZZO_API Tensor cross_entropy(const Tensor& logits, const Tensor& target, const LossOptions& = {});
/// cross_entropy(linear(x, w), target) without ever holding the logits: 256 tokens at a time. x (..., C), w (V, C), target (...).
MEZZO_API Tensor linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& target, const LossOptions& = {});
MEZZO_API Tensor nll_loss(const Tensor& log_probabilities, const Tensor& target, const LossOptions& = {});  ///< -log_probabilities[target]
// Of x and y of one shape, element by element. Errors: unequal shapes, integers.
MEZZO_API Tensor mse_loss(const Tensor& x, const Tensor& y, const LossOptions& = {});
MEZZO_API Tensor l1_loss(const Tensor& x, const Tensor& y, const LossOptions& = {});
/// |d| < beta ? d^2 / (2 beta) : |d| - beta / 2, d = x - y (Girshick, arXiv 1504.08083).
MEZZO_API Tensor smooth_l1_loss(const Tensor& x, const Tensor& y, const LossOptions& = {});
/// |d| < delta ? d^2 / 2 : delta (|d| - delta / 2) (Huber 1964).
MEZZO_API Tensor huber_loss(const Tensor& x, const Tensor& y, const LossOptions& = {});
/// y (log y - x): x holds log-probabilities, y probabilities, or with .log_target log-probabilities. 0 where y is 0.
MEZZO_API Tensor kl_div(const Tensor& x, const Tensor& y, const LossOptions& = {});
/// Logarithms are held at -100.
MEZZO_API Tensor binary_cross_entropy(const Tensor& probability, const Tensor& y, const LossOptions& = {});
MEZZO_API Tensor binary_cross_entropy_with_logits(const Tensor& x, const Tensor& y, const LossOptions& = {});

// ---- joining and indexing ------------------------------------------------------------------------

MEZZO_API Tensor cat(const std::vector<Tensor>& tensors, int dim = 0);    ///< along dim; all other sizes equal
MEZZO_API Tensor stack(const std::vector<Tensor>& tensors, int dim = 0);  ///< along a new dimension dim; equal shapes
/// Views of `size` along dim; the last may be smaller.
MEZZO_API std::vector<Tensor> split(const Tensor& x, std::int64_t size, int dim = 0);
MEZZO_API Tensor index_select(const Tensor& x, int dim, const Tensor& index /*(n)*/);  ///< n slices of x along dim; Error: an index outside of it
MEZZO_API Tensor gather(const Tensor& x, int dim, const Tensor& index);  ///< of index's shape: each element x[.., index, ..], index along dim
MEZZO_API Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src);  ///< x + src at those places: gather's adjoint

}  // namespace mezzo
