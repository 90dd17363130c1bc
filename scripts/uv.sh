# `. scripts/uv.sh`: sets $uv to the uv on PATH if it is 0.5 or newer, else to one that PYTHON
# installs into .local/uv. Of pip's and uv's configuration files, only pip's settings of the package
# registry count. Installs are made in $new, which this process removes when it ends.

new=.local/new.$$
trap 'rm -rf $new $new.old' EXIT
trap 'exit 130' HUP INT TERM
uv=.local/uv/bin/uv
python=.local/uv/pip/bin/python
[ -x $python ] || python=$PYTHON
if uv --version 2>/dev/null | grep -Eq '^uv (0\.([5-9]|[1-9][0-9])|[1-9])'; then
    uv=uv
elif ! { [ -x $uv ] && cmp -s requirements/uv.txt .local/uv/uv.txt; }; then
    uv=
    mkdir -p $new || exit 1
    "$python" -c 'import pip' 2>/dev/null ||
        { "$PYTHON" -m venv $new/pip && python=$new/pip/bin/python; }
fi

settings=$("$python" -m pip config list 2>/dev/null |
    sed "s/='\\\\n/='/; s/\\\\n/ /g" | sort -s -t . -k 1,1)
for pair in UV_INDEX_URL:index-url UV_INDEX:extra-index-url UV_FIND_LINKS:find-links \
    UV_INSECURE_HOST:trusted-host SSL_CERT_FILE:cert SSL_CLIENT_CERT:client-cert ALL_PROXY:proxy; do
    uv_name=${pair%:*} key=${pair#*:}
    pip_name=PIP_$(echo $key | tr a-z- A-Z_)
    value=$(printenv $pip_name) ||
        value=$(echo "$settings" | sed -nE "s/^(global|install)\.$key='(.*)'$/\2/p" | tail -n 1)
    [ "$value" ] || continue
    export "$pip_name=$value"
    [ $key != find-links ] || value=$(echo "$value" | tr ' ' ,)
    [ -n "$(printenv $uv_name)" ] || export "$uv_name=$value"
done
export PIP_CONFIG_FILE=/dev/null UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never
export UV_INDEX_STRATEGY=unsafe-best-match # as in pip: all are equal

if [ -z "$uv" ]; then
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
