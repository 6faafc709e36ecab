// cast_cache.cpp - finds, makes and renews the 16-bit copies of parameters.
#include "autograd/cast_cache.h"

#include <mutex>

#include "core/fail.h"
#include "core/parts.h"
#include "kernels/kernels.h"

namespace mezzo::autograd {
namespace {

detail::CastCache::Slot& slot(detail::CastCache& c, Dtype t) { return c.slots[t == Dtype::bf16 ? 1 : 0]; }

detail::CastCache& casts_of(detail::Storage& s) {
  static std::mutex making;
  const std::lock_guard<std::mutex> guard(making);
  if (!s.casts) s.casts = std::make_unique<detail::CastCache>();
  return *s.casts;
}

}  // namespace

Tensor cached_cast(const Tensor& x, Dtype dtype) {
  auto& source = *x.impl()->storage;
  auto& cache = casts_of(source);
  const std::lock_guard<std::mutex> guard(cache.lock);
  auto& s = slot(cache, dtype);
  const auto version = source.version.load(std::memory_order_relaxed);
  if (!s.copy || s.version != version) {
    const auto n = static_cast<std::int64_t>(source.bytes / size_of(x.dtype()));
    if (!s.copy || !s.copy->unique()) s.copy = make_ref<detail::Storage>(static_cast<std::size_t>(n) * size_of(dtype), Memory::cast_cache);
    else s.copy->version.fetch_add(1, std::memory_order_relaxed);
    const PartScope timed(Part::cast);
    kernels::convert(kernels::cpu_queue(), x.dtype(), dtype, source.data, s.copy->data, n);
    s.version = version;
  }
  return with_storage(x, s.copy, dtype);
}

std::optional<Dtype> cached_dtype(const Tensor& w) {
  auto& source = *w.impl()->storage;
  if (!source.casts) return {};
  for (const auto t : {Dtype::bf16, Dtype::f16})
    if (slot(*source.casts, t).copy) return t;
  return {};
}

Tensor begin_copy_update(const Tensor& w, Dtype dtype) {
  auto& source = *w.impl()->storage;
  if (!source.casts) return {};
  auto& s = slot(*source.casts, dtype);
  if (!s.copy) return {};
  s.copy->version.fetch_add(1, std::memory_order_relaxed);
  return with_storage(w, s.copy, dtype);
}

void mark_fresh(const Tensor& w, Dtype dtype) {
  auto& source = *w.impl()->storage;
  slot(*source.casts, dtype).version = source.version.load(std::memory_order_relaxed);
}

}  // namespace mezzo::autograd
