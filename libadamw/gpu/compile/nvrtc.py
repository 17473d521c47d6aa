"""Owns NVRTC and nvFatbin, the parts of CUDA's compiler that come as wheels: a source becomes images, images a fatbin.

It must not know which architectures or flags are wanted.
"""

import ctypes

WHEELS = {  # where the wheels keep their libraries
    "12": ("nvidia/cuda_nvrtc/lib", "nvidia/nvfatbin/lib"),
    "13": ("nvidia/cu13/lib", "nvidia/cu13/lib"),
}


class Failed(Exception):
    """What the user is told."""


class Nvrtc:
    """NVRTC and nvFatbin of the wheels in one folder. Every function of theirs returns 0 for success."""

    def __init__(self, major, folder):
        nvrtc, fatbin = (folder / part for part in WHEELS[major])
        self.folder = folder
        self.argument = f"--wheels={folder}"  # with which it is found again
        self.path = nvrtc / f"libnvrtc.so.{major}"
        builtins = sorted(nvrtc.glob(f"libnvrtc-builtins.so.{major}.*"))
        try:
            # NVRTC opens its builtins by name alone, which finds them only if they are loaded already.
            for path in builtins:
                ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
            self.nvrtc = ctypes.CDLL(str(self.path))
            self.fatbin = ctypes.CDLL(str(fatbin / f"libnvfatbin.so.{major}"))
        except OSError as error:
            raise Failed(f"the wheels in {folder} cannot be loaded: {error}") from error
        self.nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        self.fatbin.nvFatbinGetErrorString.restype = ctypes.c_char_p
        numbers = ctypes.c_int(), ctypes.c_int()
        self.call("nvrtcVersion", *map(ctypes.byref, numbers))
        self.version = tuple(n.value for n in numbers)
        # The build number is in no function's answer; the size stands for it.
        self.identity = f"nvrtc {self.version} {self.path.stat().st_size}"

    def __str__(self):
        return f"NVRTC in {self.folder}"

    def call(self, name, *arguments):
        library, text = (self.nvrtc, "nvrtc") if name.startswith("nvrtc") else (self.fatbin, "nvFatbin")
        if result := getattr(library, name)(*arguments):
            raise Failed(f"{name}: {getattr(library, text + 'GetErrorString')(result).decode()}")

    def read(self, program, what):
        """nvrtcGetXxxSize and nvrtcGetXxx."""
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, data)
        return data.raw

    def images(self, source, architecture, flags):
        """{architecture: image}, and the compiler's warnings. Of "sm_90" the cubin, and the PTX that it was made from,
        which is that of "compute_90"; of "compute_90" only that."""
        program = ctypes.c_void_p()
        text = source.read_bytes()
        self.call("nvrtcCreateProgram", ctypes.byref(program), text, str(source).encode(), 0, None, None)
        options = [f"--gpu-architecture={architecture}", f"--include-path={source.parent}", *flags]
        failed = self.nvrtc.nvrtcCompileProgram(
            program, len(options), (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        )
        log = self.read(program, "ProgramLog").rstrip(b"\0\n").decode(errors="replace")
        if failed:
            raise Failed(f"{architecture}:\n{log}" if log else f"{architecture}: nvrtcCompileProgram: error {failed}")
        found = {architecture.replace("sm_", "compute_"): self.read(program, "PTX")}
        if architecture.startswith("sm_"):
            found[architecture] = self.read(program, "CUBIN")
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        return found, log

    def bundle(self, source, images):
        # The default compression: for CUDA 12 the one that every 12.x driver reads. Smaller ones take a driver of 12.4.
        handle = ctypes.c_void_p()
        options = (ctypes.c_char_p * 3)(b"-64", b"-host=linux", b"-compress-all")
        self.call("nvFatbinCreate", ctypes.byref(handle), options, len(options))
        for architecture, image in images.items():
            kind, number = architecture.split("_")
            rest = (number.encode(), source.name.encode())
            if kind == "sm":
                self.call("nvFatbinAddCubin", handle, image, ctypes.c_size_t(len(image)), *rest)
            else:
                self.call("nvFatbinAddPTX", handle, image, ctypes.c_size_t(len(image)), *rest, None)
        size = ctypes.c_size_t()
        self.call("nvFatbinSize", handle, ctypes.byref(size))
        data = ctypes.create_string_buffer(size.value)
        self.call("nvFatbinGet", handle, data)
        self.call("nvFatbinDestroy", ctypes.byref(handle))
        return data.raw
