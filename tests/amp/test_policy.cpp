// Policies: edited op by op, what each class then gives, printed; and what modules add by keep().
#include <sstream>

#include <mezzo/mezzo.h>

#include "autograd/op_table.h"
#include "grad/cases.h"
#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;
using amp::Autocast;
using amp::Cast;
using amp::Policy;

namespace {

/// Of an op whose floating inputs are all `given`.
Dtype promised(Cast c, Dtype given, Dtype region) { return c == Cast::low ? region : c == Cast::f32 ? f32 : given; }

/// The golden file calls parts of a reduction by the whole's name.
std::string row_of(const OpCase& c) {
  const bool along = c.options.contains("dims") && !c.options["dims"].empty();
  return along && (c.op == "sum" || c.op == "mean") ? c.op + "_dim" : c.op;
}

}  // namespace

TEST_CASE("every op that computes takes every class, from any floating dtype") {
  int seen = 0;
  for (const auto& c : golden_cases()) {
    const std::string op = row_of(c);
    const OpInfo* row = nullptr;
    for (const auto& r : op_table::kOps)
      if (r.name == op) row = &r;
    if (!row || policy_choice(row->id) != Choice::any || op == "linear_cross_entropy") continue;  // that one's result is a loss, its products follow
    for (const Cast cast : {Cast::low, Cast::f32, Cast::f32_internal, Cast::widest, Cast::as_is})
      for (const Dtype given : {f32, f16, bf16}) {
        const std::string what = c.name + " as " + std::string(amp::name(cast)) + " of " + std::string(name(given));
        CAPTURE(what);
        Policy policy = Policy::mezzo();
        policy.set(op, cast);
        const Autocast region(bf16, {.policy = policy});
        const autograd::NoGrad off;
        for (const Tensor& y : run(c, leaves(c, given))) CHECK(y.dtype() == promised(cast, given, bf16));
        ++seen;
      }
  }
  CHECK(seen > 1000);
}

TEST_CASE("gradients arrive through every class, in each input's dtype") {
  for (const auto& c : golden_cases()) {
    const std::string op = row_of(c);
    const OpInfo* row = nullptr;
    for (const auto& r : op_table::kOps)
      if (r.name == op) row = &r;
    if (!row || policy_choice(row->id) != Choice::any || c.grad.empty()) continue;
    for (const Cast cast : {Cast::low, Cast::f32, Cast::as_is})
      for (const Dtype given : {f32, f16}) {
        const std::string what = c.name + " as " + std::string(amp::name(cast)) + " of " + std::string(name(given));
        CAPTURE(what);
        Policy policy = Policy::mezzo();
        policy.set(op, cast);
        const auto in = leaves(c, given);
        std::vector<Tensor> inputs, out;
        for (const auto& g : c.grad) inputs.push_back(in[g.first]);
        {
          const Autocast region(bf16, {.policy = policy});
          out = run(c, in);
        }
        Tensor total;
        for (const auto& y : out) total = total.defined() ? total + sum(y.to(f32)) : sum(y.to(f32));
        const auto gradients = autograd::grad({total}, inputs, {.allow_unused = true});
        for (std::size_t i = 0; i < inputs.size(); ++i) {
          CHECK(gradients[i].defined());
          if (gradients[i].defined()) CHECK(gradients[i].dtype() == inputs[i].dtype());
        }
      }
  }
}

TEST_CASE("what computes nothing takes no class, a loss f32 or banned, an unknown op is an Error with near names") {
  Policy p = Policy::mezzo();
  for (const char* op : {"reshape", "transpose", "to", "gather", "split", "compare"}) {
    CHECK_ERROR(p.set(op, Cast::f32), "[Policy]", "computes nothing", "convert with to()");
    CHECK_NOTHROW(p.set(op, Cast::as_is));
  }
  for (const char* loss : {"cross_entropy", "mse_loss", "binary_cross_entropy"}) {
    CHECK_ERROR(p.set(loss, Cast::low), "[Policy]", "f32 or banned wanted");
    Policy changed = p;
    CHECK_NOTHROW(changed.set(loss, Cast::f32));
  }
  CHECK_ERROR(p.set("sofmax", Cast::f32), "[Policy]", "`sofmax` given", "did you mean", "`softmax`");
  CHECK_ERROR(p.of("matmull"), "`matmul`");
  CHECK(p == Policy::mezzo());
}

TEST_CASE("a policy is made in one expression; the default is mezzo(); sum and mean go for their forms along dims, comparisons by their own names") {
  CHECK(Policy() == Policy::mezzo());
  const Tensor x = ones({2, 3}, {.dtype = bf16});
  const Autocast region(bf16, {.policy = Policy::mezzo().set("sum", Cast::f32).set("mean", Cast::f32)});
  CHECK(sum(x, {.dims = {1}}).dtype() == f32);
  CHECK(mean(x, {.dims = {1}}).dtype() == f32);
  const Autocast plain(bf16, {.policy = Policy{}});
  CHECK(sum(x, {.dims = {1}}).dtype() == bf16);
  CHECK(sum(x, {.dims = {0, 1}}).dtype() == f32);  // one number, however its dims are named
  CHECK(sum(x).dtype() == f32);
  CHECK(mse_loss(x, x).dtype() == f32);
  for (const char* op : {"eq", "ne", "lt", "le", "gt", "ge"}) CHECK(Policy().of(op) == Policy().of("compare"));
  CHECK_ERROR(Policy().of("xyzzy"), "docs/ops.md lists them");
}

