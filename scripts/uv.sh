# `. scripts/uv.sh`: sets $uv to the uv on PATH if it is 0.5 or newer, else to one that PYTHON
# installs into .local/uv. Ignores the configuration files of pip and uv, except for the package
# registry in pip's. Installs are made in $new, which this process removes when it ends.

new=.local/new.$$
trap 'rm -rf $new $new.old' EXIT
trap 'exit 130' HUP INT TERM
uv=
if uv --version 2>/dev/null | grep -Eq '^uv (0\.([5-9]|[1-9][0-9])|[1-9])'; then
    uv=uv
elif [ -x .local/uv/bin/uv ] && cmp -s requirements/uv.txt .local/uv/uv.txt; then
    uv=.local/uv/bin/uv
fi

python=$PYTHON
if "$python" -c 'import pip' 2>/dev/null; then :
elif [ -z "$uv" ]; then
    "$PYTHON" -m venv $new/pip && python=$new/pip/bin/python
elif [ -x .local/uv/pip/bin/python ]; then
    python=.local/uv/pip/bin/python
fi
if "$python" -c 'import pip' 2>/dev/null; then
    registry=$("$python" -m scripts.registry) || exit 1
    eval "$registry"
fi
export UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never
export UV_INDEX_STRATEGY=unsafe-best-match # like pip: no index has priority

if [ -z "$uv" ]; then
    mkdir -p $new || exit 1
    if ! "$python" -m pip install -qq --disable-pip-version-check --no-input \
        --only-binary :all: --target $new --requirement requirements/uv.txt; then
        echo "uv, which installs the rest, could not be installed: see above." >&2
        exit 1
    fi
    cp requirements/uv.txt $new
    rm -rf $new/uv .local/uv # the first is Python code, which linters would find
    mv $new .local/uv
    uv=.local/uv/bin/uv
fi
