// blocks.cpp - GGUF's and NF4's blocks unpacked to f32, f16 or bf16, and packed from f32. Integers to f32 by vectors of at most 16 lanes, which
// divide every group of elements that shares a scale; all products are exact in f32 (11 bits of scale, 6 or 8 of sub-scale, at most 5 of value), so
// one rounding, of the sum with the minimum, remains; NF4's, of an f16 and an f32, are rounded once.
#include "kernels/blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/blocks.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/fail.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/gemm/thin.h"
#include "kernels/ref/blocks.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

const hn::CappedTag<float, 16> df;
const hn::RebindToUnsigned<decltype(df)> du;
const hn::RebindToSigned<decltype(df)> di;
const hn::Rebind<std::uint8_t, decltype(df)> d8;
const hn::Rebind<std::int8_t, decltype(df)> di8;
using VF = hn::VFromD<decltype(df)>;
using VU = hn::VFromD<decltype(du)>;
using VI = hn::VFromD<decltype(di)>;

HWY_INLINE float HalfAt(const std::uint8_t* p) {
  const hn::CappedTag<float, 1> d1;
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return hn::GetLane(FromBits16<f16_t>(d1, hn::Set(hn::Rebind<std::uint16_t, decltype(d1)>(), bits)));
}

HWY_INLINE VU BytesAt(const std::uint8_t* p) { return hn::PromoteTo(du, hn::LoadU(d8, p)); }
HWY_INLINE VU LowNibble(VU q) { return hn::And(q, hn::Set(du, 15u)); }
HWY_INLINE VF Times(float scale, VI q) { return hn::Mul(hn::Set(df, scale), hn::ConvertTo(df, q)); }
HWY_INLINE VF Times(float scale, VU q) { return Times(scale, hn::BitCast(di, q)); }
HWY_INLINE VF Times(float scale, VU q, float plus) {
  return hn::MulAdd(hn::Set(df, scale), hn::ConvertTo(df, hn::BitCast(di, q)), hn::Set(df, plus));
}
HWY_INLINE VI Minus(VU q, int bias) { return hn::Sub(hn::BitCast(di, q), hn::Set(di, bias)); }

/// f(i) for the first element i of every vector of [0, n); n is a multiple of 16.
template <class F> HWY_INLINE void ByVectors(int n, F f) {
  for (int i = 0; i < n; i += static_cast<int>(hn::Lanes(df))) f(i);
}

template <class To> HWY_INLINE void Q8_0(const std::uint8_t* b, To* y) {
  const float d = HalfAt(b);
  ByVectors(32, [&](int i) MEZZO_BODY {
    const auto q = hn::PromoteTo(di, hn::LoadU(di8, reinterpret_cast<const std::int8_t*>(b + 2) + i));
    StoreF32(Times(d, q), df, y + i);
  });
}

template <class To> HWY_INLINE void Q4_0(const std::uint8_t* b, To* y) {
  const float d = HalfAt(b);
  ByVectors(16, [&](int i) MEZZO_BODY {
    const auto q = BytesAt(b + 2 + i);
    StoreF32(Times(d, Minus(LowNibble(q), 8)), df, y + i);
    StoreF32(Times(d, Minus(hn::ShiftRight<4>(q), 8)), df, y + i + 16);
  });
}

template <class To> HWY_INLINE void Q4_1(const std::uint8_t* b, To* y) {
  const float d = HalfAt(b), min = HalfAt(b + 2);
  ByVectors(16, [&](int i) MEZZO_BODY {
    const auto q = BytesAt(b + 4 + i);
    StoreF32(Times(d, LowNibble(q), min), df, y + i);
    StoreF32(Times(d, hn::ShiftRight<4>(q), min), df, y + i + 16);
  });
}

/// The fifth bits of elements i, i + 1, ... of a block of 32, in place.
HWY_INLINE VU FifthBit(std::uint32_t high, int i) {
  const auto bits = hn::Set(du, high) >> hn::Iota(du, static_cast<std::uint32_t>(i));
  return hn::ShiftLeft<4>(hn::And(bits, hn::Set(du, 1u)));
}

