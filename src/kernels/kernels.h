// kernels.h - the whole contract of a device: pointers and sizes, no Tensor. Another device is another implementation of this page.
//
// Rules for every kernel: the queue comes first; it allocates nothing but workspace; it returns nothing. Pointers are to contiguous
// elements unless a Strided says otherwise; outputs never overlap inputs unless "in place" is allowed (then: same pointer, same dtype).
// T in {f32, f16, bf16}: arithmetic in f32, one rounding to nearest even on store. f64: arithmetic in f64 (reference templates).
// Sums use a fixed tree: the same bits for the same sizes, instruction set and number of threads.
// B batch, T time, C channels, V vocabulary, n elements; dx = d(loss)/dx. Shapes stand beside the pointers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <mezzo/dtype.h>
#include "core/allocator.h"

namespace mezzo::kernels {

/// Where kernels run: on a CPU the thread pool and the workspace.
class Queue {
 public:
  /// Workspace that lives as long as the returned block.
  Block scratch(std::size_t bytes) { return Block(bytes, Memory::workspace); }
};
Queue& cpu_queue();
/// The host reads a kernel's result only through this (a device's copy and wait; a plain load here).
template <class T> T read(Queue&, const T* p) { return *p; }

// ---- layouts ---------------------------------------------------------------------------------

inline constexpr int kMaxDims = 8;
/// A shared index space over several operands; strides in elements (0: broadcast). Operand 0 is the output.
struct Strided {
  int dims = 0;
  int operands = 1;
  std::array<std::int64_t, kMaxDims> size{};
  std::array<std::array<std::int64_t, kMaxDims>, 4> stride{};  // stride[operand][dim]
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int d = 0; d < dims; ++d) n *= size[d];
    return n;
  }
};

// ---- copies ----------------------------------------------------------------------------------

/// y[i] = x[i] converted (to nearest even; NaN stays NaN; float to integer truncates; to boolean: != 0). Operands: y, x.
void copy(Queue&, Dtype from, Dtype to, const void* x, void* y, const Strided&);
/// The same for n contiguous elements; from == to is a memcpy.
void convert(Queue&, Dtype from, Dtype to, const void* x, void* y, std::int64_t n);
/// y[i] = value. Operand: y.
void fill(Queue&, Dtype, double value, void* y, const Strided&);

// ---- element-wise ----------------------------------------------------------------------------

enum class Unary : std::uint8_t { neg, abs, exp, log, sqrt, rsqrt, tanh, sigmoid, relu, silu, gelu, gelu_tanh, softplus, sin, cos, count };
/// y = f(x); y == x allowed. gelu: x Phi(x); gelu_tanh: Hendrycks & Gimpel's tanh form (arXiv 1606.08415), 0.044715.
void unary(Queue&, Unary, Dtype, const void* x, void* y, std::int64_t n);
/// Whether the derivative of f is taken from its output y (exp sqrt rsqrt tanh sigmoid relu) or from its input x.
bool derivative_from_output(Unary);
/// dx = dy f'; s is x or y as derivative_from_output says; dx == dy allowed.
void unary_backward(Queue&, Unary, Dtype, const void* s, const void* dy, void* dx, std::int64_t n);

enum class Binary : std::uint8_t { add, sub, mul, div, pow, maximum, minimum, count };
/// y = a op b, all of one dtype (integers: add sub mul maximum minimum only). Operands: y, a, b. y == a or b allowed when not broadcast.
void binary(Queue&, Binary, Dtype, const void* a, const void* b, void* y, const Strided&);
/// y = x op value, or value op x with value_first; contiguous; y == x allowed.
void binary_scalar(Queue&, Binary, Dtype, const void* x, double value, bool value_first, void* y, std::int64_t n);
enum class Compare : std::uint8_t { eq, ne, lt, le, gt, ge, count };
/// y (bytes 0 or 1) = a op b; NaN compares as IEEE. Operands: y, a, b; any dtype.
void compare(Queue&, Compare, Dtype, const void* a, const void* b, std::uint8_t* y, const Strided&);
/// y = condition (bytes) ? a : b. Operands: y, condition, a, b; any dtype.
void select(Queue&, Dtype, const std::uint8_t* condition, const void* a, const void* b, void* y, const Strided&);
/// y = gate * sigmoid(gate) * up (SwiGLU, Shazeer, arXiv 2002.05202).
void swiglu(Queue&, Dtype, const void* gate, const void* up, void* y, std::int64_t n);
void swiglu_backward(Queue&, Dtype, const void* gate, const void* up, const void* dy, void* dgate, void* dup, std::int64_t n);
/// y = keep ? x / (1 - p) : 0, where keep is draw i of (seed, offset + i / 4): the same call on dy is the backward. y == x allowed.
void dropout(Queue&, Dtype, const void* x, void* y, std::int64_t n, double p, std::uint64_t seed, std::uint64_t offset);

