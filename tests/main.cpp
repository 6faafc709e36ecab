// main.cpp - doctest's main; exits 77 ("skipped") when MEZZO_ISA asks for what this CPU lacks.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include <mezzo/runtime.h>

int main(int argc, char** argv) {
  try {
    mezzo::active_isa();
  } catch (const mezzo::Error& e) {
    std::printf("skipped: %s\n", e.what());
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
