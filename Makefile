# `make` lists what can be done. Everything is installed into .venv, .venv-emulator and .venv-scan.

PYTHON ?= python3
PORT ?= 4566
STACK ?= ChaliceChat
MINUTES ?= 60
BIN := .venv/bin
export PORT

.DEFAULT_GOAL := help
.PHONY: help run redeploy test check format bench package deploy monitor url chat logs delete clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# On this machine

run: .venv/.installed .venv-emulator/.installed ## Run the chat on this machine until Ctrl-C (PORT=4566)
	@exec $(BIN)/python -m scripts.run run

redeploy: .venv/.installed ## Put the changed code onto what `make run` started (same PORT)
	@exec $(BIN)/python -m scripts.run redeploy

test: .venv/.installed .venv-emulator/.installed ## Run all tests: units, template, end to end on the emulator
	$(BIN)/python -m pytest -m "" --numprocesses 2 --dist loadgroup

check: .venv/.installed .venv-scan/.installed ## Check format, lint, types and the templates' security
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy app.py chalicelib scripts tests benchmarks
	$(BIN)/mypy examples/echo-server/app.py
	@AWS_DEFAULT_REGION=us-east-1 $(BIN)/chalice package --merge-template resources.json .local/check >/dev/null
	$(BIN)/cfn-lint --include-checks I --ignore-checks W2531 -- .local/check/sam.json monitoring.yaml
	.venv-scan/bin/checkov --config-file .ci/checkov.yaml --file .local/check/sam.json monitoring.yaml

format: .venv/.installed ## Format the code, and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.installed ## Measure how fast a room hears a line (5 minutes; BENCH=--help)
	$(BIN)/python -m benchmarks.bench $(BENCH)

# On AWS, with the region and credentials of your environment

package: .venv/.installed ## Package for AWS into out/
	$(BIN)/chalice package --merge-template resources.json out
	$(BIN)/python -m scripts.slim out

deploy: need-bucket package ## Deploy to AWS (BUCKET=yours, STACK=ChaliceChat, PARAMETERS="RequestRate=100 ...")
	$(BIN)/aws cloudformation package --template-file out/sam.json --s3-bucket $(BUCKET) --output-template-file out/template.yml
	$(BIN)/aws cloudformation deploy --template-file out/template.yml --stack-name $(STACK) --capabilities CAPABILITY_IAM \
		--no-fail-on-empty-changeset $(if $(PARAMETERS),--parameter-overrides $(PARAMETERS))
	@$(URL)

monitor: .venv/.installed ## Add alarms and a dashboard to the deployed chat (EMAIL=you@example.com)
	$(BIN)/aws cloudformation deploy --template-file monitoring.yaml --stack-name $(STACK)-monitoring \
		--no-fail-on-empty-changeset --parameter-overrides ChatStack=$(STACK) $(if $(EMAIL),AlarmEmail=$(EMAIL))

URL = $(BIN)/aws cloudformation describe-stacks --stack-name $(STACK) --output text \
	--query "Stacks[0].Outputs[?OutputKey=='WebsocketConnectEndpointURL'].OutputValue"

url: .venv/.installed ## Print the address of the deployed chat
	@$(URL)

chat: .venv/.installed ## Chat on the deployed stack
	@url=$$($(URL)) && exec $(BIN)/wsdump "$$url"

logs: .venv/.installed ## Print what the functions logged in the last hour (MINUTES=60)
	@group=$$($(BIN)/aws cloudformation describe-stacks --stack-name $(STACK) --output text \
		--query "Stacks[0].Outputs[?OutputKey=='FunctionLogs'].OutputValue") \
	&& $(BIN)/aws logs filter-log-events --log-group-name "$$group" --output text \
		--start-time $$(( ($$(date +%s) - 60 * $(MINUTES)) * 1000 )) --query 'events[].[message]'

delete: .venv/.installed ## Delete the deployed stack, with its table and its monitoring
	$(BIN)/aws cloudformation delete-stack --stack-name $(STACK)-monitoring
	$(BIN)/aws cloudformation wait stack-delete-complete --stack-name $(STACK)-monitoring
	$(BIN)/aws cloudformation delete-stack --stack-name $(STACK)
	$(BIN)/aws cloudformation wait stack-delete-complete --stack-name $(STACK)

clean: ## Remove everything that was installed or built
	rm -rf .chalice/deployments examples/*/.chalice/deployments
	rm -rf .venv .venv-emulator .venv-scan .local out .hypothesis .mypy_cache .pytest_cache .ruff_cache

.PHONY: need-bucket
need-bucket: .venv/.installed
	@test -n "$(BUCKET)" || { echo "Which bucket? Create one with 'aws s3 mb s3://NAME', then: make deploy BUCKET=NAME" >&2; exit 1; }
	@here=$${AWS_DEFAULT_REGION:-$$($(BIN)/aws configure get region)}; \
	test -n "$$here" || { echo "Which region? For example: export AWS_DEFAULT_REGION=eu-west-1" >&2; exit 1; }; \
	place=$$($(BIN)/aws s3api get-bucket-location --bucket "$(BUCKET)" --output text 2>&1); \
	case "$$place" in \
		None) place=us-east-1 ;; \
		EU) place=eu-west-1 ;; \
		*NoSuchBucket*) echo "There is no bucket $(BUCKET). Create it with 'aws s3 mb s3://$(BUCKET)', and try again" >&2; exit 1 ;; \
		*" "*) exit 0 ;; \
	esac; \
	test "$$place" = "$$here" || { echo "The bucket $(BUCKET) is in $$place, and you deploy to $$here: take a bucket there, or set AWS_DEFAULT_REGION=$$place" >&2; exit 1; }

define need_python
@command -v "$(PYTHON)" >/dev/null || \
	{ echo "There is no $(PYTHON); install Python 3.11 or newer, or name it: make PYTHON=python3.12 ..." >&2; exit 1; }
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "$(PYTHON) is too old; install Python 3.11 or newer, or name it: make PYTHON=python3.12 ..." >&2; exit 1; }
@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "$(PYTHON) has no venv module; install it, on Debian and Ubuntu with: apt install python3-venv" >&2; exit 1; }
endef

# The stamps make a second run quick: pip is only asked when a requirements file is newer.
NOT_INSTALLED = { echo "Installing failed, see above; with a way to PyPI, try again." >&2; exit 1; }
PIP_INSTALL = pip install -qq --disable-pip-version-check

.venv/.installed: requirements.txt requirements/dev.txt
	$(need_python)
	@echo "Installing into .venv (the first time only, about 1 minute) ..."
	@"$(PYTHON)" -m venv .venv
	@$(BIN)/python -m $(PIP_INSTALL) -r requirements/dev.txt || $(NOT_INSTALLED)
	@touch $@

.venv-emulator/.installed: requirements/emulator.txt
	$(need_python)
	@echo "Installing the emulator into .venv-emulator (the first time only, about half a minute) ..."
	@"$(PYTHON)" -m venv .venv-emulator
	@.venv-emulator/bin/python -m $(PIP_INSTALL) -r requirements/emulator.txt || $(NOT_INSTALLED)
	@touch $@

.venv-scan/.installed: requirements/scan.txt
	$(need_python)
	@echo "Installing the security scanner into .venv-scan (the first time only, about half a minute) ..."
	@"$(PYTHON)" -m venv .venv-scan
	@.venv-scan/bin/python -m $(PIP_INSTALL) -r requirements/scan.txt || $(NOT_INSTALLED)
	@touch $@