// ---- reductions: x is (outer, n, inner), y is (outer, inner) ----------------------------------

enum class Reduce : std::uint8_t { sum, prod, amax, sum_abs, sum_squares, count };
/// y = scale * reduce(x along n), accumulated in f32 (f64 for f64, i64 for integers), stored as `to`.
/// amax of a NaN is NaN; of nothing -inf. sum of nothing is 0, prod 1.
void reduce(Queue&, Reduce, Dtype from, Dtype to, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner, double scale = 1);
/// y[k] = x[0] + ... + x[k] along n (from the end with `reverse`), accumulated in f32; y is `to`.
void cumsum(Queue&, Dtype from, Dtype to, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner, bool reverse);
/// sums (C, f32) = (accumulate ? sums : 0) + sum over rows of x (rows, C): bias gradients.
void sum_rows(Queue&, Dtype, const void* x, float* sums, std::int64_t rows, std::int64_t c, bool accumulate);

// ---- rows: x, y are (rows, C) ----------------------------------------------------------------

/// y = softmax or log_softmax of each row, in f32 inside; `to` is the output's dtype. A row of -inf gives NaN, as in IEEE arithmetic.
void softmax(Queue&, bool log, Dtype from, Dtype to, const void* x, void* y, std::int64_t rows, std::int64_t c);
/// dx from y and dy: softmax y (dy - sum(dy y)); log: dy - exp(y) sum(dy). y and dy are `from`, dx is `to`.
void softmax_backward(Queue&, bool log, Dtype from, Dtype to, const void* y, const void* dy, void* dx, std::int64_t rows, std::int64_t c);

/// y = (x - mean) rstd w + b; w and b (C), of `weights` dtype, may be null. mean and rstd (rows; f32, or f64 for f64) are written unless null.
/// Mean, then variance around it (two passes over the row in registers or L1). x and y are T; rms: mean is taken as 0, b is null.
void layer_norm(Queue&, bool rms, Dtype, Dtype weights, const void* x, const void* w, const void* b, void* y, void* mean, void* rstd,
                std::int64_t rows, std::int64_t c, double eps);
/// dx (+ dres, if not null: the gradient that already flows to x; dres == dx allowed), and dw, db (C; f32, or f64 for f64; null: not
/// wanted), which are overwritten, or added to with `accumulate`.
void layer_norm_backward(Queue&, bool rms, Dtype, Dtype weights, const void* x, const void* w, const void* mean, const void* rstd, const void* dy,
                         const void* dres, void* dx, void* dw, void* db, bool accumulate, std::int64_t rows, std::int64_t c);

/// Rotary position embedding (Su et al., arXiv 2104.09864) of x (rows, heads, D): position of row r is positions[r % t] (i64), or r % t when
/// null; interleaved pairs (2i, 2i+1), or halves (i, i + D/2). inv_freq (D/2, f32). sign -1 is the backward.
void rope(Queue&, Dtype, const void* x, void* y, const float* inv_freq, const std::int64_t* positions, std::int64_t rows, std::int64_t t,
          std::int64_t heads, std::int64_t d, bool interleaved, double sign);

// ---- indexing --------------------------------------------------------------------------------

