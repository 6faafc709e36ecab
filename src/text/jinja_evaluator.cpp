// jinja_evaluator.cpp - a template rendered: expressions computed, statements run.
#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/shown.h"
#include "text/jinja.h"
#include "text/jinja_arithmetic.h"
#include "text/jinja_builtins.h"
#include "text/jinja_scopes.h"
#include "text/jinja_tree.h"

namespace mezzo::text {
namespace jinja {
namespace {

constexpr int kDeepest = 800;  // expressions and statements in each other, through macros too: a few hundred bytes of stack each

enum class Flow : std::uint8_t { on, leave, next };  // what follows a statement: the next one, nothing more in the loop, the loop's next turn

class Evaluator {
 public:
  explicit Evaluator(const JinjaTemplate::Options& options) : run_(options.limits.work, options.now), limit_(options.limits.output) {}
  Evaluator(const Evaluator&) = delete;
  ~Evaluator() {
    for (const NamespaceRef& n : namespaces_) n->members.clear();  // they may hold each other
  }

  JinjaTemplate::Result render(const Template& t, const io::Json& variables) {
    for (const auto& [name, value] : variables.items()) scopes_.set(name, from_json(value));
    run(t.body);
    return std::move(result_);
  }
  int line() const noexcept { return line_; }

 private:
  struct Deeper {
    explicit Deeper(Evaluator& e) : depth(e.depth_) {
      if (++depth > kDeepest) throw Trouble("macros too deep in each other");
    }
    Deeper(const Deeper&) = delete;
    ~Deeper() { --depth; }
    int& depth;
  };

  // ---- variables -------------------------------------------------------------------------------

  void assign(const Target& target, Value v) {
    if (target.attribute.empty()) return scopes_.set(target.name, std::move(v));
    const Value* space = scopes_.find(target.name);
    if (!space || !space->is<NamespaceRef>())
      throw Trouble(fmt::format("`{}.{}` is set, and `{}` is no namespace", target.name, target.attribute, target.name));
    set_member(space->get<NamespaceRef>()->members, target.attribute, std::move(v));
  }

  void assign(const std::vector<Target>& targets, Value v) {
    if (targets.size() == 1) return assign(targets[0], std::move(v));
    auto parts = run_.items(v);
    if (parts.size() != targets.size()) throw Trouble(fmt::format("{} values for {} names", parts.size(), targets.size()));
    for (std::size_t i = 0; i < parts.size(); ++i) assign(targets[i], std::move(parts[i]));
  }

  // ---- expressions -----------------------------------------------------------------------------

  Value value(const Expr& e) {
    const Deeper deeper(*this);
    run_.charge(1);
    line_ = e.line;
    switch (e.kind) {
      case Expr::Kind::constant: return e.constant;
      case Expr::Kind::name: return name(e);
      case Expr::Kind::list: return make_list(parts(e));
      case Expr::Kind::tuple: return make_list(parts(e), List::Kind::tuple);
      case Expr::Kind::dict: return dict(e);
      case Expr::Kind::attribute: return member(e);
      case Expr::Kind::item: return item_of(e);
      case Expr::Kind::slice: return slice_of(e);
      case Expr::Kind::call: return called(e);
      case Expr::Kind::filter: return apply_filter_to(e, value(*e.parts[0]));
      case Expr::Kind::test: return tested(e);
      case Expr::Kind::negative: return negated(value(*e.parts[0]));
      case Expr::Kind::positive: return arithmetic(run_, Operator::add, std::int64_t{0}, value(*e.parts[0]));
      case Expr::Kind::inverse: return !truth(value(*e.parts[0]));
      case Expr::Kind::binary: return binary(e);
      case Expr::Kind::compare: return compared(e);
      case Expr::Kind::both: return shortened(e, false);
      case Expr::Kind::either: return shortened(e, true);
      case Expr::Kind::concat: return concatenated(e);
      case Expr::Kind::conditional: break;
    }
    const std::size_t which = truth(value(*e.parts[0])) ? 1 : 2;
    return e.parts[which] ? value(*e.parts[which]) : Value::undefined("a conditional expression without else");
  }

  std::vector<Value> parts(const Expr& e) {
    std::vector<Value> out;
    out.reserve(e.parts.size());
    for (const ExprPtr& part : e.parts) out.push_back(value(*part));
    run_.charge(static_cast<std::int64_t>(out.size() * sizeof(Value)));
    return out;
  }

  Value name(const Expr& e) const {
    const Value* v = scopes_.find(e.text);
    return v ? *v : find_function(e.text);
  }

  Value dict(const Expr& e) {
    const auto all = parts(e);
    Members members;
    for (std::size_t i = 0; i < all.size(); i += 2) {
      if (!all[i].text()) throw Trouble(fmt::format("{} as a key is not supported, only strings are", kind_name(all[i])));
      run_.charge(static_cast<std::int64_t>(all[i].text()->size()));
      set_member(members, *all[i].text(), all[i + 1]);
    }
    return make_dict(std::move(members));
  }

