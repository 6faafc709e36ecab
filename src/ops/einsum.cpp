// einsum.cpp - sums of products over named dimensions, as views, sums and one batch of matrix products a pair. Storage T, products exact,
// accumulate f32, one rounding on store of each product.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "ops/product.h"

namespace mezzo {
namespace {

/// A dimension's name: a letter, or, from kEllipsis on, a dimension of the ellipsis counted from its right end.
using Label = int;
constexpr Label kEllipsis = 128;
using Labels = std::vector<Label>;

bool has(const Labels& labels, Label l) { return std::find(labels.begin(), labels.end(), l) != labels.end(); }
std::string spell(Label l) { return l < kEllipsis ? fmt::format("`{}`", static_cast<char>(l)) : "a dimension of `...`"; }

/// A tensor whose dimensions have names.
struct Named {
  Tensor t;
  Labels labels;
  int at(Label l) const { return static_cast<int>(std::find(labels.begin(), labels.end(), l) - labels.begin()); }
  std::int64_t size(Label l) const { return t.size(at(l)); }
};

[[noreturn]] void fail_spec(std::string_view spec, const std::string& what, std::string_view hint = {}) {
  fail("einsum", fmt::format("\"{}\" given: {}", spec, what), hint);
}

constexpr std::string_view kDots = "...";

/// The lists left of "->", and the one right of it if there is one.
struct Lists {
  std::vector<std::string> inputs;
  std::optional<std::string> output;
};
Lists split_lists(std::string_view spec) {
  std::string s;
  for (const char c : spec)
    if (c != ' ') s += c;
  Lists lists;
  if (const auto arrow = s.find("->"); arrow != std::string::npos) {
    lists.output = s.substr(arrow + 2);
    s.resize(arrow);
  }
  for (std::size_t begin = 0, comma = 0; comma < s.size() || begin == 0; begin = comma + 1) {
    comma = std::min(s.find(',', begin), s.size());
    lists.inputs.push_back(s.substr(begin, comma - begin));
  }
  return lists;
}

/// The labels of a list, whose ellipsis stands for `dots` dimensions.
Labels read(std::string_view spec, std::string_view list, int dots) {
  Labels labels;
  bool seen = false;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const char c = list[i];
    if (list.substr(i, 3) == kDots) {
      if (std::exchange(seen, true)) fail_spec(spec, fmt::format("two ellipses in \"{}\"", list));
      for (int k = dots; k-- > 0;) labels.push_back(kEllipsis + k);
      i += 2;
    } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      labels.push_back(c);
    } else {
      fail_spec(spec, fmt::format("`{}` is neither a letter nor part of an ellipsis", c),
                "a letter a dimension, lists parted by commas, \"->\" before the output's");
    }
  }
  return labels;
}

/// x with each label once: where one stands for two dimensions, their diagonal, in the first one's place.
Named diagonal(std::string_view spec, Named x) {
  for (int j = 0; j < static_cast<int>(x.labels.size()); ++j) {
    const Label l = x.labels[static_cast<std::size_t>(j)];
    const int i = x.at(l);
    if (i == j) continue;
    const auto n = x.t.size(i);
    if (x.t.size(j) != n) fail_spec(spec, fmt::format("{} is {} and {} in one tensor of shape {}", spell(l), n, x.t.size(j), to_string(x.t.shape())));
    std::vector<int> order;  // the two last
    for (int d = 0; d < x.t.dim(); ++d)
      if (d != i && d != j) order.push_back(d);
    const Shape rest = x.t.shape().without(j).without(i);
    order.push_back(i);
    order.push_back(j);
    Shape flat = rest;
    flat.push_back(n * n);
    const Tensor picked = index_select(x.t.permute(order).reshape(flat), -1, mul(arange(n, {.dtype = Dtype::i64}), static_cast<double>(n + 1)));
    std::vector<int> back;  // the diagonal to dimension i
    for (int d = 0; d < rest.dim(); ++d) back.push_back(d);
    back.insert(back.begin() + i, rest.dim());
    x.t = picked.permute(back);
    x.labels.erase(x.labels.begin() + j--);
  }
  return x;
}

