// convolutional_test.cpp - convolution, pooling and channel norms as a caller meets them: dtypes, gradients into leaves, running statistics,
// mistakes.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

double largest_difference(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector(), y = b.to_vector();
  REQUIRE(x.size() == y.size());
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, static_cast<double>(std::fabs(x[i] - y[i])));
  return worst;
}

/// The message of the Error that f throws has all of these in it.
void check_error(const std::function<void()>& f, std::initializer_list<const char*> parts) {
  std::string message;
  try {
    f();
  } catch (const Error& e) { message = e.what(); }
  for (const char* part : parts) CHECK_MESSAGE(message.find(part) != message.npos, "`", message, "` lacks `", part, "`");
}

Tensor random(Shape shape, std::uint64_t seed, TensorOptions o = {}) {
  Generator g(seed);
  return randn(std::move(shape), g, o);
}

}  // namespace

TEST_CASE("under autocast a convolution is 16-bit, its f32 weight's gradient f32 and unrounded") {
  for (const Dtype low : {bf16, f16}) {
    const Tensor x = random({2, 3, 6, 6}, 1).to(low).to(f32), b = random({4}, 3, {.requires_grad = true});
    const Tensor w = random({4, 3, 3, 3}, 2).to(low).to(f32).requires_grad_();
    const auto gradient = [&](bool autocast, const amp::Policy& policy) {
      w.set_grad({}), b.set_grad({});
      const Tensor y = [&] {
        const amp::Autocast region(low, {.enabled = autocast, .policy = policy});
        return conv2d(x, w, b, {.padding = 1});
      }();
      CHECK(y.dtype() == (autocast ? low : f32));
      y.backward({.gradient = ones(y.shape(), {.dtype = y.dtype()})});
      CHECK(w.grad().dtype() == f32);
      return w.grad();
    };
    const Tensor wide = gradient(false, amp::Policy::mezzo()), direct = gradient(true, amp::Policy::mezzo()),
                 rounded = gradient(true, amp::Policy::torch());
    CHECK(largest_difference(direct, wide) < 1e-4);  // operands and dy are exact in 16 bits: only f32 sums differ
    CHECK(rounded.to_vector() == rounded.to(low).to(f32).to_vector());
    CHECK(largest_difference(rounded, direct.to(low).to(f32)) <= 40 * format_info(low).epsilon);
  }
}

TEST_CASE("a bias below the rounding of the sum counts under mezzo(), and is rounded first under torch()") {
  const Tensor x = ones({1, 1, 1, 1}), w = ones({1, 1, 1, 1}),
               b = full({1}, 1 + 0x1p-9);  // b rounds to 1 in bf16; 1 + b lies beyond the tie at 2 + 2^-7
  const Tensor tie = full({1, 1, 1, 1}, 1 + 0x1p-7);
  const auto run = [&](const amp::Policy& p) {
    const amp::Autocast region(bf16, {.policy = p});
    return conv2d(tie, w, b).item();
  };
  CHECK(run(amp::Policy::mezzo()) == 2 + 0x1p-6);  // 2 + 2^-7 + 2^-9, to the nearer neighbour
  CHECK(run(amp::Policy::torch()) == 2);           // 2 + 2^-7, a tie, to even
}

TEST_CASE("a second backward adds to a leaf's gradient") {
  const Tensor x = random({2, 4, 5, 5}, 1), w = random({6, 2, 3, 3}, 2, {.requires_grad = true}), b = random({6}, 3, {.requires_grad = true});
  const auto backward = [&] { sum(conv2d(x, w, b, {.stride = 2, .padding = 1, .groups = 2})).backward(); };
  backward();
  const Tensor held = w.grad(), once = w.grad().clone(), bias_once = b.grad().clone();
  backward();
  CHECK(largest_difference(held, once * 2.0) < 1e-4);
  CHECK(largest_difference(b.grad(), bias_once * 2.0) < 1e-4);
}

TEST_CASE("strided inputs: a channels-last image and a transposed weight give what their copies give") {
  const Tensor x = random({2, 5, 6, 3}, 1).permute({0, 3, 1, 2}), w = random({3, 4, 3, 3}, 2).transpose(0, 1);
  CHECK(largest_difference(conv2d(x, w), conv2d(x.contiguous(), w.contiguous())) == 0);
  CHECK(largest_difference(max_pool2d(x, {.kernel = 2}), max_pool2d(x.contiguous(), {.kernel = 2})) == 0);
  CHECK(largest_difference(group_norm(x, 3), group_norm(x.contiguous(), 3)) == 0);
}

TEST_CASE("conv_transpose2d is the adjoint of conv2d") {
  const Tensor x = random({2, 4, 7, 7}, 1), w = random({6, 2, 3, 3}, 2);
  const ConvOptions o{.stride = 2, .padding = 1, .groups = 2};
  const Tensor y = conv2d(x, w, {}, o), dy = random(y.shape(), 3);
  CHECK(sum(y * dy).item() == doctest::Approx(sum(x * conv_transpose2d(dy, w, {}, o)).item()).epsilon(1e-5));
  CHECK(conv_transpose2d(ones({1, 2, 4}), ones({1, 1, 2, 2}), {}, {.stride = 2}).shape() == Shape{1, 4, 8});
}