HWY_INLINE std::uint32_t WordAt(const std::uint8_t* p) {
  std::uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

template <class To> HWY_INLINE void Q5_0(const std::uint8_t* b, To* y) {
  const float d = HalfAt(b);
  const std::uint32_t high = WordAt(b + 2);
  ByVectors(16, [&](int i) MEZZO_BODY {
    const auto q = BytesAt(b + 6 + i);
    StoreF32(Times(d, Minus(hn::Or(LowNibble(q), FifthBit(high, i)), 16)), df, y + i);
    StoreF32(Times(d, Minus(hn::Or(hn::ShiftRight<4>(q), FifthBit(high, i + 16)), 16)), df, y + i + 16);
  });
}

template <class To> HWY_INLINE void Q5_1(const std::uint8_t* b, To* y) {
  const float d = HalfAt(b), min = HalfAt(b + 2);
  const std::uint32_t high = WordAt(b + 4);
  ByVectors(16, [&](int i) MEZZO_BODY {
    const auto q = BytesAt(b + 8 + i);
    StoreF32(Times(d, hn::Or(LowNibble(q), FifthBit(high, i)), min), df, y + i);
    StoreF32(Times(d, hn::Or(hn::ShiftRight<4>(q), FifthBit(high, i + 16)), min), df, y + i + 16);
  });
}

template <class To> HWY_INLINE void Q4_K(const std::uint8_t* b, To* y) {
  const float d = HalfAt(b), dmin = HalfAt(b + 2);
  for (int sub = 0; sub < 8; sub += 2) {  // two sub-blocks of 32 share 32 bytes
    const auto low = ref::scale_and_min(b + 4, sub), high = ref::scale_and_min(b + 4, sub + 1);
    const float low_scale = d * static_cast<float>(low.scale), high_scale = d * static_cast<float>(high.scale);
    const float low_min = -(dmin * static_cast<float>(low.min)), high_min = -(dmin * static_cast<float>(high.min));
    const std::uint8_t* bytes = b + 16 + sub * 16;
    To* out = y + sub * 32;
    ByVectors(32, [&](int i) MEZZO_BODY {
      const auto q = BytesAt(bytes + i);
      StoreF32(Times(low_scale, LowNibble(q), low_min), df, out + i);
      StoreF32(Times(high_scale, hn::ShiftRight<4>(q), high_min), df, out + i + 32);
    });
  }
}

template <class To> HWY_INLINE void Q5_K(const std::uint8_t* b, To* y) {
  const float d = HalfAt(b), dmin = HalfAt(b + 2);
  for (int sub = 0; sub < 8; sub += 2) {
    const auto low = ref::scale_and_min(b + 4, sub), high = ref::scale_and_min(b + 4, sub + 1);
    const float low_scale = d * static_cast<float>(low.scale), high_scale = d * static_cast<float>(high.scale);
    const float low_min = -(dmin * static_cast<float>(low.min)), high_min = -(dmin * static_cast<float>(high.min));
    const std::uint8_t* bytes = b + 48 + sub * 16;
    To* out = y + sub * 32;
    const auto low_bit = hn::Set(du, 1u << sub), high_bit = hn::Set(du, 2u << sub), sixteen = hn::Set(du, 16u), zero = hn::Zero(du);
    ByVectors(32, [&](int i) MEZZO_BODY {
      const auto q = BytesAt(bytes + i), fifth = BytesAt(b + 16 + i);
      const auto low_fifth = hn::IfThenElse(hn::Eq(hn::And(fifth, low_bit), zero), zero, sixteen);
      const auto high_fifth = hn::IfThenElse(hn::Eq(hn::And(fifth, high_bit), zero), zero, sixteen);
      StoreF32(Times(low_scale, hn::Or(LowNibble(q), low_fifth), low_min), df, out + i);
      StoreF32(Times(high_scale, hn::Or(hn::ShiftRight<4>(q), high_fifth), high_min), df, out + i + 32);
    });
  }
}

template <class To> HWY_INLINE void Q6_K(const std::uint8_t* b, To* y) {
  const float d = HalfAt(b + 208);
  const auto three = hn::Set(du, 3u);
  for (int half = 0; half < 2; ++half) {
    const std::uint8_t *low = b + half * 64, *high = b + 128 + half * 32;
    const auto* scales = reinterpret_cast<const std::int8_t*>(b + 192 + half * 8);
    To* out = y + half * 128;
    ByVectors(32, [&](int i) MEZZO_BODY {
      const auto a = BytesAt(low + i), c = BytesAt(low + 32 + i), h = BytesAt(high + i);
      const auto put = [&](int quarter, VU nibble, VU top) MEZZO_BODY {
        const std::int8_t step = scales[quarter * 2 + i / 16];
        const float scale = d * static_cast<float>(step);
        StoreF32(Times(scale, Minus(hn::Or(nibble, hn::ShiftLeft<4>(hn::And(top, three))), 32)), df, out + quarter * 32 + i);
      };
      put(0, LowNibble(a), h);
      put(1, LowNibble(c), hn::ShiftRight<2>(h));
      put(2, hn::ShiftRight<4>(a), hn::ShiftRight<4>(h));
      put(3, hn::ShiftRight<4>(c), hn::ShiftRight<6>(h));
    });
  }
}

/// The sixteen products of a block's scale with NF4's levels, and those of lanes' codes.
class Levels {
 public:
  HWY_INLINE explicit Levels(float scale) {
    for (int i = 0; i < 16; i += static_cast<int>(hn::Lanes(df))) hn::Store(hn::Mul(hn::Set(df, scale), hn::LoadU(df, kNormalFloat + i)), df, y_ + i);
  }
  HWY_INLINE VF Of(VU codes) const {
    const VI at = hn::BitCast(di, codes);
    if constexpr (hn::MaxLanes(df) == 16) {
      return hn::TableLookupLanes(hn::Load(df, y_), hn::IndicesFromVec(df, at));
    } else if constexpr (hn::MaxLanes(df) == 8) {
      const auto in_half = hn::IndicesFromVec(df, hn::And(at, hn::Set(di, 7)));
      const auto upper = hn::RebindMask(df, hn::Gt(at, hn::Set(di, 7)));
      return hn::IfThenElse(upper, hn::TableLookupLanes(hn::Load(df, y_ + 8), in_half), hn::TableLookupLanes(hn::Load(df, y_), in_half));
    } else {
      return hn::GatherIndex(df, y_, at);
    }
  }

 private:
  alignas(64) float y_[16];
};

template <class To> HWY_INLINE void NF4(const std::uint8_t* b, To* y) {
  const Levels levels(HalfAt(b));
  ByVectors(32, [&](int i) MEZZO_BODY {
    const auto q = BytesAt(b + 2 + i);
    StoreF32(levels.Of(LowNibble(q)), df, y + i);
    StoreF32(levels.Of(hn::ShiftRight<4>(q)), df, y + i + 32);
  });
}

template <class To, void (*block)(const std::uint8_t*, To*), Format format> void Run(const void* blocks, void* y, std::int64_t n) {
  constexpr int kElements = facts(format).elements, kBytes = facts(format).bytes;
  const auto* b = static_cast<const std::uint8_t*>(blocks);
  auto* out = static_cast<To*>(y);
  for (std::int64_t i = 0; i < n; i += kElements, b += kBytes) block(b, out + i);
}

template <class To> Unpack UnpackTo(Format format) {
  switch (format) {
    case Format::q8_0: return Run<To, Q8_0<To>, Format::q8_0>;
    case Format::q4_0: return Run<To, Q4_0<To>, Format::q4_0>;
    case Format::q4_1: return Run<To, Q4_1<To>, Format::q4_1>;
    case Format::q5_0: return Run<To, Q5_0<To>, Format::q5_0>;
    case Format::q5_1: return Run<To, Q5_1<To>, Format::q5_1>;
    case Format::q4_k: return Run<To, Q4_K<To>, Format::q4_k>;
    case Format::q5_k: return Run<To, Q5_K<To>, Format::q5_k>;
    case Format::nf4: return Run<To, NF4<To>, Format::nf4>;
    case Format::q6_k:
    case Format::count: break;
  }
  return Run<To, Q6_K<To>, Format::q6_k>;
}
Unpack PickUnpack(Format format, Dtype to) {
  return to == f32 ? UnpackTo<float>(format) : to == f16 ? UnpackTo<f16_t>(format) : UnpackTo<bf16_t>(format);
}

// ---- packing -----------------------------------------------------------------------------------------

/// The first element of x (32) whose magnitude is the largest.
HWY_INLINE float Largest(const float* x) {
  auto largest = hn::Zero(df);
  ByVectors(32, [&](int i) MEZZO_BODY { largest = hn::Max(largest, hn::Abs(hn::LoadU(df, x + i))); });
  largest = hn::MaxOfLanes(df, largest);
  for (int i = 0; i < 32; i += static_cast<int>(hn::Lanes(df))) {
    const auto at = hn::FindFirstTrue(df, hn::Eq(hn::Abs(hn::LoadU(df, x + i)), largest));
    if (at >= 0) return x[i + at];
  }
  return x[0];
}

HWY_INLINE void PutHalf(float d, std::uint8_t* p) {
  const std::uint16_t bits = detail::f32_to_f16(d);
  std::memcpy(p, &bits, sizeof bits);
}

HWY_INLINE void PackQ8_0(const float* x, std::uint8_t* b) {
  const float d = std::abs(Largest(x)) / 127;
  const auto inverse = hn::Set(df, ref::reciprocal_or_zero(d));
  PutHalf(d, b);
  ByVectors(32, [&](int i) MEZZO_BODY {
    const auto v = hn::Mul(hn::LoadU(df, x + i), inverse);
    const auto a = hn::Abs(v), whole = hn::Floor(a);
    const auto up = hn::IfThenElseZero(hn::Ge(hn::Sub(a, whole), hn::Set(df, 0.5f)), hn::Set(df, 1.0f));
    const auto q = hn::ConvertTo(di, hn::CopySign(hn::Add(whole, up), v));
    hn::StoreU(hn::DemoteTo(di8, q), di8, reinterpret_cast<std::int8_t*>(b + 2) + i);
  });
}

/// min(15, trunc(x inverse + 8.5)), product and sum each rounded, as llama.cpp's portable build has it.
HWY_INLINE VI Level(const float* x, float inverse) {
  const auto sum = hn::Add(hn::Mul(hn::LoadU(df, x), hn::Set(df, inverse)), hn::Set(df, 8.5f));
  return hn::Min(hn::ConvertTo(di, sum), hn::Set(di, 15));
}

HWY_INLINE void PackQ4_0(const float* x, std::uint8_t* b) {
  const float d = Largest(x) / -8, inverse = ref::reciprocal_or_zero(d);
  PutHalf(d, b);
  ByVectors(16, [&](int i) MEZZO_BODY {
    const auto low = Level(x + i, inverse), high = Level(x + i + 16, inverse);
    hn::StoreU(hn::DemoteTo(d8, hn::Or(low, hn::ShiftLeft<4>(high))), d8, b + 2 + i);
  });
}

/// Codes of the levels nearest to x inverse.
HWY_INLINE VU NearestLevel(const float* x, float inverse) {
  const auto v = hn::Mul(hn::LoadU(df, x), hn::Set(df, inverse));
  VI code = hn::Zero(di);
  for (int c = 0; c < 15; ++c) code = hn::Sub(code, hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(v, hn::Set(df, ref::normal_float_boundary(c))))));
  return hn::BitCast(du, code);
}

