// error.h - the one exception type a user of mezzo sees.
#pragma once

#include <stdexcept>
#include <string>

#if defined(MEZZO_SHARED) && defined(__GNUC__)
#define MEZZO_API __attribute__((visibility("default")))
#else
#define MEZZO_API
#endif

namespace mezzo {

/// A mistake in what the caller gave. what() reads "[op] given, wanted. Hint: ...";
/// for files it carries path and offset. The library never prints, exits or aborts.
class MEZZO_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace mezzo