TEST_CASE("batch_norm: running statistics move by momentum, the variance unbiased, in f32 whatever x is") {
  for (const Dtype dtype : {f32, bf16, f64}) {
    const Tensor x = random({4, 2, 3}, 1, {.dtype = dtype}), m = full({2}, 0.5), v = full({2}, 2);
    const Tensor y = batch_norm(x, m, v, {}, {}, {.training = true, .momentum = 0.25});
    CHECK(y.dtype() == dtype);
    CHECK(m.dtype() == f32);
    const Tensor wide = x.to(f64);
    for (int c = 0; c < 2; ++c) {
      const Tensor channel = wide.narrow(1, c, 1);
      CHECK(m.select(0, c).item() == doctest::Approx(0.75 * 0.5 + 0.25 * mean(channel).item()).epsilon(1e-6));
      CHECK(v.select(0, c).item() == doctest::Approx(0.75 * 2 + 0.25 * var(channel).item()).epsilon(1e-6));
    }
    const auto before = m.to_vector();
    batch_norm(x, m, v, {}, {}, {.training = false});
    CHECK(m.to_vector() == before);
  }
}

TEST_CASE("batch_norm: f32 weights beside 16-bit x are not rounded; backward after the running statistics moved on") {
  const Tensor x = random({8, 3, 4, 4}, 1).to(bf16), w = full({3}, 1 + 0x1p-12), b = zeros({3});
  const Tensor m = zeros({3}), v = ones({3});
  Tensor leaf = x.detach().requires_grad_();
  const Tensor y = batch_norm(leaf, m, v, w, b, {.training = false});
  batch_norm(x, m, v, w, b, {.training = true});
  y.backward({.gradient = ones(y.shape(), {.dtype = bf16})});
  CHECK(leaf.grad().dtype() == bf16);
  CHECK(leaf.grad().reshape({-1}).select(0, 0).item() == 1);
}

TEST_CASE("modules: names, shapes, torch's initial range, and running statistics that stay f32") {
  manual_seed(3);
  nn::Conv2d conv({.in = 8, .out = 16, .kernel = {3, 2}, .stride = 2, .groups = 4});
  CHECK(conv.weight.shape() == Shape{16, 2, 3, 2});
  const double bound = 1 / std::sqrt(2.0 * 6);
  CHECK(amax(abs(conv.weight)).item() <= bound);
  CHECK(amax(abs(conv.weight)).item() > 0.8 * bound);
  CHECK(amax(abs(conv.bias)).item() <= bound);
  CHECK(conv(ones({1, 8, 7, 8})).shape() == Shape{1, 16, 3, 4});
  nn::ConvTranspose2d up({.in = 6, .out = 4, .kernel = 2, .stride = 2, .groups = 2, .bias = false});
  CHECK(up.weight.shape() == Shape{6, 2, 2, 2});
  CHECK(up(ones({1, 6, 3, 3})).shape() == Shape{1, 4, 6, 6});
  CHECK(nn::Conv1d({.in = 2, .out = 3, .kernel = 3})(ones({1, 2, 5})).shape() == Shape{1, 3, 3});
  CHECK(nn::Conv3d({.in = 2, .out = 3, .kernel = 2})(ones({1, 2, 3, 3, 3})).shape() == Shape{1, 3, 2, 2, 2});
  CHECK(nn::MaxPool2d({.kernel = 2})(ones({1, 1, 4, 4})).shape() == Shape{1, 1, 2, 2});
  CHECK(nn::AvgPool2d({.kernel = 2, .stride = 1})(ones({1, 1, 4, 4})).shape() == Shape{1, 1, 3, 3});
  CHECK(nn::GroupNorm({.groups = 2, .dim = 4})(ones({1, 4, 2})).shape() == Shape{1, 4, 2});

  nn::BatchNorm2d norm({.dim = 3});
  CHECK(norm.named_buffers()[0].first == "running_mean");
  CHECK(norm.state_dict().size() == 4);
  norm.to(bf16);
  CHECK(norm.weight.dtype() == bf16);
  CHECK(norm.running_mean.dtype() == f32);
  CHECK(norm.running_var.dtype() == f32);
  norm(random({4, 3, 2, 2}, 1));
  CHECK(amax(abs(norm.running_mean)).item() > 0);
  const auto moved = norm.running_mean.to_vector();
  norm.eval();
  norm(random({1, 3, 1, 1}, 2));
  CHECK(norm.running_mean.to_vector() == moved);
  CHECK_FALSE(nn::BatchNorm1d({.dim = 3, .affine = false}).weight.defined());
}

