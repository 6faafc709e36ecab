// jinja_scopes.h - the variables of a rendering, by scope.
#pragma once

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace mezzo::text::jinja {

/// Sets a member, the last if it is new.
inline void set_member(Members& members, std::string_view name, Value v) {
  const auto found = std::find_if(members.begin(), members.end(), [&](const auto& m) { return m.first == name; });
  if (found != members.end()) found->second = std::move(v);
  else members.emplace_back(name, std::move(v));
}

/// The template's own variables, and those of the loops, blocks and macros that run, each in the one before.
class Scopes {
 public:
  Scopes() : scopes_(1) {}

  /// The innermost of that name: from the innermost scope to that of the macro that runs, then the template's own.
  const Value* find(std::string_view name) const noexcept {
    for (std::size_t i = scopes_.size(); i-- > base_;)
      if (const Value* v = jinja::find(scopes_[i], name)) return v;
    return jinja::find(scopes_[0], name);
  }
  void set(std::string_view name, Value v) { set_member(scopes_.back(), name, std::move(v)); }

  /// A scope inside of the others, for as long as this lives. A macro's sees none of those but the template's own.
  class Inner {
   public:
    explicit Inner(Scopes& scopes, bool macro = false) : scopes_(scopes), base_(scopes.base_) {
      if (macro) scopes.base_ = scopes.scopes_.size();
      scopes.scopes_.emplace_back();
    }
    Inner(const Inner&) = delete;
    ~Inner() {
      scopes_.scopes_.pop_back();
      scopes_.base_ = base_;
    }
    void clear() noexcept { scopes_.scopes_.back().clear(); }

   private:
    Scopes& scopes_;
    std::size_t base_;
  };

 private:
  std::vector<Members> scopes_;
  std::size_t base_ = 0;  // the first scope of the macro that runs
};

}  // namespace mezzo::text::jinja
