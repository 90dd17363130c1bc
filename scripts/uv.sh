# `. scripts/uv.sh`: sets $uv to the uv on PATH if it is 0.5 or newer, else to one that PYTHON
# installs into .local/uv. Of pip's and uv's configuration files, only pip's settings of the package
# registry count. Installs are made in $new, which this process removes when it ends.

new=.local/new.$$
trap 'rm -rf $new $new.old' EXIT
trap 'exit 130' HUP INT TERM
uv=
if uv --version 2>/dev/null | grep -Eq '^uv (0\.([5-9]|[1-9][0-9])|[1-9])'; then
    uv=uv
elif [ -x .local/uv/bin/uv ] && cmp -s requirements/uv.txt .local/uv/uv.txt; then
    uv=.local/uv/bin/uv
fi

fail_without_uv() {
    echo "uv, which installs the rest, could not be installed: see above." >&2
    exit 1
}

python=$PYTHON
if ! "$python" -c 'import pip' 2>/dev/null; then
    if [ -z "$uv" ]; then
        "$PYTHON" -m venv $new/pip || fail_without_uv
        python=$new/pip/bin/python
    elif [ -x .local/uv/pip/bin/python ]; then
        python=.local/uv/pip/bin/python
    fi
fi
registry=$("$python" -m scripts.registry) || exit 1
eval "$registry"
export UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never
export UV_INDEX_STRATEGY=unsafe-best-match # like pip: no index has priority

if [ -z "$uv" ]; then
    mkdir -p $new || exit 1
    "$python" -m pip install -qq --disable-pip-version-check --no-input --only-binary :all: \
        --target $new --requirement requirements/uv.txt || fail_without_uv
    cp requirements/uv.txt $new
    rm -rf $new/uv .local/uv # the first is Python code, which linters would find
    mv $new .local/uv
    uv=.local/uv/bin/uv
fi