Named sum_out(Named x, const Labels& keep) {
  ReduceOptions o;
  Labels left;
  for (std::size_t d = 0; d < x.labels.size(); ++d)
    if (has(keep, x.labels[d])) left.push_back(x.labels[d]);
    else o.dims.push_back(static_cast<int>(d));
  return o.dims.empty() ? x : Named{sum(x.t, o), left};
}

/// x with its dimensions in this order.
Tensor arrange(const Named& x, const Labels& labels) {
  std::vector<int> order;
  for (const Label l : labels) order.push_back(x.at(l));
  return std::is_sorted(order.begin(), order.end()) ? x.t : x.t.permute(order);
}
/// The same; each group of labels becomes one dimension.
Tensor arrange(const Named& x, std::initializer_list<const Labels*> groups) {
  Labels all;
  Shape shape;
  for (const Labels* g : groups) {
    std::int64_t n = 1;
    for (const Label l : *g) n *= x.size(l);
    all.insert(all.end(), g->begin(), g->end());
    shape.push_back(n);
  }
  return arrange(x, all).reshape(shape);
}

/// The sum over what `keep` lacks of a b.
Named contract(Named a, Named b, const Labels& keep) {
  Labels shared_or_kept = keep;  // what one tensor alone has is summed before it costs a product
  for (const Label l : a.labels)
    if (has(b.labels, l)) shared_or_kept.push_back(l);
  a = sum_out(std::move(a), shared_or_kept);
  b = sum_out(std::move(b), shared_or_kept);

  Labels batch, left, right, summed;
  for (const Label l : a.labels) (!has(b.labels, l) ? left : has(keep, l) ? batch : summed).push_back(l);
  for (const Label l : b.labels)
    if (!has(a.labels, l)) right.push_back(l);
  Shape shape;
  Labels labels;
  for (const auto& [group, of] : {std::pair(&batch, &a), std::pair(&left, &a), std::pair(&right, &b)})
    for (const Label l : *group) {
      shape.push_back(of->size(l));
      labels.push_back(l);
    }

  Tensor y;
  if (summed.empty()) {  // nothing is summed: an element-wise product, which torch's policy does not cast
    const bool as_given = context().policy.rounds_like_torch();
    const auto cast = [&](const Tensor& t) { return as_given ? t : t.to(compute_dtype(OpId::einsum, t.dtype())); };
    const Labels one;
    y = mul(cast(arrange(a, {&batch, &left, &one})), cast(arrange(b, {&batch, &one, &right})));
  } else if (batch.empty()) {
    y = recorded_product(OpId::einsum, arrange(a, {&left, &summed}), arrange(b, {&summed, &right}));
  } else {
    y = recorded_product(OpId::einsum, arrange(a, {&batch, &left, &summed}), arrange(b, {&batch, &summed, &right}));
  }
  return {y.reshape(shape), labels};
}

// ---- the call --------------------------------------------------------------------------------------

/// The tensors with their names, and what is known of the names.
struct Call {
  std::string_view spec;
  std::vector<Named> inputs = {};
  Labels all = {};    // of every list, as often as they are there
  int most_dots = 0;  // dimensions of the longest ellipsis
  std::map<Label, std::int64_t> sizes = {};

  void add(const std::string& list, const Tensor& t) {
    const bool dotted = list.find(kDots) != std::string::npos;
    const int letters = static_cast<int>(list.size()) - (dotted ? 3 : 0), dots = t.dim() - letters;
    const Labels labels = read(spec, list, dotted ? std::max(dots, 0) : 0);
    if (dotted ? dots < 0 : dots != 0)
      fail_spec(spec, fmt::format("\"{}\" names {} dimensions and its tensor has shape {}", list, letters, to_string(t.shape())),
                dotted ? "" : "\"...\" stands for dimensions without a name");
    if (dotted) most_dots = std::max(most_dots, dots);
    all.insert(all.end(), labels.begin(), labels.end());
    inputs.push_back(diagonal(spec, {t, labels}));
    for (const Label l : inputs.back().labels) {
      auto& n = sizes.try_emplace(l, 1).first->second;
      const auto here = inputs.back().size(l);
      if (n != 1 && here != 1 && here != n) fail_spec(spec, fmt::format("{} is {} in one tensor and {} in another", spell(l), n, here));
      if (n == 1) n = here;
    }
  }

