// main.cpp - the program `mezzo`: finds the command, and turns whatever it throws into one line and an exit code.
#include <malloc.h>
#include <signal.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include <mezzo/runtime.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/options.h"
#include "core/fail.h"

namespace mezzo::cli {
namespace {

const std::array<const Command*, 10>& commands() {
  static const std::array<const Command*, 10> all{&kTrain, &kFinetune, &kEval, &kGenerate, &kExport, &kPlan, &kInspect, &kDoctor, &kBench, &kDemo};
  return all;
}

std::string overview() {
  std::string text = fmt::format("mezzo {}: trains neural networks in mixed precision on CPUs\n\nusage: mezzo COMMAND [options]\n\n", version());
  for (const auto* c : commands()) text += fmt::format("  {:<10} {}\n", c->name, c->summary);
  text +=
      "\n"
      "  mezzo COMMAND --help   its options\n"
      "  mezzo --version\n"
      "\n"
      "Every command takes --json (one JSON document on stdout, everything else on stderr) and --threads N.\n"
      "Exit codes: 0 done, 1 the run failed, 2 the command line was wrong, 130 stopped by Ctrl-C (143 by SIGTERM).\n"
      "Environment: MEZZO_NUM_THREADS; MEZZO_ISA=scalar|avx2|avx512|avx512_bf16 lowers the instruction set.\n";
  return text;
}

/// Whether text that begins with "[op]" is about what the command does anyway.
bool says_it_already(std::string_view op, std::string_view command) {
  const auto of_a_run = [](std::string_view name) { return name == "train" || name == "finetune" || name == "plan"; };
  return op == command || op == "options" || (of_a_run(op) && of_a_run(command));
}

/// "[train] text" -> "text" where the program's name says it already, else "op: text"; on one line.
std::string plain(std::string what, std::string_view command) {
  if (const auto end = what.find("] "); what.starts_with('[') && end != what.npos) {
    const std::string op = what.substr(1, end - 1);
    what = says_it_already(op, command) ? what.substr(end + 2) : op + ": " + what.substr(end + 2);
  }
  for (char& c : what)
    if (c == '\n' || c == '\r') c = ' ';
  return what;
}

int complain(const std::string& who, std::string_view command, const std::string& what, int code) {
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %s\n", who.c_str(), plain(what, command).c_str());
  return code;
}

const Command& find(const std::string& given) {
  std::vector<std::string_view> names;
  for (const auto* c : commands()) {
    if (c->name == given) return *c;
    names.push_back(c->name);
  }
  const bool option = given.starts_with('-');
  if (option) names = {"--version", "--help"};
  const std::string near = near_names(given, names);
  throw UsageError(fmt::format("unknown {} `{}`; {}", option ? "option" : "command", given, near.empty() ? "`mezzo --help` lists them" : near));
}

/// Text for a person, which must arrive.
void say(const std::string& text) {
  Console console(false);
  console.say(text);
  console.finish();
}

int run(const Command& command, const std::vector<std::string>& arguments) {
  bool json = false;
  std::int64_t threads = 0;
  const auto task = command.make();
  Options options(fmt::format("mezzo {}", command.name), std::string(command.summary) + ".");
  task->declare(options);
  options.group("every command");
  options.flag("--json", json, "One JSON document on stdout, everything else on stderr");
  options.value("--threads", "N", threads, "Threads; 0: one for each physical core");
  if (options.parse(arguments) == Options::Asked::help) {
    say(options.help());
    return kSuccess;
  }
  checking_usage([] {  // what the environment says
    active_isa();
    num_threads();
  });
  constexpr std::int64_t kMostThreads = 4096;
  if (threads < 0 || threads > kMostThreads) throw UsageError(fmt::format("[options] --threads {} given, 0 to {} wanted", threads, kMostThreads));
  if (threads != 0) set_num_threads(static_cast<int>(threads));
  Console console(json);
  const int code = task->run(options, console);
  console.finish();
  return code;
}

int program(const std::vector<std::string>& arguments) {
  std::string who = "mezzo";
  std::string_view command;
  try {
    const std::string first = arguments.empty() ? "--help" : arguments.front();
    if (first == "--version") {
      say(fmt::format("mezzo {}", version()));
      return kSuccess;
    }
    if (first == "--help" || first == "-h" || (first == "help" && arguments.size() == 1)) {
      say(overview());
      return arguments.empty() ? kUsage : kSuccess;
    }
    const bool help = first == "help";
    const Command& chosen = find(help ? arguments[1] : first);
    command = chosen.name;
    who += fmt::format(" {}", command);
    return run(chosen, help ? std::vector<std::string>{"--help"} : std::vector<std::string>(arguments.begin() + 1, arguments.end()));
  } catch (const UsageError& e) { return complain(who, command, e.what(), kUsage); } catch (const Error& e) {
    return complain(who, command, e.what(), kFailure);
  } catch (const std::bad_alloc&) { return complain(who, command, "out of memory", kFailure); } catch (const std::exception& e) {
    return complain(who, command, fmt::format("a mistake of mezzo's own: {}", e.what()), kFailure);
  }
}

/// Nodes of the tape, lists of sizes and the like come from malloc, which takes some steps to find each its place. What it once took stays, and so
/// much of it as that comes to is there before the first step: later ones touch no new page.
void settle_heap() {
  constexpr std::size_t kRoom = 2 << 20, kPage = 4096;
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most glibc takes
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  char* const room = static_cast<char*>(std::malloc(kRoom));
  for (std::size_t i = 0; room && i < kRoom; i += kPage) static_cast<volatile char*>(room)[i] = 0;
  std::free(room);
}

}  // namespace
}  // namespace mezzo::cli

int main(int argc, char** argv) {
  mezzo::cli::settle_heap();
  ::signal(SIGPIPE, SIG_IGN);  // a reader that went away must not cost a run; Console notices
  mezzo::set_log_sink([](mezzo::LogLevel level, std::string_view text) {
    if (level != mezzo::LogLevel::debug) std::fprintf(stderr, "mezzo: %.*s\n", static_cast<int>(text.size()), text.data());
  });
  return mezzo::cli::program({argv + 1, argv + argc});
}
