"""Which of the host's environment variables a kernel may see."""

from __future__ import annotations

import os

# What a kernel needs of the host's environment. Everything else, API keys above all, stays out.
ENVIRONMENT = frozenset(
    "PATH HOME LANG LANGUAGE TERM TZ TMPDIR USER LOGNAME SHELL VIRTUAL_ENV PYTHONPATH PYTHONUTF8 "
    "LD_LIBRARY_PATH DYLD_LIBRARY_PATH SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE NO_COLOR "
    "IPYTHONDIR JUPYTER_PATH JUPYTER_DATA_DIR JUPYTER_RUNTIME_DIR R_HOME R_LIBS R_LIBS_USER "
    "SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT TEMP TMP APPDATA LOCALAPPDATA PROGRAMDATA "
    "USERPROFILE HOMEDRIVE HOMEPATH NUMBER_OF_PROCESSORS PROCESSOR_ARCHITECTURE".split()
)
ENVIRONMENT_PREFIXES = ("LC_", "XDG_", "CONDA_PREFIX", "OMP_", "MKL_", "OPENBLAS_", "CUDA_VISIBLE_")


def kernel_environment() -> dict[str, str]:
    """The part of the host's environment that a kernel may see."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES)
    }
