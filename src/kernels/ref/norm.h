// norm.h - layer norm (Ba, Kiros, Hinton, arXiv 1607.06450) and RMS norm (Zhang, Sennrich, arXiv 1910.07467) of one row, forward and backward.
#pragma once

#include <cmath>
#include <cstdint>

namespace mezzo::kernels::ref {

template <class T> struct NormStats { T mean, rstd; };

/// Mean (0 for rms) and 1 / sqrt(variance + eps) of x (c).
template <class T> NormStats<T> norm_stats(bool rms, const T* x, std::int64_t c, double eps) {
  using std::sqrt;
  const T n(static_cast<double>(c));
  T sum(0), squares(0);
  for (std::int64_t i = 0; i < c; ++i) sum += x[i];
  const T mean = rms ? T(0) : sum / n;
  for (std::int64_t i = 0; i < c; ++i) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, T(1) / sqrt(squares / n + T(eps))};
}

/// y (c) = (x - mean) rstd w + b; w and b (c) may be null.
template <class T> NormStats<T> layer_norm(bool rms, const T* x, const T* w, const T* b, T* y, std::int64_t c, double eps) {
  const NormStats<T> stats = norm_stats(rms, x, c, eps);
  for (std::int64_t i = 0; i < c; ++i) {
    const T xhat = (x[i] - stats.mean) * stats.rstd;
    y[i] = (w ? xhat * w[i] : xhat) + (b ? b[i] : T(0));
  }
  return stats;
}

/// dx (c) = dres + the gradient through the norm; dw, db (c) += this row's part. w, dres, dw, db may be null; dres == dx allowed.
template <class T>
void layer_norm_backward(bool rms, const T* x, const T* w, NormStats<T> stats, const T* dy, const T* dres, T* dx, T* dw, T* db, std::int64_t c) {
  const T n(static_cast<double>(c));
  T sum(0), sum_xhat(0);  // of dy w, and of dy w xhat
  for (std::int64_t i = 0; i < c; ++i) {
    const T xhat = (x[i] - stats.mean) * stats.rstd, dxhat = w ? dy[i] * w[i] : dy[i];
    sum += dxhat;
    sum_xhat += dxhat * xhat;
  }
  const T mean_dxhat = rms ? T(0) : sum / n, mean_dxhat_xhat = sum_xhat / n;
  for (std::int64_t i = 0; i < c; ++i) {
    const T xhat = (x[i] - stats.mean) * stats.rstd, dxhat = w ? dy[i] * w[i] : dy[i];
    if (dw) dw[i] += dy[i] * xhat;
    if (db) db[i] += dy[i];
    dx[i] = stats.rstd * (dxhat - mean_dxhat - xhat * mean_dxhat_xhat) + (dres ? dres[i] : T(0));
  }
}

}  // namespace mezzo::kernels::ref
