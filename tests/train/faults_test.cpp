// faults_test.cpp - power cuts, full and read-only disks, directories that vanish, a clock that is set back, flipped bits.
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cmath>

#include <doctest/doctest.h>

#include <mezzo/io.h>

#include "io/file.h"
#include "io/gguf.h"
#include "models/export.h"
#include "train/calls.h"
#include "train/checkpoint.h"
#include "train/run_model.h"
#include "train/support.h"

namespace mezzo::test {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

train::TrainOptions often(const TempDir& dir, std::string_view out) {
  auto o = small_run(dir, out, "fp16-master");
  o.steps = 12;
  o.checkpoint_steps = 2;
  return o;
}

std::vector<std::string> litter(const fs::path& run) {
  std::vector<std::string> found;
  for (const auto& e : fs::recursive_directory_iterator(run))
    if (const auto name = e.path().filename().native(); name.starts_with(".tmp-") || name.starts_with(".removed-")) found.push_back(name);
  return found;
}

constexpr uid_t kNobody = 65534;

/// f() in a process that permissions hold for: of root they do not.
template <class F> int as_nobody(F&& f) {
  return in_child([&] { return ::geteuid() == 0 && ::setresuid(kNobody, kNobody, kNobody) != 0 ? 112 : f(); });
}

/// A directory that anybody may write to.
void open_to_all(const fs::path& p) { fs::permissions(p, fs::perms::all); }

}  // namespace

// ---- a power cut ---------------------------------------------------------------------------------

TEST_CASE("the recorder sees what is wrong") {
  const TempDir dir;
  const auto write = [&](const char* name) { spit(dir / name, "x"); };
  {
    const CallRecorder calls(dir.path());
    write("a");
    fs::rename(dir / "a", dir / "b");
    CHECK(calls.calls() == Strings{"rename a -> b"});
    CHECK(calls.wrong() == Strings{"b: renamed before a was synced", "b (rename) is not durable at the end"});
  }
  {
    const CallRecorder calls(dir.path());
    io::AppendFile file(dir / "c");  // syncs the directory that shows it
    file.append("1");
    file.sync();
    file.append("2");
    file.flush();
    fs::rename(dir / "c", dir / "d");
    fs::create_directory(dir / "e");
    io::sync_directory(dir.path());
    CHECK(calls.wrong() == Strings{"d: renamed although c changed since it was synced"});
  }
  {
    const CallRecorder calls(dir.path());
    io::AppendFile(dir / "f").sync();
    io::AppendFile(dir / "g").sync();
    fs::rename(dir / "f", dir / "h");
    fs::rename(dir / "g", dir / "i");
    io::sync_directory(dir.path());
    CHECK(calls.wrong() == Strings{"i: renamed before h (rename) was durable"});
  }
}

TEST_CASE("files and directories reach the disk before their names do, and those before the caller goes on") {
  const TempDir dir;
  {
    const CallRecorder calls(dir.path());
    io::write_file(dir / "f", "x");
    io::write_file(dir / "f", "y");
    CHECK(calls.calls() == Strings{"fsync .tmp-f", "rename .tmp-f -> f", "fsync .", "fsync .tmp-f", "rename .tmp-f -> f", "fsync ."});
    CHECK(calls.wrong().empty());
  }
  for (int time = 0; time < 2; ++time) {  // new, and in place of another
    const CallRecorder calls(dir.path());
    io::AtomicDirectory directory(dir / "d");
    spit(directory.path() / "sub/part", "x");
    directory.commit();
    CHECK(calls.wrong() == Strings{});
    CHECK(calls.calls().back() == "fsync .");
  }
  {
    const CallRecorder calls(dir.path());
    io::make_directories(dir / "x/y", "test");
    CHECK(calls.calls() == Strings{"mkdir x", "fsync .", "mkdir x/y", "fsync x"});
    CHECK(calls.wrong().empty());
  }
}

