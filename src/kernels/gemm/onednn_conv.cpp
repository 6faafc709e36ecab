// onednn_conv.cpp - convolutions by oneDNN 2.6.3, on channels-last activations. Weights are brought into the blocked layout that a primitive asks
// for, and their gradient back: they are small. (On plain NCHW 2.6.3 has only im2col; on channels-last it has what it has on blocked layouts.)
#include <array>
#include <cstdint>
#include <string_view>

#include <mezzo/runtime.h>
#include "core/dry_run.h"
#include "kernels/gemm/onednn.h"
#include "kernels/gemm/onednn_library.h"

namespace mezzo::kernels {
namespace {

using dnnl::memory;

enum class Form : std::uint8_t { forward, input_grad, weight_grad };

/// Everything that a primitive is made for.
struct Key {
  Conv conv;
  Form form;
  bool bias, accumulate;
  int threads;
  friend bool operator==(const Key&, const Key&) = default;
};

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    onednn::Mix mix;
    const Conv& c = key.conv;
    mix(c.n)(c.c)(c.o)(c.groups)(key.threads);
    for (const auto* each : {&c.in, &c.out, &c.kernel, &c.stride, &c.padding, &c.dilation})
      for (const std::int64_t v : *each) mix(v);
    return mix(static_cast<int>(c.dtype) << 16 | static_cast<int>(c.result) << 8 | static_cast<int>(key.form) << 2 | key.bias << 1 |
               int{key.accumulate})
        .value();
  }
};

/// The spatial dimensions in oneDNN's terms: two, or three.
struct Spatial {
  int first;
  explicit Spatial(const Conv& c) : first(c.in[0] == 1 && c.out[0] == 1 && c.kernel[0] == 1 ? 1 : 0) {}
  memory::dims of(const std::array<std::int64_t, 3>& v, std::int64_t minus = 0) const {
    memory::dims d;
    for (int i = first; i < 3; ++i) d.push_back(v[i] - minus);
    return d;
  }
  /// Channels-last (n, sizes, channels).
  memory::desc activation(Dtype t, std::int64_t n, std::int64_t channels, const std::array<std::int64_t, 3>& sizes) const {
    memory::dims dims{n, channels}, strides{0, 1};
    std::int64_t step = channels;
    for (int i = first; i < 3; ++i) dims.push_back(sizes[i]), strides.push_back(0);
    for (std::size_t i = dims.size(); i-- > 2;) strides[i] = step, step *= dims[i];
    strides[0] = step;
    return {dims, onednn::type_of(t), strides};
  }
  /// (O, C / groups, kernel), or (groups, O / groups, C / groups, kernel): as stored, or in the layout that the primitive likes best.
  memory::desc weights(Dtype t, const Conv& c, bool any) const {
    memory::dims dims{c.o / c.groups, c.c / c.groups};
    if (c.groups > 1) dims.insert(dims.begin(), c.groups);
    for (int i = first; i < 3; ++i) dims.push_back(c.kernel[i]);
    if (any) return {dims, onednn::type_of(t), memory::format_tag::any};
    memory::dims strides(dims.size());
    std::int64_t step = 1;
    for (std::size_t i = dims.size(); i-- > 0;) strides[i] = step, step *= dims[i];
    return {dims, onednn::type_of(t), strides};
  }
};

/// Padding at the end, exactly what the last window needs: the division that gave the result's size may have left something over.
std::array<std::int64_t, 3> padding_after(const Conv& c) {
  std::array<std::int64_t, 3> after{};
  for (int i = 0; i < 3; ++i) after[i] = (c.out[i] - 1) * c.stride[i] + (c.kernel[i] - 1) * c.dilation[i] + 1 - c.in[i] - c.padding[i];
  return after;
}

