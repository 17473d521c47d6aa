"""Owns the numbers of the two 8-bit maps: writes libadamw/codebook.h. `--check` fails if the file is stale.

A map is piecewise linear in its index ("decades" of 2^i codes over [10^(i-n), 10^(i-n+1)]), so both directions are one
fused multiply-add with coefficients looked up in 8-entry tables. This script derives those tables exactly (fractions),
rounds each number to float32 once, and evaluates them as the library does to list the 256 values and the 255 midpoints.
"""

import math
import struct
import sys
from fractions import Fraction
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "libadamw" / "codebook.h"


def f32(x):
    """x rounded to float32, as an exact fraction."""
    return Fraction(struct.unpack("f", struct.pack("f", float(x)))[0])


def bits(x):
    return struct.unpack("I", struct.pack("f", float(x)))[0]


def from_bits(i):
    return Fraction(struct.unpack("f", struct.pack("I", i))[0])


THIRD = f32(Fraction(1, 3))


class Map:
    """`decades` of (first k, number of codes n, scale): value(first + j) = scale * (0.1 + 0.9 * (j + 1/2) / n)."""

    def __init__(self, name, decades, top):
        self.name, self.decades, self.top = name, decades, top  # top: the k whose value is 1
        self.exact = {0: Fraction(0), top: Fraction(1)}
        for first, n, scale in decades:
            for j in range(n):
                self.exact[first + j] = scale * (Fraction(1, 10) + Fraction(9, 10) * (j + Fraction(1, 2)) / n)

    @staticmethod
    def line(x0, y0, x1, y1):
        """Slope and offset of the line through two points; in the middle the offset corrects the slope's rounding."""
        slope = f32((y1 - y0) / (x1 - x0))
        return slope, f32((y0 + y1) / 2 - slope * (x0 + x1) / 2)

    def decode_tables(self, entry, special):
        """Index 0..7 -> value = fma(k', slope, offset); entry(i) = (index, k' of the decade's first code)."""
        slope, offset = [None] * 8, [None] * 8
        for i, (first, n, scale) in enumerate(self.decades):
            index, k = entry(i, first)
            values = [self.exact[first], self.exact[first] + scale * Fraction(9, 10)]
            slope[index], offset[index] = self.line(k, values[0], k + n, values[1])
        index, slope[index], offset[index] = special
        return slope, offset

    def encode_tables(self, shift):
        """Zones 0..6 are the decades with the gap above each, zone 7 the gap below 1.

        line = slope * a + offset is the position within the decade. The slope of every gap is a third of its
        decade's, so the gap's line is line / 3 + gap_offset, and the lower of the two is the position, less `shift`.
        """
        slopes, offsets, gaps = [], [], []
        for first, n, scale in self.decades:
            lo = self.exact[first]
            slope, offset = self.line(lo, first - shift, lo + scale * Fraction(9, 10), first + n - shift)
            if n == 1:  # a decade of one code has no line of its own: this one leads to zero
                offset = -shift
            last = first + n - 1
            crossing = slope * self.exact[last] + offset
            slopes.append(slope)
            offsets.append(offset)
            gaps.append(f32(last - shift - crossing * THIRD))
        slope, offset = self.line(self.exact[self.top - 1], self.top - 1 - shift, Fraction(1), self.top - shift)
        starts = [f32(self.exact[first]) for first, _, _ in self.decades[1:]] + [f32(self.exact[self.top - 1])]
        return [*starts, Fraction(2)], [*slopes, slope], [*offsets, offset], [*gaps, Fraction(512)]

    def zone_estimate(self, starts):
        """base, factor with (max(bits(a) >> 16, base) - base) * factor >> 16 in {zone - 1, zone}."""
        upper = [bits(s) >> 16 for s in starts[:7]]
        factor = round(Fraction(6 << 16, upper[6] - upper[0]))
        base = upper[0] - (1 << 15) // factor
        for z, start in enumerate(upper, 1):
            assert (start - base) * factor >> 16 == z - 1, (self.name, z)
            assert (start + 1 - base) * factor >> 16 == z - 1, (self.name, z)
        assert ((bits(1.0) >> 16) - base) * factor >> 16 <= 7
        return base, factor


def position(a, m):
    """The library's code_position(a) in exact arithmetic with the same roundings."""
    z = sum(a >= s for s in m.starts)
    line = f32(a * m.slopes[z] + m.offsets[z])
    return f32(min(line, f32(line * THIRD + m.gaps[z])) + m.shift)


def nearest(a, m):
    """Position rounded to the nearest code, ties to the parity that the library's added constant leaves even."""
    k = position(a, m)
    floor = math.floor(k)
    rest = k - floor
    return floor + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and (floor + m.parity) % 2 == 1))


def midpoint(k, m, values):
    """The smallest float a in [0, 1] that is rounded to k or above."""
    lo, hi = bits(values[k - 1]), bits(values[k])
    while lo + 1 < hi:
        mid = (lo + hi) // 2
        lo, hi = (lo, mid) if nearest(from_bits(mid), m) >= k else (mid, hi)
    return from_bits(hi)


