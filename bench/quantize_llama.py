"""llama.cpp's quantizer for bench/convert_speed.py: `quantize_llama.py f16.gguf out.gguf FTYPE THREADS`.

Runs under a Python that has the `llama_cpp` package.
"""

import ctypes
import sys

from llama_library import llama


def main() -> None:
    source, out, kind, threads = sys.argv[1:5]
    parameters = llama.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype = int(threads), getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(parameters)):
        sys.exit(f"{source}: llama.cpp cannot quantize it")


if __name__ == "__main__":
    main()