TEST_CASE("a whole run, its resumption and its going back: at no moment would a power cut leave a name without what it stands for") {
  const TempDir dir;
  write_small_text(dir);
  auto o = often(dir, "deep/run");
  o.keep = 2;
  o.inspect = 4;
  {
    const CallRecorder calls(dir.path());
    train::Trainer(o).run({}, [n = 0]() mutable { return ++n == 7; });
    o.resume = true;
    run(o);
    CHECK(calls.wrong() == Strings{});
    const auto& all = calls.calls();
    const auto at = [&](const char* call) {
      const auto it = std::find(all.begin(), all.end(), call);
      CHECK_MESSAGE(it != all.end(), call);
      return it - all.begin();
    };
    // The lines of the steps up to a checkpoint are there whenever it is.
    CHECK(at("fsync deep/run/metrics.jsonl") < at("rename deep/run/checkpoints/.tmp-step-2 -> deep/run/checkpoints/step-2"));
    CHECK(at("mkdir deep/run") < at("fsync deep"));
    CHECK(at("rename deep/run/.tmp-model -> deep/run/model") > 0);
  }
  auto back = small_run(dir, "back");
  back.lr = 1e30;
  back.on_divergence = train::OnDivergence::fallback;
  back.fallbacks = {"lr=1e-33"};
  back.checkpoint_steps = 1;
  const CallRecorder calls(dir.path());
  CHECK(run(back).rollbacks == 1);
  CHECK(calls.wrong() == Strings{});
}

// ---- disks ---------------------------------------------------------------------------------------

TEST_CASE("a disk that is full: a line that says so, whole checkpoints before it, and the run goes on when there is room") {
  const TempDir dir;
  write_small_text(dir);
  const auto straight = often(dir, "straight");
  run(straight);
  fs::create_directory(dir / "small");
  const int status = in_child([&] {
    const auto size = [&](const char* data, unsigned long flags) { return ::mount("none", (dir / "small").c_str(), "tmpfs", flags, data); };
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 || size("size=1600k", 0) != 0) return 77;
    auto o = straight;
    o.out = dir / "small/run";
    o.keep = 0;
    const std::string error = error_of([&] { run(o); });
    if (!contains(error, "no space left on its file system") || !contains(error, "small/run/checkpoints/")) return 1;
    const auto steps = train::checkpoint_steps(o.out);
    if (steps.empty() || steps.back() >= 12 || !litter(o.out).empty()) return 2;
    for (const auto s : steps)
      if (!train::is_whole(train::checkpoint_path(o.out, s))) return 3;
    if (size("size=16m", MS_REMOUNT) != 0) return 4;
    o.resume = true;
    run(o);
    return metrics_of(o.out) == metrics_of(straight.out) ? 0 : 5;
  });
  if (exited_with(status, 77)) {
    MESSAGE("not run: this process may not mount a file system");
    return;
  }
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a directory that may not be written to: refused at the start; while it runs, the end, and it goes on afterwards") {
  const TempDir dir;
  open_to_all(dir.path());
  write_small_text(dir);
  const auto straight = often(dir, "straight");
  run(straight);
  fs::create_directory(dir / "closed");
  fs::permissions(dir / "closed", fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read | fs::perms::others_exec);
  const int status = as_nobody([&] {
    auto o = straight;
    o.out = dir / "closed/run";
    if (error_of([&] { train::Trainer t(o); }) != "[train] " + o.out.native() + ": Permission denied.") return 1;
    o.out = dir / "run";
    const auto close = [&](const train::Progress& p) {
      if (p.step == 5) fs::permissions(o.out / "checkpoints", fs::perms::owner_read | fs::perms::owner_exec);
    };
    const std::string error = error_of([&] { train::Trainer(o).run(close); });
    if (error != "[create] " + (o.out / "checkpoints/step-6").native() + ": Permission denied.") return 2;
    open_to_all(o.out / "checkpoints");
    if (train::checkpoint_steps(o.out) != std::vector<std::int64_t>{2, 4}) return 3;
    o.resume = true;
    run(o);
    return metrics_of(o.out) == metrics_of(straight.out) ? 0 : 4;
  });
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a directory that vanishes, or goes elsewhere, while the run trains in it: the end at the next step; nothing is made in its place") {
  const TempDir dir;
  write_small_text(dir);
  const auto straight = often(dir, "straight");
  run(straight);
  auto o = straight;
  o.out = dir / "run";
  const auto at_step_5 = [&](auto&& what) {
    return error_of([&] {
      train::Trainer(o).run([&](const train::Progress& p) {
        if (p.step == 5) what();
      });
    });
  };
  const std::string wanted = "[lock] " + o.out.native() + ": this is no longer the directory that the run was writing to";
  CHECK(contains(at_step_5([&] { fs::remove_all(o.out); }), wanted));
  CHECK_FALSE(fs::exists(o.out));

  CHECK(contains(at_step_5([&] { fs::rename(o.out, dir / "moved"); }), wanted));
  CHECK_FALSE(fs::exists(o.out));
  o.out = dir / "moved";
  o.resume = true;
  run(o);
  CHECK((metrics_of(o.out) == metrics_of(straight.out)));
}