def literal(x):
    return struct.unpack("f", struct.pack("f", float(x)))[0].hex().replace("0000000p", "p") + "f"


def array(name, values, per_line=8):
    rows = [", ".join(literal(v) for v in values[i : i + per_line]) for i in range(0, len(values), per_line)]
    return f"ADAMW_TABLE float {name}[{len(values)}] = {{\n    " + ",\n    ".join(rows) + "};\n"


def build():
    signed = Map("signed", [(2**i, 2**i, Fraction(10) ** (i - 6)) for i in range(7)], 128)
    unsigned = Map("unsigned", [(2**i - 1, 2**i, Fraction(10) ** (i - 7)) for i in range(1, 8)], 255)
    # The decoder's table index is the low 3 bits of a float's biased exponent, which folds 9 exponents into 8 entries;
    # the folded entry is the line through both of its codes. Signed: exponent of k + 0.5, so k = 0 and 128 share
    # entry 6. Unsigned: exponent of k + 1, so k = 0 and 255 share entry 7.
    tables = {
        "signed": signed.decode_tables(lambda i, k: ((127 + i) % 8, k), (6, f32(Fraction(1, 128)), Fraction(0))),
        "unsigned": unsigned.decode_tables(
            lambda i, k: ((128 + i) % 8, k + 1), (7, f32(Fraction(1, 255)), -f32(Fraction(1, 255)))
        ),
    }
    out = [
        "// Generated by ci/generate_codebook.py: do not edit.\n"
        "// Owns the numbers of the two 8-bit maps; knows nothing of how they are applied (math.h).\n"
        '#pragma once\n\n#include "types.h"\n\nnamespace adamw {\n\n'
        "struct MapTables {\n"
        "  float decode_slope[8], decode_offset[8];  // value = fma(k', slope, offset)\n"
        "  float next_start[8];              // where zone z + 1 begins\n"
        "  float slope[8], offset[8];        // line = fma(a, slope, offset)\n"
        "  float gap_offset[8];              // position = min(line, fma(line, 1/3, gap_offset)) + 1.5\n"
        "};\n\n"
        "struct ZoneNumbers {\n"
        "  unsigned base, factor;  // (max(bits(a) >> 16, base) - base) * factor >> 16: zone - 1 or zone\n"
        "};\n\n"
    ]
    shift = Fraction(3, 2)
    for m in (signed, unsigned):
        # The signed encoder adds 127 before it rounds to even, which turns the parity of ties around.
        m.shift, m.parity = shift, 1 if m is signed else 0
        starts, m.slopes, m.offsets, m.gaps = m.encode_tables(shift)
        m.starts = starts[:7]
        slope, offset = tables[m.name]
        rows = [slope, offset, starts, m.slopes, m.offsets, m.gaps]
        body = ",\n    ".join("{" + ", ".join(literal(v) for v in row) + "}" for row in rows)
        base, factor = m.zone_estimate(starts)
        out.append(f"ADAMW_TABLE MapTables {m.name}_map = {{\n    {body}}};\n")
        out.append(f"ADAMW_TABLE ZoneNumbers {m.name}_zones = {{{base}u, {factor}u}};\n\n")

        def value(k, m=m, slope=slope, offset=offset):
            key = Fraction(k) + Fraction(1, 2) if m is signed else Fraction(k + 1)
            factor = k if m is signed else k + 1
            index = (bits(key) >> 23) % 8
            return f32(factor * slope[index] + offset[index])

        magnitudes = [value(k) for k in range(m.top + 1)]
        for k, v in enumerate(magnitudes):
            assert abs(v - m.exact[k]) <= m.exact[k] * Fraction(1, 2**20), (m.name, k)
            assert k == 0 or nearest(v, m) == k
        assert magnitudes == sorted(magnitudes) and magnitudes[-1] == 1 and magnitudes[0] == 0
        codes = magnitudes if m is unsigned else [-v for v in magnitudes[127:0:-1]] + magnitudes
        out.append(f"// Value of each code.\n{array(m.name + '_values', codes)}\n")
        # What is not zero never becomes code 0 of the unsigned map: there the first step is right above zero.
        start = 1 if m is signed else 2
        middles = [midpoint(k, m, magnitudes) for k in range(start, m.top + 1)]
        for k, v in enumerate(middles, start):
            middle = (m.exact[k - 1] + m.exact[k]) / 2
            if m is signed and k == 1:  # the line to zero is flatter than the polyline: below 4.5e-7 is zero
                assert 4.4e-7 < v < 4.6e-7
                continue
            assert abs(v - middle) <= middle * Fraction(1, 2**17), (m.name, k, float(v), float(middle))
        out.append(
            f"// Entry k - {start}: the smallest float whose nearest magnitude is k or more.\n"
            f"{array(m.name + '_midpoints', middles)}\n"
        )
    out.append("}  // namespace adamw\n")
    return "".join(out)


if __name__ == "__main__":
    text = build()
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text() != text:
            sys.exit("libadamw/codebook.h is stale: run python ci/generate_codebook.py")
    else:
        TARGET.write_text(text)
