// tensorboard_sample.cpp - writes a run that was interrupted and resumed, for tensorboard_reads.py.
#include <cstdio>

#include "io/tensorboard.h"

using namespace mezzo::io;

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: tensorboard_sample DIRECTORY\n"), 2;
  const auto step = [](EventWriter& writer, int i, double loss) {
    const Scalar scalars[] = {{"train/loss", loss}, {"train/scale", 65536.0}};
    writer.scalars(i, 1.7e9 + i, scalars);
    writer.histogram(i, 1.7e9 + i, "grad", {-1.0, 1.5, 6, 2.0 * i, 4.5, {-0.5, 0.0, 2.0}, {1, 2, 3}});
  };
  {
    EventWriter writer(argv[1], 1.7e9);
    for (int i = 0; i < 30; ++i) step(writer, i, 4.0 - 0.125 * i);
  }
  EventWriter resumed(argv[1], 1.7e9 + 100, 20);  // the checkpoint was at 20: steps 20 to 29 run again
  for (int i = 20; i < 40; ++i) step(resumed, i, 100.0 + i);
}
