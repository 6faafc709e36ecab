// inspector.cpp - collects what a step's tensors hold.
#include <mezzo/inspect.h>

#include <array>
#include <unordered_map>

#include "autograd/observer.h"
#include "core/fail.h"
#include "inspect/places.h"
#include "inspect/updates.h"
#include "tensor/impl.h"

namespace mezzo::inspect {

std::string_view to_string(Kind kind) {
  constexpr std::array<std::string_view, 5> names{"weight", "gradient", "update", "activation", "activation_gradient"};
  return names[static_cast<std::size_t>(kind)];
}

struct Inspector::Impl {
  /// A Record in the making: several calls of one op in one module, or of several micro-batches, are one.
  struct Sums {
    Record record;
    std::vector<kernels::ConversionStats> conversions;
  };

  explicit Impl(InspectorOptions o) : options(std::move(o)), updates(options.sample) {
    for (const auto& f : options.formats) formats.push_back(&format_named(f));
    if (options.sample < 1) fail("Inspector", fmt::format(".sample = {} given, 1 or more wanted", options.sample));
  }

  void add(std::vector<Sums>& list, std::unordered_map<std::string, std::size_t>& index, Kind kind, const std::string& module, std::string_view op,
           const Tensor& given) {
    if (!given.defined() || !is_floating(given.dtype()) || given.numel() == 0) return;
    const Tensor t = readable(given);
    std::string key = module;
    key.append(1, '\0').append(op).append(1, static_cast<char>(kind));
    const auto [place, fresh] = index.try_emplace(std::move(key), list.size());
    if (fresh) {
      list.push_back({});
      list.back().record = {.kind = kind, .module = module, .op = std::string(op), .dtype = given.dtype()};
      list.back().conversions.resize(formats.size());
    }
    Sums& sums = list[place->second];
    sums.record.ranges += ranges(t);
    if (formats.empty()) return;
    const auto x = sampled(t, Sample(t.numel(), options.sample));
    for (std::size_t f = 0; f < formats.size(); ++f) {
      kernels::ConversionStats stats;
      kernels::convert_to_format(kernels::cpu_queue(), *formats[f], x.data(), nullptr, static_cast<std::int64_t>(x.size()), &stats);
      sums.conversions[f] += stats;
    }
  }
  void add_op(Kind kind, const std::string& module, OpId op, const Tensor& t) { add(ops, op_index, kind, module, name(op), t); }
  void add_parameter(Kind kind, const std::string& path, const Tensor& t) { add(parameters, parameter_index, kind, path, "", t); }

  InspectorOptions options;
  std::vector<const kernels::NumberFormat*> formats;
  Updates updates;
  std::vector<Sums> parameters, ops;
  std::unordered_map<std::string, std::size_t> parameter_index, op_index;
  std::vector<Record> update_records;
};

Inspector::Inspector(InspectorOptions o) : impl_(std::make_unique<Impl>(std::move(o))) {}
Inspector::~Inspector() = default;
Inspector::Inspector(Inspector&&) noexcept = default;

// ---- ops -------------------------------------------------------------------------------------------

struct Inspector::Watch::Impl final : autograd::Observer {
  explicit Impl(Inspector::Impl& to) : sums(to), scope(this) {}
  void forward(const autograd::Node& node, std::span<const Tensor> outputs, std::span<const Operand> inputs) override {
    const autograd::ObserverScope unseen(nullptr);
    const std::string& place = places.enter(node, inputs);
    for (const auto& y : outputs) sums.add_op(Kind::activation, place, node.op, y);
  }
  void backward(const autograd::Node& node, std::span<const Tensor> gradients) override {
    const autograd::ObserverScope unseen(nullptr);
    for (const auto& dy : gradients) sums.add_op(Kind::activation_gradient, places.of(node), node.op, dy);
  }
  void gave(const autograd::Node&, int, const Tensor&) override {}

  Inspector::Impl& sums;
  Places places;
  autograd::ObserverScope scope;
};

Inspector::Watch::Watch(Inspector& i) : impl_(std::make_unique<Impl>(*i.impl_)) {}
Inspector::Watch::~Watch() = default;

// ---- parameters ------------------------------------------------------------------------------------

void Inspector::parameters(const nn::Module& module) {
  for (const auto& [path, w] : module.named_parameters()) {
    impl_->add_parameter(Kind::weight, path, w);
    impl_->add_parameter(Kind::gradient, path, w.grad());
  }
}

void Inspector::before_update(const optim::Optimizer& optimizer) { impl_->updates.before(optimizer); }
void Inspector::after_update() { impl_->update_records = impl_->updates.after(); }

std::vector<Record> Inspector::take() {
  std::vector<Record> out;
  const auto move_from = [&](std::vector<Impl::Sums>& list) {
    for (auto& s : list) {
      for (std::size_t f = 0; f < impl_->formats.size(); ++f) s.record.conversions.push_back(to_conversion(*impl_->formats[f], s.conversions[f]));
      out.push_back(std::move(s.record));
    }
    list.clear();
  };
  move_from(impl_->parameters);
  for (auto& r : impl_->update_records) out.push_back(std::move(r));
  impl_->update_records.clear();
  move_from(impl_->ops);
  impl_->parameter_index.clear();
  impl_->op_index.clear();
  return out;
}

}  // namespace mezzo::inspect
