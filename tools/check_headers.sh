#!/bin/sh
# check_headers.sh - each public header compiles alone and without warnings, as users of a shared library see it: names that are exported carry an
# attribute then, which grammar does not allow everywhere. CXX chooses the compiler.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
for header in include/mezzo/*.h; do
  if ! printf '#include <mezzo/%s>\n' "$(basename "$header")" |
      "${CXX:-c++}" -std=c++20 -DMEZZO_SHARED -Wall -Wextra -Wpedantic -Wshadow -Werror -Iinclude -fsyntax-only -x c++ -; then
    echo "$header: does not compile alone" >&2
    bad=1
  fi
  if grep -nE '^[[:space:]]*using namespace' "$header" /dev/null; then
    echo "$header: using namespace in a public header" >&2
    bad=1
  fi
done
[ "$bad" = 0 ] && echo "check_headers: every public header compiles alone"
exit "$bad"
