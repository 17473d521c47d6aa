"""The test of libadamw: the library of the environment loads, with the version and the backend that are expected."""

import ctypes
import sys

version, backend = sys.argv[1:]
library = ctypes.CDLL(sys.prefix + "/lib/libadamw.so.1")
library.adamw_build_info.restype = ctypes.c_char_p
info = library.adamw_build_info().decode()
print(info)
number = library.adamw_version()
assert f"{number // 10000}.{number // 100 % 100}.{number % 100}" == version, (number, version)
assert f"backend {backend}," in info, (backend, info)
