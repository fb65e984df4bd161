"""llama.cpp's quantizer for bench/convert_speed.py: `quantize_llama.py f16.gguf out.gguf FTYPE THREADS`.

Runs under a Python that has the `llama_cpp` package, and needs nothing else.
"""

import ctypes
import sys

try:
    import llama_cpp as llama
except ImportError:
    sys.exit(f"{sys.executable} has no llama_cpp: give --peer-python a Python that has it")


@llama.llama_log_callback
def quiet(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    if level == 4:
        sys.stderr.write(text.decode(errors="replace"))


def main() -> None:
    source, out, kind, threads = sys.argv[1:5]
    llama.llama_log_set(quiet, None)
    llama.llama_backend_init()
    parameters = llama.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype = int(threads), getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(parameters)):
        sys.exit(f"{source}: llama.cpp cannot quantize it")


if __name__ == "__main__":
    main()
