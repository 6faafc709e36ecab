// tensor.h - Tensor, a shared handle onto a strided array that autograd can follow; factories, printing.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <mezzo/dtype.h>
#include <mezzo/random.h>

namespace mezzo {

enum class Device : std::uint8_t { cpu };

/// Sizes of a tensor's dimensions, outermost first; at most kMax of them, {} is 0-dim (one element).
class MEZZO_API Shape {
 public:
  static constexpr int kMax = 8;
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) { assign(sizes.begin(), sizes.size()); }
  Shape(const std::vector<std::int64_t>& sizes) { assign(sizes.data(), sizes.size()); }  // NOLINT: implicit on purpose
  explicit Shape(std::span<const std::int64_t> sizes) { assign(sizes.data(), sizes.size()); }

  int dim() const { return dim_; }
  std::size_t size() const { return static_cast<std::size_t>(dim_); }  ///< number of dimensions, as a container has it
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (const auto s : *this) n *= s;
    return n;
  }
  std::int64_t& operator[](std::size_t d) { return sizes_[d]; }
  const std::int64_t& operator[](std::size_t d) const { return sizes_[d]; }
  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + dim_; }
  std::int64_t back() const { return sizes_[static_cast<std::size_t>(dim_ - 1)]; }
  void push_back(std::int64_t s);  ///< Error beyond kMax dimensions
  Shape without(int d) const;      ///< dimension d (not negative) left out
  friend bool operator==(const Shape& a, const Shape& b) { return a.dim_ == b.dim_ && std::equal(a.begin(), a.end(), b.begin()); }

 private:
  void assign(const std::int64_t* sizes, std::size_t n);  // Error: too many dimensions, a negative size
  std::array<std::int64_t, kMax> sizes_{};
  int dim_ = 0;
};
/// "(2, 3)"
MEZZO_API std::string to_string(const Shape&);
MEZZO_API std::ostream& operator<<(std::ostream&, const Shape&);

struct TensorOptions {
  Dtype dtype = Dtype::f32;
  bool requires_grad = false;
  Device device = Device::cpu;
};

struct BackwardOptions;
namespace detail {
struct TensorImpl;
MEZZO_API void retain(TensorImpl*) noexcept;
MEZZO_API void release(TensorImpl*) noexcept;
struct HookList;
}  // namespace detail

/// Removes its hook when asked; copies share it. A handle that is dropped leaves the hook in place.
class MEZZO_API HookHandle {
 public:
  HookHandle() = default;
  void remove();

 private:
  friend class Tensor;
  std::shared_ptr<detail::HookList> list_;
  int id_ = 0;
};

/// A shared handle: copies refer to the same elements, the same gradient and the same place in the graph.
/// A default-constructed one is undefined: everything but defined() is an Error on it.
/// Threads: different tensors may be used by different threads at will, one tensor by several readers; a writer (in-place op, mutable_data,
/// backward into its gradient) needs it alone.
class MEZZO_API Tensor {
 public:
  Tensor() = default;
  Tensor(const Tensor& o) noexcept : impl_(o.impl_) {
    if (impl_) detail::retain(impl_);
  }
  Tensor(Tensor&& o) noexcept : impl_(std::exchange(o.impl_, nullptr)) {}
  Tensor& operator=(Tensor o) noexcept {
    std::swap(impl_, o.impl_);
    return *this;
  }
  ~Tensor() {
    if (impl_) detail::release(impl_);
  }

  bool defined() const { return impl_ != nullptr; }
  Dtype dtype() const;
  const Shape& shape() const&;
  Shape shape() &&;
  std::int64_t numel() const;
  std::int64_t size(int dim) const;  ///< dim may be negative; Error out of range
  int dim() const;
  Device device() const { return Device::cpu; }

  // -- conversions and views (differentiable; views share elements and version where they can) --
  Tensor to(Dtype) const;     ///< *this when the dtype is the same; rounds to nearest even
  Tensor detach() const;      ///< same elements, outside the graph
  Tensor clone() const;       ///< contiguous copy
  Tensor contiguous() const;  ///< *this, or a contiguous copy
  bool is_contiguous() const;
  Tensor reshape(Shape) const;  ///< one size may be -1; a view where strides allow, else a copy
  Tensor transpose(int, int) const;
  Tensor permute(std::vector<int>) const;
  Tensor narrow(int dim, std::int64_t start, std::int64_t length) const;
  Tensor expand(Shape) const;  ///< broadcasts size-1 dimensions without a copy; -1 keeps a size
  Tensor unsqueeze(int dim) const;
  Tensor squeeze(int dim) const;  ///< leaves a size other than 1 as it is
  Tensor select(int dim, std::int64_t index) const;