/// y (n, C) = table (V, C) rows ids (n; i32 or i64), converted from `from` to `to`. Ids are checked by the caller.
void gather_rows(Queue&, Dtype from, Dtype to, Dtype ids_dtype, const void* table, const void* ids, void* y, std::int64_t n, std::int64_t c);
/// sums (V, C) of dtype f32 or f64 += dy (n, C) at rows ids, in the order of n for each row (deterministic). Rows with id == skip are left out.
void scatter_add_rows(Queue&, Dtype from, Dtype to, Dtype ids_dtype, const void* dy, const void* ids, void* sums, std::int64_t n, std::int64_t v,
                      std::int64_t c, std::int64_t skip = -1);
/// torch.gather along the middle of (outer, from_n, inner): y (outer, n, inner) = x[o, index[o, k, i], i].
void gather(Queue&, Dtype, Dtype index_dtype, const void* x, const void* index, void* y, std::int64_t outer, std::int64_t from_n, std::int64_t n,
            std::int64_t inner);
/// y[o, index[o, k, i], i] += src[o, k, i]; y (outer, to_n, inner) holds the initial values; sums for a 16-bit y are taken in f32 and rounded once.
void scatter_add(Queue&, Dtype, Dtype index_dtype, const void* src, const void* index, void* y, std::int64_t outer, std::int64_t to_n, std::int64_t n,
                 std::int64_t inner);
/// Smallest and largest of n indices (i32 or i64): bounds[0..1].
void index_bounds(Queue&, Dtype index_dtype, const void* index, std::int64_t n, std::int64_t* bounds);

// ---- losses ----------------------------------------------------------------------------------

/// Per row of logits (rows, V; T), whose rows begin ld elements apart (0: V): loss = lse - x[target] (0 where target == ignore_index), and
/// lse (null: not wanted); both f32, or f64 for f64. smoothing s: lse - (1 - s) x[target] - s mean(x) (Szegedy et al., arXiv 1512.00567).
void cross_entropy(Queue&, Dtype, Dtype target_dtype, const void* logits, const void* target, void* loss, void* lse, std::int64_t rows,
                   std::int64_t v, std::int64_t ignore_index, std::int64_t ld = 0, double smoothing = 0);
/// dx (rows, V; `to`) = (exp(x - lse) - (1 - s) onehot(target) - s / V) * scale[r * scale_stride] (lse and scale f32, or f64 for f64; scale null:
/// 1); zero rows where target == ignore_index. dx == logits allowed when the dtypes are equal. Rows of both begin ld elements apart (0: V);
/// columns from V to ld of dx, the padding, are written as 0.
void cross_entropy_backward(Queue&, Dtype, Dtype to, Dtype target_dtype, const void* logits, const void* target, const void* lse, const void* scale,
                            std::int64_t scale_stride, void* dx, std::int64_t rows, std::int64_t v, std::int64_t ignore_index, std::int64_t ld = 0,
                            double smoothing = 0);

/// Losses of one element x and its target t, d = x - t. smooth_l1: |d| < beta ? d^2 / (2 beta) : |d| - beta / 2. huber: |d| < beta ? d^2 / 2 :
/// beta (|d| - beta / 2). kl: t (log t - x), 0 where t = 0; kl_log: exp(t) (t - x). binary: -(t log x + (1 - t) log(1 - x)), logarithms held at
/// -100. binary_logits: softplus(x) - t x, as softplus(-|x|) + (x > 0 ? 1 - t : -t) x, which an infinite x leaves infinite.
enum class Loss : std::uint8_t { squared, absolute, smooth_l1, huber, kl, kl_log, binary, binary_logits, count };
/// losses (n; f32, or f64 for f64) of x and t (n; T).
void loss(Queue&, Loss, Dtype, const void* x, const void* t, void* losses, std::int64_t n, double beta);
/// dx, dt (n; T; null: not wanted) = g[i * g_stride] * scale * d(loss)/dx, d(loss)/dt; g f32, or f64 for f64. binary's slope in x is that of
/// (x - t) / max(x (1 - x), 1e-12).
void loss_backward(Queue&, Loss, Dtype, const void* x, const void* t, const void* g, std::int64_t g_stride, double scale, void* dx, void* dt,
                   std::int64_t n, double beta);

// ---- recurrent cells -------------------------------------------------------------------------
// Between two products: what turns a step's G H sums into gates and states. W is f32, or f64 for f64. Gates stand side by side: lstm i f g o
// (G 4), gru r z n (G 3), as in cuDNN and torch.

