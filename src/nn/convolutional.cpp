// convolutional.cpp - convolutions, pooling, and norms over channels.
#include <cmath>

#include <mezzo/nn.h>

#include "core/fail.h"
#include "nn/init.h"

namespace mezzo::nn {
Convolution::Convolution(const char* name, int spatial, bool transposed, const Conv2dOptions& o)
    : options_{.stride = o.stride, .padding = o.padding, .dilation = o.dilation, .groups = o.groups, .output_padding = o.output_padding} {
  require_size(name, "in", o.in);
  require_size(name, "out", o.out);
  require_size(name, "groups", o.groups);
  if (o.in % o.groups != 0 || o.out % o.groups != 0)
    fail(name, fmt::format(".groups = {} given, a divisor of both .in = {} and .out = {} wanted", o.groups, o.in, o.out));
  const auto& k = o.kernel.values();
  if (k.size() != 1 && k.size() != static_cast<std::size_t>(spatial))
    fail(name, fmt::format(".kernel has {} numbers, {} wanted", k.size(), spatial == 1 ? "one" : fmt::format("one, or {}", spatial)),
         "one number stands for every spatial dimension");
  Shape shape = transposed ? Shape{o.in, o.out / o.groups} : Shape{o.out, o.in / o.groups};
  for (int d = 0; d < spatial; ++d) {
    const auto n = k[k.size() == 1 ? 0 : static_cast<std::size_t>(d)];
    require_size(name, "kernel", n);
    shape.push_back(n);
  }
  // Kaiming uniform with a = sqrt(5) (He et al., arXiv 1502.01852), which comes to this.
  const std::int64_t fan_in = shape.numel() / shape[0];
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  weight = register_parameter("weight", uniform(shape, bound));
  if (!o.bias) return;
  bias = register_parameter("bias", uniform({o.out}, bound));
  mark_exempt(bias);
}

Conv1d::Conv1d(const Conv1dOptions& o) : Convolution("Conv1d", 1, false, o) {}
Tensor Conv1d::forward(const Tensor& x) { return conv1d(x, weight, bias, options_); }
Conv2d::Conv2d(const Conv2dOptions& o) : Convolution("Conv2d", 2, false, o) {}
Tensor Conv2d::forward(const Tensor& x) { return conv2d(x, weight, bias, options_); }
Conv3d::Conv3d(const Conv3dOptions& o) : Convolution("Conv3d", 3, false, o) {}
Tensor Conv3d::forward(const Tensor& x) { return conv3d(x, weight, bias, options_); }
ConvTranspose2d::ConvTranspose2d(const ConvTranspose2dOptions& o) : Convolution("ConvTranspose2d", 2, true, o) {}
Tensor ConvTranspose2d::forward(const Tensor& x) { return conv_transpose2d(x, weight, bias, options_); }

BatchNorm::BatchNorm(const char* name, const BatchNorm2dOptions& o, int least_dims, int most_dims)
    : name_(name), eps_(o.eps), momentum_(o.momentum), least_dims_(least_dims), most_dims_(most_dims) {
  require_size(name, "dim", o.dim);
  if (o.affine) {
    weight = register_parameter("weight", ones({o.dim}));
    bias = register_parameter("bias", zeros({o.dim}));
    mark_exempt(weight);
    mark_exempt(bias);
  }
  running_mean = register_buffer("running_mean", zeros({o.dim}));
  running_var = register_buffer("running_var", ones({o.dim}));
  mark_kept(running_mean);
  mark_kept(running_var);
}
Tensor BatchNorm::forward(const Tensor& x) {
  if (!x.defined()) fail(name_, "an undefined tensor given");
  if (x.dim() < least_dims_ || x.dim() > most_dims_)
    fail(name_, fmt::format("x has shape {}, {} wanted", to_string(x.shape()), most_dims_ == 3 ? "(N, C) or (N, C, L)" : "(N, C, H, W)"),
         most_dims_ == 3 ? "BatchNorm2d takes images" : "BatchNorm1d takes (N, C) and (N, C, L)");
  return batch_norm(x, running_mean, running_var, weight, bias, {.training = is_training(), .momentum = momentum_, .eps = eps_});
}
BatchNorm1d::BatchNorm1d(const BatchNorm1dOptions& o) : BatchNorm("BatchNorm1d", o, 2, 3) {}
BatchNorm2d::BatchNorm2d(const BatchNorm2dOptions& o) : BatchNorm("BatchNorm2d", o, 4, 4) {}

GroupNorm::GroupNorm(const GroupNormOptions& o) : groups_(o.groups), eps_(o.eps) {
  require_size("GroupNorm", "dim", o.dim);
  require_size("GroupNorm", "groups", o.groups);
  if (o.dim % o.groups != 0) fail("GroupNorm", fmt::format(".groups = {} given, a divisor of .dim = {} wanted", o.groups, o.dim));
  if (!o.affine) return;
  weight = register_parameter("weight", ones({o.dim}));
  bias = register_parameter("bias", zeros({o.dim}));
  mark_exempt(weight);
  mark_exempt(bias);
}
Tensor GroupNorm::forward(const Tensor& x) { return group_norm(x, groups_, weight, bias, {.eps = eps_}); }

MaxPool2d::MaxPool2d(PoolOptions o) : options_(std::move(o)) {}
Tensor MaxPool2d::forward(const Tensor& x) { return max_pool2d(x, options_); }
AvgPool2d::AvgPool2d(PoolOptions o) : options_(std::move(o)) {}
Tensor AvgPool2d::forward(const Tensor& x) { return avg_pool2d(x, options_); }

}  // namespace mezzo::nn
