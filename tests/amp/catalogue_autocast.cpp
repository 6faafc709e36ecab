// The autocast half of PyTorch's AMP tests, each under PyTorch's name (docs/amp.md has the whole list): dtypes and bits of listed ops,
// promotion, what is left alone, custom functions, checkpoints, and the arguments of a region.
#include <array>
#include <functional>
#include <type_traits>

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

const std::array<Policy, 2> kPolicies{Policy::mezzo(), Policy::torch()};

/// The op's row; of a partial sum or mean, its own.
const OpInfo* row_of(const OpCase& c) {
  const bool along = c.options.contains("dims") && !c.options["dims"].empty();
  const std::string op = along && (c.op == "sum" || c.op == "mean") ? c.op + "_dim" : c.op;
  for (const auto& r : op_table::kOps)
    if (r.name == op) return &r;
  return nullptr;
}

/// Whether an input is added to a product: a bias, a mask. Of recurrent cells: the two biases, behind x, h (and the LSTM's c) and two weights.
bool added(const std::string& op, std::size_t i) {
  if (op == "linear" || op.rfind("conv", 0) == 0) return i == 2;
  if (op == "scaled_dot_product_attention") return i == 3;
  if (op == "rnn" || op == "gru") return i >= 4;
  return op == "lstm" && i >= 5;
}

/// Inputs cast by hand to what autocast takes. Under mezzo() what is added to a product stays f32: it is added before the one rounding.
std::vector<Tensor> cast_by_hand(const OpCase& c, std::vector<Tensor> in, Dtype to, bool rounds_added) {
  for (std::size_t i = 0; i < in.size(); ++i)
    if (in[i].defined() && is_floating(in[i].dtype()) && !(added(c.op, i) && !rounds_added)) in[i] = in[i].to(to);
  return in;
}

void check_same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b, Dtype dtype) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].dtype() == dtype);
    CHECK(b[i].dtype() == dtype);
    CHECK(bits(a[i]) == bits(b[i]));
  }
}

/// How many cases of ops in `listed` give, inside a region, the dtype and the bits of the op on inputs cast by hand, outside.
int check_listed(Cast listed, Dtype region, Dtype given, Dtype wanted) {
  int seen = 0;
  for (const Policy& policy : kPolicies)
    for (const auto& c : golden_cases()) {
      const OpInfo* row = row_of(c);
      if (!row || policy[static_cast<std::size_t>(row->id)] != listed || policy_choice(row->id) == Choice::none) continue;
      if (row->id == OpId::linear_cross_entropy || row->id == OpId::packed_attention) continue;  // tests of their own: several classes inside
      if (row->id == OpId::einsum && policy.rounds_like_torch()) continue;  // its pieces go by their own classes: tests/grad/policy_test.cpp
      CAPTURE(c.name);
      const autograd::NoGrad off;
      const auto in = leaves(c, given);
      const auto by_hand = run(c, cast_by_hand(c, in, wanted, policy.rounds_like_torch()));
      const Autocast on(region, {.policy = policy});
      check_same_bits(run(c, in), by_hand, wanted);
      ++seen;
    }
  return seen;
}

}  // namespace

// ---- listed ops: dtype, and bit for bit what a cast by hand gives ---------------------------------------------------------------------

TEST_CASE(
    "ops in 16 bits: f32 in, 16 bits out, the bits of a cast by hand "
    "[test_autocast_torch_16, _nn_16, _torch_fp16, _torch_bf16, _nn_bf16, _linalg_fp16, _methods_fp16]") {
  for (const Dtype region : {f16, bf16})
    for (const Dtype given : {f32, region == f16 ? bf16 : f16}) CHECK(check_listed(Cast::low, region, given, region) > 20);
}

TEST_CASE("ops in f32: 16 bits in, f32 out, the bits of a cast by hand [test_autocast_torch_fp32, _nn_fp32, _methods_fp32]") {
  for (const Dtype region : {f16, bf16}) CHECK(check_listed(Cast::f32, region, region, f32) > 40);
}