enum class Cell : std::uint8_t { rnn_tanh, rnn_relu, lstm, gru, count };
/// One step of B rows. sums (B, G H; W) is W x + b of the input, and of the state too but for gru, whose state's part is state_sums (B, 3 H; W;
/// else null). lstm: c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c); gru: n = tanh(n + r state_n), h = (1 - z) n + z h (Cho et al.,
/// arXiv 1406.1078, with the reset behind the product); rnn: h = f(sums).
/// h_before (B, H; T; gru), c_before and c (B, H; W; lstm) - c == c_before allowed. h (B, H; T) is written, and for the backward gates (null: not
/// wanted): lstm i f g o, gru r z n state_n, each after its function (B, 4 H; T); rnn needs none. gates == sums allowed for lstm when T is W.
void cell(Queue&, Cell, Dtype, const void* sums, const void* state_sums, const void* h_before, const void* c_before, void* h, void* c, void* gates,
          std::int64_t b, std::int64_t hidden);
/// Back through one step. dh (B, H; W): what later steps send; dy (B, H; T; null: nothing): the output's own. dc (B, H; W; lstm): in what later
/// steps send, out what goes to c_before. Out: dsums (B, G H; T), for gru dstate_sums (B, 3 H; T) and in dh the part that goes straight to
/// h_before. dsums == gates allowed for lstm. h is the step's own (rnn), h_before (gru), c_before and c (lstm) as they were.
void cell_backward(Queue&, Cell, Dtype, const void* gates, const void* h, const void* h_before, const void* c_before, const void* c, const void* dy,
                   void* dh, void* dc, void* dsums, void* dstate_sums, std::int64_t b, std::int64_t hidden);

// ---- matrix products -------------------------------------------------------------------------

/// C (m, n) = alpha op(A) op(B) + beta C [+ bias (n)] [+ residual (m, n)], accumulated in f32, one rounding on store; row-major with leading
/// dimensions lda, ldb, ldc (elements). op(A) is (m, k): stored (m, k), or (k, m) with trans_a; op(B) is (k, n): stored (k, n), or (n, k) with
/// trans_b (the usual Linear weight). `batch` products at the given strides (0: shared).
/// a == b in {f32, f16, bf16, f64}; c is a, or f32 for 16-bit a. bias may be f32 or c's dtype (added in f32, unrounded), residual c's dtype, ld ldc.
/// Without native instructions a 16-bit operand is widened panel by panel into the f32 product.
/// The sum may go on with a second pair of operands that lie as the first do: + alpha op(tail.a) op(tail.b), (m, tail.k) and (tail.k, n). batch is 1
/// then; of few rows, with a 16-bit C, the second product may be rounded before it is added.
struct Gemm {
  struct Tail {
    const void *a = nullptr, *b = nullptr;
    std::int64_t k = 0, lda = 0, ldb = 0;
  };

  std::int64_t m = 0, n = 0, k = 0;
  Dtype a = f32, b = f32, c = f32;
  bool trans_a = false, trans_b = false;
  std::int64_t lda = 0, ldb = 0, ldc = 0;
  double alpha = 1, beta = 0;
  const void* bias = nullptr;
  Dtype bias_dtype = f32;
  const void* residual = nullptr;
  std::int64_t batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
  Tail tail = {};
};
void gemm(Queue&, const Gemm&, const void* a, const void* b, void* c);
/// Whether a product of 16-bit operands of this dtype has native instructions here.
bool native_gemm(Dtype);

// ---- convolutions ----------------------------------------------------------------------------

