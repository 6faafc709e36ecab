// command.h - what a command of the program is: it declares options, then runs.
#pragma once

#include <memory>
#include <string_view>

#include <mezzo/error.h>

namespace mezzo::cli {

class Options;
class Console;

/// A command line that cannot be carried out: exit code 2, before anything is written.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// f(), its Errors turned into UsageErrors: for checks of what the command line alone says.
template <class F> decltype(auto) checking_usage(F&& f) {
  try {
    return f();
  } catch (const UsageError&) { throw; } catch (const Error& e) {
    throw UsageError(e.what());
  }
}

enum ExitCode : int { kSuccess = 0, kFailure = 1, kUsage = 2 };

class Task {
 public:
  virtual ~Task() = default;
  virtual void declare(Options&) = 0;
  /// The exit code. Errors are thrown.
  virtual int run(Options&, Console&) = 0;
};

struct Command {
  std::string_view name, summary;
  std::unique_ptr<Task> (*make)();
};

// One file each.
extern const Command kTrain, kFinetune, kEval, kExport, kGenerate, kPlan, kDoctor, kBench, kDemo, kInspect;

}  // namespace mezzo::cli
