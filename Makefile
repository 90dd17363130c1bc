# `make` lists the targets. Everything is installed into .venv, .venv-emulator and .venv-scan.

# These may also come from the environment, as may SIGN_IN and BUCKET.
PYTHON ?= python3
PORT ?= 4566

# These count only on make's command line: in the environment, they may be other programs'.
$(if $(filter environment,$(origin STACK)),$(warning STACK in the environment is ignored; use: make ... STACK=$(value STACK)))
STACK := ChaliceChat
URL :=
AS :=
NICKNAME :=
ROOM :=
EVERYBODY :=
EMAIL :=
MINUTES := 60
PARAMETERS :=
LOAD :=
BENCH :=
UPGRADE :=

# Of the caller's variables for Python, pip and uv, only those of the package registry count.
REGISTRY := %INDEX %INDEX_URL UV_INDEX_% %FIND_LINKS %HOST %PROXY %CERT %CERTS %TLS %TIMEOUT %RETRIES \
	%KEYRING_PROVIDER %OFFLINE %CACHE_DIR %LINK_MODE PIP_CONFIG_FILE
unexport VIRTUAL_ENV $(filter-out $(REGISTRY) PYTHONIOENCODING PYTHONUTF8, \
	$(filter PYTHON% PIP_% UV_%,$(.VARIABLES)))
override PORT := $(value PORT)
override SIGN_IN := $(value SIGN_IN)
export PORT SIGN_IN

BIN := .venv/bin
AWS := $(BIN)/aws

# Quotes a variable exactly as given: make or a shell would expand a `$` in a nickname, for example.
quoted = '$(subst ','\'',$(value $1))'
unexport STACK URL AS NICKNAME ROOM EVERYBODY EMAIL MINUTES BUCKET

INSTALL = @PYTHON=$(call quoted,PYTHON) CHOSEN="$(filter-out file,$(origin PYTHON))" sh scripts/install

# The chat for chat, url, people, kick, smoke and load: the one here, unless another is named.
is_given = $(filter command,$(origin $1))
WHERE = $(if $(call is_given,URL),--url=$(call quoted,URL),$(if $(call is_given,STACK),--stack=$(call quoted,STACK)))

.DEFAULT_GOAL := help
.PHONY: help run redeploy chat url people kick smoke load test browsers check format bench package deploy monitor logs delete lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The chat on this machine

run: ## Run the chat on this machine until Ctrl-C (PORT=4566, SIGN_IN=on)
	$(INSTALL) run emulator
	@exec $(BIN)/python -m scripts.run run

redeploy: ## Deploy the changed code to the chat that `make run` started (same PORT)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.run redeploy

# The chat on this machine, or the one on AWS that STACK names

chat: ## Chat here (same PORT, AS=John to sign in), or on AWS (STACK=ChaliceChat)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.chat $(WHERE) $(if $(call is_given,AS),--as=$(call quoted,AS))

url: ## Print the addresses of the page and the chat here, or on AWS (STACK=ChaliceChat)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.address $(WHERE)

people: ## List the people, and count them by room: here, or on AWS (STACK=ChaliceChat)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.people $(WHERE) people

kick: ## Disconnect NICKNAME=John, ROOM=chalice or EVERYBODY=yes: here, or on AWS (STACK=...)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.people $(WHERE) kick --nickname=$(call quoted,NICKNAME) \
		--room=$(call quoted,ROOM) --everybody=$(call quoted,EVERYBODY)

smoke: ## See in a minute whether a chat works: here, STACK=ChaliceChat or URL=wss://...
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.smoke $(WHERE)

load: ## Let 100 people talk for a minute: here, STACK=... or URL=wss://... (LOAD=--help)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.load $(WHERE) $(LOAD)

# Working on it

test: ## Run all tests: units, template, end to end on the emulator
	$(INSTALL) dev emulator
	@$(BIN)/python -m scripts.browser
	$(BIN)/python -m pytest -m "e2e or more" --numprocesses 3 --dist loadfile --no-loadscope-reorder

browsers: ## Test the page in Chromium, Firefox and WebKit (as root on Debian, installs them)
	$(INSTALL) dev
	@$(BIN)/python -m scripts.browser all
	$(BIN)/python -m pytest tests/browsers