/// A convolution (cross-correlation, as everywhere in this field) over up to three dimensions D, H, W; missing ones stand first, with size 1:
/// y[n, p, o] = bias[o] + sum over taps t and channels c of o's group of w[o, c, t] x[n, p stride + t dilation - padding, c], 0 outside of x.
/// Activations are channels-last: x (N, in, C), y (N, out, O). Weights are (O, C / groups, kernel). x, w, y are `dtype`, one that conv_dtype gives;
/// the activation that is written may be f32 instead. Accumulated in f32 (f64 for f64), one rounding on store.
struct Conv {
  Dtype dtype = f32, result = f32;  ///< result: of y or dx
  std::int64_t n = 0, c = 0, o = 0, groups = 1;
  std::array<std::int64_t, 3> in{1, 1, 1}, out{1, 1, 1}, kernel{1, 1, 1}, stride{1, 1, 1}, padding{0, 0, 0}, dilation{1, 1, 1};
  friend bool operator==(const Conv&, const Conv&) = default;
};
/// The dtype that convolutions of `t` run in here: itself, or f32 (which holds any f16 and bf16) where there are no instructions for it.
Dtype conv_dtype(Dtype t);
/// y from x and w; bias (O; f32, or f64 for f64) may be null.
void conv(Queue&, const Conv&, const void* x, const void* w, const void* bias, void* y);
/// dx (N, in, C) = the transposed convolution of dy (N, out, O) with w.
void conv_input_grad(Queue&, const Conv&, const void* w, const void* dy, void* dx);
/// dw (O, C / groups, kernel; f32, or f64 for f64) = (accumulate ? dw : 0) + the gradient of w.
void conv_weight_grad(Queue&, const Conv&, const void* x, const void* dy, void* dw, bool accumulate);

// ---- pooling: planes of x (planes, h, w) to y (planes, oh, ow) --------------------------------------

/// Window i of dimension d (0: h, 1: w) covers [i stride - padding, i stride - padding + kernel) cut to x; adaptive: [floor(i in / out),
/// ceil((i + 1) in / out)). No window may lie outside of x whole. count_include_pad: a window's average is over its part of the padded input.
struct Pool {
  std::int64_t planes = 0;
  std::array<std::int64_t, 2> in{1, 1}, out{1, 1}, kernel{1, 1}, stride{1, 1}, padding{0, 0};
  bool adaptive = false, count_include_pad = true;
};
/// y = the largest element of each window, NaN if there is one, and where it is: index (planes, oh, ow; y w + x in its plane; the first of equal
/// ones), null: not wanted. Fewer than 2^31 elements a plane.
void max_pool(Queue&, Dtype, const Pool&, const void* x, void* y, std::int32_t* index);
void max_pool_backward(Queue&, Dtype, const Pool&, const std::int32_t* index, const void* dy, void* dx);
/// y = the mean of each window, summed in f32 (f64 for f64).
void avg_pool(Queue&, Dtype, const Pool&, const void* x, void* y);
void avg_pool_backward(Queue&, Dtype, const Pool&, const void* dy, void* dx);

// ---- norms over channels: x is (N, C, L) ------------------------------------------------------------

/// Statistics for each channel over N and L (groups 0: batch norm), or for each n and group of C / groups channels over these and L (group norm).
/// They are f32, or f64 for f64, of length `sets()`.
struct ChannelNorm {
  Dtype dtype = f32;
  std::int64_t n = 0, c = 0, l = 1, groups = 0;
  std::int64_t sets() const { return groups ? n * groups : c; }
  std::int64_t set_size() const { return groups ? c / groups * l : n * l; }
};
/// mean and var (biased): blocks of x in two passes within the cache, joined in f64 (Chan, Golub, LeVeque 1983).
void channel_stats(Queue&, const ChannelNorm&, const void* x, void* mean, void* var);
/// y = (x - mean) rstd w + b; w and b (C; f32, or f64 for f64) may be null. y == x allowed.
void channel_norm(Queue&, const ChannelNorm&, const void* x, const void* mean, const void* rstd, const void* w, const void* b, void* y);
/// dx; and dw, db (C; f32, or f64 for f64; null: not wanted), overwritten, or added to with `accumulate`. fixed: mean and rstd do not depend on x.
/// dx null: not wanted.
void channel_norm_backward(Queue&, const ChannelNorm&, bool fixed, const void* x, const void* mean, const void* rstd, const void* w, const void* dy,
                           void* dx, void* dw, void* db, bool accumulate);

// ---- attention -------------------------------------------------------------------------------