HWY_INLINE void PackNF4(const float* x, std::uint8_t* b) {
  auto largest = hn::Zero(df);
  ByVectors(64, [&](int i) MEZZO_BODY { largest = hn::Max(largest, hn::Abs(hn::LoadU(df, x + i))); });
  PutHalf(hn::GetLane(hn::MaxOfLanes(df, largest)), b);
  const float inverse = ref::reciprocal_or_zero(HalfAt(b));
  ByVectors(32, [&](int i) MEZZO_BODY {
    const auto low = NearestLevel(x + i, inverse), high = NearestLevel(x + i + 32, inverse);
    hn::StoreU(hn::DemoteTo(d8, hn::BitCast(di, hn::Or(low, hn::ShiftLeft<4>(high)))), d8, b + 2 + i);
  });
}

using Pack = void (*)(const float* x, std::uint8_t* blocks, std::int64_t n);
template <void (*block)(const float*, std::uint8_t*), Format format> void RunPack(const float* x, std::uint8_t* b, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += facts(format).elements, b += facts(format).bytes) block(x + i, b);
}
Pack PickPack(Format format) {
  return format == Format::q8_0   ? RunPack<PackQ8_0, Format::q8_0>
         : format == Format::q4_0 ? RunPack<PackQ4_0, Format::q4_0>
                                  : RunPack<PackNF4, Format::nf4>;
}

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickUnpack);
HWY_EXPORT(PickPack);

}  // namespace