TEST_CASE("an op that a user bans says so, for 16-bit inputs; outside a region it runs") {
  Policy p = Policy::mezzo();
  p.set("exp", Cast::banned).set("cross_entropy", Cast::banned);
  const Tensor x = ones({2, 3}, {.dtype = bf16}), target = zeros({2}, {.dtype = i64});
  CHECK_NOTHROW(exp(x));
  const Autocast region(bf16, {.policy = p});
  CHECK_ERROR(exp(x), "[exp]", "banned under autocast by the region's policy", "Policy::set");
  CHECK_ERROR(cross_entropy(x, target), "[cross_entropy]", "banned");
  CHECK(exp(x.to(f32)).dtype() == f32);
  const Autocast off(bf16, {.enabled = false});
  CHECK_NOTHROW(exp(x));
}

TEST_CASE("a policy is a value: an edit of a copy, or after a region began, changes no region") {
  Policy p = Policy::mezzo();
  const Tensor x = ones({2, 2}, {.dtype = bf16});
  const Autocast region(bf16, {.policy = p});
  p.set("softmax", Cast::f32);
  CHECK(softmax(x, -1).dtype() == bf16);
  const Autocast inner(bf16, {.policy = p});
  CHECK(softmax(x, -1).dtype() == f32);
  CHECK(Policy::mezzo().of("softmax") == Cast::f32_internal);
}

TEST_CASE("a printed policy says what it was made from, what was changed, and each class with its ops") {
  std::ostringstream out;
  Policy p = Policy::mezzo();
  out << p;
  const std::string plain = out.str();
  CHECK(plain.starts_with("policy mezzo, version " + std::to_string(Policy::kVersion) + "\n"));
  CHECK(contains(plain, "\nlow           matmul mm bmm"));
  CHECK(contains(plain, "banned        binary_cross_entropy\n"));
  CHECK_FALSE(contains(plain, "reshape"));
  p.set("softmax", Cast::f32).set("linear", Cast::f32);
  CHECK(to_string(p).starts_with("policy mezzo, version 1, but softmax f32, linear f32\n"));
  CHECK(to_string(Policy::torch()).starts_with("policy torch, version 1\n"));
}

TEST_CASE("Policy::torch() rounds: weight gradients to 16 bits before they reach an f32 leaf, biases before they are added") {
  const Tensor x = full({1, 2}, 1);
  const auto gradient = [&](const Policy& policy) {
    const Tensor w = tensor({1, 0x1p-8f}, {1, 2}, {.requires_grad = true});
    const Tensor y = amp::autocast(bf16, {.policy = policy}, [&] { return linear(x.expand({257, 2}), w); });
    sum(y.to(f32)).backward();
    return w.grad().to_vector();
  };
  CHECK(gradient(Policy::mezzo()) == std::vector<float>{257, 257});
  CHECK(gradient(Policy::torch()) == std::vector<float>{256, 256});  // 257 is no bf16 number: a tie, to even
  const auto biased = [&](const Policy& policy) {
    const Tensor w = full({1, 2}, 0x1p-13), one = full({1, 2}, 1);
    return amp::autocast(f16, {.policy = policy}, [&] { return linear(one, w, full({1}, 1 + 0x1p-12 + 0x1p-13)); }).item();
  };
  CHECK(biased(Policy::mezzo()) == 1 + 0x1p-10);  // 1 and 5/8 of a spacing
  CHECK(biased(Policy::torch()) == 1);            // 3/8 of a spacing vanish with the bias, 1/4 with the product
}

TEST_CASE("keep(regex, f32): storage stays f32 in every recipe, ops still follow autocast, a disabled region computes in f32") {
  struct Model final : nn::Module {
    Model() {
      body = register_module("body", std::make_shared<nn::Linear>(nn::LinearOptions{.in = 8, .out = 8}));
      head = register_module("head", std::make_shared<nn::Linear>(nn::LinearOptions{.in = 8, .out = 8}));
    }
    Tensor forward(const Tensor& x) override { return (*head)((*body)(x)); }
    std::shared_ptr<nn::Linear> body, head;
  };
  const Tensor x = ones({2, 8});
  for (const bool masters : {false, true}) {
    Model m;
    m.keep("^head\\.", f32);
    if (!masters) m.to(bf16);
    const auto storage = masters ? optim::Storage::master : optim::Storage::f32;
    optim::AdamW adamw(m.named_parameters(), {.storage = storage, .low = bf16});
    CHECK(m.body->weight.dtype() == bf16);
    CHECK(m.head->weight.dtype() == f32);
    const Tensor y = amp::autocast(bf16, [&] { return m(x); });
    CHECK(y.dtype() == bf16);
    sum(y.to(f32)).backward();
    CHECK(m.head->weight.grad().dtype() == f32);
    CHECK(m.body->weight.grad().dtype() == bf16);
    adamw.step();
    CHECK(m.head->weight.dtype() == f32);
  }
  Model m;
  const Autocast region(bf16);
  const Tensor h = (*m.body)(x);
  CHECK(h.dtype() == bf16);
  const Autocast exact(bf16, {.enabled = false});
  CHECK((*m.head)(h.to(f32)).dtype() == f32);
}
