// random.cpp - uniform and normal numbers, and dropout: element i is a pure function of (seed, offset + i / 4), the same on every target.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/random.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "dtype/dispatch.h"
#include "kernels/cpu/conversion.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/loops-inl.h"
#include "kernels/cpu/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kStage = 1024;  // elements whose words wait in L1

// So many bits that no number rounds to 1.
template <class T> constexpr int kUniformBits = std::is_same_v<T, bf16_t> ? 8 : std::is_same_v<T, f16_t> ? 11 : 24;

/// An operand of Map: philox::uniform of words.
template <int kBits = 24> struct Uniforms {
  const std::uint32_t* words;
  template <class D> HWY_INLINE hn::VFromD<D> load(D d, std::int64_t i) const {
    const hn::RebindToSigned<D> di;
    const auto bits = hn::ShiftRight<32 - kBits>(hn::LoadU(hn::RebindToUnsigned<D>(), words + i));
    return hn::Mul(hn::ConvertTo(d, hn::BitCast(di, bits)), hn::Set(d, 1 / static_cast<float>(1 << kBits)));
  }
  template <class D> HWY_INLINE hn::VFromD<D> load(D d, std::int64_t i, std::int64_t) const { return load(d, i); }  // words go on past the tail
};

struct Same {
  template <class D, class V> HWY_INLINE V operator()(D, V x) const { return x; }
};

struct Drop {
  float threshold, scale;
  template <class D, class V> HWY_INLINE V operator()(D d, V x, V u) const {
    return hn::IfThenZeroElse(hn::Lt(u, hn::Set(d, threshold)), hn::Mul(x, hn::Set(d, scale)));
  }
};

// The words of elements [0, kStage) from `counter` on.
struct Words {
  HWY_ALIGN std::uint64_t pair[kStage / 2];
  Words(std::uint64_t seed, std::uint64_t counter) { PhiloxWords(seed, counter, pair, kStage / 4); }
  const std::uint32_t* data() const { return reinterpret_cast<const std::uint32_t*>(pair); }
};

template <class T> void UniformLoop(void* y, std::int64_t n, std::uint64_t seed, std::uint64_t counter) {
  for (std::int64_t i = 0; i < n; i += kStage, counter += kStage / 4) {
    const Words words(seed, counter);
    Map(std::min(kStage, n - i), static_cast<T*>(y) + i, Same(), Uniforms<kUniformBits<T>>{words.data()});
  }
}

template <class T> void DropoutLoop(const void* x, void* y, std::int64_t n, float threshold, float scale, std::uint64_t seed, std::uint64_t counter) {
  for (std::int64_t i = 0; i < n; i += kStage, counter += kStage / 4) {
    const Words words(seed, counter);
    Map(std::min(kStage, n - i), static_cast<T*>(y) + i, Drop{threshold, scale}, Elements<T>{static_cast<const T*>(x) + i}, Uniforms<>{words.data()});
  }
}

// mean + std z in f64, kStage elements.
void NormalStage(double* y, double mean, double std, std::uint64_t seed, std::uint64_t counter) {
  const hn::ScalableTag<double> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const Words words(seed, counter);
  for (std::int64_t i = 0; i < kStage / 2; i += lanes) {
    hn::VFromD<decltype(d)> a, b;
    NormalPairs(d, hn::LoadU(du, words.pair + i), a, b);
    a = hn::Add(hn::Mul(hn::Set(d, std), a), hn::Set(d, mean));
    b = hn::Add(hn::Mul(hn::Set(d, std), b), hn::Set(d, mean));
    hn::StoreInterleaved2(a, b, d, y + 2 * i);
  }
}

using UniformSpan = void (*)(void* y, std::int64_t n, std::uint64_t seed, std::uint64_t counter);
UniformSpan PickUniform(Dtype t) { return t == f32 ? UniformLoop<float> : t == f16 ? UniformLoop<f16_t> : UniformLoop<bf16_t>; }

