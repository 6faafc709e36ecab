// tensor.cpp - handles, storage and metadata of tensors (what needs no graph).
#include "tensor/impl.h"

#include <algorithm>
#include <cstring>

#include "core/fail.h"
#include "kernels/kernels.h"
#include "tensor/layout.h"

namespace mezzo {

// ---- Shape -----------------------------------------------------------------------------------

void Shape::assign(const std::int64_t* sizes, std::size_t n) {
  if (n > static_cast<std::size_t>(kMax)) fail("Shape", fmt::format("{} dimensions given, at most {} wanted", n, kMax));
  for (std::size_t d = 0; d < n; ++d) {
    if (sizes[d] < -1) fail("Shape", fmt::format("size {} given for dimension {}, 0 or more wanted", sizes[d], d));
    sizes_[d] = sizes[d];
  }
  dim_ = static_cast<int>(n);
}

void Shape::push_back(std::int64_t s) {
  if (dim_ == kMax) fail("Shape", fmt::format("more than {} dimensions", kMax));
  sizes_[static_cast<std::size_t>(dim_++)] = s;
}

Shape Shape::without(int d) const {
  Shape s;
  for (int i = 0; i < dim_; ++i)
    if (i != d) s.push_back(sizes_[static_cast<std::size_t>(i)]);
  return s;
}

std::string to_string(const Shape& s) {
  std::string out = "(";
  for (std::size_t d = 0; d < s.size(); ++d) out += fmt::format("{}{}", d ? ", " : "", s[d]);
  return out + (s.size() == 1 ? ",)" : ")");
}

// ---- reference counts --------------------------------------------------------------------------

namespace detail {
void retain(TensorImpl* p) noexcept { static_cast<RefCounted*>(p)->retain(); }
void release(TensorImpl* p) noexcept {
  if (static_cast<RefCounted*>(p)->release()) destroy(p);
}
void destroy(TensorImpl* p) noexcept { delete p; }
}  // namespace detail

// ---- construction --------------------------------------------------------------------------------

detail::Strides contiguous_strides(const Shape& shape) {
  detail::Strides s{};
  std::int64_t step = 1;
  for (int d = shape.dim() - 1; d >= 0; --d) {
    s[static_cast<std::size_t>(d)] = step;
    step *= shape[static_cast<std::size_t>(d)];
  }
  return s;
}

bool strides_are_contiguous(const Shape& shape, const detail::Strides& strides) {
  std::int64_t step = 1;
  for (int d = shape.dim() - 1; d >= 0; --d) {
    const auto i = static_cast<std::size_t>(d);
    if (shape[i] == 0) return true;
    if (shape[i] != 1 && strides[i] != step) return false;
    step *= shape[i];
  }
  return true;
}

Tensor make_tensor(const Shape& shape, Dtype dtype) {
  std::int64_t n = 1;
  for (const auto s : shape) {
    if (s < 0) fail("tensor", fmt::format("shape {} given, sizes of 0 or more wanted", to_string(shape)));
    if (__builtin_mul_overflow(n, s, &n) || n > (std::int64_t{1} << 60) / 8)
      fail("tensor", fmt::format("shape {} given: its size overflows", to_string(shape)));
  }
  auto* impl = new detail::TensorImpl;
  Tensor t(impl);
  impl->storage = make_ref<detail::Storage>(static_cast<std::size_t>(n) * size_of(dtype), current_memory());
  impl->shape = shape;
  impl->strides = contiguous_strides(shape);
  impl->dtype = dtype;
  return t;
}

Tensor make_view(const Tensor& t, const Shape& shape, const detail::Strides& strides, std::int64_t offset) {
  auto* impl = new detail::TensorImpl;
  Tensor v(impl);
  impl->storage = t.impl()->storage;
  impl->offset = offset;
  impl->shape = shape;
  impl->strides = strides;
  impl->dtype = t.dtype();
  impl->is_view = true;
  impl->contiguous = strides_are_contiguous(shape, strides);
  return v;
}

Tensor alias_of(const Tensor& t) {
  Tensor v = make_view(t, t.impl()->shape, t.impl()->strides, t.impl()->offset);
  v.impl()->is_view = t.impl()->is_view;
  return v;
}

Tensor with_storage(const Tensor& t, Ref<detail::Storage> s, Dtype dtype) {
  Tensor v = alias_of(t);
  v.impl()->storage = std::move(s);
  v.impl()->dtype = dtype;
  return v;
}

bool exclusively_owned(const Tensor& t) { return t.impl()->unique() && t.impl()->storage->unique(); }

int wrap_dim(const char* op, int dim, int n) {
  const int m = n == 0 ? 1 : n;  // a 0-dim tensor takes 0 and -1
  if (dim < -m || dim >= m) fail(op, fmt::format("dim {} given, a dimension of a {}-dim tensor ([{}, {}]) wanted", dim, n, -m, m - 1));
  return dim < 0 ? dim + m : dim;
}

void require_defined(const char* op, const Tensor& t, const char* what) {
  if (!t.defined())
    fail(op, fmt::format("{} is an undefined tensor", what), "a default-constructed Tensor holds nothing; make one with zeros, randn, tensor, ...");
}

// ---- metadata ------------------------------------------------------------------------------------

namespace {
detail::TensorImpl& get(const Tensor& t) {
  if (!t.defined()) require_defined("Tensor", t, "this");
  return *t.impl();
}
const std::string kNoName;
}  // namespace

Dtype Tensor::dtype() const { return get(*this).dtype; }
const Shape& Tensor::shape() const& { return get(*this).shape; }
Shape Tensor::shape() && { return get(*this).shape; }
std::int64_t Tensor::numel() const { return get(*this).shape.numel(); }
int Tensor::dim() const { return get(*this).shape.dim(); }
std::int64_t Tensor::size(int d) const {
  const Shape& s = get(*this).shape;
  if (s.dim() == 0) fail("size", fmt::format("dim {} given for a 0-dim tensor", d));
  return s[static_cast<std::size_t>(wrap_dim("size", d, s.dim()))];
}
bool Tensor::is_contiguous() const { return get(*this).contiguous; }
std::uint64_t Tensor::version() const { return get(*this).storage->version.load(std::memory_order_relaxed); }
const std::string& Tensor::name() const { return get(*this).extra ? impl_->extra->name : kNoName; }
Tensor& Tensor::set_name(std::string n) {
  get(*this).more().name = std::move(n);
  return *this;
}

const void* Tensor::checked_data(Dtype wanted) const {
  const auto& t = get(*this);
  if (t.dtype != wanted)
    fail("data", fmt::format("a tensor of {} given, {} wanted", mezzo::name(t.dtype), mezzo::name(wanted)),
         "name the dtype's own scalar type, or convert with to()");
  if (!t.contiguous) fail("data", fmt::format("a non-contiguous view of shape {} given", to_string(t.shape)), "take contiguous() first");
  return t.bytes();
}

double Tensor::item() const {
  const auto& t = get(*this);
  if (t.shape.numel() != 1) fail("item", fmt::format("a tensor of shape {} given, one element wanted", to_string(t.shape)));
  auto& q = kernels::cpu_queue();
  switch (t.dtype) {
    case Dtype::f32: return static_cast<double>(kernels::read(q, reinterpret_cast<const float*>(t.bytes())));
    case Dtype::f16: return static_cast<double>(static_cast<float>(kernels::read(q, reinterpret_cast<const f16_t*>(t.bytes()))));
    case Dtype::bf16: return static_cast<double>(static_cast<float>(kernels::read(q, reinterpret_cast<const bf16_t*>(t.bytes()))));
    case Dtype::f64: return kernels::read(q, reinterpret_cast<const double*>(t.bytes()));
    case Dtype::i32: return kernels::read(q, reinterpret_cast<const std::int32_t*>(t.bytes()));
    case Dtype::i64: return static_cast<double>(kernels::read(q, reinterpret_cast<const std::int64_t*>(t.bytes())));
    case Dtype::u8:
    case Dtype::boolean: return kernels::read(q, reinterpret_cast<const std::uint8_t*>(t.bytes()));
  }
  return 0;
}

std::vector<float> Tensor::to_vector() const {
  const auto& t = get(*this);
  std::vector<float> out(static_cast<std::size_t>(t.shape.numel()));
  const Tensor f = make_tensor(t.shape, Dtype::f32);
  copy_elements(f, *this);
  const auto* p = static_cast<const float*>(mezzo::data(f));
  std::copy(p, p + out.size(), out.begin());
  return out;
}

Tensor Tensor::detach() const {
  Tensor t = alias_of((get(*this), *this));
  if (impl_->extra && !impl_->extra->name.empty()) t.set_name(impl_->extra->name);
  return t;
}

// ---- factories -----------------------------------------------------------------------------------

namespace {
Tensor finish(Tensor t, const TensorOptions& o) {
  if (o.requires_grad) t.requires_grad_();
  return t;
}
Tensor random(const Shape& shape, Generator& g, const TensorOptions& o, bool normal) {
  if (!is_floating(o.dtype)) fail(normal ? "randn" : "rand", fmt::format("dtype {} given, a floating one wanted", name(o.dtype)));
  Tensor t = make_tensor(shape, o.dtype);
  const std::int64_t n = t.numel();
  const auto offset = g.reserve(static_cast<std::uint64_t>((n + 3) / 4));
  if (normal) kernels::normal(kernels::cpu_queue(), o.dtype, mutable_data(t), n, 0, 1, g.seed(), offset);
  else kernels::uniform(kernels::cpu_queue(), o.dtype, mutable_data(t), n, g.seed(), offset);
  return finish(t, o);
}
}  // namespace

Tensor empty(Shape shape, TensorOptions o) { return finish(make_tensor(shape, o.dtype), o); }
Tensor full(Shape shape, double value, TensorOptions o) {
  Tensor t = make_tensor(shape, o.dtype);
  kernels::fill(kernels::cpu_queue(), o.dtype, value, mutable_data(t), strided({&t}));
  return finish(t, o);
}
Tensor zeros(Shape shape, TensorOptions o) { return full(std::move(shape), 0, o); }
Tensor ones(Shape shape, TensorOptions o) { return full(std::move(shape), 1, o); }
Tensor arange(std::int64_t n, TensorOptions o) {
  if (n < 0) fail("arange", fmt::format("n = {} given, 0 or more wanted", n));
  const Tensor index = make_tensor({n}, Dtype::i64);
  auto* p = static_cast<std::int64_t*>(mutable_data(index));
  for (std::int64_t i = 0; i < n; ++i) p[i] = i;
  if (o.dtype == Dtype::i64) return finish(index, o);
  Tensor t = make_tensor({n}, o.dtype);
  copy_elements(t, index);
  return finish(t, o);
}
Tensor randn(Shape shape, Generator& g, TensorOptions o) { return random(shape, g, o, true); }
Tensor rand(Shape shape, Generator& g, TensorOptions o) { return random(shape, g, o, false); }
Tensor randn(Shape shape, TensorOptions o) { return random(shape, default_generator(), o, true); }
Tensor rand(Shape shape, TensorOptions o) { return random(shape, default_generator(), o, false); }

Tensor detail::from_bytes(const void* p, std::size_t count, Dtype dtype, Shape shape) {
  if (static_cast<std::int64_t>(count) != shape.numel())
    fail("tensor", fmt::format("{} values given for shape {}, {} wanted", count, to_string(shape), shape.numel()));
  Tensor t = make_tensor(shape, dtype);
  if (count) std::memcpy(mutable_data(t), p, count * size_of(dtype));
  return t;
}

Tensor tensor(std::vector<float> values, Shape shape, TensorOptions o) {
  Tensor t = detail::from_bytes(values.data(), values.size(), Dtype::f32, std::move(shape));
  if (o.dtype != Dtype::f32) {
    Tensor c = make_tensor(t.shape(), o.dtype);
    copy_elements(c, t);
    t = c;
  }
  return finish(t, o);
}

}  // namespace mezzo
