// attention_bf16.cpp - the attention engine on native bf16 dot products (VDPBF16PS), accumulating in f32.
//
// Compiled for AVX512-BF16 and called only where active_isa() says so. Everything here is in an anonymous namespace and only plain data is
// included, so that no inline function compiled for this instruction set can be linked into code that runs on a lesser one.
// VDPBF16PS takes denormal inputs as zero and flushes denormal sums (Intel SDM): a relative error of at most 2^-126 of unit scores.
#include <immintrin.h>

#include "kernels/cpu/attention_engine.h"

#define MEZZO_INLINE __attribute__((always_inline)) inline

namespace mezzo::kernels::flash {
namespace {

constexpr float kInfinity = __builtin_inff();

struct Simd {
  using V = __m512;
  using U = __m512bh;
  using Mask = __mmask16;
  static constexpr int kLanes = 16, kPair = 2, kRows = 8;

  static V zero() { return _mm512_setzero_ps(); }
  static V splat(float x) { return _mm512_set1_ps(x); }
  static V load(const float* p) { return _mm512_load_ps(p); }
  static void store(float* p, V x) { _mm512_store_ps(p, x); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V mul_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V max(V a, V b) { return _mm512_max_ps(a, b); }
  static V at_most_zero(V x) { return _mm512_min_ps(zero(), x); }  // the second operand where either is NaN
  static float sum_lanes(V x) { return _mm512_reduce_add_ps(x); }
  static float max_lanes(V x) { return _mm512_reduce_max_ps(x); }

  static Mask first_n(int n) { return static_cast<Mask>((1u << n) - 1); }
  static Mask both(Mask a, Mask b) { return a & b; }
  static Mask shown(V bias) { return _mm512_cmp_ps_mask(bias, splat(-kInfinity), _CMP_NEQ_UQ); }
  static V select(Mask m, V yes, V no) { return _mm512_mask_blend_ps(m, no, yes); }

  // 2^floor(x) times 2^(x - floor(x)) by a polynomial that is 1 at 0 (tools/minimax.py exp2_floor: relative error 2^-23.5).
  static V exp2(V x) {
    const V f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    V y = mul_add(splat(0x1.e96cap-10f), f, splat(0x1.277b2cp-7f));
    y = mul_add(y, f, splat(0x1.c91c38p-5f));
    y = mul_add(y, f, splat(0x1.ebdb68p-3f));
    y = mul_add(y, f, splat(0x1.62e4bap-1f));
    y = mul_add(y, f, splat(1));
    return _mm512_scalef_ps(y, x);
  }

  static U load_units(const Unit* p) { return reinterpret_cast<U>(_mm512_load_ps(p)); }
  static U broadcast(const Unit* p) { return reinterpret_cast<U>(_mm512_set1_ps(*p)); }
  static V dot(V acc, U a, U b) { return _mm512_dpbf16_ps(acc, a, b); }

  static void store_row(Unit* p, V x0, V x1) { _mm512_store_ps(p, reinterpret_cast<V>(_mm512_cvtne2ps_pbh(x1, x0))); }
  static void store_half_row(Unit* p, V x) { _mm256_store_ps(p, reinterpret_cast<__m256>(_mm512_cvtneps_pbh(x))); }
  static void store_pair(Unit* p, std::ptrdiff_t, V x0, V x1) {
    _mm512_store_si512(p, interleave(reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x1, x0))));
  }
  /// a0 .. a15 b0 .. b15 -> a0 b0 a1 b1 ...
  static __m512i interleave(__m512i x) {
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, x);
  }
};

#include "kernels/cpu/attention_block.inc"

// ---- packing ---------------------------------------------------------------------------------------

const char* row_of(const Rows& x, std::int64_t row) { return static_cast<const char*>(x.p) + row * x.stride * 2; }

/// 32 values of a row from column c on; zeros past d, and for a row past the last.
__m512i load_values(const Rows& x, std::int64_t row, std::int64_t c) {
  if (row >= x.rows) return _mm512_setzero_si512();
  const std::int64_t left = x.d - c;
  const __mmask32 mask = left >= 32 ? ~0u : (1u << left) - 1;
  return _mm512_maskz_loadu_epi16(mask, row_of(x, row) + c * 2);
}

void pack_rows(const Rows& x, Unit* to) {
  const std::int64_t units = (x.d + 1) / 2;
  for (std::int64_t row = 0; row < x.rows; ++row, to += units) {
    for (std::int64_t u = 0; u < units; u += 16) {
      const __mmask16 mask = static_cast<__mmask16>(units - u >= 16 ? 0xffff : (1 << (units - u)) - 1);
      _mm512_mask_storeu_epi32(to + u, mask, load_values(x, row, u * 2));
    }
  }
}

/// The transpose of 16 x 16 units.
MEZZO_INLINE void transpose(__m512i (&x)[16]) {
  __m512i y[16];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {  // x[4 q + i] holds columns i, i + 4, i + 8, i + 12 of rows 4 q .. 4 q + 3
    y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
    y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
    y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
    y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
    x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
    x[i + 4] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88);
    x[i + 12] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xdd);
  }
}

void pack_columns(const Rows& x, Unit* to) {
  const std::int64_t units = (x.d + 1) / 2, lanes = (x.rows + kLanes - 1) / kLanes * kLanes;
  for (std::int64_t row = 0; row < lanes; row += kLanes) {
    const std::int64_t first = row / kPanel * kPanel, width = lanes - first < kPanel ? lanes - first : kPanel;
    Unit* const panel = to + first * units + row % kPanel;
    for (std::int64_t u = 0; u < units; u += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; ++i) block[i] = load_values(x, row + i, u * 2);
      transpose(block);
      for (std::int64_t i = 0; i < 16 && u + i < units; ++i) _mm512_store_si512(panel + (u + i) * width, block[i]);
    }
  }
}

void pack_panels(const Rows& x, Unit* to) {
  const std::int64_t units = (x.rows + 1) / 2, lanes = (x.d + kLanes - 1) / kLanes * kLanes;
  for (std::int64_t lane = 0; lane < lanes; lane += kPanel) {
    const std::int64_t width = lanes - lane < kPanel ? lanes - lane : kPanel;
    Unit* panel = to + lane * units;
    for (std::int64_t row = 0; row < x.rows; row += 2, panel += width) {
      const __m512i a = load_values(x, row, lane), b = load_values(x, row + 1, lane);
      _mm512_store_si512(panel, Simd::interleave(_mm512_inserti64x4(a, _mm512_castsi512_si256(b), 1)));
      if (width > kLanes) _mm512_store_si512(panel + kLanes, Simd::interleave(_mm512_inserti64x4(b, _mm512_extracti64x4_epi64(a, 1), 0)));
    }
  }
}

}  // namespace

const Engine& bf16_engine() {
  static constexpr Engine engine{kLanes, kPair, pack_rows, pack_columns, pack_panels, forward, backward};
  return engine;
}

}  // namespace mezzo::kernels::flash
