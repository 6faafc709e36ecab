// layout.cpp - collapsing of strided index spaces, and spans through them.
#include "kernels/cpu/layout.h"

#include <algorithm>
#include <cstdlib>

#include "core/fail.h"

namespace mezzo::kernels {
namespace {

constexpr std::int64_t kStage = 1024;   // elements of a buffer; four operands of 8 bytes fill L1
constexpr std::int64_t kShortRow = 64;  // elements below which a row is not worth a call of its own

template <int bytes> struct Element { std::byte b[bytes]; };

// Elements [0, n) of a strided operand from `where` on, to or from contiguous memory.
template <int bytes, bool gather>
void move_elements(const Strided& space, Odometer where, int operand, std::byte* base, std::byte* buffer, std::int64_t n) {
  const std::int64_t stride = space.stride[operand][space.dims - 1];
  auto* elements = reinterpret_cast<Element<bytes>*>(buffer);
  while (n > 0) {
    const std::int64_t run = std::min(n, where.left());
    auto* p = reinterpret_cast<Element<bytes>*>(base) + where.offset(operand);
    for (std::int64_t i = 0; i < run; ++i) {
      if constexpr (gather) elements[i] = p[i * stride];
      else p[i * stride] = elements[i];
    }
    elements += run;
    n -= run;
    where.advance(run);
  }
}

template <bool gather>
void move_elements(std::size_t bytes, const Strided& space, const Odometer& where, int operand, void* base, void* buffer, std::int64_t n) {
  const auto run = [&]<int size>(std::integral_constant<int, size>) {
    move_elements<size, gather>(space, where, operand, static_cast<std::byte*>(base), static_cast<std::byte*>(buffer), n);
  };
  switch (bytes) {
    case 1: return run(std::integral_constant<int, 1>());
    case 2: return run(std::integral_constant<int, 2>());
    case 4: return run(std::integral_constant<int, 4>());
    case 8: return run(std::integral_constant<int, 8>());
  }
  MEZZO_CHECK(!"element size");
}

bool constant(const Strided& s, int operand) {
  return std::all_of(s.stride[operand].begin(), s.stride[operand].begin() + s.dims, [](std::int64_t x) { return x == 0; });
}

// The one operand that a span may hold as a single element, if `is_single` says so of any.
template <class F> int single_operand(const Strided& s, F is_single) {
  for (int k = 1; k < s.operands; ++k) {
    if (is_single(k)) return k;
  }
  return -1;
}

// Whether each row can be passed on where it lies; the single operand of a row is `splat`.
bool rows_are_spans(const Strided& s, int splat) {
  const int last = s.dims - 1;
  if (s.size[last] < kShortRow && s.dims > 1) return false;
  for (int k = 0; k < s.operands; ++k) {
    if (k != splat && s.stride[k][last] != 1 && s.size[last] != 1) return false;
  }
  return true;
}

}  // namespace

Strided collapse(const Strided& given) {
  std::array<int, kMaxDims> order{};
  int dims = 0;
  for (int d = 0; d < given.dims; ++d) {
    if (given.size[d] != 1) order[dims++] = d;
  }
  std::stable_sort(order.begin(), order.begin() + dims, [&](int a, int b) { return std::abs(given.stride[0][a]) > std::abs(given.stride[0][b]); });

  Strided s;
  s.operands = given.operands;
  for (int i = 0; i < dims; ++i) {
    const int d = order[i];
    const bool merges = s.dims > 0 && [&] {
      for (int k = 0; k < s.operands; ++k) {
        if (s.stride[k][s.dims - 1] != given.stride[k][d] * given.size[d]) return false;
      }
      return true;
    }();
    if (merges) s.size[s.dims - 1] *= given.size[d];
    else s.size[s.dims++] = given.size[d];
    for (int k = 0; k < s.operands; ++k) s.stride[k][s.dims - 1] = given.stride[k][d];
  }
  if (s.dims == 0) {
    s.dims = s.size[0] = 1;
    for (int k = 0; k < s.operands; ++k) s.stride[k][0] = 1;
  }
  return s;
}

bool contiguous(const Strided& s, int operand) {
  std::int64_t expected = 1;
  for (int d = s.dims - 1; d >= 0; --d) {
    if (s.stride[operand][d] != expected) return false;
    expected *= s.size[d];
  }
  return true;
}

Odometer::Odometer(const Strided& space, std::int64_t flat) : space_(&space), last_(space.dims - 1) {
  for (int d = last_; d >= 0; --d) {
    index_[d] = flat % space.size[d];
    flat /= space.size[d];
    for (int k = 0; k < space.operands; ++k) offset_[k] += index_[d] * space.stride[k][d];
  }
}

void Odometer::advance(std::int64_t n) {
  for (int d = last_;; --d, n = 1) {
    index_[d] += n;
    for (int k = 0; k < space_->operands; ++k) offset_[k] += n * space_->stride[k][d];
    if (index_[d] < space_->size[d] || d == 0) return;
    index_[d] = 0;
    for (int k = 0; k < space_->operands; ++k) offset_[k] -= space_->size[d] * space_->stride[k][d];
  }
}

void for_each_span(const Strided& given, std::array<std::size_t, 4> bytes, std::array<void*, 4> base, FunctionRef<void(const Span&)> body) {
  const std::int64_t n = given.numel();
  if (n == 0) return;
  const Strided s = collapse(given);
  const int last = s.dims - 1;

  const int row_splat = single_operand(s, [&](int k) { return s.stride[k][last] == 0 && s.size[last] != 1; });
  if (rows_are_spans(s, row_splat)) {
    parallel_for(
        n, kGrain,
        [&](std::int64_t begin, std::int64_t end) {
          Odometer where(s, begin);
          for (std::int64_t i = begin; i < end;) {
            Span span{.splat = row_splat, .n = std::min(end - i, where.left())};
            for (int k = 0; k < s.operands; ++k) span.p[k] = at(base[k], where.offset(k), bytes[k]);
            body(span);
            where.advance(span.n);
            i += span.n;
          }
        },
        kAlign);
    return;
  }

  std::array<bool, 4> direct{};
  const int splat = single_operand(s, [&](int k) { return constant(s, k); });
  for (int k = 0; k < s.operands; ++k) direct[k] = contiguous(s, k);
  parallel_for(
      n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        alignas(kAlignment) std::byte buffer[4][kStage * 8];
        Odometer where(s, begin);
        for (std::int64_t i = begin; i < end;) {
          Span span{.splat = splat, .n = std::min(end - i, kStage)};
          for (int k = 0; k < s.operands; ++k) {
            if (k == splat) span.p[k] = base[k];
            else if (direct[k]) span.p[k] = at(base[k], i, bytes[k]);
            else span.p[k] = buffer[k];
            if (k > 0 && span.p[k] == buffer[k]) move_elements<true>(bytes[k], s, where, k, base[k], buffer[k], span.n);
          }
          body(span);
          if (span.p[0] == buffer[0]) move_elements<false>(bytes[0], s, where, 0, base[0], buffer[0], span.n);
          i += span.n;
          if (i < end) where = Odometer(s, i);
        }
      },
      kAlign);
}

}  // namespace mezzo::kernels