TEST_CASE("the fused head: products in 16 bits, the loss in f32 [test_autocast_nn_fp32]") {
  Generator rng(5);
  const Tensor x = randn({6, 8}, rng), w = randn({10, 8}, rng), target = from_span<std::int64_t>(std::vector<std::int64_t>{0, 3, 9, 1, 2, 4}, {6});
  const Tensor by_hand = linear_cross_entropy(x.to(bf16), w.to(bf16), target);
  const Tensor loss = amp::autocast(bf16, [&] { return linear_cross_entropy(x, w, target); });
  CHECK(loss.dtype() == f32);
  CHECK(bits(loss) == bits(by_hand));
}

// ---- promotion ------------------------------------------------------------------------------------------------------------------------

TEST_CASE("mixed inputs give the widest, in any order [test_autocast_torch_need_autocast_promote; extra: promote order independence]") {
  struct Mixed {
    const char* name;
    std::function<Tensor(const Tensor&, const Tensor&)> op;
  };
  const Tensor condition = gt(arange(8, {.dtype = f32}).reshape({2, 4}), 3), index = zeros({2, 4}, {.dtype = i64});
  const std::vector<Mixed> ops = {
      {"cat",
       [](const Tensor& a, const Tensor& b) {
         return cat({a, b});
       }},
      {"stack",
       [](const Tensor& a, const Tensor& b) {
         return stack({a, b});
       }},
      {"where", [&](const Tensor& a, const Tensor& b) { return where(condition, a, b); }},
      {"scatter_add", [&](const Tensor& a, const Tensor& b) { return scatter_add(a, 1, index, b); }},
      {"add", [](const Tensor& a, const Tensor& b) { return a + b; }},
      {"div", [](const Tensor& a, const Tensor& b) { return a / b; }},
  };
  for (const Policy& policy : kPolicies)
    for (const Dtype region : {f16, bf16})
      for (const auto& op : ops)
        for (const auto& [a, b, wanted] : std::vector<std::array<Dtype, 3>>{
                 {f32, f16, f32}, {f32, bf16, f32}, {f16, bf16, f32}, {f16, f16, f16}, {bf16, bf16, bf16}, {f64, bf16, f64}, {f32, f64, f64}}) {
          CAPTURE(op.name);
          const Tensor x = full({2, 4}, 3, {.dtype = a}), y = full({2, 4}, 2, {.dtype = b});
          const Autocast on(region, {.policy = policy});
          CHECK(op.op(x, y).dtype() == wanted);
          CHECK(op.op(y, x).dtype() == wanted);
          CHECK(op.op(x, y).to_vector() == op.op(x.to(wanted), y.to(wanted)).to_vector());
        }
}

TEST_CASE("three inputs in every order, where PyTorch throws or not by the order [extra: promote order independence]") {
  const std::array<Tensor, 3> t{ones({2}), ones({2}, {.dtype = f16}), ones({2}, {.dtype = bf16})};
  const Autocast on(bf16);
  for (const auto& order : std::vector<std::array<std::size_t, 3>>{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}})
    CHECK(cat({t[order[0]], t[order[1]], t[order[2]]}).dtype() == f32);
}

TEST_CASE("an optional input votes like any other [extra: optional-arg vote]") {
  Policy policy = Policy::mezzo();
  policy.set("linear", Cast::widest).set("addmm", Cast::widest);
  const Tensor x = ones({2, 3}, {.dtype = bf16}), w = ones({4, 3}, {.dtype = bf16});
  const Autocast on(bf16, {.policy = policy});
  CHECK(linear(x, w).dtype() == bf16);
  CHECK(linear(x, w, ones({4}, {.dtype = bf16})).dtype() == bf16);
  CHECK(linear(x, w, ones({4})).dtype() == f32);
  CHECK(linear(x, w, ones({4}, {.dtype = f16})).dtype() == f32);
  CHECK(addmm(ones({4}), x, w.transpose(0, 1)).dtype() == f32);
}

TEST_CASE(
    "comparisons give booleans, arithmetic the widest, outside and inside [test_autocast_torch_expect_builtin_promote, "
    "_methods_expect_builtin_promote]") {
  for (const bool enabled : {false, true})
    for (const Dtype low : {f16, bf16}) {
      const Autocast on(low, {.enabled = enabled});
      const Tensor a = ones({3}, {.dtype = low}), b = ones({3});
      for (const auto compare :
           {static_cast<Tensor (*)(const Tensor&, const Tensor&)>(eq), static_cast<Tensor (*)(const Tensor&, const Tensor&)>(ne),
            static_cast<Tensor (*)(const Tensor&, const Tensor&)>(lt), static_cast<Tensor (*)(const Tensor&, const Tensor&)>(le),
            static_cast<Tensor (*)(const Tensor&, const Tensor&)>(gt), static_cast<Tensor (*)(const Tensor&, const Tensor&)>(ge)})
        CHECK(compare(a, b).dtype() == boolean);
      CHECK((a + b).dtype() == f32);
      CHECK((b / a).dtype() == f32);
      CHECK((a * b).dtype() == f32);
      CHECK((a * 2.5).dtype() == low);
    }
}

