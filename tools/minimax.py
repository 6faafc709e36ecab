#!/usr/bin/env python3
"""Makes the polynomials of src/kernels/cpu/math-inl.h and of the attention engines: minimax in relative error (Remez), coefficients rounded one at a time.

Usage: minimax.py [name ...]     needs mpmath; prints each polynomial as C++ literals with the largest relative error.
"""
import struct
import sys

from mpmath import mp, mpf, cos, exp, findroot, log, lu_solve, matrix, pi, quad, sin, sqrt, erfc, atanh

mp.dps = 50


def remez(f, weight, powers, lo, hi, fixed):
    """Coefficients c of `powers` that minimise max |weight (f - fixed part - sum c x^p)| on [lo, hi], and that maximum."""
    n = len(powers)
    g = lambda x: f(x) - sum(c * x**p for p, c in fixed)
    nodes = [(lo + hi) / 2 - (hi - lo) / 2 * cos(pi * (2 * i + 1) / (2 * (n + 1))) for i in range(n + 1)]
    grid = [lo + (hi - lo) * (1 - cos(pi * i / mpf(60 * n))) / 2 for i in range(60 * n + 1)]
    table = [(x, g(x), weight(x)) for x in grid]
    for _ in range(30):
        a, b = matrix(n + 1, n + 1), matrix(n + 1, 1)
        for i, x in enumerate(nodes):
            for j, p in enumerate(powers):
                a[i, j] = x**p
            a[i, n] = (-1) ** i / weight(x)
            b[i] = g(x)
        s = lu_solve(a, b)
        err = [w * (y - sum(s[j] * x**p for j, p in enumerate(powers))) for x, y, w in table]
        peaks, start = [], 0  # the largest error of each run of one sign
        for i in range(1, len(err) + 1):
            if i == len(err) or (err[i] > 0) != (err[start] > 0):
                peaks.append(max(range(start, i), key=lambda k: abs(err[k])))
                start = i
        while len(peaks) > n + 1:
            peaks.pop(0 if abs(err[peaks[0]]) < abs(err[peaks[-1]]) else -1)
        worst = max(abs(e) for e in err)
        if len(peaks) < n + 1 or worst < abs(s[n]) * mpf('1.0001'):
            break
        nodes = [grid[p] for p in peaks]
    return [s[j] for j in range(n)], worst


def rounded(c, fmt):
    if fmt == 'f32':
        return mpf(struct.unpack('f', struct.pack('f', float(c)))[0])
    return mpf(float(c))


def fit(name, f, powers, lo, hi, fmt, weight=None):
    weight = weight or (lambda x: 1 / f(x))
    lo, hi, fixed, left = mpf(lo), mpf(hi), [], list(powers)
    while left:  # the rest make up for a rounding; from the top down where the odd powers alone could not (0 inside the interval)
        c, _ = remez(f, weight, left, lo, hi, fixed)
        at = -1 if lo < 0 < hi else 0
        fixed.append((left.pop(at), rounded(c[at], fmt)))
    fixed.sort()
    worst = max(abs(weight(x) * (f(x) - sum(c * x**p for p, c in fixed)))
                for x in (lo + (hi - lo) * (i + mpf('0.37')) / 2000 for i in range(2000)))
    suffix = 'f' if fmt == 'f32' else ''
    print(f'{name}: relative error 2^{float(log(worst, 2)):.1f}')
    for p, c in fixed:
        print(f'  x^{p}: {float(c).hex()}{suffix}  // {mp.nstr(c, 17)}')


def mills(t):
    """exp(t^2 / 2) (1 - Phi(t)): what is left of the normal tail without its exponential."""
    return exp(t * t / 2) * erfc(t / sqrt(2)) / 2