/// Strides (elements) of a (B, H, T, D) operand whose D is contiguous.
struct HeadStrides {
  std::int64_t b = 0, h = 0, t = 0;
};
/// out = softmax(scale q k^T + mask) v by blocks of query rows: never T x T for a head. q (B, H, Tq, D), k and v (B, Hkv, Tk, D), H a multiple of
/// Hkv (grouped queries); with `causal` row i sees keys j <= i + Tk - Tq. mask: null, boolean (1 keeps) or f32 (added), strides as given (0:
/// broadcast), its last dimension contiguous or broadcast. lse (B, H, Tq, f32) is written for the backward. dropout as in `dropout`, keyed by element
/// of (B, H, Tq, Tk). A row from which causality and the mask (f32: -inf) hide every key gives out = 0, lse = -inf and no gradient; scores that are
/// -inf by themselves give NaN, as in IEEE arithmetic. What a hidden key holds does not matter, but a NaN or Inf in a hidden value may show.
struct Attention {
  Dtype dtype = f32;
  std::int64_t b = 0, h = 0, h_kv = 0, tq = 0, tk = 0, d = 0;
  HeadStrides q, k, v, out;
  double scale = 1;
  bool causal = false;
  const void* mask = nullptr;
  Dtype mask_dtype = boolean;
  HeadStrides mask_strides;
  std::int64_t mask_stride_k = 1;
  double dropout = 0;
  std::uint64_t seed = 0, offset = 0;
};
void attention(Queue&, const Attention&, const void* q, const void* k, const void* v, void* out, float* lse);
/// dq, dk, dv, each overwritten; strides of dq dk dv and dout are given apart. Scores are recomputed; row sums of dout * out are taken inside.
struct AttentionGrad {
  HeadStrides dout, dq, dk, dv;
};
void attention_backward(Queue&, const Attention&, const AttentionGrad&, const void* q, const void* k, const void* v, const void* out,
                        const float* lse, const void* dout, void* dq, void* dk, void* dv);

// ---- random numbers --------------------------------------------------------------------------

/// y[i] in [0, 1), from (seed, offset + i / 4) word i % 4: multiples of 2^-24, in 16 bits of the unit in the last place below 1, as torch.rand.
void uniform(Queue&, Dtype, void* y, std::int64_t n, std::uint64_t seed, std::uint64_t offset);
/// The same from pairs of words, normal; f32 then rounded to T, f64 in f64.
void normal(Queue&, Dtype, void* y, std::int64_t n, double mean, double std, std::uint64_t seed, std::uint64_t offset);

// ---- gradients and the optimizer's pass --------------------------------------------------------

/// What one look at a gradient finds. `sum_squares` is of finite and non-finite alike (so Inf or NaN shows in it); `zero` counts elements
/// that are 0 as loaded, before scaling.
struct GradStats {
  double sum_squares = 0;
  std::int64_t inf = 0, nan = 0, zero = 0;
};
/// stats = statistics of g (n) * scale in f32 (f64 for f64); a fixed tree. round: the 16-bit dtype that an f32 buffer stands for: elements are
/// rounded to it on load, as `update` does with round_g; f32: not rounded.
void grad_stats(Queue&, Dtype, const void* g, std::int64_t n, double scale, GradStats* stats, Dtype round = f32);
/// g = g * scale (in f32, f64 for f64; one rounding).
void scale_inplace(Queue&, Dtype, void* g, std::int64_t n, double scale);

// The factor that grad_stats, scale_inplace and update take may lie outside f32's range, as the reciprocal of a loss scale below 2^-127 does:
// it is applied in two parts then, so that no zero becomes NaN and no bit is lost.

