// channel_norm.h - batch norm (Ioffe, Szegedy, arXiv 1502.03167) and group norm (Wu, He, arXiv 1803.08494) of x (n, c, l), forward and backward.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace mezzo::kernels::ref {

/// The set of statistics that channel k of image i belongs to.
inline std::int64_t set_of(const ChannelNorm& s, std::int64_t i, std::int64_t k) { return s.groups ? i * s.groups + k / (s.c / s.groups) : k; }

/// f(element, channel, set) for every element.
template <class F> void each_element(const ChannelNorm& s, F f) {
  for (std::int64_t i = 0; i < s.n; ++i)
    for (std::int64_t k = 0; k < s.c; ++k)
      for (std::int64_t j = 0; j < s.l; ++j) f((i * s.c + k) * s.l + j, k, set_of(s, i, k));
}

/// mean and var (biased) of each set.
template <class T> void channel_stats(const ChannelNorm& s, const T* x, T* mean, T* var) {
  const T size(static_cast<double>(s.set_size()));
  for (std::int64_t k = 0; k < s.sets(); ++k) mean[k] = var[k] = T(0);
  each_element(s, [&](std::int64_t e, std::int64_t, std::int64_t set) { mean[set] += x[e]; });
  for (std::int64_t k = 0; k < s.sets(); ++k) mean[k] /= size;
  each_element(s, [&](std::int64_t e, std::int64_t, std::int64_t set) { var[set] += (x[e] - mean[set]) * (x[e] - mean[set]); });
  for (std::int64_t k = 0; k < s.sets(); ++k) var[k] /= size;
}

/// y = (x - mean) rstd w + b; w and b may be null.
template <class T> void channel_norm(const ChannelNorm& s, const T* x, const T* mean, const T* rstd, const T* w, const T* b, T* y) {
  each_element(s, [&](std::int64_t e, std::int64_t k, std::int64_t set) {
    const T xhat = (x[e] - mean[set]) * rstd[set];
    y[e] = (w ? xhat * w[k] : xhat) + (b ? b[k] : T(0));
  });
}

/// dx; dw and db (c) are added to. w, dx, dw, db may be null. fixed: mean and rstd do not depend on x.
template <class T>
void channel_norm_backward(const ChannelNorm& s, bool fixed, const T* x, const T* mean, const T* rstd, const T* w, const T* dy, T* dx, T* dw, T* db) {
  const T size(static_cast<double>(s.set_size()));
  std::vector<T> sum(static_cast<std::size_t>(s.sets()), T(0)), sum_xhat(sum);  // of dy w, and of dy w xhat
  each_element(s, [&](std::int64_t e, std::int64_t k, std::int64_t set) {
    const T xhat = (x[e] - mean[set]) * rstd[set], dxhat = w ? dy[e] * w[k] : dy[e];
    sum[static_cast<std::size_t>(set)] += dxhat;
    sum_xhat[static_cast<std::size_t>(set)] += dxhat * xhat;
    if (dw) dw[k] += dy[e] * xhat;
    if (db) db[k] += dy[e];
  });
  if (!dx) return;
  each_element(s, [&](std::int64_t e, std::int64_t k, std::int64_t set) {
    const T xhat = (x[e] - mean[set]) * rstd[set], dxhat = w ? dy[e] * w[k] : dy[e];
    const auto i = static_cast<std::size_t>(set);
    dx[e] = rstd[set] * (fixed ? dxhat : dxhat - sum[i] / size - xhat * sum_xhat[i] / size);
  });
}

}  // namespace mezzo::kernels::ref
