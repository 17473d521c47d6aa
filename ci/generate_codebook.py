"""Owns the numbers of the two 8-bit maps: writes libadamw/numerics/codebook.h. `--check` fails if the file is stale.

A map is piecewise linear in its index ("decades" of 2^i codes over [10^(i-n), 10^(i-n+1)]), so decoding is one fused
multiply-add with coefficients looked up in 8-entry tables. Encoding takes three, of which the lowest counts: the
position of a number among the codes is concave, and every three binades see the lines of two decades and of the gap
between them. This script derives those tables exactly (fractions), rounds each number to float32 once, and evaluates
them as the library does to list the 256 values and the 255 midpoints.
"""

import struct
import sys
from fractions import Fraction
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "libadamw" / "numerics" / "codebook.h"


def f32(x):
    """x rounded to float32, as an exact fraction."""
    return Fraction(struct.unpack("f", struct.pack("f", float(x)))[0])


def bits(x):
    return struct.unpack("I", struct.pack("f", float(x)))[0]


def from_bits(i):
    return Fraction(struct.unpack("f", struct.pack("I", i))[0])


THIRD, FIFTH = f32(Fraction(1, 3)), f32(Fraction(1, 5))
START = Fraction(513, 2)
NEVER = Fraction(512)  # an offset above every position: that line never counts
# What is encoded is counted in units in which 1 is 1 - 0.9 / 256 of the scale: where the gap below the last code of the
# unsigned map begins, and the middle of the signed map's. So an exponent tells them.
UNIT = f32(1 / (1 - Fraction(9, 2560)))


