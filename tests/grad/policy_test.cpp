// policy_test.cpp - every row of the op table under both policies: the results' dtypes and values are those that PyTorch gives with casts by hand
// (tests/golden/autocast_values.safetensors); ops that PyTorch has no golden case for are called here.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <set>

#include <mezzo/mezzo.h>

#include "autograd/op_table.h"
#include "grad/cases.h"
#include "io/safetensors.h"

using namespace mezzo;
using namespace mezzo::test;

namespace {

using Json = nlohmann::json;

amp::Policy policy_of(const std::string& name) { return name == "torch" ? amp::Policy::torch() : amp::Policy::mezzo(); }

/// Largest |got - want| over max(1, largest |want|); elements that are not finite must agree.
double distance(const Tensor& got, const Tensor& want) {
  if (got.shape() != want.shape()) return std::numeric_limits<double>::infinity();
  const Tensor a = got.detach().to(f64).contiguous(), b = want.to(f64).contiguous();
  double scale = 1, worst = 0;
  for (const double v : b.data<double>())
    if (std::isfinite(v)) scale = std::max(scale, std::fabs(v));
  for (std::size_t i = 0; i < static_cast<std::size_t>(a.numel()); ++i) {
    const double x = a.data<double>()[i], y = b.data<double>()[i];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    const double d = std::fabs(x - y) / scale;
    worst = std::isfinite(d) ? std::max(worst, d) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

std::string row_of(const OpCase& c) {
  static const std::set<std::string> comparisons{"eq", "ne", "lt", "le", "gt", "ge"};
  if (comparisons.count(c.op)) return "compare";
  const bool along = c.options.contains("dims") && !c.options["dims"].empty() && static_cast<int>(c.options["dims"].size()) < c.in[0].dim();
  return (c.op == "sum" || c.op == "mean") && along ? c.op + "_dim" : c.op;
}

/// Inputs of the dtypes that `kind` names: one for all, or the first's and the others'.
std::vector<Tensor> inputs_of(const OpCase& c, const std::string& kind) {
  const auto comma = kind.find(',');
  const Dtype first = dtype_from_name(kind.substr(0, comma)), others = comma == std::string::npos ? first : dtype_from_name(kind.substr(comma + 1));
  std::vector<Tensor> in;
  bool any = false;
  for (const Tensor& t : c.in) {
    if (!is_floating(t.dtype())) in.push_back(t);
    else in.push_back(t.to(std::exchange(any, true) ? others : first).detach());
  }
  return in;
}

}  // namespace

TEST_CASE("both policies, both regions: dtypes and values of each op are PyTorch's with casts by hand") {
  std::set<std::string> covered;
  double worst = 0;
  for (const OpCase& c : read_cases("tests/golden/autocast_values.safetensors")) {
    covered.insert(row_of(c));
    CAPTURE(c.name);
    for (const auto& [policy, regions] : c.rows.items())
      for (const auto& [region, kinds] : regions.items())
        for (const auto& [kind, wanted] : kinds.items()) {
          const std::string where = policy + " " + region + " " + kind;  // Clang 14 captures no structured binding
          CAPTURE(where);
          const amp::Autocast scope(dtype_from_name(region), {.policy = policy_of(policy)});
          const auto in = inputs_of(c, kind);
          if (wanted[0] == "error") {
            CHECK_THROWS_AS(run(c, in), Error);
            continue;
          }
          const auto out = run(c, in);
          for (std::size_t i = 0; i < out.size(); ++i) {
            CHECK(name(out[i].dtype()) == wanted[0].get<std::string>());
            const double eps = is_floating(out[i].dtype()) ? format_info(out[i].dtype()).epsilon : 0;
            const double d = distance(out[i], c.other(wanted[1].get<std::string>() + ".out" + (out.size() > 1 ? std::to_string(i) : "")));
            CHECK(d <= 2 * eps);
            if (eps > 0) worst = std::max(worst, d / eps);
          }
        }
  }
  MESSAGE("values within " << worst << " eps");

  // Ops without a twin in PyTorch, views and conversions: here only their dtypes, in regions of both dtypes.
  const auto view = [](auto f) { return [f](const Tensor& x) { return std::vector<Tensor>{f(x)}; }; };
  const std::map<std::string, std::function<std::vector<Tensor>(const Tensor&)>> others{
      {"swiglu", view([](const Tensor& x) { return swiglu(x, x); })},
      {"dropout", view([](const Tensor& x) { return dropout(x, 0.5, true); })},
      {"rope", view([](const Tensor& x) {
         return rope(x.reshape({1, 1, 2, 6}));
       })},
      {"packed_attention", view([](const Tensor& x) {
         return packed_attention(x.reshape({1, 2, 6}), 1);
       })},
      {"clone", view([](const Tensor& x) { return x.clone(); })},
      {"contiguous", view([](const Tensor& x) { return x.transpose(0, 1).contiguous(); })},
      {"reshape", view([](const Tensor& x) {
         return x.reshape({4, 3});
       })},
      {"transpose", view([](const Tensor& x) { return x.transpose(0, 1); })},
      {"permute", view([](const Tensor& x) {
         return x.permute({1, 0});
       })},
      {"narrow", view([](const Tensor& x) { return x.narrow(1, 1, 2); })},
      {"expand", view([](const Tensor& x) {
         return x.expand({2, 3, 4});
       })},
      {"unsqueeze", view([](const Tensor& x) { return x.unsqueeze(0); })},
      {"squeeze", view([](const Tensor& x) { return x.unsqueeze(0).squeeze(0); })},
      {"select", view([](const Tensor& x) { return x.select(0, 1); })},
      {"scale", view([](const Tensor& x) { return amp::GradScaler().scale(sum(x, {.dtype = x.dtype()})); })},
  };
  for (const auto& [op, call] : others) {
    covered.insert(op);
    const std::string name = op;
    CAPTURE(name);
    for (const char* policy : {"mezzo", "torch"})
      for (const Dtype region : {f16, bf16})
        for (const Dtype given : {f32, f16, bf16, f64}) {
          CAPTURE(policy);
          CAPTURE(region);
          CAPTURE(given);
          const amp::Autocast scope(region, {.policy = policy_of(policy)});
          const amp::Cast c = policy_of(policy).of(op);
          const Dtype wanted = given == f64 ? f64 : c == amp::Cast::low ? region : c == amp::Cast::f32 ? f32 : given;
          CHECK(call(rand({3, 4}).to(given))[0].dtype() == wanted);
        }
  }

  covered.insert({"to", "function", "checkpoint", "identity", "gradient_of"});  // an explicit dtype; the user's code; the engine's own
  for (const OpInfo& row : op_table::kOps) {
    CAPTURE(row.name);
    CHECK(covered.count(std::string(row.name)));
  }
}

TEST_CASE("f64, integers and booleans pass through any region untouched") {
  for (const char* policy : {"mezzo", "torch"})
    for (const OpCase& c : read_cases("tests/golden/autocast_values.safetensors")) {
      if (row_of(c) == "compare" || c.op == "binary_cross_entropy") continue;
      CAPTURE(c.name);
      CAPTURE(policy);
      const amp::Autocast scope(bf16, {.policy = policy_of(policy)});
      for (const Tensor& t : run(c, c.in)) CHECK(t.dtype() == f64);
    }
  const amp::Autocast scope(f16);
  const Tensor ids = arange(3, {.dtype = i64});
  CHECK(add(ids, ids).dtype() == i64);
  CHECK(sum(ids).dtype() == i64);
  CHECK(eq(ids, ids).dtype() == boolean);
}
