// onednn_library.h - what our uses of oneDNN share: when it may run, its engine, errors, and caches of primitives by shape.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <utility>

#include <oneapi/dnnl/dnnl.hpp>

#include <mezzo/dtype.h>

namespace mezzo::kernels::onednn {

/// Whether oneDNN may run here and now; call it before anything else of the library. Inside somebody's team it may not: a primitive is made
/// for a number of threads and, where it finds fewer, leaves their part of the work undone.
bool may_run();
/// Throws, naming the op, unless the status is success.
void check(const char* op, dnnl_status_t status, const char* what);
const dnnl::engine& engine();
/// f32 or bf16.
dnnl::memory::data_type type_of(Dtype);

/// A hash of numbers taken one after the other.
class Mix {
 public:
  Mix& operator()(std::int64_t v) {
    h_ = (h_ ^ static_cast<std::uint64_t>(v)) * 0x9E3779B97F4A7C15ull;
    h_ ^= h_ >> 29;
    return *this;
  }
  std::size_t value() const { return h_; }

 private:
  std::uint64_t h_ = 0;
};

/// The primitives that one thread has used last; no locks. (Compiled code is shared by oneDNN's own cache.) Value is made from a Key.
template <class Key, class Hash, class Value> class PrimitiveCache {
 public:
  PrimitiveCache() : stream_(engine()) {}

  Value& get(const Key& key) {
    if (const auto found = by_key_.find(key); found != by_key_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second);
      return found->second->second;
    }
    if (recent_.size() == kCapacity) {
      by_key_.erase(recent_.back().first);
      recent_.pop_back();
    }
    recent_.emplace_front(key, Value(key));
    by_key_.emplace(key, recent_.begin());
    return recent_.front().second;
  }
  const dnnl::stream& stream() const { return stream_; }

 private:
  static constexpr std::size_t kCapacity = 512;
  using Entries = std::list<std::pair<Key, Value>>;
  dnnl::stream stream_;
  Entries recent_;  // latest first
  std::unordered_map<Key, typename Entries::iterator, Hash> by_key_;
};

}  // namespace mezzo::kernels::onednn
