// analytic.h - what lets one formula serve float, double and complex<double> (whose imaginary part carries a derivative).
#pragma once

#include <complex>

namespace mezzo::kernels::ref {

/// The part that comparisons look at: a maximum that is only subtracted for safety must not enter the derivative.
inline float real_part(float x) { return x; }
inline double real_part(double x) { return x; }
inline double real_part(const std::complex<double>& x) { return x.real(); }

}  // namespace mezzo::kernels::ref
