// impl.h - what a Tensor points at: storage, layout, and its place in the graph.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include <mezzo/tensor.h>
#include "core/allocator.h"
#include "core/ref.h"

namespace mezzo {

namespace detail {

struct Storage;

/// What the graph is made of, as far as this floor knows; autograd/node.h has the rest.
class GraphNode : public RefCounted {
 protected:
  ~GraphNode() = default;
};
void destroy(GraphNode*) noexcept;  // in autograd: a loop, however long the chain
void destroy(TensorImpl*) noexcept;

/// The 16-bit copies of a parameter's storage, one slot per 16-bit dtype; they die with it. See autograd/cast_cache.h.
struct CastCache {
  struct Slot {
    Ref<Storage> copy;
    std::uint64_t version = 0;  // of the source when the copy was made
  };
  std::mutex lock;
  std::array<Slot, 2> slots;  // f16, bf16
};

/// One block of memory, shared by views. `version` rises with every in-place change.
struct Storage final : RefCounted {
  Storage(std::size_t bytes, Memory category) : data(allocate(bytes, category)), bytes(bytes), category(category) {}
  ~Storage() { deallocate(data, bytes, category); }
  void relabel(Memory to) {
    mezzo::relabel(bytes, category, to);
    category = to;
  }

  void* data;
  std::size_t bytes;
  Memory category;
  std::atomic<std::uint64_t> version{0};
  bool parameter = false;  // a module's parameter, frozen or not: its casts are cached
  bool buffer = false;     // a module's buffer: a step that is not applied leaves it as it was
  std::unique_ptr<CastCache> casts;
};

/// Where a gradient goes: output `index` of `node`, or the leaf itself. Neither: nowhere.
struct Edge {
  Ref<GraphNode> node;
  Ref<TensorImpl> leaf;
  int index = 0;
  explicit operator bool() const { return static_cast<bool>(node) || static_cast<bool>(leaf); }
};

struct HookList {
  struct Hook {
    int id;
    std::function<Tensor(const Tensor&)> call;
  };
  std::vector<Hook> hooks;
  int next_id = 0;
};

/// What only some tensors have; made on demand.
struct Extra {
  std::string name;
  Tensor grad;  // of a leaf
  std::shared_ptr<HookList> hooks;
  bool exempt = false;       // stays f32 in every recipe but pure: norm weights, biases, adapters
  bool kept = false;         // Module::keep() chose its dtype: no recipe and no to() changes it
  bool grad_in_f32 = false;  // a 16-bit leaf that several contributions will reach before the step
};

using Strides = std::array<std::int64_t, Shape::kMax>;

struct TensorImpl final : RefCounted {
  Ref<Storage> storage;
  std::int64_t offset = 0;  // elements
  Shape shape;
  Strides strides{};  // elements
  Dtype dtype = Dtype::f32;
  bool requires_grad = false;
  bool is_view = false;  // of another tensor's elements
  bool contiguous = true;
  Edge edge;  // of a non-leaf, or of an alias of a leaf; empty for a leaf
  std::unique_ptr<Extra> extra;

  Extra& more() {
    if (!extra) extra = std::make_unique<Extra>();
    return *extra;
  }
  char* bytes() const { return static_cast<char*>(storage->data) + offset * static_cast<std::int64_t>(size_of(dtype)); }
};
}  // namespace detail

// ---- for the floors above ----------------------------------------------------------------------

/// Contiguous, undefined contents, outside the graph.
Tensor make_tensor(const Shape&, Dtype);
/// A view of t's storage with another layout (and no place in the graph).
Tensor make_view(const Tensor& t, const Shape&, const detail::Strides&, std::int64_t offset);
/// A handle on t's elements outside the graph; keeps nothing but storage and layout.
Tensor alias_of(const Tensor& t);
/// A tensor over storage `s` (of dtype) with t's layout.
Tensor with_storage(const Tensor& t, Ref<detail::Storage> s, Dtype);

detail::Strides contiguous_strides(const Shape&);
bool strides_are_contiguous(const Shape&, const detail::Strides&);

inline const void* data(const Tensor& t) { return t.impl()->bytes(); }
inline void* mutable_data(const Tensor& t) { return t.impl()->bytes(); }  // the caller bumps the version where others may have saved t
inline void bump_version(const Tensor& t) { t.impl()->storage->version.fetch_add(1, std::memory_order_relaxed); }
/// No other handle sees these elements: they may be overwritten.
bool exclusively_owned(const Tensor& t);
/// dim in [-n, n) to [0, n); Error otherwise.
int wrap_dim(const char* op, int dim, int n);
void require_defined(const char* op, const Tensor& t, const char* what);

}  // namespace mezzo
