// sanitizer.h - which sanitizer this build runs under: MEZZO_ASAN and MEZZO_TSAN are 0 or 1.
#pragma once

#ifdef __has_feature  // Clang
#define MEZZO_HAS_FEATURE(x) __has_feature(x)
#else
#define MEZZO_HAS_FEATURE(x) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || MEZZO_HAS_FEATURE(address_sanitizer)
#define MEZZO_ASAN 1
#else
#define MEZZO_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || MEZZO_HAS_FEATURE(thread_sanitizer)
#define MEZZO_TSAN 1
#else
#define MEZZO_TSAN 0
#endif
