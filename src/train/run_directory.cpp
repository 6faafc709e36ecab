// run_directory.cpp - whether a run may write there, the lock, and the chat template that it keeps.
#include "train/run_directory.h"

#include <fmt/core.h>

#include "core/fail.h"
#include "text/chat_template.h"
#include "train/checkpoint.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;
constexpr const char* kOp = "train";

/// What a run would write into a directory; empty: none of it is there.
std::string taken_by(const fs::path& out) {
  for (const char* name : {"config.json", "metrics.jsonl", "checkpoints", "model", "report.html"})
    if (present(out / name)) return name;
  return {};
}

void require_fit(const fs::path& out, bool resume) {
  if (resume) {
    if (!present(out / "config.json"))
      fail(kOp, fmt::format("{}: no run to resume (it has no config.json)", out.native()), "without --resume a new run begins there");
  } else if (present(out)) {
    if (!fs::is_directory(out)) fail(kOp, fmt::format("{}: not a directory", out.native()), "--out names the run's directory");
    if (const std::string what = taken_by(out); !what.empty())
      fail(kOp, fmt::format("{}: already holds a run (its {} is there)", out.native(), what),
           "--resume continues it; another --out begins a new one");
  }
}

void keep_template(TrainOptions& o) {
  if (!o.tune || o.tune->chat_template.empty() || o.tune->chat_template == kTemplateCopy) return;
  io::write_file(o.out / kTemplateCopy, text::read_chat_template(o.tune->chat_template));
  o.tune->chat_template = kTemplateCopy;
}

}  // namespace

io::DirectoryLock open_run_directory(TrainOptions& o) {
  require_fit(o.out, o.resume);
  io::make_directories(o.out, kOp);
  io::DirectoryLock lock(o.out);
  io::clean_stale(o.out);
  clean_checkpoints(o.out);
  keep_template(o);
  return lock;
}

}  // namespace mezzo::train