TEST_CASE("gradients through where, scatter_add and gather of mixed dtypes arrive [test_autocast_prioritize]") {
  const Tensor a = ones({4}, {.dtype = bf16, .requires_grad = true}), b = ones({4}, {.requires_grad = true});
  const Tensor index = arange(4, {.dtype = i64}), mask = gt(arange(4, {.dtype = f32}), 1);
  const Tensor y = amp::autocast(bf16, [&] { return sum(where(mask, a, b)) + sum(scatter_add(a, 0, index, b)) + sum(gather(a, 0, index)); });
  CHECK_NOTHROW(y.backward());
  CHECK(a.grad().dtype() == f32);  // of a 16-bit leaf that several contributions reach
  CHECK(b.grad().dtype() == f32);
  CHECK(a.grad().to_vector() == std::vector<float>{2, 2, 3, 3});
  CHECK(b.grad().to_vector() == std::vector<float>{2, 2, 1, 1});
}

TEST_CASE("cat and stack in a region, of a list and with gradients [test_autocast_cat_jit]") {
  const Tensor a = ones({2}, {.requires_grad = true}), b = ones({2}, {.dtype = bf16, .requires_grad = true});
  const Tensor y = amp::autocast(bf16, [&] { return sum(cat({a, b, a})) + sum(stack({a, a})); });
  y.backward();
  CHECK(a.grad().to_vector() == std::vector<float>{4, 4});
  CHECK(b.grad().to_vector() == std::vector<float>{1, 1});
  CHECK(b.grad().dtype() == bf16);
}

// ---- what autocast refuses and what it leaves alone -----------------------------------------------------------------------------------

TEST_CASE("binary_cross_entropy is banned, with the way out [test_autocast_banned]") {
  for (const Dtype dtype : {f32, f16, bf16}) {
    const Tensor p = full({4}, 0.5, {.dtype = dtype}), y = ones({4}, {.dtype = dtype});
    const auto call = [&] { return binary_cross_entropy(p, y); };
    CHECK_ERROR(amp::autocast(bf16, {.policy = Policy::torch()}, call), "[binary_cross_entropy]", "unsafe", "binary_cross_entropy_with_logits");
    if (dtype == f32) CHECK(amp::autocast(bf16, call).dtype() == f32);  // mezzo(): f32 probabilities are safe
    else CHECK_ERROR(amp::autocast(bf16, call), "[binary_cross_entropy]", "binary_cross_entropy_with_logits");
    CHECK_NOTHROW(amp::autocast(bf16, {.enabled = false, .policy = Policy::torch()}, call));
    CHECK(amp::autocast(bf16, [&] { return binary_cross_entropy_with_logits(p, y); }).dtype() == f32);
  }
  const Tensor p = full({4}, 0.5), y = ones({4}, {.dtype = bf16});  // one 16-bit input is enough
  CHECK_ERROR(amp::autocast(bf16, [&] { return binary_cross_entropy(p, y); }), "[binary_cross_entropy]");
}

TEST_CASE("f64, integers and booleans are not touched, whatever the class [test_autocast_ignored_types]") {
  for (const Policy& policy : kPolicies)
    for (const Dtype region : {f16, bf16}) {
      const Autocast on(region, {.policy = policy});
      const Tensor d = full({2, 2}, 0.5, {.dtype = f64}), h = full({2, 2}, 0.5, {.dtype = f16}), i = ones({2, 2}, {.dtype = i32});
      CHECK(mm(d, d).dtype() == f64);
      CHECK(linear(d, d).dtype() == f64);
      CHECK(exp(d).dtype() == f64);
      CHECK(softmax(d, 0).dtype() == f64);
      CHECK(layer_norm(d).dtype() == f64);
      CHECK(sum(d).dtype() == f64);
      CHECK(cat({d, d}).dtype() == f64);
      CHECK(mse_loss(d, d).dtype() == f64);
      CHECK((i + i).dtype() == i32);
      CHECK(sum(i).dtype() == i64);
      CHECK(cat({i, i}).dtype() == i32);
      CHECK(sum(gt(d, 0)).item() == 4);
      CHECK_ERROR(mm(d, h), "[mm]", "equal ones wanted", "f64 excepted");
      CHECK_ERROR(mm(h, d), "[mm]");
    }
}

