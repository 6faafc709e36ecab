// language_model.cpp - what all language models share: heads, losses, the cache of keys and values.
#include <algorithm>

#include <mezzo/autograd.h>
#include <mezzo/models.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "tensor/layout.h"

namespace mezzo::models {

// ---- the cache -----------------------------------------------------------------------------------

KvCache::KvCache(int layers, std::int64_t batch, std::int64_t kv_heads, std::int64_t capacity, std::int64_t head_dim, Dtype dtype) {
  for (int i = 0; i < layers; ++i) {
    keys_.push_back(empty({batch, kv_heads, capacity, head_dim}, {.dtype = dtype}));
    values_.push_back(empty({batch, kv_heads, capacity, head_dim}, {.dtype = dtype}));
  }
}

std::pair<Tensor, Tensor> KvCache::append(int layer, const Tensor& k, const Tensor& v) {
  const auto i = static_cast<std::size_t>(layer);
  const auto t = k.size(2);
  if (i >= keys_.size()) fail("KvCache", fmt::format("layer {} given, 0 to {} wanted", layer, static_cast<int>(keys_.size()) - 1));
  if (length_ + t > capacity()) fail("KvCache", fmt::format("{} tokens after {} given, room for {} in all", t, length_, capacity()));
  copy_(keys_[i].narrow(2, length_, t), k);
  copy_(values_[i].narrow(2, length_, t), v);
  return {keys_[i].narrow(2, 0, length_ + t), values_[i].narrow(2, 0, length_ + t)};
}

void KvCache::truncate(std::int64_t length) {
  if (length < 0 || length > length_) fail("KvCache", fmt::format("truncate({}) given, 0 to {} wanted", length, length_));
  length_ = length;
}

// ---- the model -----------------------------------------------------------------------------------

void LanguageModel::check_ids(const char* model, const Tensor& ids, const Sequence& s) const {
  if (!ids.defined() || ids.dim() != 2)
    fail(model, fmt::format("ids of shape {} given, (B, T) wanted", ids.defined() ? to_string(ids.shape()) : "undefined"));
  if (s.cache && !s.lengths.empty()) fail(model, "documents together with a cache given", "give each document a cache of its own");
  const auto before = s.cache ? s.cache->length() : 0;
  std::int64_t longest = s.lengths.empty() ? ids.size(1) : 0;
  std::int64_t sum = 0;
  for (const auto n : s.lengths) {
    if (n < 1) fail(model, fmt::format("a document of {} tokens given, 1 or more wanted", n));
    longest = std::max(longest, n);
    sum += n;
  }
  if (!s.lengths.empty() && sum != ids.size(1))
    fail(model, fmt::format("documents of {} tokens in all given for rows of {}, equal numbers wanted", sum, ids.size(1)));
  if (before + longest > context()) fail(model, fmt::format("{} tokens given, at most {} (the context) wanted", before + longest, context()));
}

Tensor LanguageModel::through_blocks(Tensor x, int count, const Sequence& s, const std::function<Tensor(const Tensor&, int)>& block) const {
  if (checkpoint_every_ == 0 || s.cache || !autograd::grad_enabled()) {
    for (int i = 0; i < count; ++i) x = block(x, i);
    return x;
  }
  // Beside a frozen embedding nothing would tell the graph that the blocks' parameters are to be reached.
  if (!x.requires_grad()) x = x.detach().requires_grad_();
  for (int first = 0; first < count; first += checkpoint_every_) {
    const int last = std::min(count, first + checkpoint_every_);
    x = autograd::checkpoint(
        [block, first, last](const std::vector<Tensor>& in) {
          Tensor y = in[0];
          for (int i = first; i < last; ++i) y = block(y, i);
          return y;
        },
        {x});
  }
  return x;
}

Tensor LanguageModel::project(const Tensor& h) const { return linear(h, head()); }

Tensor LanguageModel::forward(const Tensor& ids) { return project(hidden(ids, {})); }

Tensor LanguageModel::last_logits(const Tensor& ids, const Sequence& s) {
  const Tensor h = hidden(ids, s);
  if (s.cache) s.cache->advance(ids.size(1));
  return project(h.narrow(1, h.size(1) - 1, 1));
}

Tensor LanguageModel::loss(const Tensor& ids, const Tensor& targets, const LossOptions& o) { return loss(ids, targets, {}, o); }
Tensor LanguageModel::loss(const Tensor& ids, const Tensor& targets, const Sequence& s, const LossOptions& o) {
  return linear_cross_entropy(hidden(ids, s), head(), targets, o);
}

}  // namespace mezzo::models
