# `. scripts/uv.sh`: sets $uv to the uv on PATH if it will do, else to one that PYTHON installs into
# .local/uv. Since uv does not read pip's settings, this exports those of the machine's registry.

fail() {
    echo "$*" >&2
    exit 1
}

will_do() { # 0.5 or newer
    uv --version 2>/dev/null | awk '
        { split($2, part, "."); good = part[1] > 0 || part[2] >= 5 }
        END { exit !good }'
}

bootstrap() { # $1: a directory
    pip=$PYTHON
    if ! "$pip" -c 'import pip' 2>/dev/null; then
        "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || fail "$PYTHON has no venv module;" \
            "install it, on Debian and Ubuntu with: apt install python3-venv"
        pip=$1/pip/bin/python
        "$PYTHON" -m venv "$1/pip" || return
    fi
    "$pip" -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
        --root-user-action ignore --target "$1" --requirement requirements/uv.txt >"$1/log" 2>&1 &&
        rm -r "$1/uv" && cp requirements/uv.txt "$1" # no Python for linters to find
}

uv=.local/uv/bin/uv
if will_do; then
    uv=uv
elif ! cmp -s requirements/uv.txt .local/uv/uv.txt; then
    new=.local/uv.$$ # moved once it is complete, since two can be at it
    trap 'rm -rf $new' EXIT
    trap 'exit 130' HUP INT TERM
    mkdir -p $new
    if ! bootstrap $new; then
        tail -n 5 $new/log >&2
        fail "uv, which installs the rest, could not be installed: see above."
    fi
    rm -rf .local/uv
    mv $new .local/uv
    trap - EXIT HUP INT TERM
fi

pip=.local/uv/pip/bin/python
[ -x $pip ] || pip=$PYTHON
settings=$("$pip" -m pip config list 2>/dev/null)
export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$UV_INDEX_URL}"
for pair in UV_DEFAULT_INDEX:index-url UV_INDEX:extra-index-url UV_FIND_LINKS:find-links \
    UV_INSECURE_HOST:trusted-host SSL_CERT_FILE:cert ALL_PROXY:proxy; do
    name=${pair%:*}
    value=$(echo "$settings" | sed -n "s/^[^=]*\.${pair#*:}='\(.*\)'$/\1/p" | head -n 1)
    [ $name != UV_FIND_LINKS ] || value=$(echo "$value" | tr ' ' ,)
    [ -n "$(printenv $name)" ] || [ -z "$value" ] || export "$name=$value"
done
[ -n "$UV_DEFAULT_INDEX" ] || unset UV_DEFAULT_INDEX
export UV_PYTHON_DOWNLOADS=never UV_INDEX_STRATEGY=unsafe-best-match # as pip's: all count alike