  /// The output's dimensions: those of its list, or the ellipsis' and then the letters that are there once, in order.
  Labels output(const std::optional<std::string>& list) const {
    Labels out;
    if (!list) {
      for (int k = most_dots; k-- > 0;) out.push_back(kEllipsis + k);
      for (const auto& [label, size] : sizes)
        if (label < kEllipsis && std::count(all.begin(), all.end(), label) == 1) out.push_back(label);
      return out;
    }
    for (const Label l : read(spec, *list, most_dots)) {
      if (!has(all, l)) fail_spec(spec, fmt::format("{} is in the output and in no input", spell(l)));
      if (has(out, l)) fail_spec(spec, fmt::format("{} is twice in the output", spell(l)));
      out.push_back(l);
    }
    return out;
  }

  /// A size of 1 broadcasts: as if the tensor lacked that dimension.
  void drop_ones() {
    for (auto& x : inputs)
      for (std::size_t d = x.labels.size(); d-- > 0;)
        if (x.t.size(static_cast<int>(d)) == 1 && sizes[x.labels[d]] != 1) {
          x.t = x.t.squeeze(static_cast<int>(d));
          x.labels.erase(x.labels.begin() + static_cast<std::ptrdiff_t>(d));
        }
  }

  /// Whether something is no product: one tensor's trace, a dimension that one tensor sums alone.
  bool sums_alone(const Labels& out) const {
    const auto alone = [&](Label l) {
      return !has(out, l) && std::count_if(inputs.begin(), inputs.end(), [&](const Named& x) { return has(x.labels, l); }) == 1;
    };
    return inputs.size() == 1 || std::any_of(all.begin(), all.end(), alone);
  }

  /// The inputs contracted from left to right.
  Tensor contracted(const Labels& out) const {
    Named result = inputs[0];
    for (std::size_t k = 1; k < inputs.size(); ++k) {
      Labels keep = out;
      for (std::size_t later = k + 1; later < inputs.size(); ++later)
        keep.insert(keep.end(), inputs[later].labels.begin(), inputs[later].labels.end());
      result = contract(std::move(result), inputs[k], keep);
    }
    return arrange(sum_out(std::move(result), out), out);
  }
};

}  // namespace

Tensor einsum(std::string_view spec, const std::vector<Tensor>& tensors) {
  const Lists lists = split_lists(spec);
  if (tensors.empty()) fail("einsum", "no tensors given, at least one wanted");
  if (lists.inputs.size() != tensors.size())
    fail_spec(spec, fmt::format("{} lists for {} tensors", lists.inputs.size(), tensors.size()), "a list for each tensor, parted by commas");
  Call call{.spec = spec};
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    require_floating("einsum", tensors[k]);
    call.add(lists.inputs[k], tensors[k]);
  }
  if (!context().autocast)
    for (const Tensor& t : tensors)
      if (t.dtype() != tensors[0].dtype())
        fail("einsum", fmt::format("dtypes {} and {} given, equal ones wanted", name(tensors[0].dtype()), name(t.dtype())),
             "convert one with to(), or run inside amp::autocast");
  const Labels out = call.output(lists.output);
  call.drop_ones();
  // Of class low as a whole: what is no product would else follow the classes of its pieces, as PyTorch's does. Products cast by themselves, and so
  // give f32 leaves their gradient in f32.
  if (context().autocast && !context().policy.rounds_like_torch() && call.sums_alone(out)) {
    std::vector<Tensor> low;
    for (const Tensor& t : tensors) low.push_back(t.to(compute_dtype(OpId::einsum, t.dtype())));
    const AutocastMode whole(false);
    return einsum(spec, low);
  }
  return call.contracted(out);
}

}  // namespace mezzo