class Map:
    """`decades` of (first k, number of codes n, scale): value(first + j) = scale * (0.1 + 0.9 * (j + 1/2) / n).

    top: the k whose value is 1. shift: what positions are given with.
    """

    def __init__(self, name, decades, top, shift):
        self.name, self.decades, self.top, self.shift = name, decades, top, shift
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

    def encode_tables(self):
        """Class 0..6 of numbers, in UNITs: one for each decade, from 2^(3 class - 21) on, a power of two inside of it,
        to the next decade's; class 7: 1 and above.

        line = slope * a + offset is the position within the decade. The slope of every gap is a third of its decade's,
        that of the next decade a fifth: line / 3 + gap_offset and line / 5 + next_offset. The lowest is the position.
        next_offset is 1.2 gap_offset + 0.4 (for the decade of one code a little too high, where it hardly counts).
        """
        rows = []
        for i, (first, n, scale) in enumerate(self.decades):
            lo, last, shift = self.exact[first], first + n - 1, self.shift
            beyond = (lo + scale * Fraction(9, 10)) * UNIT
            slope, offset = self.line(lo * UNIT, first + shift, beyond, first + n + shift)
            if n == 1:  # a decade of one code has no line of its own: this one leads to zero
                offset = shift
            gap = NEVER
            if i < 6:
                boundary = Fraction(1, 2 ** (18 - 3 * i)) / UNIT
                assert self.exact[last + 1] < boundary < self.exact[last + 2 * n], (self.name, i)
                gap = f32(last + shift - f32(slope * self.exact[last] * UNIT + offset) * THIRD)
            rows.append((slope, offset, gap))
        rows.append((*self.last_line(), NEVER))
        return [list(column) for column in zip(*rows, strict=True)]

    def last_line(self):
        """Of class 7: slope and offset. Where it ends, a scale in UNITs with the roundings on its way, is the last
        code.

        Never beyond it, for there is none, so that rounding may miss it by a ten-thousandth. Signed: 1 lies between the
        last code and the one that would follow, so that rounding takes both signs of it to the last code of theirs.
        """
        if self.name == "signed":
            return Fraction(0), self.top - Fraction(1, 2) + self.shift
        slope = f32(1 / (1 - self.exact[self.top - 1]) / UNIT)
        most = UNIT * (1 + Fraction(3, 2**24))
        offset = f32(self.top + self.shift - slope * most)
        while f32(slope * most + offset) > self.top + self.shift:
            offset = from_bits(bits(offset) - 1)
        return slope, offset

    def position(self, a):
        """The library's code_position(a), in exact arithmetic with the same roundings, less `shift`."""
        a = f32(a * UNIT)
        c = 7 if a >= 1 else max(0, ((bits(a) >> 23) - 106) // 3)
        slope, offset, gap = (column[c] for column in self.lines)
        line, beyond = f32(a * slope + offset), f32(gap * f32(Fraction(6, 5)) + f32(Fraction(2, 5)))
        return min(line, f32(line * THIRD + gap), f32(line * FIFTH + beyond)) - self.shift

    def nearest(self, a, negative=False):
        """The magnitude nearest to a (of -a) as the library finds it: to 2^-15 of a code, and halves go up."""
        units = round(self.position(a) * 2**15)  # ties to even, as the float that it is added to has them
        return -((2**14 - units) // 2**15) if negative else (units + 2**14) // 2**15


def midpoint(k, m, values, negative=False):
    """The smallest float a in [0, 1] such that a (or -a) is rounded to magnitude k or above."""
    lo, hi = bits(values[k - 1]), bits(values[k])
    while lo + 1 < hi:
        mid = (lo + hi) // 2
        lo, hi = (lo, mid) if m.nearest(from_bits(mid), negative) >= k else (mid, hi)
    return from_bits(hi)


def literal(x):
    return struct.unpack("f", struct.pack("f", float(x)))[0].hex().replace("0000000p", "p") + "f"


def array(name, values, per_line=8):
    rows = [", ".join(literal(v) for v in values[i : i + per_line]) for i in range(0, len(values), per_line)]
    return f"ADAMW_TABLE float {name}[{len(values)}] = {{\n    " + ",\n    ".join(rows) + "};\n"


def build():
    # START puts a position into [256, 512), where floats are multiples of 2^-15, half a code above: it is added to the
    # unsigned map's in its lines, to the signed map's once it has its sign.
    signed = Map("signed", [(2**i, 2**i, Fraction(10) ** (i - 6)) for i in range(7)], 128, Fraction(0))
    unsigned = Map("unsigned", [(2**i - 1, 2**i, Fraction(10) ** (i - 7)) for i in range(1, 8)], 255, START)
    # The decoder's table index is the low 3 bits of a float's biased exponent, which folds 9 exponents into 8 entries;
    # the folded entry is the line through both of its codes. Signed: exponent of 4 k, so k = 0 and 128 share entry 0.
    # Unsigned: exponent of k + 1, so k = 0 and 255 share entry 7.
    tables = {
        "signed": signed.decode_tables(lambda i, k: ((129 + i) % 8, k), (0, f32(Fraction(1, 128)), Fraction(0))),
        "unsigned": unsigned.decode_tables(
            lambda i, k: ((128 + i) % 8, k + 1), (7, f32(Fraction(1, 255)), -f32(Fraction(1, 255)))
        ),
    }
    tables["signed"][0][:] = [slope / 4 for slope in tables["signed"][0]]
    out = [
        "// Generated by ci/generate_codebook.py: do not edit.\n"
        "// Owns the numbers of the two 8-bit maps; knows nothing of how they are applied (math.h).\n"
        '#pragma once\n\n#include "types.h"\n\nnamespace adamw {\n\n'
        "// What is added to a position to encode it; the lines of the unsigned map contain it.\n"
        f"constexpr float encode_start = {literal(START)};\n"
        "// What numbers to be encoded are multiplied by, besides dividing them by their scale.\n"
        f"constexpr float encode_unit = {literal(UNIT)};\n\n"
        "struct MapTables {\n"
        "  float decode_slope[8], decode_offset[8];  // value = fma(k', slope, offset)\n"
        "  // By the class of a number a (math.h): line = fma(a, slope, offset), and its position among the codes is\n"
        "  // min(line, fma(line, 1/3, gap_offset), fma(line, 1/5, next_offset)).\n"
        "  float slope[8], offset[8], gap_offset[8];\n"
        "};\n\n"
    ]
    for m in (signed, unsigned):
        m.lines = m.encode_tables()
        slope, offset = tables[m.name]
        rows = [slope, offset, *m.lines]
        body = ",\n    ".join("{" + ", ".join(literal(v) for v in row) + "}" for row in rows)
        out.append(f"ADAMW_TABLE MapTables {m.name}_map = {{\n    {body}}};\n\n")

        def value(k, m=m, slope=slope, offset=offset):
            key = factor = Fraction(4 * k if m is signed else k + 1)
            index = (bits(key) >> 23) % 8
            return f32(factor * slope[index] + offset[index])

        magnitudes = [value(k) for k in range(m.top + 1)]
        for k, v in enumerate(magnitudes):
            assert abs(v - m.exact[k]) <= m.exact[k] * Fraction(1, 2**20), (m.name, k)
            assert k == 0 or m.nearest(v) == k, (m.name, k)
        assert magnitudes == sorted(magnitudes) and magnitudes[-1] == 1 and magnitudes[0] == 0
        codes = magnitudes if m is unsigned else [-v for v in magnitudes[127:0:-1]] + magnitudes
        out.append(f"// Value of each code.\n{array(m.name + '_values', codes)}\n")
        # What is not zero never becomes code 0 of the unsigned map: there the first step is right above zero.
        start = 1 if m is signed else 2
        for negative in (False, True) if m is signed else (False,):
            top = m.top - negative
            middles = [midpoint(k, m, magnitudes, negative) for k in range(start, top + 1)]
            for k, v in enumerate(middles, start):
                middle = (m.exact[k - 1] + m.exact[k]) / 2
                if m is signed and k == 1:  # the line to zero is flatter than the polyline: below 4.5e-7 is zero
                    assert 4.4e-7 < v < 4.6e-7
                else:
                    assert abs(v - middle) <= middle * Fraction(1, 2**15), (m.name, k, float(v), float(middle))
            sort, of = ("negative_", "a, of -a, ") if negative else ("", "")
            out.append(
                f"// Entry k - {start}: the smallest float {of}whose nearest magnitude is k or more.\n"
                f"{array(f'{m.name}_{sort}midpoints', middles)}\n"
            )
    out.append("}  // namespace adamw\n")
    return "".join(out)


if __name__ == "__main__":
    text = build()
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text() != text:
            sys.exit("libadamw/numerics/codebook.h is stale: run python ci/generate_codebook.py")
    else:
        TARGET.write_text(text)
