# `make` lists the targets. Everything is installed into .venv, .venv-emulator and .venv-scan.

PYTHON ?= python3
PORT ?= 4566
STACK ?= ChaliceChat
MINUTES ?= 60
BIN := .venv/bin
AWS := $(BIN)/aws
export PORT SIGN_IN
export PYTHONDONTWRITEBYTECODE :=# compiled code starts in half the time

# The chat for chat, url, smoke and load: the one that runs here, unless another is named.
WHERE = $(if $(filter command,$(origin URL)),--url "$(URL)",$(if $(filter-out file,$(origin STACK)),--stack "$(STACK)"))

.DEFAULT_GOAL := help
.PHONY: help run redeploy chat url smoke load test browsers check format bench package deploy monitor logs delete lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The chat on this machine

run: ## Run the chat on this machine until Ctrl-C (PORT=4566, SIGN_IN=on)
	$(INSTALL) run emulator
	@exec $(BIN)/python -m scripts.run run

redeploy: ## Put the changed code onto what `make run` started (same PORT)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.run redeploy

# The chat on this machine, or the one on AWS that STACK names

chat: ## Chat here (same PORT), or on AWS (STACK=ChaliceChat)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.chat $(WHERE)

url: ## Print the addresses of the page and the chat here, or on AWS (STACK=ChaliceChat)
	$(INSTALL) run
	@exec $(BIN)/python -m scripts.address $(WHERE)

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
	$(BIN)/python -m pytest -m "" --numprocesses 3 --dist loadfile --no-loadscope-reorder

browsers: ## Test the page in Chromium, and in Firefox and WebKit where they are installed
	$(INSTALL) dev
	@$(BIN)/python -m scripts.browser
	$(BIN)/python -m pytest tests/browsers -rs

check: ## Check format, lint, types and the templates' security
	$(INSTALL) dev scan
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy app.py chalicelib scripts tests benchmarks
	$(BIN)/mypy examples/echo-server/app.py
	@$(BIN)/python -m scripts.package .local/check >/dev/null
	@$(BIN)/python -m scripts.expand .local/check
	$(BIN)/cfn-lint --include-checks I --ignore-checks W2531 -- .local/check/sam.json .local/check/expanded.json monitoring.yaml
	.venv-scan/bin/checkov --config-file .ci/checkov.yaml --file .local/check/sam.json monitoring.yaml
	@$(BIN)/python -m scripts.audit

format: ## Format the code, and apply the fixes of the linter
	$(INSTALL) dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: ## Measure how fast a room hears a line (8 minutes; BENCH=--help)
	$(INSTALL) dev
	$(BIN)/python -m benchmarks.bench $(BENCH)

# On AWS, with the region and credentials of your environment

package: ## Package for AWS into out/
	$(INSTALL) run
	$(BIN)/python -m scripts.package out

deploy: ## Deploy to AWS (BUCKET=yours, STACK=ChaliceChat, PARAMETERS="RequestRate=100 ...")
	$(INSTALL) run
	@$(BIN)/python -m scripts.deploy --stack "$(STACK)" --bucket "$(BUCKET)" $(PARAMETERS)
	@$(BIN)/python -m scripts.address --stack "$(STACK)"

monitor: ## Add alarms and a dashboard to the deployed chat (EMAIL=you@example.com)
	$(INSTALL) run
	@$(BIN)/python -m scripts.deploy --stack "$(STACK)-monitoring" --template monitoring.yaml \
		"ChatStack=$(STACK)" $(if $(EMAIL),AlarmEmail=$(EMAIL))

logs: ## Print the log of the functions of the last hour (MINUTES=60)
	$(INSTALL) run
	@group=$$($(BIN)/python -m scripts.address --stack "$(STACK)" --output FunctionLogs) \
	&& $(AWS) logs filter-log-events --log-group-name "$$group" --output text \
		--start-time $$(( ($$(date +%s) - 60 * $(MINUTES)) * 1000 )) --query 'events[].[message]'

delete: ## Delete the deployed stack, with its table and its monitoring
	$(INSTALL) run
	@$(AWS) cloudformation describe-stacks --stack-name "$(STACK)" >/dev/null # says so if there is none
	$(AWS) cloudformation delete-stack --stack-name "$(STACK)-monitoring"
	$(AWS) cloudformation wait stack-delete-complete --stack-name "$(STACK)-monitoring"
	$(AWS) cloudformation delete-stack --stack-name "$(STACK)"
	$(AWS) cloudformation wait stack-delete-complete --stack-name "$(STACK)"

# Housekeeping

LOCK = .local/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command "make lock" $(UPGRADE)

lock: ## Pin requirements/*.in, with all that they need, in the .txt files (UPGRADE=--upgrade)
	@"$(PYTHON)" -m venv .local/lock && .local/lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(LOCK) requirements/app.in --output-file requirements.txt
	$(LOCK) requirements/run.in --constraint requirements.txt --output-file requirements/run.txt
	$(LOCK) requirements/dev.in --constraint requirements/run.txt --output-file requirements/dev.txt
	$(LOCK) requirements/emulator.in --output-file requirements/emulator.txt
	$(LOCK) requirements/scan.in --output-file requirements/scan.txt

clean: ## Remove everything that was installed or built
	rm -rf .chalice/deployments examples/*/.chalice/deployments examples/*/.chalice/deployed
	rm -rf .venv .venv-emulator .venv-scan .local out .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Explains why $(PYTHON) will not do, or installs the missing layers.
define INSTALL
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
status=$$?; found=$$(command -v "$(PYTHON)"); \
case "$$status $$found" in \
	"0 "*) ;; \
	"1 "*) wrong="is too old" ;; \
	*" ") wrong="is not there" ;; \
	*/shims/*) wrong="is a shim of pyenv, with no Python behind it (see: pyenv versions)" ;; \
	*) wrong="does not start" ;; \
esac; \
test -z "$$wrong" || { echo "$(PYTHON) $$wrong; install Python 3.11 or newer, or name it: make PYTHON=python3.12 ..." >&2; exit 1; }; \
"$(PYTHON)" -m scripts.install $(if $(filter-out file,$(origin PYTHON)),--by-this-python)
endef
