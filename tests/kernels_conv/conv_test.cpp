// conv_test.cpp - convolutions and their two gradients against the definition in double: by whoever conv() chooses, and through columns.
#include <thread>

#include <mezzo/runtime.h>

#include "core/parallel.h"
#include "kernels/gemm/columns.h"
#include "kernels/gemm/onednn.h"
#include "kernels/guarded.h"
#include "kernels/ref/conv.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

using Sizes = std::array<std::int64_t, 3>;

/// Sizes of a convolution whose result is as large as it can be.
Conv sizes(std::int64_t n, std::int64_t c, std::int64_t o, Sizes in, Sizes kernel, Sizes stride = {1, 1, 1}, Sizes padding = {0, 0, 0},
           Sizes dilation = {1, 1, 1}, std::int64_t groups = 1) {
  Conv v;
  v.n = n, v.c = c, v.o = o, v.groups = groups;
  v.in = in, v.kernel = kernel, v.stride = stride, v.padding = padding, v.dilation = dilation;
  for (int d = 0; d < 3; ++d) v.out[d] = (in[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) / stride[d] + 1;
  return v;
}

std::vector<Conv> all_sizes() {
  std::vector<Conv> v{
      sizes(2, 3, 5, {1, 7, 6}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}),                   // an image's first layer
      sizes(1, 16, 32, {1, 9, 9}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}),                 // with a stride
      sizes(2, 8, 8, {1, 8, 11}, {1, 1, 1}),                                        // one tap
      sizes(2, 8, 16, {1, 8, 8}, {1, 1, 1}, {1, 2, 2}),                             // one tap with a stride
      sizes(1, 32, 16, {1, 10, 9}, {1, 3, 2}, {1, 1, 1}, {0, 2, 1}, {1, 2, 3}),     // dilation
      sizes(2, 8, 12, {1, 6, 7}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 4),    // groups
      sizes(2, 16, 16, {1, 6, 7}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 16),  // each channel by itself
      sizes(2, 32, 64, {1, 5, 5}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 2),   // groups of whole blocks
      sizes(3, 5, 7, {1, 1, 23}, {1, 1, 4}, {1, 1, 3}, {0, 0, 2}),                  // one dimension
      sizes(1, 17, 33, {1, 4, 5}, {1, 4, 5}),                                       // a kernel as large as the input
      sizes(2, 3, 4, {4, 5, 6}, {2, 3, 3}, {1, 2, 1}, {1, 1, 1}),                   // three dimensions
      sizes(1, 16, 16, {3, 4, 5}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}),      //
      sizes(1, 1, 1, {1, 1, 1}, {1, 1, 1}),                                         //
      sizes(40, 4, 6, {1, 3, 3}, {1, 2, 2}),                                        // many images
      sizes(1, 64, 64, {1, 14, 14}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}),               // a layer of a net
  };
  // As in a transposed convolution whose output padding leaves the last row and column of x unseen.
  Conv unseen = sizes(1, 4, 6, {1, 8, 8}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1});
  unseen.out = {1, 4, 4};
  v.push_back(unseen);
  return v;
}

std::int64_t pixels(const Sizes& s) { return s[0] * s[1] * s[2]; }

struct Path {
  void (*conv)(Queue&, const Conv&, const void*, const void*, const void*, void*);
  void (*input_grad)(Queue&, const Conv&, const void*, const void*, void*);
  void (*weight_grad)(Queue&, const Conv&, const void*, const void*, void*, bool);
};
constexpr Path kChosen{kernels::conv, conv_input_grad, conv_weight_grad}, kColumns{columns_conv, columns_conv_input_grad, columns_conv_weight_grad};

/// T: operands; R: what is written as an activation; W: the weights' gradient and the bias.
template <class T, class R, class W> void check(const Path& path, Conv c, std::int64_t offset = 0) {
  c.dtype = dtype_of<T>, c.result = dtype_of<R>;
  CAPTURE(c.n);
  CAPTURE(c.c);
  CAPTURE(c.o);
  CAPTURE(c.groups);
  CAPTURE(c.in[1]);
  CAPTURE(c.in[2]);
  CAPTURE(c.kernel[1]);
  CAPTURE(c.kernel[2]);
  CAPTURE(c.stride[2]);
  const std::int64_t nx = c.n * c.c * pixels(c.in), nw = c.o * c.c / c.groups * pixels(c.kernel), ny = c.n * c.o * pixels(c.out);
  const Guarded<T> x(nx, offset, Normals(1)), w(nw, offset, Normals(2)), dy(ny, offset, Normals(3));
  const Guarded<W> bias(c.o, offset, Normals(4));
  const auto x64 = x.values(), w64 = w.values(), dy64 = dy.values(), bias64 = bias.values();
  std::vector<ref::ConvSum> want_y(ny), want_dx(nx), want_dw(nw);
  ref::each_term(c, [&](std::int64_t i, std::int64_t j, std::int64_t k) {
    want_y[k].add(x64[i] * w64[j]);
    want_dx[i].add(dy64[k] * w64[j]);
    want_dw[j].add(dy64[k] * x64[i]);
  });
  for (std::int64_t k = 0; k < ny; ++k) want_y[k].add(bias64[k % c.o]);

  // f32 sums in any order: one rounding a term, relative to the sum of their sizes; the native dot product rounds each pair besides.
  const auto compare = [](const char* what, const auto& got, const std::vector<ref::ConvSum>& want, double terms) {
    using G = std::remove_cvref_t<decltype(got[0])>;
    const double unit_sum = std::is_same_v<W, double> ? 0x1p-53 : kUnit32;
    std::vector<double> values(want.size());
    for (std::size_t i = 0; i < want.size(); ++i) values[i] = want[i].value;
    check_close(what, got, values, [&](std::int64_t i) {
      return (terms + 4) * unit_sum * want[i].size + (sizeof(G) == 2 ? unit<G>() * std::abs(want[i].value) : 0) + tiny<G>();
    });
  };
  const auto per_group = [&](std::int64_t channels) { return static_cast<double>(channels / c.groups * pixels(c.kernel)); };

  Guarded<R> y(ny, offset);
  path.conv(cpu_queue(), c, x.data(), w.data(), bias.data(), y.data());
  compare("conv", y, want_y, per_group(c.c));

  Guarded<R> dx(nx, offset);
  path.input_grad(cpu_queue(), c, w.data(), dy.data(), dx.data());
  compare("conv_input_grad", dx, want_dx, per_group(c.o));

  Guarded<W> dw(nw, offset);
  path.weight_grad(cpu_queue(), c, x.data(), dy.data(), dw.data(), false);
  const auto terms = static_cast<double>(c.n * pixels(c.out));
  compare("conv_weight_grad", dw, want_dw, terms);
  path.weight_grad(cpu_queue(), c, x.data(), dy.data(), dw.data(), true);
  for (auto& s : want_dw) s.add(s.value), s.size *= 2;
  compare("conv_weight_grad, added", dw, want_dw, terms);

  Guarded<R> again(ny, offset);
  path.conv(cpu_queue(), c, x.data(), w.data(), nullptr, again.data());
  for (std::int64_t k = 0; k < ny; ++k) want_y[k].value -= bias64[k % c.o];
  compare("conv without bias", again, want_y, per_group(c.c));
}

}  // namespace

