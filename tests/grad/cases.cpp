// cases.cpp - how each op is called on a case, and the file of cases read.
#include "grad/cases.h"

#include <cmath>
#include <functional>
#include <limits>

#include "io/safetensors.h"
#include "ops/recurrent.h"

namespace mezzo::test {
namespace {

using Json = nlohmann::json;
using In = std::vector<Tensor>;

double number(const Json& j) {
  if (j.is_string()) return j == "inf" ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
  return j.get<double>();
}
ReduceOptions reduce_options(const Json& o) { return {.dims = o.value("dims", std::vector<int>{}), .keepdim = o.value("keepdim", false)}; }
PerDim per_dim(const Json& o, const char* field, PerDim otherwise) {
  if (!o.contains(field)) return otherwise;
  return o[field].is_array() ? PerDim(o[field].get<std::vector<std::int64_t>>()) : PerDim(o[field].get<std::int64_t>());
}
ConvOptions conv_options(const Json& o) {
  return {.stride = per_dim(o, "stride", 1),
          .padding = per_dim(o, "padding", 0),
          .dilation = per_dim(o, "dilation", 1),
          .groups = o.value("groups", std::int64_t{1}),
          .output_padding = per_dim(o, "output_padding", 0)};
}
PoolOptions pool_options(const Json& o) {
  return {.kernel = per_dim(o, "kernel", {}),
          .stride = per_dim(o, "stride", {}),
          .padding = per_dim(o, "padding", 0),
          .ceil_mode = o.value("ceil_mode", false),
          .count_include_pad = o.value("count_include_pad", true)};
}
/// Running statistics: a copy that the op may change, of f32 or f64 whatever the sweep's dtype.
Tensor running(const Tensor& t) { return (is_16bit(t.dtype()) ? t.to(f32) : t).detach().clone(); }
Tensor at(const In& in, std::size_t i) { return i < in.size() ? in[i] : Tensor(); }
LossOptions loss_options(const Json& o, const Tensor& weight) {
  const auto r = o.value("reduction", std::string("mean"));
  return {.reduction = r == "none"        ? Reduction::none
                       : r == "sum"       ? Reduction::sum
                       : r == "batchmean" ? Reduction::batchmean
                                          : Reduction::mean,
          .ignore_index = o.value("ignore_index", std::int64_t{-100}),
          .weight = weight.defined() ? weight.detach() : Tensor(),
          .label_smoothing = o.value("label_smoothing", 0.0),
          .beta = o.value("beta", 1.0),
          .delta = o.value("delta", 1.0),
          .log_target = o.value("log_target", false)};
}
std::vector<Tensor> recurrent_case(kernels::Cell cell, const In& in, const Json& o) {
  const bool lstm = cell == kernels::Cell::lstm;
  const std::size_t w = lstm ? 3 : 2;
  const auto out = recurrent(cell, in[0], in[1], lstm ? in[2] : Tensor(), {in[w], in[w + 1], in[w + 2], in[w + 3]}, o.value("reverse", false));
  return lstm ? std::vector<Tensor>{out.y, out.c} : std::vector<Tensor>{out.y};
}

using Call = std::function<std::vector<Tensor>(const In&, const Json&)>;
template <class F> Call one(F f) {
  return [f](const In& in, const Json& o) { return std::vector<Tensor>{f(in, o)}; };
}

/// An op of two tensors, or of a tensor and a number on either side.
#define MIXED(name)                                                                                             \
  one([](const In& in, const Json& o) {                                                                         \
    if (!o.contains("number")) return name(in[0], in[1]);                                                       \
    return o.value("number_left", false) ? name(number(o["number"]), in[0]) : name(in[0], number(o["number"])); \
  })
#define COMPARED(name) one([](const In& in, const Json& o) { return o.contains("number") ? name(in[0], number(o["number"])) : name(in[0], in[1]); })
#define PLAIN(name) one([](const In& in, const Json&) { return name(in[0]); })
#define ALONG(name) one([](const In& in, const Json& o) { return name(in[0], o["dim"].get<int>()); })
#define REDUCED(name) one([](const In& in, const Json& o) { return name(in[0], reduce_options(o)); })
#define LOSS(name) one([](const In& in, const Json& o) { return name(in[0], in[1], loss_options(o, at(in, 2))); })
#define CONVOLVED(name) one([](const In& in, const Json& o) { return name(in[0], in[1], at(in, 2), conv_options(o)); })

const std::map<std::string, Call>& calls() {
  static const std::map<std::string, Call> table{
      {"add", MIXED(add)},
      {"sub", MIXED(sub)},
      {"mul", MIXED(mul)},
      {"div", MIXED(div)},
      {"pow", COMPARED(mezzo::pow)},
      {"eq", COMPARED(eq)},
      {"ne", COMPARED(ne)},
      {"lt", COMPARED(lt)},
      {"le", COMPARED(le)},
      {"gt", COMPARED(gt)},
      {"ge", COMPARED(ge)},
      {"neg", PLAIN(neg)},
      {"abs", PLAIN(mezzo::abs)},
      {"exp", PLAIN(mezzo::exp)},
      {"log", PLAIN(mezzo::log)},
      {"sqrt", PLAIN(mezzo::sqrt)},
      {"rsqrt", PLAIN(rsqrt)},
      {"tanh", PLAIN(mezzo::tanh)},
      {"sigmoid", PLAIN(sigmoid)},
      {"relu", PLAIN(relu)},
      {"silu", PLAIN(silu)},
      {"softplus", PLAIN(softplus)},
      {"sin", PLAIN(mezzo::sin)},
      {"cos", PLAIN(mezzo::cos)},
      {"tril", PLAIN(tril)},
      {"softmax", ALONG(softmax)},
      {"log_softmax", ALONG(log_softmax)},
      {"logsumexp", ALONG(logsumexp)},
      {"cumsum", ALONG(cumsum)},
      {"sum", REDUCED(sum)},
      {"mean", REDUCED(mean)},
      {"prod", REDUCED(prod)},
      {"amax", REDUCED(amax)},
      {"nll_loss", LOSS(nll_loss)},
      {"mse_loss", LOSS(mse_loss)},
      {"l1_loss", LOSS(l1_loss)},
      {"smooth_l1_loss", LOSS(smooth_l1_loss)},
      {"huber_loss", LOSS(huber_loss)},
      {"kl_div", LOSS(kl_div)},
      {"binary_cross_entropy", LOSS(binary_cross_entropy)},
      {"cross_entropy", LOSS(cross_entropy)},
      {"binary_cross_entropy_with_logits", LOSS(binary_cross_entropy_with_logits)},
      {"linear_cross_entropy", one([](const In& in, const Json& o) { return linear_cross_entropy(in[0], in[1], in[2], loss_options(o, {})); })},
      {"gelu", one([](const In& in, const Json& o) { return gelu(in[0], {.tanh = o.value("tanh", false)}); })},
      {"clamp", one([](const In& in, const Json& o) {
         return clamp(in[0], {.min = o.value("min", -std::numeric_limits<double>::infinity()),
                              .max = o.value("max", std::numeric_limits<double>::infinity())});
       })},
      {"var", one([](const In& in, const Json& o) {
         return var(in[0],
                    {.dims = o.value("dims", std::vector<int>{}), .keepdim = o.value("keepdim", false), .correction = o.value("correction", 1.0)});
       })},
      {"norm", one([](const In& in, const Json& o) {
         return norm(in[0],
                     {.dims = o.value("dims", std::vector<int>{}), .keepdim = o.value("keepdim", false), .p = o.contains("p") ? number(o["p"]) : 2});
       })},
      {"mm", one([](const In& in, const Json&) { return mm(in[0], in[1]); })},
      {"bmm", one([](const In& in, const Json&) { return bmm(in[0], in[1]); })},
      {"matmul", one([](const In& in, const Json& o) { return matmul(in[0], o.value("transpose_right", false) ? in[1].transpose(-2, -1) : in[1]); })},
      {"addmm", one([](const In& in, const Json&) { return addmm(in[0], in[1], in[2]); })},
      {"linear", one([](const In& in, const Json&) { return linear(in[0], in[1], at(in, 2)); })},
      {"einsum", one([](const In& in, const Json& o) { return einsum(o["spec"].get<std::string>(), in); })},
      {"rnn",
       [](const In& in, const Json& o) { return recurrent_case(o.value("relu", false) ? kernels::Cell::rnn_relu : kernels::Cell::rnn_tanh, in, o); }},
      {"lstm", [](const In& in, const Json& o) { return recurrent_case(kernels::Cell::lstm, in, o); }},
      {"gru", [](const In& in, const Json& o) { return recurrent_case(kernels::Cell::gru, in, o); }},
      {"layer_norm", one([](const In& in, const Json& o) { return layer_norm(in[0], at(in, 1), at(in, 2), {.eps = o["eps"].get<double>()}); })},
      {"rms_norm", one([](const In& in, const Json& o) { return rms_norm(in[0], at(in, 1), {.eps = o["eps"].get<double>()}); })},
      {"conv1d", CONVOLVED(conv1d)},
      {"conv2d", CONVOLVED(conv2d)},
      {"conv3d", CONVOLVED(conv3d)},
      {"conv_transpose1d", CONVOLVED(conv_transpose1d)},
      {"conv_transpose2d", CONVOLVED(conv_transpose2d)},
      {"conv_transpose3d", CONVOLVED(conv_transpose3d)},
      {"max_pool2d", one([](const In& in, const Json& o) { return max_pool2d(in[0], pool_options(o)); })},
      {"avg_pool2d", one([](const In& in, const Json& o) { return avg_pool2d(in[0], pool_options(o)); })},
      {"adaptive_avg_pool2d", one([](const In& in, const Json& o) { return adaptive_avg_pool2d(in[0], o["out"].get<std::vector<std::int64_t>>()); })},
      {"group_norm", one([](const In& in, const Json& o) {
         return group_norm(in[0], o["groups"].get<int>(), at(in, 1), at(in, 2), {.eps = o["eps"].get<double>()});
       })},
      {"batch_norm", one([](const In& in, const Json& o) {
         return batch_norm(in[0], running(in[1]), running(in[2]), at(in, 3), at(in, 4),
                           {.training = o["training"].get<bool>(), .eps = o["eps"].get<double>()});
       })},
      {"embedding", one([](const In& in, const Json&) { return embedding(in[0], in[1]); })},
      {"where", one([](const In& in, const Json&) { return where(in[0], in[1], in[2]); })},
      {"masked_fill", one([](const In& in, const Json& o) { return masked_fill(in[0], in[1], number(o["number"])); })},
      {"gather", one([](const In& in, const Json& o) { return gather(in[0], o["dim"].get<int>(), in[1]); })},
      {"index_select", one([](const In& in, const Json& o) { return index_select(in[0], o["dim"].get<int>(), in[1]); })},
      {"scatter_add", one([](const In& in, const Json& o) { return scatter_add(in[0], o["dim"].get<int>(), in[1], in[2]); })},
      {"cat", one([](const In& in, const Json& o) { return cat(in, o["dim"].get<int>()); })},
      {"stack", one([](const In& in, const Json& o) { return stack(in, o["dim"].get<int>()); })},
      {"split", [](const In& in, const Json& o) { return split(in[0], o["size"].get<std::int64_t>(), o["dim"].get<int>()); }},
      {"scaled_dot_product_attention", one([](const In& in, const Json& o) {
         AttentionOptions a{.is_causal = o.value("is_causal", false), .mask = at(in, 3).defined() ? at(in, 3).detach() : Tensor()};
         if (o.contains("scale")) a.scale = o["scale"].get<double>();
         return scaled_dot_product_attention(in[0], in[1], in[2], a);
       })},
  };
  return table;
}

}  // namespace

std::vector<OpCase> read_cases(const std::string& path) {
  const io::SafetensorsFile file(path);
  std::map<std::string, std::map<std::string, Tensor>> tensors;  // case, part
  const Json cases = Json::parse(file.metadata().at("cases"));
  const Json rows = file.metadata().count("rows") ? Json::parse(file.metadata().at("rows")) : Json::object();
  for (auto& [name, t] : load(path)) {
    const auto dot = name.find('.', name.find('.') + 1);  // a case's name has one: "sum.all"
    tensors[name.substr(0, dot)][name.substr(dot + 1)] = t;
  }
  std::vector<OpCase> out;
  for (const auto& [name, options] : cases.items()) {
    OpCase c{name, options["op"], options, {}, {}, {}, {}, rows.value(name, Json()), tensors[name]};
    const auto find = [&](const std::string& part) {
      const auto it = c.others.find(part);
      return it == c.others.end() ? Tensor() : it->second;
    };
    for (std::size_t i = 0; find("in" + std::to_string(i)).defined(); ++i) {
      c.in.push_back(find("in" + std::to_string(i)));
      if (const Tensor g = find("grad" + std::to_string(i)); g.defined()) c.grad[i] = g;
    }
    for (const char* suffix : {"", "0", "1", "2"}) {
      if (const Tensor t = find(std::string("out") + suffix); t.defined()) c.out.push_back(t);
      if (const Tensor t = find(std::string("dy") + suffix); t.defined()) c.dy.push_back(t);
    }
    out.push_back(std::move(c));
  }
  return out;
}

const std::vector<OpCase>& golden_cases() {
  static const std::vector<OpCase> all = read_cases("tests/golden/ops_f64.safetensors");
  return all;
}

std::vector<Tensor> run(const OpCase& c, const std::vector<Tensor>& in) { return calls().at(c.op)(in, c.options); }

std::vector<Tensor> leaves(const OpCase& c, Dtype dtype) {
  std::vector<Tensor> in;
  for (std::size_t i = 0; i < c.in.size(); ++i) {
    Tensor t = is_floating(c.in[i].dtype()) ? c.in[i].to(dtype).detach().clone() : c.in[i];
    if (c.grad.count(i)) t.requires_grad_();
    in.push_back(t);
  }
  return in;
}

}  // namespace mezzo::test
