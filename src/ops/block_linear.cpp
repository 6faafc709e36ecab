// block_linear.cpp - products with a matrix in quantised blocks. Storage T, accumulation f32, one rounding on store. The matrix is unpacked into
// workspace by slices of its rows, each of which goes through one product; nothing of it outlives the op.
#include "ops/block_linear.h"

#include "ops/product.h"

namespace mezzo {
namespace {

constexpr std::int64_t kFewRows = 24;
constexpr std::int64_t kSliceBytes = 8 << 20;  // of unpacked rows: large enough for the products to run at full speed

std::int64_t slice_rows(const BlockMatrix& w, Dtype dtype) {
  const auto row = w.cols * static_cast<std::int64_t>(size_of(dtype));
  return std::min(w.rows, std::max<std::int64_t>(64, kSliceBytes / row / 64 * 64));
}

/// f(unpacked rows (m, cols), first row, m) for slice after slice.
template <class F> void each_slice(const BlockMatrix& w, Dtype dtype, F f) {
  auto& q = cpu_queue();
  const auto rows = slice_rows(w, dtype);
  const Block slice = q.scratch(static_cast<std::size_t>(rows * w.cols) * size_of(dtype));
  for (std::int64_t r = 0; r < w.rows; r += rows) {
    const auto m = std::min(rows, w.rows - r);
    kernels::dequantize(q, w.format, dtype, w.blocks + r * w.row_bytes(), slice.as<void>(), m, w.cols);
    f(slice.as<void>(), r, m);
  }
}

const void* column(const void* p, std::int64_t i, Dtype dtype) {
  return p ? static_cast<const std::byte*>(p) + i * static_cast<std::int64_t>(size_of(dtype)) : nullptr;
}

/// y (n, rows of w) = x w^T + b + residual + joined.x joined.w^T.
void forward(const BlockMatrix& w, Dtype dtype, const Tensor& x, const Tensor& b, const Tensor& residual, const Joined& joined, const Tensor& y,
             std::int64_t n) {
  const PartScope timed(Part::gemm_forward);
  kernels::Gemm whole;
  whole.a = whole.b = whole.c = dtype;
  whole.m = n;
  whole.n = whole.ldc = w.rows;
  whole.k = whole.lda = whole.ldb = w.cols;
  whole.trans_b = true;
  if (b.defined()) whole.bias = data(b), whole.bias_dtype = b.dtype();
  if (residual.defined()) whole.residual = data(residual);
  std::int64_t rank = joined.x.defined() ? joined.x.size(-1) : 0;
  Tensor few;  // of few rows what joins comes first, as the residual: thin_product() takes no tail
  if (rank != 0 && n <= kFewRows) {
    kernels::Gemm g = whole;
    g.bias = nullptr;
    g.k = g.lda = g.ldb = rank;
    few = make_tensor(y.shape(), dtype);
    kernels::gemm(cpu_queue(), g, data(joined.x), data(joined.w), mutable_data(few));
    whole.residual = data(few);
    rank = 0;
  }
  if (kernels::thin_product(cpu_queue(), w.format, whole, data(x), w.blocks, mutable_data(y))) return;
  each_slice(w, dtype, [&](const void* rows, std::int64_t r, std::int64_t m) {
    kernels::Gemm g = whole;
    g.n = m;
    g.bias = column(whole.bias, r, g.bias_dtype);
    g.residual = column(whole.residual, r, dtype);
    if (rank != 0) g.tail = {data(joined.x), column(data(joined.w), r * rank, dtype), rank, rank, rank};
    kernels::gemm(cpu_queue(), g, data(x), rows, const_cast<void*>(column(data(y), r, dtype)));
  });
}

/// dx (n, cols of w) = dy w, summed in f32 over the slices.
Tensor input_gradient(const BlockMatrix& w, const Tensor& dy, const Shape& shape, std::int64_t n) {
  const PartScope timed(Part::gemm_input_grad);
  const Dtype dtype = dy.dtype();
  const bool whole = slice_rows(w, dtype) == w.rows;
  Tensor dx = make_tensor(shape, dtype);
  const Block sums = whole ? Block() : cpu_queue().scratch(static_cast<std::size_t>(n * w.cols) * sizeof(float));
  void* to = whole ? mutable_data(dx) : sums.as<void>();
  each_slice(w, dtype, [&](const void* rows, std::int64_t r, std::int64_t m) {
    kernels::Gemm g;
    g.a = g.b = dtype;
    g.c = whole ? dtype : Dtype::f32;
    g.m = n;
    g.n = w.cols;
    g.k = m;
    g.lda = w.rows;
    g.ldb = g.ldc = w.cols;
    g.beta = r == 0 ? 0 : 1;
    kernels::gemm(cpu_queue(), g, column(data(dy), r, dtype), rows, to);
  });
  if (!whole) kernels::convert(cpu_queue(), Dtype::f32, dtype, to, mutable_data(dx), n * w.cols);
  return dx;
}

}  // namespace

Tensor unpacked(const BlockMatrix& w, Dtype dtype) {
  Tensor y = make_tensor({w.rows, w.cols}, dtype);
  kernels::dequantize(cpu_queue(), w.format, dtype, w.blocks, mutable_data(y), w.rows, w.cols);
  return y;
}

Tensor block_embedding(const Tensor& ids, const BlockMatrix& table, Dtype dtype) {
  require_index("embedding", ids, "ids");
  check_indices("embedding", ids, table.rows);
  Shape shape = ids.shape();
  shape.push_back(table.cols);
  Tensor index = ids.to(Dtype::i64).contiguous(), y = make_tensor(shape, compute_dtype(OpId::embedding, dtype));
  const auto* row = static_cast<const std::int64_t*>(data(index));
  auto* to = static_cast<std::byte*>(mutable_data(y));
  for (std::int64_t i = 0; i < index.numel(); ++i, to += table.cols * static_cast<std::int64_t>(size_of(y.dtype())))
    kernels::dequantize(cpu_queue(), table.format, y.dtype(), table.blocks + row[i] * table.row_bytes(), to, 1, table.cols);
  return y;
}

Tensor block_linear(const Tensor& x, const std::shared_ptr<const BlockMatrix>& w, const Tensor& b, const Tensor& residual, const Joined& joined) {
  const char* op = "block_linear";
  if (joined.x.defined() && context().policy.rounds_like_torch()) return block_linear(x, w, b, detail::linear(joined.x, joined.w, {}, residual));
  require_floating(op, x);
  if (x.dim() == 0 || x.size(-1) != w->cols)
    fail(op, fmt::format("x {} given for a matrix of ({}, {}): inner sizes differ", to_string(x.shape()), w->rows, w->cols));
  const Operand a = dense(operand(OpId::linear, x));
  const Dtype dtype = a.value.dtype();
  if (dtype == Dtype::f64) fail(op, "x is f64, f32 or 16 bits wanted: the weight's blocks hold no more");
  Shape shape = x.shape();
  shape[shape.size() - 1] = w->rows;
  const Operand bo = b.defined() ? dense(operand(b, b.dtype() == dtype ? dtype : Dtype::f32)) : Operand();
  const Operand r = residual.defined() ? dense(operand(residual, dtype)) : Operand();
  const bool joins = joined.x.defined();
  const Operand jx = joins ? dense(operand(joined.x, dtype)) : Operand(), jw = joins ? dense(operand(joined.w, dtype)) : Operand();
  const auto n = x.numel() / w->cols;
  const Tensor y = make_tensor(shape, dtype);
  forward(*w, dtype, a.value, bo.value, r.value, {jx.value, jw.value}, y, n);
  return record(OpId::linear, y, {a, bo, r, jx, jw}, {jx.value, jw.value}, [=, shape = x.shape()](Backward& g) {
    if (g.create_graph()) fail(op, "create_graph given", "a quantised weight has no second derivative here; unpack it first");
    if (g.wants(2)) g.set(2, g.dy());
    const Tensor dy = dense(g.dy());
    if (g.wants(0)) g.set(0, input_gradient(*w, dy, shape, n));
    if (g.wants(1)) g.set(1, sum_to(dy, g.input(1)));
    if (joins) give_factors(g, 3, 4, as_rows(dy, n, w->rows), g.saved(0), g.saved(1), false);
  });
}

}  // namespace mezzo
