// jinja.h - chat templates' language: an interpreter of the part of Jinja that they are written in.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace mezzo::text {

/// What a rendering may take before it is refused: templates come with model files, and nobody has read them.
struct JinjaLimits {
  std::int64_t output = 64 << 20;  ///< bytes of the result
  std::int64_t work = 256 << 20;   ///< steps, and bytes of everything computed on the way
};

/// A parsed template; rendering changes nothing in it, so any number of threads may use one.
///
/// The language is Jinja 3.1 (jinja.palletsprojects.com) as Hugging Face's transformers sets it up for chat templates: trim_blocks and
/// lstrip_blocks on, {% break %} and {% continue %}, {% generation %}, `raise_exception`, `strftime_now`, and a `tojson` that is Python's
/// json.dumps. Statements: for, if, set (blocks and attributes of a namespace too), macro at the top level, filter, raw, generation. What Jinja has
/// besides (inheritance, include, import, call, autoescape ...) is an Error that names it. Strings are sequences of code points; integers have 64
/// bits; upper and lower case are those of single code points (and SS of ß).
class JinjaTemplate {
 public:
  /// Error "[chat template] name:line: what is wrong"; `name` is a path, or says what the text is.
  explicit JinjaTemplate(std::string_view source, std::string name = "template");

  struct Span {
    std::int64_t begin, end;
  };
  struct Result {
    std::string text;              ///< UTF-8 if source and variables are
    std::vector<Span> generation;  ///< what {% generation %} blocks wrote, as offsets in text, in order
  };
  struct Options {
    std::int64_t now = 0;  ///< what strftime_now shows, in seconds since 1970, local time
    JinjaLimits limits = {};
  };
  /// `variables`: an object, each member a variable. Error with the line for what the template refuses (raise_exception), for what Python would
  /// refuse (an attribute of what is undefined, numbers added to text ...) and for a limit passed.
  Result render(const io::Json& variables, const Options& options) const;
  Result render(const io::Json& variables) const { return render(variables, Options{}); }

  /// Whether there is a {% generation %} in it.
  bool marks_generation() const noexcept;

  struct Tree;

 private:
  std::shared_ptr<const Tree> tree_;
};

}  // namespace mezzo::text