/// A primitive whose memory objects get their pointers for each call.
class Call {
 public:
  Call() = default;
  explicit Call(dnnl::primitive primitive) : primitive_(std::move(primitive)) {}
  Call& argument(int index, const memory::desc& d) {
    memories_[count_] = memory(d, onednn::engine(), DNNL_MEMORY_NONE);
    arguments_[count_] = {index, memories_[count_].get()};
    ++count_;
    return *this;
  }
  explicit operator bool() const { return count_ > 0; }
  /// The pointers in the order of the arguments; those beyond them are not looked at.
  void run(const dnnl::stream& stream, std::initializer_list<const void*> pointers) {
    int i = 0;
    for (const void* p : pointers) {
      if (i == count_) break;
      onednn::check("conv", dnnl_memory_set_data_handle_v2(arguments_[i].memory, const_cast<void*>(p), nullptr), "set_data_handle");
      ++i;
    }
    onednn::check("conv", dnnl_primitive_execute(primitive_.get(), stream.get(), count_, arguments_.data()), "execute");
  }

 private:
  static constexpr int kMost = 5;
  dnnl::primitive primitive_;
  std::array<memory, kMost> memories_;
  std::array<dnnl_exec_arg_t, kMost> arguments_{};
  int count_ = 0;
};

bool fast(const char* implementation) {
  const std::string_view name(implementation);
  return name.find("ref") == name.npos && name.find("gemm") == name.npos;  // im2col onto a product is what we have ourselves
}

/// One of the three convolutions, with the weights' change of layout.
class Convolution {
 public:
  explicit Convolution(const Key& key) {
    try {
      make(key);
    } catch (const dnnl::error&) {  // sizes it does not take
      usable_ = false;
    }
  }
  bool usable() const { return usable_; }

  /// forward: x, w, y, bias; input_grad: dy, w, dx; weight_grad: x, dw, dy.
  void run(Queue& queue, const dnnl::stream& stream, const void* activation, const void* weights, const void* other, const void* bias) {
    const Block scratch = queue.scratch(scratch_bytes_), blocked = queue.scratch(change_ ? weight_bytes_ + change_scratch_bytes_ : 0);
    if (DryRun::active()) return;
    const void* const w = change_ ? blocked.as<void>() : weights;
    const void* const change_scratch = blocked.as<std::byte>() + weight_bytes_;
    if (change_ && !gradient_) change_.run(stream, {weights, w, change_scratch});
    main_.run(stream, {activation, w, other, scratch.as<void>(), bias});
    if (change_ && gradient_) change_.run(stream, {w, weights, change_scratch});
  }