// ---- a clock that is set back --------------------------------------------------------------------

TEST_CASE("a time of day that goes a day back whenever it is looked at changes nothing that a run decides or shows") {
  const TempDir dir;
  write_small_text(dir);
  const auto straight = often(dir, "straight");
  run(straight);
  auto o = straight;
  o.out = dir / "back";
  std::string last_events;
  {
    const BackwardClock clock(86400);
    double eta = 1e9;
    const auto see = [&](const train::Progress& p) {
      CHECK(p.eta_seconds >= 0);
      CHECK(p.step_ms >= 0);
      CHECK(p.tokens_per_second > 0);
      eta = p.eta_seconds;
    };
    train::Trainer(o).run(see, [n = 0]() mutable { return ++n == 7; });
    const auto newest = [&] {
      std::string name;
      for (const auto& e : fs::directory_iterator(o.out))
        if (contains(e.path().filename().native(), "tfevents")) name = std::max(name, e.path().filename().native());
      return name;
    };
    const std::string first = newest();
    o.resume = true;
    train::Trainer(o).run(see);
    CHECK(newest() >= first);  // TensorBoard reads them in this order
    CHECK(eta == 0);
    CHECK(clock.looks() > 10);
  }
  CHECK((metrics_of(o.out) == metrics_of(straight.out)));
  for (const char* file : {"weights.safetensors", "optimizer.safetensors"})
    CHECK(slurp(train::checkpoint_path(o.out, 12) / file) == slurp(train::checkpoint_path(straight.out, 12) / file));
  CHECK(train::checkpoint_steps(o.out) == train::checkpoint_steps(straight.out));
}

// ---- flipped bits --------------------------------------------------------------------------------

TEST_CASE("one flipped bit, anywhere in a checkpoint or in a model file of ours: noticed, or of no consequence") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run", "bf16-master");
  o.model = "gpt:layers=1,heads=2,width=16";
  run(o);
  Generator random(11);
  int noticed = 0, harmless = 0;
  /// Flips of random bits, and of the first bytes' and last; `notices` says whether what reads the file throws.
  const auto flip_in = [&](const fs::path& path, int times, auto&& notices) {
    const std::string good = slurp(path);
    for (int i = 0; i < times; ++i) {
      std::string bad = good;
      const std::size_t bits = bad.size() * 8;
      const std::size_t bit = i < 64 ? static_cast<std::size_t>(i) : i == 64 ? bits - 1 : random.below(static_cast<std::uint32_t>(bits));
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
      spit(path, bad);
      CAPTURE(path.filename().native());
      CAPTURE(bit);
      if (notices(bit / 8, good)) ++noticed;
      else ++harmless;
    }
    spit(path, good);
  };

  const fs::path checkpoint = train::checkpoint_path(o.out, o.steps);
  for (const char* file : {"weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"})
    flip_in(checkpoint / file, 200, [&](std::size_t, const std::string&) {
      const bool seen = !train::is_whole(checkpoint);
      CHECK(seen);
      return seen;
    });

  // A file that carries a checksum of itself: only a flip in the entry's own name can hide it, and then nothing else is altered.
  const auto in_key = [](std::size_t byte, const std::string& good) {
    const auto key = good.find("mezzo.xxh3");
    REQUIRE(key != good.npos);
    return byte + 16 >= key && byte < key + 24;
  };
  const auto model = train::load_run_model(o.out);
  models::save_gguf(*model.model, dir / "model.gguf", {.tokenizer = model.tokenizer.get()});
  const fs::path safetensors = o.out / "model/model.safetensors";
  flip_in(safetensors, 600, [&](std::size_t byte, const std::string& good) {
    const bool seen = error_of([&] { load(safetensors); }) != "no error";
    CHECK((seen || in_key(byte, good)));
    return seen;
  });
  flip_in(dir / "model.gguf", 600, [&](std::size_t byte, const std::string& good) {
    const bool seen = error_of([&] { io::GgufFile file(dir / "model.gguf"); }) != "no error";
    CHECK((seen || in_key(byte, good)));
    return seen;
  });
  MESSAGE(noticed << " flips noticed, " << harmless << " of no consequence");
  CHECK(noticed > 1900);
}

}  // namespace mezzo::test