Unpack unpacker(Format format, Dtype to) {
  MEZZO_CHECK(format < Format::count && (to == f32 || is_16bit(to)));
  return HWY_DYNAMIC_DISPATCH(PickUnpack)(format, to);
}

void dequantize(Queue&, Format format, Dtype to, const void* blocks, void* y, std::int64_t rows, std::int64_t columns, std::int64_t row_bytes,
                std::int64_t ld) {
  const auto [name, elements, bytes] = facts(format);
  MEZZO_CHECK(columns % elements == 0);
  const std::int64_t per_row = columns / elements;
  if (row_bytes == 0) row_bytes = per_row * bytes;
  if (ld == 0) ld = columns;
  if (per_row == 0) return;
  const Unpack unpack = unpacker(format, to);
  // The whole in blocks: a thread's range may begin and end inside rows.
  parallel_for(rows * per_row, std::max<std::int64_t>(1, kGrain / elements),
               [&, elements = elements, bytes = bytes](std::int64_t begin, std::int64_t end) {
                 while (begin < end) {
                   const std::int64_t row = begin / per_row, block = begin % per_row, count = std::min(end - begin, per_row - block);
                   unpack(at(blocks, row * row_bytes + block * bytes, 1), at(y, row * ld + block * elements, size_of(to)), count * elements);
                   begin += count;
                 }
               });
}

bool thin_product(Queue& queue, Format format, const Gemm& g, const void* a, const void* blocks, void* c) {
  if (!is_thin(g)) return false;
  const auto [name, elements, bytes] = facts(format);
  thin_gemm(queue, g, a, {blocks, g.k / elements * bytes, elements, bytes, unpacker(format, f32)}, c);
  return true;
}

void quantize(Queue&, Format format, const float* x, void* blocks, std::int64_t n) {
  const auto [name, elements, bytes] = facts(format);
  MEZZO_CHECK(can_quantize(format) && n % elements == 0);
  const auto pack = HWY_DYNAMIC_DISPATCH(PickPack)(format);
  parallel_for(n / elements, kGrain / elements, [&, elements = elements, bytes = bytes](std::int64_t begin, std::int64_t end) {
    pack(x + begin * elements, static_cast<std::uint8_t*>(blocks) + begin * bytes, (end - begin) * elements);
  });
}

}  // namespace mezzo::kernels
#endif