using DropoutSpan = void (*)(const void* x, void* y, std::int64_t n, float threshold, float scale, std::uint64_t seed, std::uint64_t counter);
DropoutSpan PickDropout(Dtype t) { return t == f32 ? DropoutLoop<float> : t == f16 ? DropoutLoop<f16_t> : DropoutLoop<bf16_t>; }

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickUniform);
HWY_EXPORT(PickDropout);
HWY_EXPORT(NormalStage);

constexpr std::int64_t kStage = 1024;

// body(first, count, counter) on pieces of at most kStage elements; `counter` is that of element `first`.
void for_each_stage(std::int64_t n, std::uint64_t offset, FunctionRef<void(std::int64_t, std::int64_t, std::uint64_t)> body) {
  parallel_for(
      n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; i += kStage) body(i, std::min(kStage, end - i), offset + static_cast<std::uint64_t>(i / 4));
      },
      kAlign);
}

// Below it a uniform number u is dropped: u < p is u < threshold, because u is a multiple of 2^-24.
double threshold(double p) { return std::ceil(p * 0x1p24) * 0x1p-24; }

}  // namespace

void uniform(Queue&, Dtype dtype, void* y, std::int64_t n, std::uint64_t seed, std::uint64_t offset) {
  if (dtype == f64) {
    const auto span = HWY_DYNAMIC_DISPATCH(PickUniform)(f32);
    const Conversion widen = conversion(f32, f64);
    for_each_stage(n, offset, [&](std::int64_t first, std::int64_t count, std::uint64_t counter) {
      float stage[kStage];
      span(stage, count, seed, counter);
      widen(stage, static_cast<double*>(y) + first, count);
    });
    return;
  }
  const auto span = HWY_DYNAMIC_DISPATCH(PickUniform)(dtype);
  const std::size_t bytes = size_of(dtype);
  parallel_for(
      n, kGrain,
      [&](std::int64_t begin, std::int64_t end) { span(at(y, begin, bytes), end - begin, seed, offset + static_cast<std::uint64_t>(begin / 4)); },
      kAlign);
}

void normal(Queue&, Dtype dtype, void* y, std::int64_t n, double mean, double std, std::uint64_t seed, std::uint64_t offset) {
  const auto stage_of = HWY_DYNAMIC_DISPATCH(NormalStage);
  const Conversion to_f32 = conversion(f64, f32), round = conversion(f32, dtype == f64 ? f32 : dtype);
  const std::size_t bytes = size_of(dtype);
  for_each_stage(n, offset, [&](std::int64_t first, std::int64_t count, std::uint64_t counter) {
    double stage[kStage];
    float single[kStage];
    stage_of(stage, mean, std, seed, counter);
    if (dtype == f64) {
      std::copy_n(stage, count, static_cast<double*>(y) + first);
    } else {
      to_f32(stage, single, count);
      round(single, at(y, first, bytes), count);
    }
  });
}

void dropout(Queue&, Dtype dtype, const void* x, void* y, std::int64_t n, double p, std::uint64_t seed, std::uint64_t offset) {
  const double scale = 1 / (1 - p);
  if (dtype == f64) {
    const auto span = HWY_DYNAMIC_DISPATCH(PickUniform)(f32);
    for_each_stage(n, offset, [&](std::int64_t first, std::int64_t count, std::uint64_t counter) {
      float u[kStage];
      span(u, count, seed, counter);
      for (std::int64_t i = 0; i < count; ++i) static_cast<double*>(y)[first + i] = u[i] < p ? 0 : static_cast<const double*>(x)[first + i] * scale;
    });
    return;
  }
  const auto span = HWY_DYNAMIC_DISPATCH(PickDropout)(dtype);
  const std::size_t bytes = size_of(dtype);
  parallel_for(
      n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        span(at(x, begin, bytes), at(y, begin, bytes), end - begin, static_cast<float>(threshold(p)), static_cast<float>(scale), seed,
             offset + static_cast<std::uint64_t>(begin / 4));
      },
      kAlign);
}

}  // namespace mezzo::kernels
#endif
