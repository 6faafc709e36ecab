// remake_test.cpp - outputs that backward makes again instead of keeping: less is kept, the gradients are the same bits, changes are noticed.
#include <doctest/doctest.h>

#include <functional>

#include <mezzo/mezzo.h>
#include <mezzo/runtime.h>

using namespace mezzo;

namespace {

constexpr std::int64_t kRows = 64, kWidth = 96;

std::int64_t live() { return memory_report().total; }

struct Layer {
  Generator random{3};
  Tensor x, w, v, scale, shift;
  Layer() {
    const Shape activations{kRows, kWidth}, weights{kWidth, kWidth}, row{kWidth};
    x = randn(activations, random);
    w = randn(weights, random);
    v = randn(weights, random);
    scale = rand(row, random);
    shift = rand(row, random);
    for (Tensor* t : {&x, &w, &v, &scale, &shift}) t->requires_grad_();
  }
  std::vector<Tensor> leaves() const { return {x, w, v, scale, shift}; }
};

using Op = std::function<Tensor(const Layer&)>;
struct Case {
  const char* name;
  double kept;  // tensors of y's size: the two products' outputs, and what the op made for itself
  Op op;
};
const Case kCases[] = {{"rms_norm", 2, [](const Layer& l) { return rms_norm(l.x, l.scale); }},
                       {"layer_norm", 2, [](const Layer& l) { return layer_norm(l.x, l.scale, l.shift); }},
                       {"swiglu", 3, [](const Layer& l) { return swiglu(l.x, l.x * 0.5); }}};

/// Two products read y.
Tensor loss_of(const Layer& l, const Tensor& y) { return sum(mul(linear(y, l.w), linear(y, l.v))); }

std::vector<std::vector<float>> gradients(const Layer& l) {
  std::vector<std::vector<float>> out;
  for (const Tensor& t : l.leaves()) out.push_back(t.grad().defined() ? t.grad().to_vector() : std::vector<float>{});
  return out;
}

}  // namespace

TEST_CASE("made again: products do not keep what a norm or swiglu gave them, and its gradients are the bits of one that was kept") {
  for (const auto& c : kCases) {
    CAPTURE(c.name);
    const Layer kept, again;
    // y + 0 is the same tensor by another op, whose output is kept.
    const Tensor a = loss_of(kept, c.op(kept) + 0.0);
    const auto before = live();
    const Tensor b = loss_of(again, c.op(again));
    const auto held = live() - before;
    CHECK(static_cast<double>(held) < (c.kept + 0.5) * kRows * kWidth * sizeof(float));
    a.backward();
    b.backward();
    CHECK(b.item() == a.item());
    CHECK(gradients(again) == gradients(kept));
  }
}

TEST_CASE("made again: the graph may be used twice, and with create_graph it goes on through what was made") {
  for (const auto& c : kCases) {
    CAPTURE(c.name);
    const Layer l;
    const Tensor loss = loss_of(l, c.op(l));
    const auto first = autograd::grad({loss}, {l.x, l.w}, {.retain_graph = true});
    const auto second = autograd::grad({loss}, {l.x, l.w}, {.retain_graph = true});
    for (std::size_t i = 0; i < 2; ++i) CHECK(first[i].to_vector() == second[i].to_vector());
    // d/dx of dL/dw, against that of a graph whose y is kept.
    const auto curvature = [&](const Tensor& y) {
      const Tensor dw = autograd::grad({loss_of(l, y)}, {l.w}, {.create_graph = true})[0];
      return autograd::grad({sum(mul(dw, dw))}, {l.x})[0].to_vector();
    };
    const auto got = curvature(c.op(l)), wanted = curvature(c.op(l) + 0.0);
    double worst = 0, largest = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(got[i]) - static_cast<double>(wanted[i])));
      largest = std::max(largest, std::abs(static_cast<double>(wanted[i])));
    }
    CHECK(largest > 0);
    CHECK(worst <= 1e-6 * largest);
  }
}

TEST_CASE("made again: an input that was changed in place is noticed; an output that was, does no harm") {
  for (const auto& c : kCases) {
    CAPTURE(c.name);
    const Layer l, plain;
    loss_of(plain, c.op(plain)).backward();
    Tensor y = c.op(l);
    const Tensor loss = loss_of(l, y);
    {
      const autograd::NoGrad off;
      fill_(y, 7);  // the products read it before
    }
    loss.backward();
    CHECK(gradients(l) == gradients(plain));

    const Layer changed;
    const Tensor late = loss_of(changed, c.op(changed));
    {
      const autograd::NoGrad off;
      fill_(changed.x, 1);
    }
    CHECK_THROWS_WITH_AS(late.backward(), doctest::Contains("was changed in place after it was saved"), Error);
  }
}