check: ## Check format, lint, types and the templates' security
	$(INSTALL) dev scan
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy app.py chalicelib emulator scripts tests benchmarks
	$(BIN)/mypy examples/echo-server/app.py
	DENO_DIR=.local/deno DENO_NO_UPDATE_CHECK=1 $(BIN)/deno check --quiet --config .ci/deno.json chalicelib/page/script.js
	@$(BIN)/python -m scripts.package .local/check >/dev/null
	@$(BIN)/python -m scripts.expand .local/check
	$(BIN)/cfn-lint --include-checks I --ignore-checks W2531 -- .local/check/sam.json .local/check/expanded.json monitoring.yaml
	.venv-scan/bin/checkov --config-file .ci/checkov.yaml --file .local/check/sam.json monitoring.yaml
	@$(BIN)/python -m scripts.audit

format: ## Format the code, and apply the fixes of the linter
	$(INSTALL) dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: ## Measure how fast a room hears a line (10 minutes; BENCH=--help)
	$(INSTALL) dev
	$(BIN)/python -m benchmarks.bench $(BENCH)

# On AWS; all but `package` use the region and credentials of your environment

package: ## Package for AWS into out/
	$(INSTALL) run
	$(BIN)/python -m scripts.package out

deploy: ## Deploy to AWS (BUCKET=yours, STACK=ChaliceChat, PARAMETERS="RequestRate=100 ...")
	@test $(call quoted,BUCKET) || { echo "Which bucket? Create one with 'aws s3 mb s3://NAME', then: make deploy BUCKET=NAME" >&2; exit 1; }
	$(INSTALL) run
	@$(BIN)/python -m scripts.deploy --stack=$(call quoted,STACK) --bucket=$(call quoted,BUCKET) $(PARAMETERS)
	@$(BIN)/python -m scripts.address --stack=$(call quoted,STACK)

monitor: ## Add alarms and a dashboard to the deployed chat (EMAIL=you@example.com)
	$(INSTALL) run
	@$(BIN)/python -m scripts.deploy --stack=$(call quoted,STACK)-monitoring --template monitoring.yaml \
		ChatStack=$(call quoted,STACK) $(if $(value EMAIL),AlarmEmail=$(call quoted,EMAIL))

logs: ## Print the functions' log of the last hour (MINUTES=60)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.logs --stack=$(call quoted,STACK) --minutes=$(call quoted,MINUTES)

delete: ## Delete the deployed stack, with its table and its monitoring
	$(INSTALL) run
	@$(AWS) cloudformation describe-stacks --stack-name $(call quoted,STACK) >/dev/null # says so if there is none
	$(AWS) cloudformation delete-stack --stack-name $(call quoted,STACK)-monitoring
	$(AWS) cloudformation wait stack-delete-complete --stack-name $(call quoted,STACK)-monitoring
	$(AWS) cloudformation delete-stack --stack-name $(call quoted,STACK)
	$(AWS) cloudformation wait stack-delete-complete --stack-name $(call quoted,STACK)

# Housekeeping

LOCK = @PYTHON=$(call quoted,PYTHON); . scripts/uv.sh; $$uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-annotate --custom-compile-command "make lock" $(UPGRADE)

lock: ## Pin requirements/*.in, with all that they need, in the .txt files (UPGRADE=--upgrade)
	$(LOCK) requirements/app.in --output-file requirements.txt
	$(LOCK) requirements/run.in --constraint requirements.txt --output-file requirements/run.txt
	$(LOCK) requirements/dev.in --constraint requirements/run.txt --output-file requirements/dev.txt
	$(LOCK) requirements/emulator.in --output-file requirements/emulator.txt
	$(LOCK) requirements/scan.in --output-file requirements/scan.txt
	$(LOCK) requirements/uv.in --output-file requirements/uv.txt

clean: ## Remove everything that was installed or built
	rm -rf .chalice/deployments examples/*/.chalice/deployments examples/*/.chalice/deployed
	rm -rf .venv .venv-emulator .venv-scan .local out .hypothesis .mypy_cache .pytest_cache .ruff_cache