LN2 = log(mpf(2))
FITS = {
    # exp(r) = 1 + r + r^2 p(r), |r| <= ln 2 / 2
    'exp': lambda: fit('exp', lambda r: (exp(r) - 1 - r) / r**2 if r else mpf(1) / 2, range(5), -LN2 / 2 - mpf('1e-6'), LN2 / 2 + mpf('2e-6'), 'f32',
                       weight=lambda r: r * r / exp(r)),
    # log(1 + f) = f - f^2 / 2 + f^3 p(f), 1 + f in [sqrt(1/2), sqrt 2]
    'log': lambda: fit('log', lambda f: (log(1 + f) - f + f * f / 2) / f**3 if abs(f) > mpf('1e-12') else mpf(1) / 3, range(8), sqrt(mpf(1) / 2) - 1,
                       sqrt(mpf(2)) - 1, 'f32', weight=lambda f: f**3 / log(1 + f) if f else mpf(0)),
    # log1p(e) = 2 atanh(s) = 2 s + s^3 p(s^2), s = e / (2 + e) in [0, 1/3]; argument z = s^2
    'log1p': lambda: fit('log1p', lambda z: 2 * (atanh(sqrt(z)) - sqrt(z)) / sqrt(z)**3 if z > mpf('1e-14') else mpf(2) / 3, range(4), 0, mpf(1) / 9, 'f32',
                         weight=lambda z: z / 2),
    # exp(t^2 / 2) (1 - Phi(t)) = u p(u - 33/64), u = 1 / (1 + 0.3 t), t in [0, 14.5]; around that point Horner's scheme and rounded coefficients lose least
    'mills': lambda: fit('mills', lambda w: mills((1 / (w + mpf(33) / 64) - 1) / mpf('0.3')) / (w + mpf(33) / 64), range(10),
                         1 / (1 + mpf('0.3') * mpf('14.5')) - mpf(33) / 64, 1 - mpf(33) / 64, 'f32'),
    # Attention's 2^f = 1 + f p(f): around the nearest integer, and above the floor (src/kernels/cpu/attention_f32.cpp, attention_bf16.cpp)
    'exp2_nearest': lambda: fit('exp2_nearest', lambda f: (mpf(2)**f - 1) / f if f else LN2, range(6), mpf('-0.500001'), mpf('0.500002'), 'f32',
                                weight=lambda f: f / mpf(2)**f),
    'exp2_floor': lambda: fit('exp2_floor', lambda f: (mpf(2)**f - 1) / f if f else LN2, range(5), 0, 1, 'f32', weight=lambda f: f / mpf(2)**f),
    # In f64 lanes, for results of f32 precision. sin r = r + r^3 p(r^2), cos r = 1 - r^2 / 2 + r^4 p(r^2), |r| <= pi / 4 (a little more)
    'sin64': lambda: fit('sin64', lambda z: (sin(sqrt(z)) - sqrt(z)) / sqrt(z)**3 if z > mpf('1e-14') else -mpf(1) / 6, range(4), 0, mpf('0.62'), 'f64',
                         weight=lambda z: z),
    'cos64': lambda: fit('cos64', lambda z: (cos(sqrt(z)) - 1 + z / 2) / z**2 if z > mpf('1e-10') else mpf(1) / 24, range(4), 0, mpf('0.62'), 'f64',
                         weight=lambda z: z * z),
    # log m = 2 s + s^3 p(s^2), s = (m - 1) / (m + 1), m in [sqrt(1/2), sqrt 2]
    'log64': lambda: fit('log64', lambda z: 2 * (atanh(sqrt(z)) - sqrt(z)) / sqrt(z)**3 if z > mpf('1e-14') else mpf(2) / 3, range(5), 0, mpf('0.02944'), 'f64',
                         weight=lambda z: z / 2),
    'exp64': lambda: fit('exp64', lambda r: (exp(r) - 1 - r) / r**2 if r else mpf(1) / 2, range(7), -LN2 / 2 - mpf('1e-6'), LN2 / 2 + mpf('2e-6'), 'f64',
                         weight=lambda r: r * r / exp(r)),
}


def main():
    for name in sys.argv[1:] or FITS:
        FITS[name]()


main()