 private:
  void make(const Key& key) {
    const Conv& c = key.conv;
    const Spatial at(c);
    const auto direct = dnnl::algorithm::convolution_direct;
    const memory::dims strides = at.of(c.stride), dilation = at.of(c.dilation, 1), before = at.of(c.padding), after = at.of(padding_after(c));
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const auto activations = [&](Form written) {
      return std::pair(at.activation(written == Form::input_grad ? c.result : c.dtype, c.n, c.c, c.in),
                       at.activation(written == Form::forward ? c.result : c.dtype, c.n, c.o, c.out));
    };
    const auto [x, y] = activations(Form::forward);
    const memory::desc w = at.weights(c.dtype, c, true);
    const memory::desc bias = key.bias ? memory::desc({c.o}, memory::data_type::f32, memory::format_tag::x) : memory::desc();
    const auto forward_op =
        key.bias ? dnnl::convolution_forward::desc(dnnl::prop_kind::forward_training, direct, x, w, bias, y, strides, dilation, before, after)
                 : dnnl::convolution_forward::desc(dnnl::prop_kind::forward_training, direct, x, w, y, strides, dilation, before, after);
    if (key.form == Form::forward) {
      const dnnl::convolution_forward::primitive_desc pd(forward_op, attributes, onednn::engine(), /*allow_empty=*/true);
      if (!pd || !fast(pd.impl_info_str())) return;
      main_ = Call(dnnl::convolution_forward(pd));
      main_.argument(DNNL_ARG_SRC, x).argument(DNNL_ARG_WEIGHTS, pd.weights_desc()).argument(DNNL_ARG_DST, y);
      main_.argument(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
      if (key.bias) main_.argument(DNNL_ARG_BIAS, bias);
      return finish(pd.scratchpad_desc(), at.weights(c.dtype, c, false), pd.weights_desc(), key);
    }
    const auto [dx, dy] = activations(key.form);
    // The backward primitives take a forward one as a hint.
    const dnnl::convolution_forward::desc hint_op(dnnl::prop_kind::forward_training, direct, at.activation(c.dtype, c.n, c.c, c.in), w,
                                                  at.activation(c.dtype, c.n, c.o, c.out), strides, dilation, before, after);
    const dnnl::convolution_forward::primitive_desc hint(hint_op, onednn::engine(), true);
    if (!hint) return;
    if (key.form == Form::input_grad) {
      const dnnl::convolution_backward_data::desc op(direct, dx, w, dy, strides, dilation, before, after);
      const dnnl::convolution_backward_data::primitive_desc pd(op, attributes, onednn::engine(), hint, true);
      if (!pd || !fast(pd.impl_info_str())) return;
      main_ = Call(dnnl::convolution_backward_data(pd));
      main_.argument(DNNL_ARG_DIFF_DST, dy).argument(DNNL_ARG_WEIGHTS, pd.weights_desc()).argument(DNNL_ARG_DIFF_SRC, dx);
      main_.argument(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
      return finish(pd.scratchpad_desc(), at.weights(c.dtype, c, false), pd.weights_desc(), key);
    }
    const dnnl::convolution_backward_weights::desc op(direct, dx, at.weights(f32, c, true), dy, strides, dilation, before, after);
    const dnnl::convolution_backward_weights::primitive_desc pd(op, attributes, onednn::engine(), hint, true);
    if (!pd || !fast(pd.impl_info_str())) return;
    main_ = Call(dnnl::convolution_backward_weights(pd));
    main_.argument(DNNL_ARG_SRC, dx).argument(DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc()).argument(DNNL_ARG_DIFF_DST, dy);
    main_.argument(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
    finish(pd.scratchpad_desc(), at.weights(f32, c, false), pd.diff_weights_desc(), key);
  }

  void finish(const memory::desc& scratch, const memory::desc& stored, const memory::desc& blocked, const Key& key) {
    gradient_ = key.form == Form::weight_grad;
    scratch_bytes_ = scratch.get_size();
    usable_ = true;
    if (stored == blocked && !key.accumulate) return;
    weight_bytes_ = (blocked.get_size() + kAlignment - 1) / kAlignment * kAlignment;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key.accumulate) {
      dnnl::post_ops after;
      after.append_sum(1.0f);
      attributes.set_post_ops(after);
    }
    const memory::desc &from = gradient_ ? blocked : stored, &to = gradient_ ? stored : blocked;
    const dnnl::reorder::primitive_desc pd(onednn::engine(), from, onednn::engine(), to, attributes);
    change_scratch_bytes_ = pd.scratchpad_desc().get_size();
    change_ = Call(dnnl::reorder(pd));
    change_.argument(DNNL_ARG_FROM, from).argument(DNNL_ARG_TO, to).argument(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
  }

  Call main_, change_;  // change: of the weights' layout, after the main one for their gradient
  std::size_t scratch_bytes_ = 0, weight_bytes_ = 0, change_scratch_bytes_ = 0;
  bool usable_ = false, gradient_ = false;
};

bool run(Queue& queue, Form form, const Conv& c, const void* activation, const void* weights, const void* other, const void* bias, bool accumulate) {
  if (c.dtype == f64 || !onednn::may_run()) return false;
  thread_local onednn::PrimitiveCache<Key, KeyHash, Convolution> cache;
  Convolution& convolution = cache.get({c, form, bias != nullptr, accumulate, num_threads()});
  if (!convolution.usable()) return false;
  convolution.run(queue, cache.stream(), activation, weights, other, bias);
  return true;
}

}  // namespace

bool onednn_conv(Queue& queue, const Conv& c, const void* x, const void* w, const void* bias, void* y) {
  return run(queue, Form::forward, c, x, w, y, bias, false);
}
bool onednn_conv_input_grad(Queue& queue, const Conv& c, const void* w, const void* dy, void* dx) {
  return run(queue, Form::input_grad, c, dy, w, dx, nullptr, false);
}
bool onednn_conv_weight_grad(Queue& queue, const Conv& c, const void* x, const void* dy, void* dw, bool accumulate) {
  return run(queue, Form::weight_grad, c, x, dw, dy, nullptr, accumulate);
}

}  // namespace mezzo::kernels