  Value member(const Expr& e) {
    const Value x = value(*e.parts[0]);
    line_ = e.line;
    return attribute(x, e.text);
  }

  Value item_of(const Expr& e) {
    const Value x = value(*e.parts[0]), key = value(*e.parts[1]);
    line_ = e.line;
    return item(run_, x, key);
  }

  Value slice_of(const Expr& e) {
    const Value x = value(*e.parts[0]);
    std::optional<std::int64_t> bounds[3];
    for (std::size_t i = 0; i < 3; ++i)
      if (e.parts[i + 1])
        if (const Value bound = value(*e.parts[i + 1]); !bound.is<None>()) bounds[i] = as_whole(bound);
    line_ = e.line;
    return sliced(run_, x, bounds[0], bounds[1], bounds[2]);
  }

  Arguments arguments(const Expr& e) {
    Arguments out;
    for (const Argument& a : e.arguments) {
      if (a.name.empty()) out.positional.push_back(value(*a.value));
      else out.named.emplace_back(a.name, value(*a.value));
    }
    run_.charge(static_cast<std::int64_t>(e.arguments.size() * sizeof(Value)));
    line_ = e.line;
    return out;
  }

  Value called(const Expr& e) {
    const Expr& callee = *e.parts[0];
    if (callee.kind == Expr::Kind::attribute) {
      const Value x = value(*callee.parts[0]);
      if (x.is<LoopRef>()) return loop_method(*x.get<LoopRef>(), callee.text, arguments(e));
      const Value* own = x.is<NamespaceRef>() ? find(x.get<NamespaceRef>()->members, callee.text) : nullptr;
      if (!own || !own->is<const Macro*>()) return call_method(run_, x, callee.text, arguments(e));
      return macro(*own->get<const Macro*>(), arguments(e));
    }
    const Value f = value(callee);
    if (f.is<const Macro*>()) return macro(*f.get<const Macro*>(), arguments(e));
    if (f.is<Undefined>()) fail_undefined(f);
    if (!f.is<Callable>()) throw Trouble(fmt::format("{} cannot be called", kind_name(f)));
    Value out = call_function(run_, f.get<Callable>().name, arguments(e));
    if (out.is<NamespaceRef>()) namespaces_.push_back(out.get<NamespaceRef>());
    return out;
  }

  Value loop_method(const Loop& loop, std::string_view method, const Arguments& a) const {
    if (method != "cycle") throw Trouble(fmt::format("`loop.{}()` is not supported", io::shown(method)));
    if (a.positional.empty()) throw Trouble("loop.cycle() takes what to give in turn");
    return a.positional[loop.index % a.positional.size()];
  }

  Value macro(const Macro& m, Arguments a) {
    const Stmt& s = *m.statement;
    if (a.positional.size() > s.parameters.size())
      throw Trouble(fmt::format("macro `{}` was given {} arguments, at most {} were expected", s.text, a.positional.size(), s.parameters.size()));
    const Scopes::Inner scope(scopes_, true);
    std::size_t used = 0;
    for (std::size_t i = 0; i < s.parameters.size(); ++i) {
      const Parameter& p = s.parameters[i];
      const Value* named = find(a.named, p.name);
      used += named != nullptr;
      if (named && i < a.positional.size()) throw Trouble(fmt::format("macro `{}` was given `{}` twice", s.text, p.name));
      Value v = named ? *named : i < a.positional.size() ? a.positional[i] : p.otherwise ? value(*p.otherwise) : Value::undefined(p.name);
      scopes_.set(p.name, std::move(v));
    }
    if (used != a.named.size()) throw Trouble(fmt::format("macro `{}` was given an argument that it has no name for", s.text));
    std::string text;
    buffered(s.body, text);
    return text;
  }

  Value apply_filter_to(const Expr& e, const Value& x) {
    const Arguments a = arguments(e);
    return apply_filter(run_, e.text, x, a);
  }

  Value tested(const Expr& e) {
    const Value x = value(*e.parts[0]);
    return apply_test(run_, e.text, x, arguments(e));
  }

  Value binary(const Expr& e) {
    const Value a = value(*e.parts[0]), b = value(*e.parts[1]);
    line_ = e.line;
    return arithmetic(run_, e.operators[0], a, b);
  }