TEST_CASE("mistakes: each is an Error that says what was wanted") {
  const Tensor x = ones({1, 4, 5, 5}), w = ones({6, 4, 3, 3});
  check_error([&] { conv2d(ones({4, 5}), w); }, {"[conv2d]", "(4, 5)", "(N, C, H, W)"});
  check_error([&] { conv2d(x, ones({6, 4, 3})); }, {"[conv2d]", "4 dimensions wanted", "(O, C / groups, kernel)"});
  check_error([&] { conv2d(ones({1, 3, 5, 5}), w); }, {"[conv2d]", "has 3 channels, 4 wanted"});
  check_error([&] { conv2d(x, w, {}, {.groups = 2}); }, {"[conv2d]", "4 channels, 8 wanted", ".groups = 2", "Hint"});
  check_error([&] { conv2d(x, ones({5, 2, 3, 3}), {}, {.groups = 2}); }, {"[conv2d]", "multiple of .groups = 2"});
  check_error([&] { conv2d(x, w, {}, {.groups = 0}); }, {".groups = 0 given"});
  check_error([&] { conv2d(x, ones({6, 4, 6, 3})); }, {"kernel covers 6", "padded input has 5", "Hint"});
  check_error([&] { conv2d(x, w, {}, {.dilation = 3}); }, {"kernel covers 7", "Hint"});
  check_error([&] { conv2d(x, w, {}, {.stride = 0}); }, {".stride = 0 given, 1 or more wanted"});
  check_error([&] { conv2d(x, w, {}, {.padding = -1}); }, {".padding = -1 given, 0 or more wanted"});
  check_error([&] { conv2d(x, w, {}, {.dilation = {1, 0}}); }, {".dilation = 0 given"});
  check_error([&] { conv2d(x, w, {}, {.stride = {1, 1, 1}}); }, {".stride has 3 numbers, one, or 2 wanted", "Hint"});
  check_error([&] { conv2d(x, w, {}, {.output_padding = 1}); }, {".output_padding", "transposed"});
  check_error([&] { conv2d(x, w, ones({4})); }, {"b has shape (4,), (6,) wanted"});
  check_error([&] { conv2d(x, w.to(bf16)); }, {"x is f32 and w is bf16", "Hint"});
  check_error([&] { conv2d(x.to(i32), w); }, {"[conv2d]", "floating"});
  check_error([&] { conv2d(Tensor(), w); }, {"[conv2d]", "undefined"});
  check_error([&] { conv_transpose2d(x, w); }, {"[conv_transpose2d]", "has 4 channels, 6 wanted", "(C, O / groups, kernel)"});
  check_error([&] { conv_transpose2d(ones({1, 6, 2, 2}), w, {}, {.stride = 2, .output_padding = 2}); }, {".output_padding = 2", "less than"});
  check_error([&] { conv_transpose2d(ones({1, 6, 1, 1}), w, {}, {.padding = 2}); }, {"size -1", "Hint"});

  check_error([&] { max_pool2d(x, {}); }, {"[max_pool2d]", ".kernel is not given", "Hint"});
  check_error([&] { max_pool2d(x, {.kernel = 6}); }, {"kernel covers 6 elements of H", "has 5", "Hint"});
  check_error([&] { max_pool2d(x, {.kernel = 2, .stride = 0}); }, {".stride = 0"});
  check_error([&] { avg_pool2d(x, {.kernel = 2, .padding = 2}); }, {"at most half", "Hint"});
  check_error([&] { avg_pool2d(ones({5, 5}), {.kernel = 2}); }, {"[avg_pool2d]", "(C, H, W)"});
  check_error([&] { adaptive_avg_pool2d(x, {3}); }, {"[adaptive_avg_pool2d]", "two sizes"});
  check_error([&] { adaptive_avg_pool2d(x, {0, 1}); }, {"1 or more"});

  const Tensor m = zeros({4}), v = ones({4});
  check_error([&] { batch_norm(ones({4}), m, v); }, {"[batch_norm]", "(N, C)"});
  check_error([&] { batch_norm(x, zeros({3}), v); }, {"running_mean has shape (3,), (4,) wanted"});
  check_error([&] { batch_norm(x, m, v.to(bf16)); }, {"running_var is bf16", "Hint"});
  check_error([&] { batch_norm(x, {}, {}); }, {"running_mean is undefined", "Hint"});
  check_error([&] { batch_norm(x, m, v, ones({5})); }, {"w has shape (5,)"});
  check_error([&] { batch_norm(ones({1, 4}), m, v, {}, {}, {.training = true}); }, {"one value for each channel", "Hint"});
  CHECK(amax(abs(m)).item() == 0);
  check_error([&] { group_norm(x, 3); }, {"[group_norm]", "groups = 3 given for 4 channels"});
  check_error([&] { group_norm(x, 0); }, {"groups = 0"});

  check_error([] { nn::Conv2d({.in = 3, .out = 4}); }, {"[Conv2d]", ".kernel"});
  check_error([] { nn::Conv2d({.in = 3, .out = 4, .kernel = 3, .groups = 2}); }, {"[Conv2d]", ".groups = 2"});
  check_error([] { nn::Conv2d({.in = 0, .out = 4, .kernel = 3}); }, {".in = 0"});
  check_error([] { nn::BatchNorm2d({.dim = 3})(ones({2, 3})); }, {"[BatchNorm2d]", "(N, C, H, W)", "BatchNorm1d"});
  check_error([] { nn::GroupNorm({.groups = 2, .dim = 3}); }, {"[GroupNorm]", "divisor"});
}