TEST_CASE("an explicit dtype or destination wins over the region") {
  const Autocast on(bf16);
  const Tensor x = full({3}, 0.3), low = x.to(f16);
  CHECK(sum(x, {.dtype = f64}).dtype() == f64);
  CHECK(mean(low, {.dtype = f16}).dtype() == f16);
  CHECK(norm(x, {.dtype = bf16}).dtype() == bf16);
  CHECK(x.to(f64).dtype() == f64);
  CHECK(low.dtype() == f16);
  Tensor destination = zeros({3}), narrow = zeros({3}, {.dtype = f16});
  copy_(destination, low);
  CHECK(destination.dtype() == f32);
  CHECK(destination.to_vector() == low.to_vector());
  copy_(narrow, x);
  CHECK(narrow.dtype() == f16);
  CHECK(bits(narrow) == bits(low));
  fill_(narrow, 0.1);
  CHECK(bits(narrow) == bits(full({3}, 0.1, {.dtype = f16})));
}

TEST_CASE("views keep their dtype and their elements in a region") {
  const Autocast on(bf16);
  const Tensor x = arange(12, {.dtype = f32}).reshape({3, 4});
  for (const Tensor& v : {x.transpose(0, 1), x.narrow(1, 1, 2), x.select(0, 2), x.reshape({2, 6}), x.unsqueeze(0), x.detach()}) {
    CHECK(v.dtype() == f32);
    CHECK(v.version() == x.version());
  }
  fill_(x.select(0, 0), 7);
  CHECK(x.to_vector()[3] == 7);
}

// ---- regions --------------------------------------------------------------------------------------------------------------------------

TEST_CASE("a region has its own dtype, and bf16 where none is named [test_autocast_fast_dtype, test_generic_autocast]") {
  CHECK(amp::autocast_dtype() == bf16);
  const Tensor a = ones({2, 2}), b = ones({2, 2});
  for (const Dtype outer : {f16, bf16})
    for (const Dtype inner : {f16, bf16}) {
      const Autocast one(outer);
      CHECK(mm(a, b).dtype() == outer);
      {
        const Autocast two(inner);
        CHECK(mm(a, b).dtype() == inner);
        CHECK(mm(a.to(outer), b).dtype() == inner);
      }
      CHECK(mm(a, b).dtype() == outer);
    }
}

TEST_CASE("enabled = false takes any dtype in silence; ops inside are plain ops [test_autocast_disabled_with_fp32_dtype]") {
  const Autocast on(bf16);
  const Tensor low = mm(ones({2, 2}), ones({2, 2})), wide = ones({2, 2});
  const Autocast off(f32, {.enabled = false});
  CHECK(mm(wide, wide).dtype() == f32);
  CHECK_ERROR(mm(low, wide), "[mm]", "bf16 and f32", "convert one with to()");
  CHECK(mm(low.to(f32), wide).dtype() == f32);
  const Autocast again(f16);
  CHECK(mm(low, wide).dtype() == f16);
}

TEST_CASE("a dtype autocast has not is an Error, not a region that silently does nothing [test_autocast_unsupported_dtype]") {
  CHECK_ERROR(Autocast(f32), "[Autocast]", "f16 or bf16 wanted", ".enabled = false");
  CHECK_ERROR(Autocast(i64), "[Autocast]", "dtype i64 given");
}

// What PyTorch finds out at run time the compiler refuses: a device string, a call with a tensor.
TEST_CASE("the function form takes functions alone [test_autocast_called_with_non_callable, _invalid_device, _non_string_device]") {
  static_assert(!std::is_constructible_v<Autocast, const char*>);
  const auto takes = [](auto&& f) {
    return requires { amp::autocast(bf16, f); };
  };
  CHECK_FALSE(takes(Tensor()));
  CHECK(takes([] { return 1; }));
}