enum class Rule : std::uint8_t { sgd, adam, adagrad, lion, adafactor, count };
/// How an optimizer keeps its weights (docs/precision-recipes.md): where the f32 truth of an element is, and what w is.
enum class Store : std::uint8_t {
  f32,         ///< w itself; `copy`, if there is one, follows
  master,      ///< `master`; w is its 16-bit copy
  split,       ///< w (bf16) and `rest` (int16): the truth's bits are (w << 16) + rest, w its rounding half away from zero
  kahan,       ///< w (bf16) + `rest` (bf16), what the last rounding of w left over
  stochastic,  ///< w (bf16), rounded up or down by chance, in proportion to the distances
  pure,        ///< w (`low`), rounded to nearest
  count
};
/// How the moments of `adam` and the others are kept. u8: codes of Dettmers et al.'s dynamic map (arXiv 2110.02861; ref/quantize.h), relative to
/// the largest of each kQuantBlock elements; of `adam` alone.
inline constexpr std::int64_t kQuantBlock = 256;
/// One pass over one parameter: g unscaled and clipped, moments, truth, rounding, 16-bit copy. With Store::f32 and g_dtype f64, all of it is f64.
/// sgd (torch.optim.SGD): d = g + wd w; m = momentum m + d (first step: m = d); d = nesterov ? d + momentum m : m; w -= lr d.
/// adam (Kingma & Ba, arXiv 1412.6980; decoupled: Loshchilov & Hutter, arXiv 1711.05101): w *= 1 - lr wd (decoupled) or g += wd w;
/// m, v as usual; w -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps).
/// adagrad (Duchi et al., JMLR 2011, as torch.optim.Adagrad): d = g + wd w; m += d^2; w -= lr d / (sqrt(m) + eps).
/// lion (Chen et al., arXiv 2302.06675): w *= 1 - lr wd; w -= lr sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g.
/// adafactor (Shazeer & Stern, arXiv 1804.04235, as torch.optim.Adafactor), after adafactor_moments: w *= 1 - wd (wd: times its
/// lr already); w -= lr g / sqrt(max(V, eps^2)), where V is m, or of a factored parameter factor[row] v[column].
/// Moments in 16 or 8 bits and Store::stochastic draw 16 random bits each for an element: bits `element` of (seed, stream + use), 8 to a block of
/// Philox, where use is 0 for the weight, 1 for m, 2 for v; so `stream` is a multiple of 4, and another for each step and parameter.
struct Update {
  Rule rule = Rule::adam;
  Store store = Store::f32;
  std::int64_t n = 0;
  void* w = nullptr;        ///< (n): f32 for Store::f32, else `low`
  float* master = nullptr;  ///< (n) for Store::master
  void* rest = nullptr;     ///< (n), 16 bits: Store::split, Store::kahan
  void* copy = nullptr;     ///< (n), `low`: the cached cast of an f32 weight, rewritten in the same pass; null: none
  Dtype low = bf16;
  bool copy_half_away = false;  ///< Store::master: w rounded half away from zero instead of to nearest even
  const void* g = nullptr;      ///< (n) of dtype g_dtype
  Dtype g_dtype = f32;
  bool round_g = false;                          ///< an f32 buffer that stands for a 16-bit gradient: rounded to `low` on load
  double g_scale = 1;                            ///< unscaling times clipping
  void* m = nullptr;                             ///< (n) of dtype `moments`; sgd: null without momentum. adafactor: f32 (n), or (rows) of each matrix
  void* v = nullptr;                             ///< (n) of dtype `moments`; adam. adafactor: f32 (columns) of each matrix
  Dtype moments = f32;                           ///< f32, bf16, u8
  bool m_nearest = false;                        ///< bf16 moments rounded to nearest instead of stochastically
  float *m_scale = nullptr, *v_scale = nullptr;  ///< (n / kQuantBlock, rounded up): of u8 moments, what code 255 (m: 127) stands for
  double lr = 0, weight_decay = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, momentum = 0;
  bool nesterov = false, decoupled = true, first = false;
  double bias1 = 1, bias2 = 1;  ///< 1 - beta^t
  std::uint64_t seed = 0, stream = 0;
  // adafactor: a parameter of n / (rows columns) matrices; rows == 0: not factored
  std::int64_t rows = 0, columns = 0;
  void* factor = nullptr;  ///< (n / columns), f32 (f64 for f64): made by adafactor_moments
};
void update(Queue&, const Update&);
/// What adafactor's step needs before it can begin. One pass brings the moments up to date with g (times g_scale) by m += beta2 (mean g^2 - m) along
/// each row and column, or element by element; another sums squares. sums: of the weights' truth, and of g / sqrt(max(V, eps^2)).
void adafactor_moments(Queue&, const Update&, double sums[2]);
/// How Store::split begins: w (bf16) and rest (int16), of n elements, from their truth.
void split(Queue&, const float* truth, void* w, void* rest, std::int64_t n);

}  // namespace mezzo::kernels