  // -- autograd --
  bool requires_grad() const;
  Tensor& requires_grad_(bool = true);  ///< Error: not floating, or not a leaf
  bool is_leaf() const;
  Tensor grad() const;          ///< undefined until backward reached this leaf. Of a 16-bit leaf that several contributions reach: f32
  void set_grad(Tensor) const;  ///< Error unless undefined, or of this shape and dtype
  const std::string& name() const;
  Tensor& set_name(std::string);
  void backward() const;  ///< Error unless one element
  void backward(const BackwardOptions&) const;
  HookHandle register_hook(std::function<Tensor(const Tensor&)>);  ///< sees the gradient of this tensor; a defined result replaces it

  // -- elements --
  std::uint64_t version() const;         ///< rises with each in-place change, of any view
  double item() const;                   ///< Error unless one element
  std::vector<float> to_vector() const;  ///< row-major, converted
  /// The elements; Error unless contiguous and T is the dtype's type. The span lives as long as the tensor.
  template <class T> std::span<const T> data() const& {
    return {static_cast<const T*>(checked_data(dtype_of<T>)), static_cast<std::size_t>(numel())};
  }
  template <class T> std::span<const T> data() const&& = delete;
  /// version() rises now and not when the span is written to: take it anew for each change, or a cast that autocast keeps will not see it. It may be
  /// written to whatever requires_grad() says: a graph that saved the value notices at backward.
  template <class T> std::span<T> mutable_data() & { return {static_cast<T*>(checked_mutable_data(dtype_of<T>)), static_cast<std::size_t>(numel())}; }

  detail::TensorImpl* impl() const { return impl_; }  ///< for the library
  explicit Tensor(detail::TensorImpl* impl) noexcept : impl_(impl) {
    if (impl_) detail::retain(impl_);
  }

 private:
  const void* checked_data(Dtype) const;
  void* checked_mutable_data(Dtype);
  detail::TensorImpl* impl_ = nullptr;
};

struct BackwardOptions {
  Tensor gradient = {};       ///< d(loss)/d(this); required unless this has one element
  bool create_graph = false;  ///< record backward itself, for higher derivatives; implies retain_graph
  bool retain_graph = false;  ///< keep what the graph saved, to run backward again
};

MEZZO_API Tensor empty(Shape, TensorOptions = {});
MEZZO_API Tensor zeros(Shape, TensorOptions = {});
MEZZO_API Tensor ones(Shape, TensorOptions = {});
MEZZO_API Tensor full(Shape, double, TensorOptions = {});
MEZZO_API Tensor arange(std::int64_t n, TensorOptions = {});    ///< 0, 1, ... n - 1
MEZZO_API Tensor randn(Shape, Generator&, TensorOptions = {});  ///< standard normal
MEZZO_API Tensor rand(Shape, Generator&, TensorOptions = {});   ///< uniform in [0, 1)
MEZZO_API Tensor randn(Shape, TensorOptions = {});
MEZZO_API Tensor rand(Shape, TensorOptions = {});
MEZZO_API Tensor tensor(std::vector<float>, Shape, TensorOptions = {});  ///< converted to options.dtype
namespace detail {
MEZZO_API Tensor from_bytes(const void*, std::size_t count, Dtype, Shape);
}
/// Copies; the dtype is T's.
template <class T> Tensor from_span(std::span<const T> values, Shape shape) {
  return detail::from_bytes(values.data(), values.size(), dtype_of<T>, std::move(shape));
}

/// In place through a handle (views allowed): dst keeps its dtype, version() rises. Error: dst requires grad while grad mode is on, or src does,
/// whose graph a write does not join; shapes that do not broadcast; an expanded dst.
MEZZO_API Tensor copy_(Tensor dst, const Tensor& src);
MEZZO_API Tensor fill_(Tensor dst, double);

MEZZO_API std::ostream& operator<<(std::ostream&, const Tensor&);

}  // namespace mezzo