TEST_CASE("f32") {
  for (const Conv& c : all_sizes()) {
    check<float, float, float>(kChosen, c);
    check<float, float, float>(kColumns, c, 1);
  }
}

TEST_CASE("f64") {
  for (const Conv& c : all_sizes()) check<double, double, double>(kChosen, c);
}

TEST_CASE("16-bit operands run natively, or are widened before they come here") {
  CHECK(conv_dtype(f32) == f32);
  CHECK(conv_dtype(f64) == f64);
  CHECK(conv_dtype(f16) == f32);
  CHECK(conv_dtype(bf16) == (native_gemm(bf16) ? bf16 : f32));
  if (!native_gemm(bf16)) return;
  for (const Conv& c : all_sizes()) {
    check<bf16_t, bf16_t, float>(kChosen, c);
    check<bf16_t, float, float>(kChosen, c, 2);
    check<bf16_t, bf16_t, float>(kColumns, c, 1);
  }
}

TEST_CASE("oneDNN takes what nets are made of") {
#ifdef MEZZO_WITHOUT_ONEDNN
  constexpr bool kOneDnn = false;
#else
  constexpr bool kOneDnn = true;
#endif
  const Conv layer = sizes(1, 64, 64, {1, 14, 14}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1});
  const Guarded<float> x(64 * 196, 0, Normals(1)), w(64 * 64 * 9, 0, Normals(2));
  Guarded<float> y(64 * 196), dw(64 * 64 * 9);
  const bool wide = active_isa() >= Isa::avx512;  // for narrower vectors 2.6.3 has no channels-last kernels
  if (wide) CHECK(onednn_conv(cpu_queue(), layer, x.data(), w.data(), nullptr, y.data()) == kOneDnn);
  if (wide) CHECK(onednn_conv_input_grad(cpu_queue(), layer, w.data(), x.data(), y.data()) == kOneDnn);
  if (wide) CHECK(onednn_conv_weight_grad(cpu_queue(), layer, x.data(), y.data(), dw.data(), false) == kOneDnn);
  if (num_threads() == 1) return;
  bool took = false;
  parallel_parts(2, [&](int part) {
    if (part == 0) took = onednn_conv(cpu_queue(), layer, x.data(), w.data(), nullptr, y.data());
  });
  CHECK(!took);
}

TEST_CASE("no images: no result, and a gradient of zeros, or what was there") {
  Conv c = sizes(0, 2, 3, {1, 4, 4}, {1, 3, 3});
  float dw[54];
  std::fill_n(dw, 54, 1.0f);
  kernels::conv(cpu_queue(), c, nullptr, dw, nullptr, nullptr);
  conv_input_grad(cpu_queue(), c, dw, nullptr, nullptr);
  conv_weight_grad(cpu_queue(), c, nullptr, nullptr, dw, true);
  CHECK(dw[53] == 1);
  conv_weight_grad(cpu_queue(), c, nullptr, nullptr, dw, false);
  CHECK(dw[0] == 0);
  CHECK(dw[53] == 0);
}

TEST_CASE("the same bits again, and from several threads at once") {
  const Conv c = sizes(3, 16, 24, {1, 9, 9}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1});
  const std::int64_t ny = c.n * c.o * pixels(c.out);
  const Guarded<float> x(c.n * c.c * 81, 0, Normals(1)), w(c.o * c.c * 9, 0, Normals(2));
  Guarded<float> first(ny), again(ny);
  kernels::conv(cpu_queue(), c, x.data(), w.data(), nullptr, first.data());
  kernels::conv(cpu_queue(), c, x.data(), w.data(), nullptr, again.data());
  CHECK(first.same_bits(again));
  std::vector<Guarded<float>> results(3, Guarded<float>(ny));
  std::vector<std::thread> threads;
  for (auto& r : results) threads.emplace_back([&] { kernels::conv(cpu_queue(), c, x.data(), w.data(), nullptr, r.data()); });
  for (auto& t : threads) t.join();
  for (const auto& r : results)
    for (std::int64_t i = 0; i < ny; ++i) CHECK(std::abs(r[i] - first[i]) < 1e-3f);
}