  Value compared(const Expr& e) {
    Value left = value(*e.parts[0]);
    for (std::size_t i = 0; i < e.operators.size(); ++i) {
      Value right = value(*e.parts[i + 1]);
      line_ = e.line;
      if (!holds(run_, e.operators[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  Value shortened(const Expr& e, bool ends) {
    Value left = value(*e.parts[0]);
    return truth(left) == ends ? left : value(*e.parts[1]);
  }

  Value concatenated(const Expr& e) {
    std::string out;
    for (const ExprPtr& part : e.parts) out += run_.text(value(*part));
    return out;
  }

  // ---- statements ------------------------------------------------------------------------------

  Flow run(const Block& block) {
    for (const Stmt& s : block)
      if (const Flow flow = run(s); flow != Flow::on) return flow;
    return Flow::on;
  }

  Flow run(const Stmt& s) {
    const Deeper deeper(*this);
    run_.charge(1);
    line_ = s.line;
    switch (s.kind) {
      case Stmt::Kind::data: write(s.text); break;
      case Stmt::Kind::output: write(run_.text(value(*s.value))); break;
      case Stmt::Kind::conditional:
        for (const Branch& b : s.branches)
          if (truth(value(*b.condition))) return run(b.body);
        return run(s.otherwise);
      case Stmt::Kind::loop: return loop(s);
      case Stmt::Kind::set: assign(s.targets, value(*s.value)); break;
      case Stmt::Kind::set_block:
      case Stmt::Kind::filter: return block_of_text(s);
      case Stmt::Kind::macro: scopes_.set(s.text, &macros_.emplace_back(Macro{&s})); break;
      case Stmt::Kind::generation: generation(s); break;
      case Stmt::Kind::leave: return Flow::leave;
      case Stmt::Kind::next: return Flow::next;
    }
    return Flow::on;
  }

  void write(std::string_view text) {
    run_.charge(static_cast<std::int64_t>(text.size()));
    *out_ += text;
    if (static_cast<std::int64_t>(out_->size()) > limit_) throw Trouble(fmt::format("more than {} bytes of text", limit_));
  }

  Flow loop(const Stmt& s) {
    auto all = run_.items(value(*s.value));
    Scopes::Inner scope(scopes_);
    if (s.condition) {
      std::erase_if(all, [&](const Value& v) {
        scope.clear();
        assign(s.targets, v);
        return !truth(value(*s.condition));
      });
      scope.clear();
    }
    if (all.empty()) return run(s.otherwise);
    const auto state = std::make_shared<Loop>();
    for (const Value& v : all) state->extent.add(v);
    state->items = std::move(all);
    for (Flow flow = Flow::on; state->index < state->items.size() && flow != Flow::leave; ++state->index) {
      scope.clear();
      assign(s.targets, state->items[state->index]);
      scopes_.set("loop", LoopRef(state));
      flow = run(s.body);
    }
    return Flow::on;
  }

  /// Runs a block in the scope that is there, writing into `text`.
  Flow buffered(const Block& body, std::string& text) {
    std::string* const out = std::exchange(out_, &text);
    const Flow flow = run(body);
    out_ = out;
    return flow;
  }

  /// {% set x %} and {% filter f %}.
  Flow block_of_text(const Stmt& s) {
    std::string text;
    Flow flow = Flow::on;
    {
      const Scopes::Inner scope(scopes_);
      flow = buffered(s.body, text);
    }
    if (flow != Flow::on) return flow;
    Value v = std::move(text);
    if (s.value) v = filtered(*s.value, std::move(v));
    if (s.kind == Stmt::Kind::filter) write(run_.text(v));
    else assign(s.targets, std::move(v));
    return Flow::on;
  }

  /// A chain of filters whose first has a block's text for its value.
  Value filtered(const Expr& e, Value text) {
    const Deeper deeper(*this);
    return apply_filter_to(e, e.parts[0] ? filtered(*e.parts[0], std::move(text)) : std::move(text));
  }

  void generation(const Stmt& s) {
    const auto begin = static_cast<std::int64_t>(out_->size());
    const Scopes::Inner scope(scopes_);
    run(s.body);
    result_.generation.push_back({begin, static_cast<std::int64_t>(out_->size())});
  }

  Run run_;
  std::int64_t limit_;
  JinjaTemplate::Result result_;
  std::string* out_ = &result_.text;
  Scopes scopes_;
  std::vector<NamespaceRef> namespaces_;
  std::deque<Macro> macros_;
  int line_ = 1, depth_ = 0;
};

}  // namespace
}  // namespace jinja

JinjaTemplate::JinjaTemplate(std::string_view source, std::string name) {
  auto tree = std::make_shared<Tree>();
  tree->name = std::move(name);
  try {
    tree->parsed = jinja::parse(jinja::tokenize(source));
  } catch (const jinja::SyntaxTrouble& e) { fail("chat template", fmt::format("{}:{}: {}", tree->name, e.line, e.what())); }
  tree_ = std::move(tree);
}

JinjaTemplate::Result JinjaTemplate::render(const io::Json& variables, const Options& options) const {
  jinja::Evaluator evaluator(options);
  try {
    return evaluator.render(tree_->parsed, variables);
  } catch (const jinja::Trouble& e) { fail("chat template", fmt::format("{}:{}: {}", tree_->name, evaluator.line(), e.what())); }
}

bool JinjaTemplate::marks_generation() const noexcept { return tree_->parsed.marks_generation; }

}  // namespace mezzo::text
