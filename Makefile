# Everything that a person or CI does with this repository, on Linux with Python >= 3.11 and make alone.
# Whatever else is needed is installed into .venv, and again only when what it is made from has changed.

SHELL := /bin/sh
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
PINS := pyproject.toml constraints.txt
FRONTEND := api/frontend/dist/studio/index.html
FRONTEND_SOURCES := schema/schema.graphql \
  $(shell find api/frontend -name node_modules -prune -o -name generated -prune -o -path api/frontend/dist -prune -o -type f -print)
EXAMPLES := examples/typescript/node_modules/.package-lock.json
MODULES := api batcher console core gpu_worker infra schema

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help up test checked docs faults fleet audit lint lint-infra images format typecheck migrate migrations pin frontend schema \
	screenshots coverage clean

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{ printf "%-20s%s\n", $$1, $$2 }'

# The recipe is one program, so that make hands its own SIGTERM straight to it.
up: .venv/.local $(FRONTEND) ## Start the whole of Darkroom here; Ctrl-C stops it
	@exec $(BIN)/python -m infra.local --end-with-parent

# Each check computes on one core. The tests with the running stack take longest, and as the files stand they come first.
test: .venv/.dev ## Run every check and every test
	@$(MAKE) --no-print-directory --jobs 2 checked
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --quiet

checked: lint typecheck $(FRONTEND) $(EXAMPLES)

faults: .venv/.dev ## Break the service in every way, and print what became of what it had accepted
	@$(BIN)/pytest -n 3 --dist loadfile --quiet -m faults tests/faults

fleet: .venv/.dev ## Run the acceptance tests on a fleet, and processes of the last release beside these
	@FLEET=1 $(BIN)/pytest --quiet -m acceptance tests/acceptance
	@$(BIN)/pytest --quiet -m fleet tests

audit: .venv/.dev $(FRONTEND) ## Attack a served api, and print what became of it
	@$(BIN)/pytest -n 2 --dist loadfile --quiet tests/audit

lint: .venv/.dev ## Check style, formatting and the imports' directions
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo 'make format would change files'; exit 1; }
	@found=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$found"; exit 1; }

lint-infra: .venv/.dev $(FRONTEND) ## Check images, Compose files, manifests and flows; make test does so too
	@$(BIN)/pytest --quiet -m 'infra and not images' tests/infra

images: .venv/.dev $(FRONTEND) ## Install what each image is made of from nothing, and start it
	@$(BIN)/pytest --quiet -m images tests/infra

format: .venv/.dev ## Format the code and mend what can be mended
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet

typecheck: .venv/.dev ## Check the types
	@found=$$($(BIN)/mypy 2>&1) || { echo "$$found"; exit 1; }

migrate: .venv/.local ## Bring the schema of DARKROOM_DATABASE_URL up to date
	@$(BIN)/darkroom migrate

migrations: .venv/.local ## Write a migration for what changed in core/models
	@$(BIN)/tortoise makemigrations

pin: .venv/.local ## Pin hub models to their present commits, and images to their digests
	@status=0; for what in gpu_worker infra; do $(BIN)/python -m $$what.pin || status=1; done; exit $$status

frontend: $(FRONTEND) ## Build the studio and GraphiQL

schema: .venv/.local ## Write schema/schema.graphql and docs/reference
	@$(BIN)/python -m schema
	@$(BIN)/python -m infra.docs.reference

docs: .venv/.dev ## Build the documentation into build/docs/site
	@$(BIN)/python -m infra.docs

screenshots: .venv/.dev $(FRONTEND) ## Take the pictures of both pages for docs/images
	@$(BIN)/pytest --quiet tests/browser/screenshots.py

coverage: .venv/.dev $(FRONTEND) ## Run the tests and write htmlcov/index.html
	@$(BIN)/pytest -n 2 --dist loadfile --quiet --cov --cov-report=html

clean: ## Remove all that was installed and built, and keep .darkroom
	@rm -rf .venv build api/frontend/dist api/frontend/node_modules api/frontend/shared/generated examples/typescript/node_modules \
	  examples/typescript/build htmlcov dist .coverage* .*_cache .hypothesis
	@find $(MODULES) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A list of candidates, since a machine may have several and a name may be a stand-in that only fails.
$(BIN)/pip:
	@for python in python3.13 python3.12 python3.11 python3; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo 'Darkroom needs Python 3.11 or newer on the PATH.' >&2; exit 1; fi; \
	echo "Making .venv with $$($$found --version)"; \
	$$found -m venv .venv || { \
	  rm -rf .venv; \
	  echo 'This Python cannot make a virtual environment (on Debian: apt-get install python3-venv).' >&2; \
	  exit 1; \
	}

.venv/.local: $(PINS) | $(BIN)/pip
	@echo 'Installing Darkroom into .venv: some gigabytes, some minutes'
	@$(PIP) install -c constraints.txt -e '.[local]'
	@touch $@

.venv/.dev: $(PINS) | $(BIN)/pip
	@echo 'Installing Darkroom and its development tools into .venv'
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch .venv/.local $@

$(FRONTEND): $(FRONTEND_SOURCES) | $(BIN)/pip
	@infra/local/build_frontend.sh

# With the Node that built the pages: the machine's, or the one in .venv.
$(EXAMPLES): examples/typescript/package-lock.json | $(FRONTEND)
	@cd examples/typescript && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --silent
