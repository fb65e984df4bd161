"""llama.cpp's library, silent but for errors; for scripts under a Python that has the `llama_cpp` package.

They need nothing else: `from llama_library import llama`.
"""

import ctypes
import sys

try:
    import llama_cpp as llama
except ImportError:
    sys.exit(f"{sys.executable} has no llama_cpp: give --peer-python a Python that has it")

_ERROR = 4


@llama.llama_log_callback
def _log(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    if level == _ERROR:
        sys.stderr.write(text.decode(errors="replace"))


llama.llama_log_set(_log, None)
llama.llama_backend_init()