// ---- functions of one's own -----------------------------------------------------------------------------------------------------------

namespace {

struct Seen {
  Dtype dtype = f64;
  bool enabled = false;
  Dtype region = f64;
};
Seen forward_saw, backward_saw;
Seen look(const Tensor& t) { return {t.dtype(), amp::autocast_enabled(), amp::autocast_dtype()}; }

/// The product of two matrices by plain ops, so that autocast shows.
template <class Derived> struct Product : autograd::Function<Derived> {
  static Tensor forward(autograd::Context& c, const Tensor& a, const Tensor& b) {
    forward_saw = look(a);
    c.save({a, b});
    return mm(a, b);
  }
  static std::vector<Tensor> backward(autograd::Context& c, const Tensor& dy) {
    backward_saw = look(dy);
    const auto& s = c.saved();
    return {mm(dy, s[1].transpose(0, 1)), mm(s[0].transpose(0, 1), dy)};
  }
};
struct Ambient : Product<Ambient> {
  static constexpr amp::FunctionOptions options{};
};
struct InF32 : Product<InF32> {
  static constexpr amp::FunctionOptions options{.cast_inputs = f32};
};
struct Plain : Product<Plain> {};

struct Many : autograd::Function<Many> {
  static constexpr amp::FunctionOptions options{.cast_inputs = f32};
  static std::vector<Tensor> forward(autograd::Context&, const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& d) {
    return {a * 1.0, b * 1.0, c, d};
  }
  static std::vector<Tensor> backward(autograd::Context&, const std::vector<Tensor>& dy) { return {dy[0], dy[1], {}, {}}; }
};

struct Throws : autograd::Function<Throws> {
  static constexpr amp::FunctionOptions options{.cast_inputs = f32};
  static Tensor forward(autograd::Context&, const Tensor& x) {
    if (x.numel() == 1) throw Error("forward");
    return x * 2.0;
  }
  static Tensor backward(autograd::Context&, const Tensor&) { throw Error("backward"); }
};

}  // namespace

TEST_CASE("forward sees f32 inputs with autocast on; backward, called outside, runs in forward's state [test_autocast_custom_enabled]") {
  for (const Dtype region : {f16, bf16}) {
    const Tensor x = ones({8, 8}, {.requires_grad = true}), y = ones({8, 8}, {.requires_grad = true});
    const Tensor out = amp::autocast(region, [&] { return Ambient::apply(x, y); });
    CHECK(out.dtype() == region);
    CHECK((forward_saw.dtype == f32 && forward_saw.enabled && forward_saw.region == region));
    sum(out).backward();
    CHECK((backward_saw.dtype == region && backward_saw.enabled && backward_saw.region == region));
    CHECK(x.grad().dtype() == f32);
    CHECK(x.grad().to_vector() == std::vector<float>(64, 8));
    CHECK_FALSE(amp::autocast_enabled());
  }
}

TEST_CASE("cast_inputs: casts, and autocast is off in forward and backward; outside a region it does nothing [test_autocast_custom_cast_inputs]") {
  const Tensor x = ones({8, 8}, {.dtype = f16, .requires_grad = true}), y = ones({8, 8}, {.dtype = f16, .requires_grad = true});
  const Tensor out = amp::autocast(f16, [&] { return InF32::apply(x, y); });
  CHECK(out.dtype() == f32);
  CHECK((forward_saw.dtype == f32 && !forward_saw.enabled));
  amp::autocast(f16, [&] { sum(out).backward(); });  // even when the caller's is on
  CHECK((backward_saw.dtype == f32 && !backward_saw.enabled));
  CHECK(x.grad().dtype() == f16);
  CHECK(InF32::apply(x, y).dtype() == f16);
  CHECK(forward_saw.dtype == f16);
  const auto mixed = amp::autocast(bf16, [&] {
    return Many::apply(ones({2}, {.dtype = bf16, .requires_grad = true}), ones({2}), ones({2}, {.dtype = f64}), ones({2}, {.dtype = i64}));
  });
  for (std::size_t i = 0; i < 4; ++i) CHECK(mixed[i].dtype() == std::array{f32, f32, f64, i64}[i]);
}

