# `. scripts/uv.sh`: sets $uv to the uv on PATH if it is 0.5 or newer, else to one that PYTHON
# installs into .local/uv. Since uv does not read pip's settings, this exports those of the package
# registry. Installs are made in $new, which this process removes when it ends.

new=.local/new.$$
trap 'rm -rf $new $new.old' EXIT
trap 'exit 130' HUP INT TERM
uv=.local/uv/bin/uv
if uv --version 2>/dev/null | grep -Eq '^uv (0\.([5-9]|[1-9][0-9])|[1-9])'; then
    uv=uv
elif ! cmp -s requirements/uv.txt .local/uv/uv.txt; then
    mkdir -p $new
    python=$PYTHON
    "$python" -c 'import pip' 2>/dev/null ||
        { "$PYTHON" -m venv $new/pip && python=$new/pip/bin/python; }
    if ! "$python" -m pip install -qq --disable-pip-version-check --no-input --only-binary :all: \
        --target $new --requirement requirements/uv.txt; then
        echo "uv, which installs the rest, could not be installed: see above." >&2
        exit 1
    fi
    cp requirements/uv.txt $new
    rm -rf $new/uv .local/uv # the first is Python code, which linters would find
    mv $new .local/uv
fi

pip=.local/uv/pip/bin/python
[ -x $pip ] || pip=$PYTHON
settings=$("$pip" -m pip config list 2>/dev/null)
for pair in UV_INDEX_URL:index-url UV_INDEX:extra-index-url UV_FIND_LINKS:find-links \
    UV_INSECURE_HOST:trusted-host SSL_CERT_FILE:cert ALL_PROXY:proxy; do
    name=${pair%:*}
    value=$(echo "$settings" | sed -n "s/^[^=]*\.${pair#*:}='\(.*\)'$/\1/p" | head -n 1)
    [ $name != UV_FIND_LINKS ] || value=$(echo "$value" | tr ' ' ,)
    [ -n "$(printenv $name)" ] || [ -z "$value" ] || export "$name=$value"
done
export UV_PYTHON_DOWNLOADS=never UV_INDEX_STRATEGY=unsafe-best-match # as in pip: all are equal
