// thin.h - products of few rows with a matrix that is read once: what generating text, token by token, is made of.
#pragma once

#include "kernels/cpu/conversion.h"
#include "kernels/kernels.h"

namespace mezzo::kernels {

inline constexpr std::int64_t kThinRows = 8;      // of A and C, at most
inline constexpr std::int64_t kThinPiece = 4096;  // elements of a row that are unpacked together: half of the first cache, whole blocks of any format

/// A matrix (n, k) by its rows: elements of a dtype, or what makes f32 of a piece of a row. Pieces begin at multiples of `elements`, which take
/// `bytes`.
struct ThinMatrix {
  const void* x = nullptr;
  std::int64_t row_bytes = 0;
  std::int64_t elements = 1, bytes = sizeof(float);
  Conversion unpack = nullptr;  ///< null: they are of `dtype`
  Dtype dtype = f32;
};

inline constexpr std::int64_t kDirectRows = 24;  // the same where the matrix is of elements
/// Whether thin_gemm() takes it: op(A) is A with few rows, op(B) the transpose, no alpha or beta, one product.
bool is_thin(const Gemm&, std::int64_t rows = kThinRows);
/// c = a w^T + bias + residual. A row of w is read once; blocks are unpacked into the first cache, elements widened in registers, or taken in pairs
/// by the native bf16 dot; sums in f32, rounded once.
void thin_gemm(Queue&, const Gemm&, const void* a, const ThinMatrix& w, void* c);

inline constexpr std::int64_t kThinColumns = 32;  // of op(B) and C, at most
/// Whether thin_columns_gemm() takes it: A as it is, op(B) with few columns, no alpha or beta, one product.
bool is_thin_in_columns(const Gemm&);
/// c = a op(b) + bias + residual, with A as the matrix that is read once.
void thin_columns_gemm(Queue&, const Gemm&, const void* a, const void* b, void* c);

}  // namespace mezzo::kernels