TEST_CASE("without options backward runs in its caller's state") {
  const Tensor x = ones({8, 8}, {.requires_grad = true}), y = ones({8, 8}, {.requires_grad = true});
  const Tensor out = amp::autocast(bf16, [&] { return Plain::apply(x, y).to(f32); });
  CHECK_THROWS_AS(sum(out).backward(), Error);  // its bf16 gradient meets f32 factors, outside of any region
  CHECK_FALSE(backward_saw.enabled);
  const Tensor again = amp::autocast(bf16, [&] { return Plain::apply(x, y).to(f32); });
  amp::autocast(bf16, [&] { sum(again).backward(); });
  CHECK(backward_saw.enabled);
}

TEST_CASE("an exception in a function's forward or backward leaves autocast, grad mode and the generator as they were") {
  const Autocast on(f16);
  CHECK_THROWS_WITH_AS(Throws::apply(ones({1}, {.requires_grad = true})), "forward", Error);
  CHECK((amp::autocast_enabled() && autograd::grad_enabled()));
  const Tensor y = sum(Throws::apply(ones({2}, {.requires_grad = true})));
  CHECK_THROWS_WITH_AS(y.backward(), "backward", Error);
  CHECK((amp::autocast_enabled() && amp::autocast_dtype() == f16 && autograd::grad_enabled()));

  int calls = 0;
  const Tensor z = autograd::checkpoint(
      [&](const std::vector<Tensor>& in) {
        const Tensor t = dropout(in[0], 0.5, true);
        if (++calls == 2) throw Error("recompute");
        return t;
      },
      {ones({8}, {.requires_grad = true})});
  const Generator before = default_generator();
  CHECK_THROWS_WITH_AS(sum(z).backward(), "recompute", Error);
  CHECK(default_generator() == before);
}

// ---- checkpoint -----------------------------------------------------------------------------------------------------------------------

TEST_CASE("recomputing gives the same dtypes, bits and random numbers, in any region [test_autocast_checkpointing]") {
  for (const Dtype region : {f16, bf16})
    for (const bool backward_in_region : {false, true}) {
      Generator rng(3);
      const Tensor x = randn({4, 8}, rng, {.requires_grad = true}), w = randn({8, 8}, rng, {.requires_grad = true});
      std::vector<std::vector<Dtype>> dtypes;
      std::vector<std::vector<std::uint64_t>> values;
      const auto f = [&](const std::vector<Tensor>& in) {
        const Tensor h = linear(in[0], w), d = dropout(h, 0.5, true), y = softmax(gelu(d), -1);
        dtypes.push_back({h.dtype(), d.dtype(), y.dtype()});
        values.push_back(bits(y));
        return y;
      };
      manual_seed(17);
      Tensor y;
      {
        const Autocast on(region);
        y = autograd::checkpoint(f, {x});
      }
      const Tensor total = sum(y.to(f32) * y.to(f32));
      const Autocast other(region == f16 ? bf16 : f16, {.enabled = backward_in_region});  // is not forward's
      total.backward();
      REQUIRE(dtypes.size() == 2);
      CHECK(dtypes[0] == std::vector<Dtype>{region, region, region});
      CHECK(dtypes[0] == dtypes[1]);
      CHECK(values[0] == values[1]);
      CHECK(w.grad().dtype() == f32);
    }
}

TEST_CASE("autograd::grad through a checkpoint finds what the function uses beside its inputs, and touches no .grad") {
  const Tensor x = full({2}, 3, {.requires_grad = true}), w = full({2}, 5, {.requires_grad = true}), v = full({2}, 7, {.requires_grad = true});
  const auto f = [&](const std::vector<Tensor>& in) { return in[0] * in[0] * w; };
  const auto gradients = [&](const std::vector<Tensor>& inputs) {
    std::vector<std::vector<float>> out;
    for (const auto& g : autograd::grad({sum(autograd::checkpoint(f, {x}) * w * v)}, inputs)) out.push_back(g.to_vector());
    return out;
  };
  using Values = std::vector<std::vector<float>>;
  CHECK(gradients({x, w}) == Values{{2 * 3 * 25 * 7, 2 * 3 * 25 * 7}, {2 * 9 * 5 * 7, 2 * 9 * 5 * 7}});
  CHECK(gradients({w}) == Values{{630, 630}});
  CHECK(gradients({x}) == Values{{1050, 1050}});
  CHECK(gradients({v}) == Values{{225, 225}});
  for (const auto& t : {x, w, v}) CHECK_FALSE(t.grad().defined());
}
